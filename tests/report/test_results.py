import pytest

from rheobase.files import read_table
from rheobase.report.results import accuracy_table, curves, plot

HEADER = "recipe,data,model,T,epochs,parameters,seed,metric,value,published,tag\n"
ROWS = (
    "a-1,digits,net,4,2,1234,0,test_accuracy,0.5,,measured\n"
    "a-1,digits,net,4,2,1234,1,test_accuracy,0.9,,measured\n"
    "a-1,digits,net,4,2,1234,1,test_accuracy,0.7,,measured\n"
    "a-1,digits,wide,4,2,9,0,test_accuracy,0.1,,measured\n"
    "a-2,digits,net,4,2,1234,0,test_accuracy,0.25,60.0,measured\n"
    "a-1,digits,linear,4,,,0,test_accuracy,0.1,,floor\n"
    "a-1,digits,net,4,2,1234,0,energy_nJ,7.5,,measured\n"
)


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "rows.csv").write_text(HEADER + ROWS)
    return read_table(tmp_path / "rows.csv")


def test_a_line_for_each_recipe_with_mean_and_range(rows):
    lines = accuracy_table(rows, ["a-2", "a-1"]).splitlines()
    assert lines[2] == "| `a-2` | `net` | 4 | 2 | 1,234 | 0 | 25.0 % | 60.0 |"
    assert len(lines) == 5
    assert "`wide`" in lines[4]
    assert lines[3] == "| `a-1` | `net` | 4 | 2 | 1,234 | 0, 1 | 60.0 % (50.0 - 70.0) |  |"
    assert accuracy_table(rows, ["a-*", "a-1"]).count("`net`") == 2
    assert accuracy_table(rows, ["a-1"]).splitlines()[2].endswith("| 60.0 % (50.0 - 70.0) |")


def test_data_sets_of_one_recipe_are_lines_of_their_own(tmp_path):
    text = HEADER + "a,one,net,4,2,9,0,test_accuracy,0.5,,measured\na,two,net,4,2,9,0,test_accuracy,0.25,,measured\n"
    (tmp_path / "rows.csv").write_text(text)
    lines = accuracy_table(read_table(tmp_path / "rows.csv"), ["a"]).splitlines()[2:]
    assert lines == ["| `a`, one | `net` | 4 | 2 | 9 | 0 | 50.0 % |", "| `a`, two | `net` | 4 | 2 | 9 | 0 | 25.0 % |"]


def test_five_seeds_have_a_deviation(tmp_path):
    text = HEADER + "".join(f"a,digits,net,4,2,9,{seed},test_accuracy,0.{seed}5,,measured\n" for seed in range(5))
    (tmp_path / "rows.csv").write_text(text)
    line = accuracy_table(read_table(tmp_path / "rows.csv"), ["a"]).splitlines()[2]
    assert line == "| `a` | `net` | 4 | 2 | 9 | 5 seeds | 25.0 ± 15.8 % (5.0 - 45.0) |"


def test_a_pattern_without_rows_is_said(rows):
    with pytest.raises(ValueError, match="no row of the results is of 'b-"):
        accuracy_table(rows, ["b-*"])


def test_curves_average_and_are_drawn(rows):
    measured = [row for row in rows if row["model"] == "net" and row["metric"] == "test_accuracy"]
    found = curves([row for row in measured if row["value"] != "0.9"], "recipe", "T")
    assert [(each.label, each.x, each.y) for each in found] == [("a-1", (4.0,), (0.6,)), ("a-2", (4.0,), (0.25,))]
    assert (found[0].low, found[0].high) == ((0.5,), (0.7,))
    text = plot(found, "steps", "accuracy", log_x=True)
    assert text.lstrip().startswith("<?xml")
    assert "</svg>" in text
