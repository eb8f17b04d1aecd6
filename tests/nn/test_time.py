import pytest
import torch
from torch import nn

import rheobase as rb
from rheobase.neurons import LIF, MaskedPSN, masking
from rheobase.nn import PerStep, Temporal, is_static


def network():
    return nn.Sequential(PerStep(nn.Linear(5, 6)), LIF(), PerStep(nn.Linear(6, 4)), LIF())


def test_per_step_is_the_module_at_every_step():
    x, layer = torch.randn(3, 2, 5), nn.Linear(5, 4)
    torch.testing.assert_close(PerStep(layer)(x), torch.stack([layer(step) for step in x]))


def test_per_step_computes_a_static_input_once():
    calls = []
    layer = nn.Linear(5, 4)
    layer.register_forward_hook(lambda m, i, o: calls.append(i[0].shape))
    x = torch.randn(2, 5, requires_grad=True)
    y = PerStep(layer)(x.expand(7, 2, 5))
    assert calls == [(2, 5)]
    assert is_static(y)
    y.sum().backward()
    torch.testing.assert_close(x.grad, 7 * layer.weight.sum(0).expand(2, 5))


@pytest.mark.parametrize(
    ("layer", "together"),
    [
        (nn.Conv2d(4, 8, 3, stride=2), True),
        (nn.Conv2d(4, 8, 1), True),
        (nn.Conv2d(16, 8, 1, stride=2), True),
        (nn.Conv2d(15, 8, 1, stride=2), False),
        (nn.Conv2d(16, 8, 1, stride=(1, 2), groups=2), False),
    ],
)
def test_per_step_orders_what_a_convolution_reads(layer, together):
    """Channels side by side, but for those whose weight gradient oneDNN then computes beyond its memory."""
    seen = []
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.randn(2, 3, layer.in_channels, 6, 6)
    PerStep(layer)(x)
    PerStep(nn.Sequential(layer))(x.transpose(2, 4).contiguous().transpose(2, 4))
    for read in seen:
        assert read.is_contiguous(memory_format=torch.channels_last if together else torch.contiguous_format)
        torch.testing.assert_close(read, x.flatten(0, 1))


def test_per_step_needs_time_and_batch():
    with pytest.raises(ValueError, match=r"shape \(5,\); expected \[T, B"):
        PerStep(nn.Linear(5, 4))(torch.randn(5))


def test_call_gives_and_takes_the_state():
    net, x = network(), torch.randn(6, 3, 5) * 3
    whole, last = rb.call(net, x)
    assert sorted(last) == ["1#0", "3#0"]
    _, state = rb.call(net, x[:2])
    y, after = rb.call(net, x[2:], state)
    torch.testing.assert_close(y, whole[2:])
    torch.testing.assert_close(after["3#0"][0], last["3#0"][0])


def test_a_module_that_runs_twice_has_two_states():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.neuron = LIF()

        def forward(self, x):
            return self.neuron(self.neuron(x) * 3)

    net, x = Twice(), torch.randn(6, 2, 5) * 3
    with rb.stream(net) as run:
        halves = torch.cat([run(x[:3]), run(x[3:])])
    assert torch.equal(halves, net(x))
    assert sorted(run.state) == ["neuron#0", "neuron#1"]


def test_the_state_of_another_model_is_refused():
    net, x = network(), torch.randn(2, 3, 5)
    _, state = rb.call(net, x)
    with pytest.raises(ValueError, match=r"^LIF: the state has no entry '#0', only \['1#0', '3#0'\]"):
        rb.call(LIF(), x, state)
    with pytest.raises(ValueError, match=r"^3: the state has no entry '3#0'"):
        rb.call(net, x, {"1#0": state["1#0"]})
    with pytest.raises(ValueError, match=r"entries \['5#0'\] that the model did not read"):
        rb.call(net, x, state | {"5#0": state["3#0"]})


def test_a_state_of_another_batch_is_refused():
    net = network()
    _, state = rb.call(net, torch.randn(2, 3, 5))
    with pytest.raises(ValueError, match=r"^1: .*state 'v' has shape \(3, 6\)"):
        rb.call(net, torch.randn(2, 4, 5), state)


def test_a_module_that_cannot_be_streamed_says_so_by_name():
    class Whole(Temporal):
        streamable = False

        def sequence(self, x, state):
            return x.flip(0), ()

    net = nn.Sequential(Whole())
    assert net(torch.ones(2, 1, 1)).shape == (2, 1, 1)
    with pytest.raises(ValueError, match=r"0: Whole needs the whole sequence"), rb.stream(net) as run:
        run(torch.ones(2, 1, 1))


def test_detach_cuts_the_graph():
    net = LIF(reset="subtract", detach_reset=False)
    x = torch.randn(4, 2, 5, requires_grad=True)
    with rb.stream(net) as run:
        run(x[:2])
        run.detach()
        y = run(x[2:])
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(grad[:2], torch.zeros(2, 2, 5))
    assert grad[2:].abs().sum() > 0


def test_truncated_back_propagation_is_that_of_a_detached_loop():
    """Gradients of weights over chunks with a cut between them, against a loop that cuts at the same places."""
    first, second = nn.Linear(5, 6).double(), nn.Linear(6, 4).double()
    net = nn.Sequential(PerStep(first), LIF(detach_reset=False), PerStep(second), LIF(reset="subtract")).double()
    x = torch.randn(9, 3, 5, dtype=torch.float64) * 3
    with rb.stream(net) as run:
        for chunk in x.split(3):
            (run(chunk) - 0.3).square().sum().backward()
            run.detach()
    found = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()

    (a, b), u, v = (net[1], net[3]), torch.zeros(3, 6), torch.zeros(3, 4)
    loss = torch.zeros((), dtype=torch.float64)
    for t, step in enumerate(x):
        if t % 3 == 0:
            u, v = u.detach(), v.detach()
        s, (u,) = a.scan.step(first(step), u, tau=2.0, threshold=1.0, **a.scan.constants)
        s, (v,) = b.scan.step(second(s), v, tau=2.0, threshold=1.0, **b.scan.constants)
        loss = loss + (s - 0.3).square().sum()
    loss.backward()
    for got, p in zip(found, net.parameters(), strict=True):
        assert p.grad.abs().sum() > 0
        torch.testing.assert_close(got, p.grad)


def test_a_stream_moves_its_state():
    net, x = network(), torch.randn(4, 2, 5)
    with rb.stream(net) as run:
        run(x)
        before = run.state
        assert run.to("meta") is run
    assert {s.device.type for state in run.state.values() for s in state} == {"meta"}
    assert {s.device.type for state in before.values() for s in state} == {"cpu"}


def test_a_stream_goes_on_in_double_precision():
    net, x = network(), torch.randn(6, 2, 5) * 3
    with rb.stream(net) as run:
        run(x[:3])
        net.double()
        assert run(x[3:].double()).dtype == torch.float64
    assert {s.dtype for state in run.state.values() for s in state} == {torch.float64}


def test_a_flat_state_that_is_not_whole_is_refused():
    flat = rb.nn.flatten_state({"0#0": (torch.zeros(2), torch.ones(2)), "a.b#1": (torch.zeros(1),)})
    assert sorted(flat) == ["0#0.0", "0#0.1", "a.b#1.0"]
    with pytest.raises(ValueError, match=r"'0#0' lacks 0#0.0"):
        rb.nn.unflatten_state({"0#0.1": flat["0#0.1"]})
    with pytest.raises(ValueError, match=r"'0.weight' is not a name"):
        rb.nn.unflatten_state({"0.weight": torch.zeros(1)})


def test_state_can_be_saved_and_loaded(tmp_path):
    net, x = network(), torch.randn(4, 2, 5) * 3
    _, state = rb.call(net, x[:2])
    torch.save(state, tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    a, _ = rb.call(net, x[2:], state)
    b, _ = rb.call(net, x[2:], loaded)
    assert torch.equal(a, b)


def test_a_stream_within_a_stream_does_not_mix():
    inner, x = LIF(), torch.randn(4, 2, 5) * 3

    class Outer(nn.Module):
        def forward(self, x):
            with rb.stream(inner) as run:
                return run(x)

    outer = Outer()
    with rb.stream(nn.Sequential(LIF(), outer)) as run:
        run(x)
    assert sorted(run.state) == ["0#0"]


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model_is_not_streamed_silently():
    compiled = torch.compile(LIF(), backend="eager")
    with pytest.raises(ValueError, match="a compiled model cannot be streamed"):
        rb.call(compiled, torch.randn(3, 2, 4))


def test_modules_with_a_schedule_are_told_of_an_epoch():
    ramped, still, delay = MaskedPSN(4, ramp=True), MaskedPSN(4), rb.nn.Delay(3, max_delay=9)
    model = nn.Sequential(nn.Identity(), nn.Sequential(ramped, still), delay, LIF())
    for epoch in range(17):
        rb.nn.begin_epoch(model, epoch, 17)
        assert ramped.lambda_ == masking(epoch, 17)
        assert still.lambda_ == 1
        assert delay.sigma == pytest.approx(rb.nn.delay_sigma(epoch, 17, 9))
    with pytest.raises(ValueError, match="epoch is 3; expected 0 to 2 of 3"):
        rb.nn.begin_epoch(model, 3, 3)


@pytest.mark.parametrize("exact", [False, True])
def test_a_chunk_of_no_steps_is_refused(exact):
    with (
        rb.stream(torch.nn.Identity(), exact=exact) as run,
        pytest.raises(ValueError, match=r"the chunk has shape \(0, 2, 3\); expected \[T, B, ...\] with T >= 1"),
    ):
        run(torch.zeros(0, 2, 3))
