from dataclasses import replace

import pytest
import torch
from benchmarks.measure import Effort
from benchmarks.neuron import Contestant, agree, measure, rheobase, snntorch_leaky, spikingjelly_lif, train

from benchmarks import measure as measuring
from benchmarks import neuron
from rheobase.neurons import LIF, Atan, Neuron

QUICK = Effort(quick=True, loaded=True)


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    short = measuring.alternate
    monkeypatch.setattr(measuring, "alternate", lambda contests, _: short(contests, 0.0, least=1))


@pytest.fixture
def lanes():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(12, 32, 4, generator=generator, dtype=torch.float64) * 1.5 + 0.5
    return x.requires_grad_(), torch.randn(12, 32, 4, generator=generator, dtype=torch.float64)


def test_the_steps_in_the_peers_order_are_the_same_neuron(lanes):
    x, g = lanes
    spikes, gradient = train(LIF(tau=2.0), x, g)
    assert 0.1 < spikes.mean() < 0.3
    jelly = train(Neuron(spikingjelly_lif, tau=2.0, threshold=1.0, spike=Atan(2.0)), x, g)
    torch.testing.assert_close(jelly, (spikes, gradient))
    half = (0.5 * x.detach()).requires_grad_()
    snn = train(Neuron(snntorch_leaky, beta=0.5, threshold=1.0, spike=Atan(2.0)), half, g)
    torch.testing.assert_close((snn[0], 0.5 * snn[1]), (spikes, gradient))


def test_equal_runs_agree(lanes):
    run = train(LIF(), *lanes)
    found = agree(run, run)
    assert found.holds
    assert found.text == "spikes equal, gradient 0.0e+00"


def test_one_flipped_spike_is_a_tie_and_its_lane_is_left_out(lanes):
    spikes, gradient = train(LIF(), *lanes)
    other, bent = spikes.clone(), gradient.clone()
    other[3, 1, 2] = 1 - other[3, 1, 2]
    bent[:, 1, 2] += 5.0
    assert agree((other, bent), (spikes, gradient)).holds
    other[4, 0, 0] = 1 - other[4, 0, 0]
    assert not agree((other, bent), (spikes, gradient)).holds


@pytest.mark.parametrize("wrong", [1e-3, float("nan")])
def test_a_wrong_gradient_disagrees(lanes, wrong):
    spikes, gradient = train(LIF(), *lanes)
    bent = gradient.clone()
    bent[2, 3, 1] += wrong
    assert not agree((spikes, bent), (spikes, gradient)).holds


def test_other_shapes_disagree(lanes):
    spikes, gradient = train(LIF(), *lanes)
    assert not agree((spikes[:3], gradient), (spikes, gradient)).holds


def peer(name, run, **more):
    return Contestant(name, "1", run, LIF(tau=2.0), tensors=4, **more)


def test_a_wrong_contestant_gets_no_time(facts):
    rows = measure([rheobase(), peer("right", LIF(tau=2.0)), peer("wrong", LIF(tau=2.5))], 4, 64, QUICK, facts)
    assert [(row.contestant, row.phase) for row in rows[:4]] == [
        ("rheobase", "forward"),
        ("right", "forward"),
        ("wrong", "forward"),
        ("rheobase", "forward+backward"),
    ]
    for row in rows:
        if row.contestant == "wrong":
            assert row.median_ms is row.ratio_to_rheobase is None
            assert row.note == "refused: does not agree"
            assert "differ" in row.agreement
        else:
            assert row.median_ms > 0
            assert row.copy_ms > 0
            assert row.agreement == "spikes equal, gradient 0.0e+00"
    assert {row.ratio_to_rheobase for row in rows if row.contestant == "rheobase"} == {1.0}


def test_a_wrong_rheobase_gets_no_time_and_nobody_a_ratio(facts):
    wrong = replace(rheobase(), run=LIF(tau=2.5))
    rows = measure([wrong, peer("right", LIF(tau=2.0))], 4, 64, QUICK, facts)
    assert [row.median_ms is None for row in rows] == [True, False] * 2
    assert all(row.ratio_to_rheobase is None for row in rows)


def test_a_contestant_that_raises_is_told_apart_and_the_others_go_on(facts):
    def broken(_):
        raise RuntimeError("no C++ compiler")

    rows = measure([rheobase(), peer("broken", broken)], 4, 64, QUICK, facts)
    assert [row.median_ms is None for row in rows] == [False, True] * 2
    assert rows[1].agreement == "RuntimeError: no C++ compiler"


def test_input_is_scaled_and_state_released(facts):
    released, seen = [], []

    def run(x):
        seen.append(x)
        return LIF(tau=2.0)(x)

    scaled = peer("scaled", run, scale=0.5, release=lambda: released.append(1))
    measure([rheobase(), peer("plain", lambda x: seen.append(x) or LIF()(x)), scaled], 4, 64, QUICK, facts)
    assert torch.equal(seen[1], 0.5 * seen[0])
    assert len(released) == sum(x is seen[1] for x in seen)


def test_a_case_that_needs_too_much_memory_is_skipped_and_says_so(facts, monkeypatch):
    monkeypatch.setattr(neuron, "memory", lambda: 1000.0)
    rows = measure([rheobase(), peer("peer", LIF())], 4, 64, QUICK, facts)
    assert len(rows) == 4
    assert all(row.median_ms is None and row.note.startswith("skipped: ") for row in rows)


def test_run_covers_all_sizes(facts, monkeypatch):
    monkeypatch.setattr(neuron, "CONTESTANTS", (rheobase,))
    monkeypatch.setattr(neuron, "QUICK", ((2, 32), (3, 64)))
    shown = []
    rows = neuron.run(QUICK, facts, shown.append)
    assert [(row.T, row.N) for row in rows] == [(2, 32)] * 2 + [(3, 64)] * 2
    assert [len(group) for group in shown] == [2, 2]
