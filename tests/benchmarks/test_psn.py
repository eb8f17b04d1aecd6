import pytest
import torch
from benchmarks.measure import Effort
from benchmarks.psn import check_psn, loop, measure, train, without_reset

from benchmarks import measure as measuring
from benchmarks import psn
from rheobase.neurons import LIF, PSN


def test_the_loop_is_the_neuron():
    x, g = torch.randn(2, 16, 1, 50, dtype=torch.float64) * 2
    for found, expected in zip(train(loop, [], x, g), train(LIF(tau=2.0), [], x, g), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_psn_that_is_wrong_is_seen(monkeypatch):
    x, g = torch.randn(2, 16, 1, 50) * 2
    assert without_reset(x)
    assert check_psn(PSN(16), x, g).holds
    monkeypatch.setattr(psn, "LIF", lambda tau, reset: LIF(tau=tau))
    assert not without_reset(x)
    assert check_psn(PSN(16), x, g).text == "fires unlike a LIF without reset"


@pytest.mark.parametrize("broken", [False, True])
def test_rows_of_one_size(facts, monkeypatch, broken):
    short = measuring.alternate
    monkeypatch.setattr(measuring, "alternate", lambda contests, *_: short(contests, 0.0, 1, 1))
    monkeypatch.setattr(torch, "compile", lambda function: (lambda x: function(x) * 0) if broken else function)
    rows = measure(4, 8, Effort(quick=True, loaded=True), facts)
    assert [(row.contestant, row.phase) for row in rows] == [
        (name, phase) for phase in psn.PHASES for name in ("rheobase", "lif fused", "lif loop", "lif compiled")
    ]
    for phase in psn.PHASES:
        ours, *_, compiled = [row for row in rows if row.phase == phase]
        assert ours.ratio == 1.0
        if broken:
            assert (compiled.ratio, compiled.note) == (None, "refused: does not agree")
        else:
            assert compiled.ratio == compiled.median_ms / ours.median_ms
