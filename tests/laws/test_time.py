"""Laws of time and batch: chunks give what the whole gives, the future does not change the past, samples do not mix."""

import pytest
import torch

import rheobase as rb
from rheobase.neurons import NEURONS

CAUSAL = sorted(name for name, entry in NEURONS.items() if entry.causal)
CLOSED_FORM = sorted(name for name, entry in NEURONS.items() if entry.closed_form)
STREAMABLE = sorted(name for name, entry in NEURONS.items() if entry.streamable)


def seeded(run, *arguments):
    """What `run` gives, with the same noise each time."""
    torch.manual_seed(7)
    return run(*arguments)


@pytest.mark.parametrize("engine", ["cpu", "reference"])
@pytest.mark.parametrize("cut", [1, 3, 6])
@pytest.mark.parametrize("neuron", STREAMABLE)
def test_two_chunks_give_the_whole(laws, neuron, cut, engine):
    x, module = laws.signal(neuron, 7, 3, 50), laws.make(neuron, T=7)
    with rb.engine(engine):
        whole, last = seeded(rb.call, module, x)
        with rb.stream(module) as run:
            halves = seeded(lambda: torch.cat([run(x[:cut]), run(x[cut:])]))
    assert torch.equal(halves, whole)
    assert run.state.keys() == last.keys()
    assert all(torch.equal(a, b) for key in last for a, b in zip(run.state[key], last[key], strict=True))


@pytest.mark.parametrize("neuron", STREAMABLE)
def test_gradients_flow_through_the_state_between_chunks(laws, neuron):
    x, module = laws.signal(neuron, 6, 2, 20).requires_grad_(), laws.make(neuron, T=6)
    before = {}
    if NEURONS[neuron].any_T:
        (key,) = rb.call(module, x[:1])[1]
        before = {key: tuple(s.requires_grad_() for s in laws.warm(neuron, module, x))}
    wanted = [x, *(s for state in before.values() for s in state), *module.parameters()]
    whole = torch.autograd.grad(seeded(rb.call, module, x, before)[0].cumsum(0).square().sum(), wanted)
    with rb.stream(module, before) as run:
        y = seeded(lambda: torch.cat([run(x[:2]), run(x[2:])]))
    halves = torch.autograd.grad(y.cumsum(0).square().sum(), wanted)
    torch.testing.assert_close(halves, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("neuron", sorted(NEURONS.keys() - STREAMABLE))
def test_what_needs_the_whole_sequence_cannot_be_streamed(laws, neuron):
    net = torch.nn.Sequential(torch.nn.Identity(), laws.make(neuron, T=4))
    with (
        pytest.raises(ValueError, match=rf"^1: {type(net[1]).__name__} needs the whole sequence"),
        rb.stream(net) as run,
    ):
        run(torch.randn(4, 2, 3))


@pytest.mark.parametrize("neuron", sorted(NEURONS))
def test_a_call_remembers_nothing(laws, neuron):
    x, module = laws.signal(neuron, 5, 2, 20), laws.make(neuron, T=5)
    assert torch.equal(seeded(module, x), seeded(module, x))


@pytest.mark.parametrize("neuron", sorted(name for name, entry in NEURONS.items() if entry.stochastic))
def test_a_stochastic_neuron_draws_anew(laws, neuron):
    x, module = laws.signal(neuron, 5, 2, 20), laws.make(neuron, T=5)
    assert not torch.equal(module(x), module(x))


@pytest.mark.parametrize("engine", ["cpu", "reference"])
@pytest.mark.parametrize("neuron", CAUSAL)
def test_the_future_does_not_change_the_past(laws, neuron, engine):
    x, module = laws.signal(neuron, 9, 2, 90), laws.make(neuron, T=9)
    other = x.clone()
    other[4:] = -2 * x[4:]
    with rb.engine(engine):
        a, b = seeded(module, x), seeded(module, other)
    assert torch.equal(a[:4], b[:4])
    assert not torch.equal(a[4:], b[4:])


@pytest.mark.parametrize("neuron", sorted(NEURONS))
def test_permuting_the_batch_permutes_the_output(laws, neuron):
    x, module, order = laws.signal(neuron, 4, 5, 30), laws.make(neuron, T=4), torch.tensor([3, 0, 4, 1, 2])
    noise = module.noise(x)  # belongs to the sample, so it is permuted with it
    y, _ = module.sequence((x, *noise) if noise else x, None)
    x, noise = x[:, order], [n[:, order] for n in noise]
    permuted, _ = module.sequence((x, *noise) if noise else x, None)
    assert torch.equal(y[:, order], permuted)


@pytest.mark.parametrize("drive", [0.3, 1.0, 1.7, 3.1])
@pytest.mark.parametrize("neuron", CLOSED_FORM)
def test_constant_current_gives_the_analytic_membrane_and_period(laws, neuron, drive):
    """Up to the first spike, what is compared with the threshold is `membrane`; without spikes, what comes out is.
    Where a spike brings the neuron back to rest, they come with the analytic period."""
    module, T = laws.make(neuron), 24
    threshold = module.number("threshold") if hasattr(module, "threshold") else 1.0
    current = drive * threshold * NEURONS[neuron].drive / 2
    x, membrane = torch.full((T, 1, 1), current), [module.membrane(current, t) for t in range(T + 1)]
    with rb.engine("reference"), torch.no_grad(), laws.watching(module) as seen:
        y, _ = module.sequence(x, None)
    for t in range(T):
        got = float(seen[t]) + threshold if seen else float(y[t])
        assert got == pytest.approx(membrane[t + 1], rel=1e-5, abs=2e-6)
        if seen and y[t]:
            break
    assert not seen or drive < 3 or y.any()
    if len(module.scan.step.state) > 1 or module.scan.constants.get("reset") != "zero":
        return
    fires = (lambda h: h > threshold) if module.scan.constants["strict"] else (lambda h: h >= threshold)
    period = next((t for t in range(1, T + 1) if fires(membrane[t])), None)
    steps_since = T if period is None else T % period
    for engine in ("cpu", "reference"):
        with rb.engine(engine):
            y, (v,) = module.sequence(x, None)
        assert y.flatten().bool().tolist() == [period is not None and t % period == 0 for t in range(1, T + 1)]
        assert v.item() == pytest.approx(membrane[steps_since], rel=1e-5, abs=1e-6)
