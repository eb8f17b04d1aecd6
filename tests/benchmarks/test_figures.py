from pathlib import Path

import pytest
from benchmarks.figures import FIGURES, groups, pages, summary
from benchmarks.rows import Row, write_csv

from rheobase.files import read_table

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture
def table(facts, tmp_path):
    def row(contestant, N, phase, ms, ratio, note=""):
        return Row(
            benchmark="neuron",
            contestant=contestant,
            version="1.0+x",
            case="LIF",
            T=4,
            N=N,
            phase=phase,
            median_ms=ms,
            ratio=ratio,
            facts=facts,
            note=note,
        )

    rows = [
        row("rheobase", 64, "forward+backward", 1.0, 1.0),
        row("peer", 64, "forward+backward", 2.0, 2.0),
        row("rheobase", 100, "forward+backward", 2.0, 1.0),
        row("peer", 100, "forward+backward", 16.0, 8.0, "another equation: it leaks"),
        row("peer", 100, "forward", None, None, "refused: wrong"),
    ]
    write_csv(tmp_path / "bench_neuron.csv", rows)
    return tmp_path


def test_bars_are_grouped_by_size_and_untimed_ones_left_out(table):
    assert groups(FIGURES["neuron"], read_table(table / "bench_neuron.csv")) == {
        "T=4, $2^{6}$": {"rheobase": 1.0, "peer": 2.0},
        "T=4, 100": {"rheobase": 2.0, "peer": 16.0},
    }


def test_the_summary_has_mean_and_range_of_the_peers(table):
    assert summary(read_table(table / "bench_neuron.csv")).splitlines() == [
        "| | forward+backward | forward |",
        "|---|---|---|",
        "| peer 1.0 | 4 (2 - 8) |  |",
    ]


def test_pages_draw_what_there_is_and_say_what_the_notes_say(table):
    page = pages(table, table / "drawn")
    assert "](drawn/neuron.svg)" in page
    assert page.count("## ") == 1
    assert "- peer: another equation: it leaks\n- peer: refused: wrong" in page
    svg = (table / "drawn" / "neuron.svg").read_text()
    assert svg.count("<use ") > 10
    assert [path.name for path in (table / "drawn").iterdir()] == ["neuron.svg"]


def test_the_committed_tables_can_be_drawn(tmp_path):
    page = pages(RESULTS, tmp_path / "drawn")
    assert "](drawn/neuron.svg)" in page
