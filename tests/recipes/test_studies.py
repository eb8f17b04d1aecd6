import csv
import json

import pytest

from rheobase.cli import main
from rheobase.recipes import Measurement, list_studies, studies, study


@pytest.fixture
def counting(monkeypatch):
    """A study that counts from its seed."""

    def counting(seed):
        """A claim."""
        yield Measurement("one", 1, "count", seed + 1.0, "1")
        yield Measurement("two", 2, "count", seed + 2.0)

    monkeypatch.setitem(studies._STUDIES, "counting", counting)
    return counting


def test_rows_are_printed_and_recorded(counting, tmp_path, capsys):
    path = tmp_path / "rows.csv"
    for seed in ("0", "3"):
        assert main(["study", "counting", "--seed", seed, "--results", str(path), "--json"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert json.loads(shown[-1])["rows"][1]["value"] == 5
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [(row["subject"], row["seed"], row["value"], row["published"]) for row in rows] == [
        ("one", "0", "1", "1"),
        ("two", "0", "2", ""),
        ("one", "3", "4", "1"),
        ("two", "3", "5", ""),
    ]
    assert all(row["device"] and row["torch"] and row["tag"] == "measured" for row in rows)


def test_an_unknown_study_is_met_with_the_nearest(capsys):
    assert main(["study", "depth-gradient"]) == 2
    assert "did you mean 'depth-gradients'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", list_studies())
def test_docstring_says_source_and_command(name):
    text = study(name).__doc__
    assert f"rheobase study {name}" in text
    assert "arXiv" in text
