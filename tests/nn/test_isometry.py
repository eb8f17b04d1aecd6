import pytest
import torch
from torch import nn

from rheobase.neurons import IterativeLIF
from rheobase.nn import gain, gradient_norms


def test_gain_of_a_linear_layer_is_its_squared_weights_per_output():
    layer = nn.Linear(6, 4, bias=False).double()
    x = torch.randn(1, 6, dtype=torch.float64)
    expected = layer.weight.square().sum().item() / 4
    assert gain(layer, x, probes=4000, generator=torch.Generator().manual_seed(0)) == pytest.approx(expected, rel=0.05)
    orthogonal = nn.utils.parametrizations.orthogonal(nn.Linear(5, 5, bias=False).double())
    assert gain(orthogonal, torch.randn(3, 5, dtype=torch.float64)) == pytest.approx(1)


def test_gain_of_a_neuron_is_the_share_inside_the_window_of_its_surrogate():
    x = torch.randn(1, 4, 1000)
    inside = ((x - 0.5).abs() < 0.5).float().mean().item()
    assert gain(IterativeLIF(), x) == pytest.approx(inside)


def test_norms_are_those_of_autograd():
    layers = [nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)]
    x = torch.randn(4, 3)
    norms, y = gradient_norms(layers, x, torch.Generator().manual_seed(1))
    readout = torch.randn(4, 2, generator=torch.Generator().manual_seed(1))
    hidden = layers[1](layers[0](x)).detach().requires_grad_()
    (layers[2](hidden) * readout).sum().backward()
    assert norms.shape == (3,)
    assert norms[2].item() == pytest.approx(hidden.grad.norm().item())
    assert torch.equal(y, layers[2](hidden))
    assert all(p.grad is None for layer in layers[:2] for p in layer.parameters())


def test_wrong_arguments():
    with pytest.raises(ValueError, match="there are no layers; expected at least one"):
        gradient_norms([], torch.randn(2))
    with pytest.raises(ValueError, match="probes is 0; expected at least 1"):
        gain(nn.Identity(), torch.randn(2), probes=0)
