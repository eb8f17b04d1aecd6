import pytest
import torch
from benchmarks.lif import make, norse_lif_box, sinabs_lif, snntorch_leaky, spikingjelly_twin, spyx_lif

import rheobase as rb
from benchmarks import lif
from rheobase.neurons import LIF, Atan, FastSigmoid, Neuron


@pytest.fixture
def lanes():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(12, 32, 4, generator=generator, dtype=torch.float64) * 1.5 + 0.5
    return x, torch.randn(12, 32, 4, generator=generator, dtype=torch.float64)


def train(run, x, g):
    x = x.detach().requires_grad_()
    y = run(x)
    return y.detach(), torch.autograd.grad(y, x, g)[0]


@pytest.mark.parametrize(
    ("twin", "scale", "surrogate"),
    [
        (spikingjelly_twin(), 1.0, Atan(2.0)),
        (Neuron(snntorch_leaky, beta=0.5, threshold=1.0, spike=Atan(2.0)), 0.5, Atan(2.0)),
        (Neuron(norse_lif_box, rate=0.5, threshold=1.0, spike=FastSigmoid(1.0)), 1.0, FastSigmoid(1.0)),
        (Neuron(sinabs_lif, alpha=0.5, threshold=1.0, spike=Atan(2.0)), 1.0, Atan(2.0)),
    ],
    ids=["spikingjelly", "snntorch", "norse", "sinabs"],
)
def test_twins_are_the_common_neuron_in_another_order(lanes, twin, scale, surrogate):
    x, g = lanes
    spikes, gradient = train(LIF(tau=2.0, surrogate=surrogate), x, g)
    assert 0.1 < spikes.mean() < 0.3
    found = train(twin, scale * x, g)
    torch.testing.assert_close((found[0], scale * found[1]), (spikes, gradient))


def test_the_twin_that_is_another_neuron_is_the_one_that_it_says(lanes):
    x, g = lanes

    def as_written(x):
        v, found = torch.zeros_like(x[0]), []
        for current in x:
            s = Atan(2.0)(v - 1.0, strict=True)
            found.append(s)
            v = 0.5 * v + current - s
        return torch.stack(found)

    twin = Neuron(spyx_lif, beta=0.5, threshold=1.0, spike=Atan(2.0))
    torch.testing.assert_close(train(twin, x, g), train(as_written, x, g))


def test_our_contestant_agrees_with_the_plain_step(lanes):
    x, g = lanes
    ours = lif.rheobase()
    assert ours.version == rb.__version__
    for found, expected in zip(train(ours.run, x, g), train(ours.twin, x, g), strict=True):
        assert torch.equal(found, expected)


def test_a_library_that_is_not_here_is_told_with_the_reason(monkeypatch):
    def absent():
        raise ModuleNotFoundError("No module named 'absent'")

    monkeypatch.setitem(lif.CONTESTANTS, "absent", absent)
    found, missing = make(("rheobase", "absent"))
    assert [c.name for c in found] == ["rheobase"]
    assert missing == {"absent": "ModuleNotFoundError: No module named 'absent'"}
