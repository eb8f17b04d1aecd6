"""Laws of time and batch: chunks give what the whole gives, the future does not change the past, samples do not mix."""

import inspect

import pytest
import torch

import rheobase as rb
from rheobase.neurons import NEURONS, create_neuron

CAUSAL = sorted(name for name, entry in NEURONS.items() if entry.causal)
STREAMABLE = sorted(name for name, entry in NEURONS.items() if entry.streamable)


def made(name, **arguments):
    """The neuron with those of the arguments that it takes: a reset if it has one, T if it is made for T steps."""
    taken = inspect.signature(NEURONS[name].make).parameters
    return create_neuron(name, **{key: value for key, value in arguments.items() if key in taken})


@pytest.mark.parametrize("engine", ["cpu", "reference"])
@pytest.mark.parametrize("cut", [1, 3, 6])
@pytest.mark.parametrize("neuron", STREAMABLE)
def test_two_chunks_give_the_whole(neuron, cut, engine):
    x, module = torch.randn(7, 3, 50) * 2, made(neuron, T=7)
    with rb.engine(engine):
        whole, last = rb.call(module, x)
        with rb.stream(module) as run:
            halves = torch.cat([run(x[:cut]), run(x[cut:])])
    assert torch.equal(halves, whole)
    assert run.state.keys() == last.keys()
    assert all(torch.equal(a, b) for key in last for a, b in zip(run.state[key], last[key], strict=True))


@pytest.mark.parametrize("neuron", STREAMABLE)
def test_gradients_flow_through_the_state_between_chunks(neuron):
    x = torch.randn(6, 2, 20, requires_grad=True)
    module = made(neuron, T=6, reset="subtract", detach_reset=False)
    (whole,) = torch.autograd.grad(module(x).cumsum(0).square().sum(), x)
    with rb.stream(module) as run:
        y = torch.cat([run(x[:2]), run(x[2:])])
    (halves,) = torch.autograd.grad(y.cumsum(0).square().sum(), x)
    torch.testing.assert_close(halves, whole)


@pytest.mark.parametrize("neuron", sorted(NEURONS.keys() - STREAMABLE))
def test_what_needs_the_whole_sequence_cannot_be_streamed(neuron):
    net = torch.nn.Sequential(torch.nn.Identity(), made(neuron, T=4))
    with (
        pytest.raises(ValueError, match=rf"^1: {type(net[1]).__name__} needs the whole sequence"),
        rb.stream(net) as run,
    ):
        run(torch.randn(4, 2, 3))


@pytest.mark.parametrize("neuron", sorted(NEURONS))
def test_a_call_remembers_nothing(neuron):
    x, module = torch.randn(5, 2, 20) * 2, made(neuron, T=5)
    assert torch.equal(module(x), module(x))


@pytest.mark.parametrize("engine", ["cpu", "reference"])
@pytest.mark.parametrize("neuron", CAUSAL)
def test_the_future_does_not_change_the_past(neuron, engine):
    x, module = torch.randn(6, 2, 30) * 2, made(neuron, T=6)
    other = x.clone()
    other[4:] = torch.randn(2, 2, 30) * 5
    with rb.engine(engine):
        assert torch.equal(module(x)[:4], module(other)[:4])
        assert not torch.equal(module(x)[4:], module(other)[4:])


@pytest.mark.parametrize("neuron", sorted(NEURONS))
def test_permuting_the_batch_permutes_the_output(neuron):
    x, module, order = torch.randn(4, 5, 30) * 2, made(neuron, T=4), torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(module(x)[:, order], module(x[:, order]))


@pytest.mark.parametrize("engine", ["cpu", "reference"])
@pytest.mark.parametrize("drive", [0.3, 1.0, 1.7, 3.1])
@pytest.mark.parametrize("neuron", sorted(name for name, entry in NEURONS.items() if entry.closed_form))
def test_constant_current_gives_the_analytic_membrane_and_period(neuron, drive, engine):
    module, T = create_neuron(neuron), 24
    threshold = float(module.threshold)
    x = torch.full((T, 1, 1), drive * threshold)
    membrane = [module.membrane(drive * threshold, t) for t in range(T + 1)]
    fires = (lambda h: h > threshold) if module.scan.constants["strict"] else (lambda h: h >= threshold)
    period = next((t for t in range(1, T + 1) if fires(membrane[t])), None)
    with rb.engine(engine):
        y, (v,) = module.sequence(x, None)
    expected = [period is not None and t % period == 0 for t in range(1, T + 1)]
    assert y.flatten().bool().tolist() == expected
    steps_since = T if period is None else T % period
    assert v.item() == pytest.approx(membrane[steps_since], rel=1e-5, abs=1e-6)
