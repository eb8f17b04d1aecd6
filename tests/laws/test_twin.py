"""Twin law: with the spike replaced by its smooth primitive a neuron is differentiable, and its gradient is the true
one; and the surrogate's derivative is the derivative of its primitive."""

import inspect

import pytest
import torch
from torch.autograd import gradcheck

import rheobase as rb
from rheobase.neurons import NEURONS, SURROGATES, Smooth, create_neuron

ANY_T = sorted(name for name, entry in NEURONS.items() if entry.any_T)


@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
@pytest.mark.parametrize("neuron", ANY_T)
def test_gradient_of_the_smooth_twin_is_exact(neuron, surrogate):
    lifted = {"detach_reset": False} if "detach_reset" in inspect.signature(NEURONS[neuron].make).parameters else {}
    module = create_neuron(neuron, surrogate=Smooth(SURROGATES[surrogate]()), **lifted).double()
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    state = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    with rb.engine("reference"):
        assert gradcheck(lambda x, v: (lambda y, s: (y, *s))(*module.sequence(x, (v,))), (x, state))


@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
def test_derivative_is_that_of_the_primitive(surrogate):
    g = SURROGATES[surrogate]()
    x = (torch.linspace(-1.99, 2.01, 401, dtype=torch.float64)).requires_grad_()
    (slope,) = torch.autograd.grad(g.primitive(x).sum(), x)
    torch.testing.assert_close(g.derivative(x.detach()), slope)


@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
def test_primitive_is_one_half_at_threshold_and_rises(surrogate):
    g = SURROGATES[surrogate]()
    p = g.primitive(torch.linspace(-3, 3, 301, dtype=torch.float64))
    assert p[150] == pytest.approx(0.5)
    assert (p.diff() >= 0).all()


@pytest.mark.parametrize("neuron", ANY_T)
def test_second_derivative_exists_on_the_reference_engine_only(neuron):
    x = torch.randn(3, 2, 4, requires_grad=True)
    module = create_neuron(neuron)
    with rb.engine("reference"):
        (g,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
        g.square().sum().backward()
    assert x.grad.isfinite().all()
    (g,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"no second derivative.*reference"):
        g.square().sum().backward()
