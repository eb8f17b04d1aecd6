import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

import rheobase as rb
from rheobase.neurons import LIF, NEURONS, Neuron, Sigmoid, Smooth, create_neuron
from rheobase.nn import DelayedLinear, Recurrent, Temporal

STEPWISE = sorted(n for n, entry in NEURONS.items() if entry.streamable and entry.any_T and not entry.stochastic)


def everything(net, x, state, engine):
    """Outputs, final state and the gradients of input, initial state and parameters."""
    x = x.clone().requires_grad_()
    state = tuple(s.clone().requires_grad_() for s in state)
    with rb.engine(engine):
        y, last = net.sequence(x, state)
        loss = y.cumsum(0).square().sum() + sum((s * s.detach().cos()).sum() for s in last)
        grads = torch.autograd.grad(loss, [x, *state, *net.parameters()], allow_unused=True)
    return y, last, grads


def initial(net, x):
    _, last = net.sequence(x, None)
    return tuple(torch.randn_like(s) for s in last)


@pytest.mark.parametrize("name", STEPWISE)
def test_every_neuron_has_the_gradients_of_the_plain_loop(name):
    """The fused loop against autograd through every step, from a state that is not rest."""
    net = Recurrent(create_neuron(name), nn.Linear(6, 6)).double()
    x = torch.randn(7, 3, 6, dtype=torch.float64) * 2
    state = initial(net, x)
    y, last, grads = everything(net, x, state, "cpu")
    y_, last_, grads_ = everything(net, x, state, "reference")
    assert torch.equal(y, y_)
    assert y.abs().sum() > 0
    for a, b in zip((*last, *grads), (*last_, *grads_), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b)


def test_it_is_the_loop_that_its_equation_says():
    net = Recurrent(LIF(tau=2.0, detach_reset=False), nn.Linear(6, 6, bias=False)).double()
    x = (torch.randn(8, 3, 6, dtype=torch.float64) * 2).requires_grad_()
    v = s = torch.zeros(3, 6, dtype=torch.float64)
    rows = []
    for t in range(8):
        h = v + (x[t] + s @ net.feedback.weight.T - v) / 2
        s = rb.neurons.Atan()(h - 1)
        v = h * (1 - s)
        rows.append(s)
    expected, found, wanted = torch.stack(rows), net(x), [x, net.feedback.weight]
    assert torch.equal(found, expected)
    assert 0.05 < found.mean() < 0.95
    for a, b in zip(
        torch.autograd.grad(found.cumsum(0).square().sum(), wanted),
        torch.autograd.grad(expected.cumsum(0).square().sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("engine", ["cpu", "reference"])
@pytest.mark.parametrize("feedback", [lambda: nn.Linear(4, 4), lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh())])
def test_gradient_of_the_smooth_twin_is_exact(feedback, engine):
    neuron = LIF(surrogate=Smooth(Sigmoid()), detach_reset=False, tau=nn.Parameter(torch.full((4,), 2.0)))
    net = Recurrent(neuron, feedback()).double()
    x = torch.randn(4, 2, 4, dtype=torch.float64, requires_grad=True)
    state = tuple(torch.randn(2, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    names, values = zip(*net.named_parameters(), strict=True)

    def run(x, v, s, *values):
        given = dict(zip([f"net.{n}" for n in names], values, strict=True))
        y, last = torch.func.functional_call(Sequence(net), given, (x, (v, s)))
        return y, *last

    with rb.engine(engine):
        assert gradcheck(run, (x, *state, *values))


class Sequence(nn.Module):
    """`sequence` as a call, so that parameters can be swapped."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, state):
        return self.net.sequence(x, state)


def test_the_matrix_path_and_the_loop_agree_in_every_format():
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 0.1)):
        net = Recurrent(LIF(), nn.Linear(6, 6)).to(dtype)
        other = Recurrent(net.neuron, nn.Sequential(net.feedback))
        assert net._matrix(torch.zeros(1, 1, 6, dtype=dtype)) is not None
        assert other._matrix(torch.zeros(1, 1, 6, dtype=dtype)) is None
        x = (torch.randn(6, 3, 6) * 2).to(dtype).requires_grad_()
        found = []
        for module in (net, other):
            y, last = module.sequence(x, None)
            assert [s.dtype for s in last] == [torch.float32, dtype]
            found.append((y, *last, *torch.autograd.grad(y.float().cumsum(0).sum(), [x, *net.parameters()])))
        for k, (a, b) in enumerate(zip(*found, strict=True)):
            if k < 3:
                assert torch.equal(a, b)
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_more_axes_than_one():
    net, x = Recurrent(LIF(), nn.Linear(6, 6)), (torch.randn(5, 2, 3, 6) * 2).requires_grad_()
    rows = net(x.flatten(1, 2))
    assert torch.equal(net(x).flatten(1, 2), rows)
    (a,) = torch.autograd.grad(net(x).cumsum(0).sum(), x)
    (b,) = torch.autograd.grad(rows.cumsum(0).sum(), x)
    torch.testing.assert_close(a, b)


def test_backward_keeps_the_currents_alone():
    net, x = Recurrent(LIF(), nn.Linear(50, 50, bias=False)), torch.randn(40, 4, 50, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        net(x)
    assert sum(kept) <= x.numel() + 50 * 50 + 4 * 50 + 10


def test_hooks_on_the_feedback_are_called():
    net, seen = Recurrent(LIF(), nn.Linear(6, 6)), []
    net.feedback.register_forward_hook(lambda *_: seen.append(1))
    net(torch.randn(5, 2, 6))
    assert len(seen) == 5
    with torch.no_grad():
        net.feedback.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="feedback"), rb.check(net):
        net(torch.randn(5, 2, 6))


def test_second_derivative_exists_on_the_reference_engine_only():
    net, x = Recurrent(LIF(), nn.Linear(4, 4)), torch.randn(3, 2, 4, requires_grad=True)
    with rb.engine("reference"):
        (g,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
        g.square().sum().backward()
    assert x.grad.isfinite().all()
    with pytest.raises(RuntimeError, match=r"no second derivative.*reference"):
        torch.autograd.grad(net(x).square().sum(), x, create_graph=True)


def test_it_declares_what_its_neuron_emits():
    assert Recurrent(LIF(), nn.Linear(4, 4)).emits == "binary"


def test_a_step_of_your_own_with_two_states():
    @rb.step(state={"v": 0.0, "a": lambda beta: beta * 0.5})
    def tiring(x, v, a, *, beta, spike):
        h = 0.5 * v + x
        s = spike(h - (1 + a))
        return s, (h * (1 - s.detach()), 0.9 * a + beta * s)

    beta = nn.Parameter(torch.tensor(0.3))
    net = Recurrent(Neuron(tiring, beta=beta, spike=rb.neurons.Atan()), nn.Linear(6, 6)).double()
    x, found = torch.randn(7, 3, 6, dtype=torch.float64) * 2, []
    for engine in ("cpu", "reference"):
        with rb.engine(engine):
            y = net(x)
            found.append((y, *torch.autograd.grad(y.cumsum(0).square().sum(), list(net.parameters()))))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(*found)


def test_wrong_parts_are_refused():
    class Whole(Temporal):
        streamable = False

    with pytest.raises(ValueError, match="Whole needs the whole sequence"):
        Recurrent(Whole(), nn.Linear(4, 4))
    with pytest.raises(ValueError, match="the feedback holds DelayedLinear, which has state"):
        Recurrent(LIF(), nn.Sequential(nn.Linear(4, 4), DelayedLinear(4, 4, 3)))
    with pytest.raises(ValueError, match=r"the feedback maps \(2, 4\) to \(2, 5\); expected \(2, 4\)"):
        Recurrent(LIF(), nn.Linear(4, 5))(torch.zeros(3, 2, 4))
    with pytest.raises(ValueError, match=r"shape \(3,\); expected \[T, B"):
        Recurrent(LIF(), nn.Linear(4, 4))(torch.zeros(3))
    net = Recurrent(LIF(), nn.Linear(4, 4))
    _, state = net.sequence(torch.zeros(3, 2, 4), None)
    with pytest.raises(ValueError, match=r"last output in the state has shape \(2, 4\)"):
        net.sequence(torch.zeros(3, 5, 4), state)
