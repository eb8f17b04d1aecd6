"""Laws of the layers with state over time: chunks, future, batch, memory, saved states, compile and export."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import rheobase as rb
from rheobase.neurons import LIF, PLIF

ROWS, MAPS = (3, 6), (3, 6, 4, 4)
"""Shape of a step `[B, ...]` of vectors and of images."""


def layer(make, step=ROWS, chunks="equal", whole_delays=False):
    """A layer and its traits: whether plain chunks give equal bits, or are equal up to the order of sums."""
    return SimpleNamespace(make=make, step=step, chunks=chunks, whole_delays=whole_delays)


LAYERS = {
    "recurrent": layer(lambda: rb.nn.Recurrent(LIF(tau=1.5), nn.Linear(6, 6, bias=False))),
    "recurrent_bias": layer(lambda: rb.nn.Recurrent(PLIF(shape=(6,), detach_reset=False), nn.Linear(6, 6))),
    "recurrent_conv": layer(lambda: rb.nn.Recurrent(LIF(), nn.Conv2d(6, 6, 3, padding=1)), MAPS),
    "delay": layer(lambda: rb.nn.Delay(6, 4), MAPS, "close"),
    "delay_eval": layer(lambda: rb.nn.Delay(6, 4).eval(), MAPS, whole_delays=True),
    "delayed_linear": layer(lambda: rb.nn.DelayedLinear(6, 5, 4), chunks="close"),
    "delayed_linear_eval": layer(lambda: rb.nn.DelayedLinear(6, 5, 4, bias=True).eval(), chunks="close"),
    "delayed_linear_one": layer(lambda: rb.nn.DelayedLinear(6, 6, 1), chunks="close"),
}


@pytest.fixture(params=LAYERS)
def entry(request):
    return LAYERS[request.param]


def example(entry, T=7, **options):
    return torch.randn(T, *entry.step, **options) * 2


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(p, q) for k in a for p, q in zip(a[k], b[k], strict=True))


@pytest.mark.parametrize("cut", [1, 3, 6])
def test_two_chunks_give_the_whole(entry, cut):
    module, x = entry.make().double(), example(entry, dtype=torch.float64)
    whole, last = rb.call(module, x)
    with rb.stream(module) as run:
        halves = torch.cat([run(x[:cut]), run(x[cut:])])
    if entry.chunks == "equal":
        assert torch.equal(halves, whole)
    torch.testing.assert_close(halves, whole)
    assert same(run.state, last)


def test_any_chunking_is_equal_one_step_at_a_time(entry):
    module, x, found = entry.make(), example(entry), []
    for sizes in ([7], [1, 6], [3, 2, 2]):
        with rb.stream(module, exact=True) as run:
            found.append((torch.cat([run(chunk) for chunk in x.split(sizes)]), run.state))
    for y, state in found[1:]:
        assert torch.equal(y, found[0][0])
        assert same(state, found[0][1])


def test_gradients_flow_through_the_state_between_chunks(entry):
    module, x = entry.make().double(), example(entry, dtype=torch.float64).requires_grad_()
    wanted = [x, *(p for p in module.parameters() if not (entry.whole_delays or p is getattr(module, "delay", None)))]
    whole = torch.autograd.grad(module(x).cumsum(0).square().sum(), wanted)
    with rb.stream(module) as run:
        y = torch.cat([run(x[:2]), run(x[2:])])
    halves = torch.autograd.grad(y.cumsum(0).square().sum(), wanted)
    torch.testing.assert_close(halves, whole)
    with rb.stream(module) as run:
        run(x[:2])
        run.detach()
        y = run(x[2:])
    (cut,) = torch.autograd.grad(y.cumsum(0).square().sum(), x)
    assert torch.equal(cut[:2], torch.zeros_like(cut[:2]))


def test_a_call_remembers_nothing(entry):
    module, x = entry.make(), example(entry)
    assert torch.equal(module(x), module(x))


def test_the_future_does_not_change_the_past(entry):
    module, x = entry.make(), example(entry)
    other = x.clone()
    other[4:] += 3 * torch.rand(3, *entry.step)
    assert torch.equal(module(x)[:4], module(other)[:4])
    assert not torch.equal(module(x)[4:], module(other)[4:])


def test_the_past_changes_the_future(entry):
    module, x = entry.make(), example(entry)
    other = x.clone()
    other[2] += 5
    changed = not torch.equal(module(x)[3:], module(other)[3:])
    assert changed == (getattr(module, "max_delay", 2) > 1)


def test_permuting_the_batch_permutes_the_output(entry):
    module, x, order = entry.make().double(), example(entry, dtype=torch.float64), torch.tensor([2, 0, 1])
    torch.testing.assert_close(module(x)[:, order], module(x[:, order]))


def test_one_step_and_a_static_input(entry):
    module, x = entry.make(), example(entry, T=1)
    assert module(x).shape[:2] == (1, 3)
    torch.testing.assert_close(module(x.expand(5, *entry.step)), module(x.repeat(5, *(1,) * len(entry.step))))


def test_a_state_can_be_saved_and_loaded(entry, tmp_path):
    module, x = nn.Sequential(entry.make()), example(entry)
    _, state = rb.call(module, x[:4])
    expected = rb.call(module, x[4:], state)
    torch.save(state, tmp_path / "state.pt")
    save_file(rb.nn.flatten_state(state), tmp_path / "state.safetensors")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    flat = rb.nn.unflatten_state(load_file(tmp_path / "state.safetensors"))
    for found in (loaded, flat):
        y, after = rb.call(module, x[4:], found)
        assert torch.equal(y, expected[0])
        assert same(after, expected[1])


def test_every_state_has_the_batch_first(entry):
    _, state = rb.call(entry.make(), example(entry))
    assert all(s.shape[0] == entry.step[0] for s in state["#0"])


def test_a_state_of_another_batch_is_refused_by_name(entry):
    module, x = nn.Sequential(entry.make()), example(entry)
    _, state = rb.call(module, x[:, :2])
    with pytest.raises(ValueError, match=r"^0: .*(the same batch|shape)"):
        rb.call(module, x, state)


def test_saving_and_loading_the_layer_is_the_identity(entry):
    a, b, x = entry.make(), entry.make(), example(entry)
    b.load_state_dict(a.state_dict())
    assert torch.equal(a(x), b(x))


def test_half_precision_under_autocast(entry):
    module, x = entry.make(), example(entry).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
        z = module(x.bfloat16())
    (y.float().square().sum() + z.float().square().sum()).backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore")
def test_compiled_equals_eager(entry):
    torch.compiler.reset()
    module, x = entry.make(), example(entry, T=4)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), module(x))
    wanted = [p for p in module.parameters() if module.training or p is not getattr(module, "delay", None)]
    if wanted:
        eager = torch.autograd.grad(module(x).cumsum(0).sum(), wanted)
        for a, b in zip(torch.autograd.grad(compiled(x).cumsum(0).sum(), wanted), eager, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore")
def test_exported_equals_eager(entry):
    module, x = entry.make(), example(entry, T=4)
    with torch.no_grad():
        exported = torch.export.export(module, (x,))
        torch.testing.assert_close(exported.module()(x), module(x))
