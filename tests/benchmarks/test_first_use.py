import pytest
from benchmarks.measure import Effort

from benchmarks import first_use
from rheobase.neurons import list_neurons

QUICK = Effort(quick=True, loaded=True)


def test_the_neurons_are_registered_names_and_the_first_is_the_peers():
    assert first_use.NEURONS[0] == "lif"
    assert set(first_use.NEURONS[:2]) <= set(list_neurons())


@pytest.mark.slow
def test_processes_that_start_together_with_an_empty_folder_find_the_same(tmp_path):
    (first, value), (second, other) = first_use.together("rheobase", "lif", tmp_path, 2)
    assert min(first, second) > 0
    assert value == other
    assert list(tmp_path.iterdir())


def test_a_process_that_fails_is_told_with_its_last_words(tmp_path):
    with pytest.raises(RuntimeError, match="nothing"):
        first_use.together("rheobase", "nothing", tmp_path, 1)


def answers(*found):
    left = list(found)
    return lambda name, neuron, folder, count: [left.pop(0) for _ in range(count)]


def test_the_slowest_of_those_that_start_together_counts(facts, monkeypatch):
    monkeypatch.setattr(
        first_use, "together", answers((3.0, 7.0), (0.5, 7.0), (4.0, 7.0), (5.0, 7.0), (4.5, 7.0), (4.0, 7.0))
    )
    rows = first_use.measure("lif", ("rheobase",), QUICK, facts)
    assert [(row.phase, row.median_ms) for row in rows] == [
        ("first use", 3000.0),
        ("second process", 500.0),
        ("4 at once", 5000.0),
    ]
    assert {row.agreement for row in rows} == {"6 processes gave 1 result"}


def test_processes_that_disagree_or_fail_get_no_time(facts, monkeypatch):
    monkeypatch.setattr(first_use, "together", answers(*[(1.0, 7.0)] * 5, (1.0, 8.0)))
    rows = first_use.measure("lif", ("rheobase",), QUICK, facts)
    assert {(row.median_ms, row.note) for row in rows} == {(None, "refused: does not agree")}

    def broken(*_):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(first_use, "together", broken)
    rows = first_use.measure("lif", ("rheobase",), QUICK, facts)
    assert {(row.median_ms, row.note) for row in rows} == {(None, "refused: no compiler")}
