import csv

import pytest
from benchmarks.rows import COLUMNS, SHOWN, Row, line, ratios, write_csv


def make(facts, contestant="peer", T=4, phase="forward", median=2.0, ratio=None, note="", case="a case"):
    return Row(
        benchmark="neuron",
        contestant=contestant,
        version="1.0",
        case=case,
        T=T,
        N=64,
        phase=phase,
        median_ms=median,
        ratio=ratio,
        agreement="spikes equal",
        copy_ms=0.5,
        facts=facts,
        note=note,
    )


def test_csv_has_the_columns_and_leaves_empty_what_is_not_known(facts, tmp_path):
    path = tmp_path / "results" / "bench.csv"
    write_csv(path, [make(facts, ratio=1.23456789), make(facts, median=None, note="skipped")])
    with path.open() as file:
        first, second = csv.DictReader(file)
    assert tuple(first) == COLUMNS
    asked = "contestant version case T N phase median_ms ratio agreement commit machine"
    assert set(asked.split()) <= set(COLUMNS)
    assert first["ratio"] == "1.235"
    assert (first["machine"], first["T"], first["copy_ms"]) == ("a processor", "4", "0.5")
    assert (second["median_ms"], second["ratio"], second["note"]) == ("", "", "skipped")


def test_a_failed_write_leaves_the_old_table_and_nothing_else(facts, tmp_path):
    path = tmp_path / "bench.csv"
    write_csv(path, [make(facts)])
    before = path.read_text()
    with pytest.raises(AttributeError):
        write_csv(path, [make(facts), None])
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


def test_ratios_are_grouped_and_averaged_geometrically(facts):
    rows = [
        make(facts, "rheobase", ratio=1.0),
        make(facts, T=4, ratio=2.0),
        make(facts, T=16, ratio=8.0),
        make(facts, phase="forward+backward", ratio=3.0),
        make(facts, "untimed", median=None),
    ]
    assert ratios(rows) == {
        "peer": {
            "forward": {"T=4 N=64": 2.0, "T=16 N=64": 8.0, "geometric mean": 4.0},
            "forward+backward": {"T=4 N=64": 3.0, "geometric mean": 3.0},
        }
    }


def test_ratios_of_several_cases_are_told_apart(facts):
    found = ratios([make(facts, case="a", ratio=2.0), make(facts, case="b", ratio=4.0)])
    assert found["peer"]["forward"].keys() == {"a, T=4 N=64", "b, T=4 N=64", "geometric mean"}


def test_a_line_keeps_its_columns_whatever_is_in_a_cell():
    cells = ["x" * 60] * len(SHOWN)
    assert line(cells).index("x" * 60) == line(SHOWN).index("note")
