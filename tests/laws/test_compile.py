"""Compile law: torch.compile and torch.export agree with eager, forward and backward."""

import pytest
import torch
from torch import nn

import rheobase as rb
from rheobase.neurons import NEURONS, create_neuron

ANY_T = sorted(name for name, entry in NEURONS.items() if entry.any_T)
pytestmark = [pytest.mark.compile, pytest.mark.filterwarnings("ignore")]


def network(neuron):
    return nn.Sequential(
        rb.nn.PerStep(nn.Conv2d(2, 3, 3)),
        create_neuron(neuron),
        rb.nn.PerStep(nn.Conv2d(3, 2, 3)),
        create_neuron(neuron),
    )


def seeded(model, x):
    """The model's output, with the same noise each time."""
    torch.manual_seed(7)
    return model(x)


@pytest.mark.parametrize("neuron", ANY_T)
def test_compiled_equals_eager(laws, neuron):
    torch.compiler.reset()
    model, x = network(neuron), laws.signal(neuron, 3, 2, 2, 7, 7) * 1.5
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    parameters = list(model.parameters())
    eager = seeded(model, x)
    y = seeded(compiled, x)
    assert torch.equal(y, eager)
    eager = torch.autograd.grad(eager.cumsum(0).sum(), parameters)
    for a, b in zip(torch.autograd.grad(y.cumsum(0).sum(), parameters), eager, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("neuron", ANY_T)
def test_exported_equals_eager(laws, neuron):
    model, x = network(neuron), laws.signal(neuron, 3, 2, 2, 7, 7) * 1.5
    exported = torch.export.export(model, (x,))
    assert any("scan" in str(node.target) for node in exported.graph.nodes)
    assert torch.equal(seeded(exported.module(), x), seeded(model, x))


def test_compiled_follows_the_engine():
    torch.compiler.reset()
    model, x = network("lif"), torch.randn(3, 2, 2, 7, 7) * 3
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    fused = compiled(x)
    with rb.engine("reference"):
        assert torch.equal(compiled(x), fused)
