from dataclasses import replace

import pytest
import torch
from benchmarks.layer import COPY, PHASES, measure, run
from benchmarks.lif import Contestant, rheobase
from benchmarks.measure import Effort

from benchmarks import fc, layer, lif, neuron
from benchmarks import measure as measuring
from rheobase.neurons import LIF

QUICK = Effort(quick=True, loaded=True)


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    short = measuring.alternate
    monkeypatch.setattr(measuring, "alternate", lambda contests, *_: short(contests, 0.0, least=1))


def peer(name, run, **more):
    return Contestant(name, "1", run, LIF(tau=2.0), tensors=4, **more)


def test_a_wrong_contestant_gets_no_time(facts):
    contestants = [rheobase(), peer("right", LIF(tau=2.0)), peer("wrong", LIF(tau=2.5))]
    rows = measure(neuron.task(4, 64), contestants, QUICK, facts)
    assert [(row.contestant, row.phase) for row in rows[:5]] == [
        ("rheobase", "forward"),
        ("right", "forward"),
        ("wrong", "forward"),
        (COPY, "forward"),
        ("rheobase", "forward+backward"),
    ]
    for row in rows:
        if row.contestant == "wrong":
            assert row.median_ms is row.ratio is None
            assert row.note == "refused: does not agree"
            assert "differ" in row.agreement
        else:
            assert row.median_ms > 0
            assert row.copy_ms > 0
            assert row.agreement == ("" if row.contestant == COPY else "spikes equal, gradient 0.0e+00")
        if row.contestant == COPY:
            assert row.median_ms == row.copy_ms
    assert {row.ratio for row in rows if row.contestant == "rheobase"} == {1.0}


def test_a_wrong_rheobase_gets_no_time_and_nobody_a_ratio(facts):
    wrong = replace(rheobase(), run=LIF(tau=2.5))
    rows = measure(neuron.task(4, 64), [wrong, peer("right", LIF(tau=2.0))], QUICK, facts)
    assert [row.median_ms is None for row in rows] == [True, False, False] * 2
    assert all(row.ratio is None for row in rows)


def test_a_contestant_that_raises_is_told_apart_and_the_others_go_on(facts):
    def broken(_):
        raise RuntimeError("no C++ compiler")

    rows = measure(neuron.task(4, 64), [rheobase(), peer("broken", broken)], QUICK, facts)
    assert [row.median_ms is None for row in rows] == [False, True, False] * 2
    assert rows[1].agreement == "RuntimeError: no C++ compiler"


def test_another_equation_is_told(facts):
    rows = measure(neuron.task(4, 64), [rheobase(), peer("other", LIF(), differs="resets twice")], QUICK, facts)
    assert rows[1].note.startswith("another equation: resets twice")
    assert rows[1].median_ms > 0


def test_input_is_scaled_and_state_released(facts):
    released, seen = [], []

    def spy(x):
        seen.append(x)
        return LIF(tau=2.0)(x)

    scaled = peer("scaled", spy, scale=0.5, release=lambda: released.append(1))
    contestants = [rheobase(), peer("plain", lambda x: seen.append(x) or LIF()(x)), scaled]
    measure(neuron.task(4, 64), contestants, QUICK, facts)
    assert torch.equal(seen[1], 0.5 * seen[0])
    assert len(released) == sum(x is seen[1] for x in seen)


def test_a_contestant_that_needs_too_much_memory_is_skipped_and_says_so(facts, monkeypatch):
    limit = (4 + layer.HELD) * 4 * 64 * 4
    monkeypatch.setattr(layer, "memory", lambda: limit)
    rows = measure(neuron.task(4, 64), [rheobase(), replace(peer("greedy", LIF()), tensors=5)], QUICK, facts)
    assert [row.median_ms is None for row in rows] == [False, True, False] * 2
    assert rows[1].note.startswith("skipped: needs ")
    rows = measure(neuron.task(8, 64), [rheobase()], QUICK, facts)
    assert [row.note.startswith("skipped: ") for row in rows] == [True] * 2


def test_run_covers_all_tasks_and_names_who_is_missing(facts, monkeypatch):
    def absent():
        raise ModuleNotFoundError("No module named 'absent'")

    monkeypatch.setattr(lif, "CONTESTANTS", {"rheobase": rheobase, "absent": absent})
    shown = []
    rows = run([neuron.task(2, 32), fc.task(8)], ("rheobase", "absent"), QUICK, facts, shown.append)
    assert [(row.case == lif.CASE, row.contestant) for row in shown[0]] == [
        *[(True, "rheobase"), (True, COPY)] * 2,
        *[(True, "absent")] * 2,
    ]
    assert [row.contestant for row in shown[1]] == [*["rheobase"] * 2, *["absent"] * 2]
    assert shown[0][-1].note == "not here: ModuleNotFoundError: No module named 'absent'"
    assert rows == shown[0] + shown[1]


def test_the_copies_move_the_bytes_of_one_pass_each(monkeypatch):
    tensors = neuron.tensors(3, 64)
    assert tuple(tensors.copies) == PHASES
    x = tensors.setting(1.0).leaves[0]
    assert torch.equal(tensors.copies["forward"].call(), x)
    tensors.copies["forward+backward"].call()


def test_a_linear_layer_gives_currents_that_fire_and_gradients_of_weight_and_bias():
    tensors = fc.tensors(16)
    spikes, weight, bias = tensors.setting(1.0).train(LIF(), tensors.g)
    assert spikes.shape == (fc.STEPS, fc.BATCH, 16)
    assert 0.05 < spikes.mean() < 0.4
    assert weight.shape == (16, 16)
    assert bias.abs().min() > 0
    halved = tensors.setting(0.5).train(lambda x: LIF()(2 * x), tensors.g)
    assert torch.equal(halved[0], spikes)
    assert torch.equal(halved[1], 2 * weight)
