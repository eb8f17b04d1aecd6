import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from benchmarks.figures import FIGURES
from benchmarks.registry import BENCHMARKS, Benchmark
from benchmarks.rows import Row

from benchmarks import __main__ as program


@pytest.fixture
def run(monkeypatch, facts):
    """The program with one benchmark, `tiny`, on an idle machine."""
    row = Row(
        benchmark="tiny",
        contestant="peer",
        version="1",
        case="case",
        T=4,
        N=64,
        phase="forward",
        median_ms=2.0,
        ratio=2.0,
        agreement="equal",
        copy_ms=0.5,
        facts=facts,
    )
    state = SimpleNamespace(rows=[row], effort=None, row=row)

    def tiny(effort, where, show):
        state.effort = effort
        show(state.rows)
        return state.rows

    monkeypatch.setitem(BENCHMARKS, "tiny", Benchmark(tiny, peers=False))
    monkeypatch.setattr(program, "load", lambda: 0.0)
    monkeypatch.setattr(program, "keep_memory", lambda: False)
    state.main = program.main
    return state


def test_the_registry_has_all_benchmarks_and_every_one_is_drawn():
    assert (
        BENCHMARKS.keys()
        == FIGURES.keys()
        == {
            "neuron",
            "fc",
            "conv",
            "memory",
            "compile",
            "parallel_reset",
            "psn",
            "trained",
            "events",
            "products",
            "sparse",
            "gpu",
        }
    )


def test_make_bench_runs_them_all():
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    assert set(re.search(r"^BENCHMARKS \?= (.*)$", makefile, re.M)[1].split()) == BENCHMARKS.keys() - {"gpu"}


def test_a_run_prints_a_table_writes_the_file_and_ends_with_json(run, tmp_path, capsys):
    out = tmp_path / "bench.csv"
    assert run.main(["tiny", "--out", str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert json.loads(printed[-1])["ratios"]["peer"]["forward"]["T=4 N=64"] == 2.0
    assert printed[-2].split()[:6] == ["peer", "case", "4", "64", "forward", "2"]
    with out.open() as file:
        assert [row["contestant"] for row in csv.DictReader(file)] == ["peer"]


def test_quick_runs_write_no_file_unless_told(run, monkeypatch, tmp_path):
    monkeypatch.setattr(program, "ROOT", tmp_path)
    assert run.main(["tiny", "--quick"]) == 0
    assert run.effort.quick
    assert not list(tmp_path.iterdir())
    assert run.main(["tiny"]) == 0
    assert (tmp_path / "results" / "bench_tiny.csv").exists()


def test_a_busy_machine_is_refused_unless_told(run, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(program, "load", lambda: 0.8)
    assert run.main(["tiny", "--out", str(tmp_path / "bench.csv")]) == 2
    assert "--loaded" in capsys.readouterr().err
    assert run.effort is None
    assert run.main(["tiny", "--loaded"]) == 0


@pytest.mark.parametrize(
    ("note", "status"), [("refused: wrong", 1), ("not timed: busy", 2), ("skipped: big", 0), ("not here: X", 0)]
)
def test_the_exit_status_says_what_went_wrong(run, note, status):
    run.rows = [replace(run.row, median_ms=None, ratio=None, note=note)]
    assert run.main(["tiny", "--quick"]) == status


def test_an_unknown_name_is_an_error(run, capsys):
    with pytest.raises(SystemExit, match="2"):
        run.main(["nothing"])
    assert "tiny" in capsys.readouterr().err


def test_peers_run_in_their_own_environment(run, monkeypatch, tmp_path):
    commands = []
    monkeypatch.setitem(BENCHMARKS, "tiny", Benchmark(lambda *_: []))
    monkeypatch.setattr(program, "environment", lambda peers: tmp_path / "python")
    monkeypatch.setattr(
        program.subprocess, "run", lambda c, **_: commands.append(c) or SimpleNamespace(returncode=7, stdout="")
    )
    assert run.main(["tiny", "--quick", "--out", str(tmp_path / "x.csv")]) == 7
    assert commands[0][0] == str(tmp_path / "python")
    monkeypatch.setattr(program.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=-9, stdout=""))
    assert run.main(["tiny", "--quick"]) == 2
    assert commands[0][-5:] == ["tiny", "--quick", "--out", str(tmp_path / "x.csv"), "--inside"]
