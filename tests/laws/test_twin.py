"""Twin law: with the spike replaced by its smooth primitive a neuron is differentiable, and its gradient is the true
one; and the surrogate's derivative is the derivative of its primitive."""

import pytest
import torch
from torch.autograd import gradcheck

import rheobase as rb
from rheobase.neurons import NEURONS, SURROGATES, Smooth

ANY_T = sorted(name for name, entry in NEURONS.items() if entry.any_T)
HANDFUL = ["alif", "lif", "plif"]
"""What holds for every surrogate is shown on these."""


def check_twin(laws, neuron, **smooth):
    """Gradients of input, noise, initial state and every parameter, learned or not, against finite differences."""
    module = laws.make(neuron, detach_reset=False, rounding=_identity, **smooth).double()
    x = laws.signal(neuron, 4, 2, 3).double()
    inputs, state = [x, *module.noise(x)], laws.warm(neuron, module, x)
    values = [torch.as_tensor(getattr(module, name)).detach().double() for name in module.scan.params]
    n, m = len(inputs), len(inputs) + len(state)

    def run(*a):
        y, last = module.scan(a[:n], a[n:m], **dict(zip(module.scan.params, a[m:], strict=True)))
        return (*(y if isinstance(y, tuple) else (y,)), *last)

    with rb.engine("reference"):
        assert gradcheck(run, [a.requires_grad_() for a in (*inputs, *state, *values)])


def _identity(x):
    return x


@pytest.mark.parametrize("neuron", ANY_T)
def test_gradient_of_the_smooth_twin_is_exact(laws, neuron):
    surrogate = laws.make(neuron).scan.constants.get("spike")
    check_twin(laws, neuron, **({"surrogate": Smooth(surrogate)} if surrogate else {}))


@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
@pytest.mark.parametrize("neuron", HANDFUL)
def test_gradient_is_exact_with_every_surrogate(laws, neuron, surrogate):
    check_twin(laws, neuron, surrogate=Smooth(SURROGATES[surrogate]()))


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
def test_second_derivative_exists_on_the_reference_engine_only(laws, neuron):
    x, module = laws.signal(neuron, 3, 2, 4).requires_grad_(), laws.make(neuron)
    state = tuple(s.requires_grad_() for s in laws.warm(neuron, module, x))

    def gradient():
        y, _ = module.sequence(x, state)
        return torch.autograd.grad(y.square().sum(), [x, *state, *module.parameters()], create_graph=True)[0]

    with rb.engine("reference"):
        gradient().square().sum().backward()
    assert x.grad.isfinite().all()
    with pytest.raises(RuntimeError, match=r"no second derivative.*reference"):
        gradient().square().sum().backward()
