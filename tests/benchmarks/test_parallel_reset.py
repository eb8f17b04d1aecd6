import pytest
import torch
from benchmarks.measure import Effort
from benchmarks.parallel_reset import check, fixed_point, linear_scan, measure

from benchmarks import measure as measuring
from benchmarks import parallel_reset
from rheobase.neurons import LIF


@pytest.mark.parametrize("T", [1, 2, 5, 16, 33])
def test_doubling_solves_the_recurrence(T):
    x, decay = torch.randn(T, 3, dtype=torch.float64), torch.rand(T, 3, dtype=torch.float64)
    h, expected = torch.zeros(3, dtype=torch.float64), []
    for t in range(T):
        h = decay[t] * h + x[t]
        expected.append(h)
    torch.testing.assert_close(linear_scan(x, decay), torch.stack(expected))


@pytest.mark.parametrize("tau", [2.0, 20.0])
def test_the_fixed_point_is_the_neuron(tau):
    x = torch.randn(300, 1, 20, dtype=torch.float64) * 1.5 + 0.5
    spikes, rounds = fixed_point(x, tau, 1.0)
    assert torch.equal(spikes, LIF(tau=tau)(x))
    assert 2 < rounds < 30


@pytest.mark.parametrize("T", [1, 2, 64])
def test_constant_current_needs_no_more_rounds_than_steps_and_one(T):
    x = torch.full((T, 1, 1), 1.4, dtype=torch.float64)
    spikes, rounds = fixed_point(x, 2.0, 1.0)
    assert torch.equal(spikes, LIF()(x))
    assert T / 2 < rounds <= T + 1


def test_a_neuron_that_differs_is_refused(monkeypatch):
    x = torch.randn(16, 1, 50)
    assert check(x)[0]
    monkeypatch.setattr(parallel_reset, "LIF", lambda tau: LIF(tau=tau, reset="subtract"))
    holds, words = check(x * 3)
    assert not holds
    assert "fp64 differs" in words


def test_rows_of_one_size(facts, monkeypatch):
    short = measuring.alternate
    monkeypatch.setattr(measuring, "alternate", lambda contests, *_: short(contests, 0.0, 1, 1))
    fused, scan = measure(16, 2, Effort(quick=True, loaded=True), facts)
    assert fused.ratio == 1.0
    assert scan.ratio == scan.median_ms / fused.median_ms
    assert scan.agreement.startswith("fp64 equal, fp32 0 of 32 differ")
