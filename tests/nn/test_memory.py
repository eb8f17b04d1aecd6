import copy
import gc
import weakref

import pytest
import torch
from torch import nn

import rheobase as rb
from rheobase.models import create_model
from rheobase.neurons import LIF
from rheobase.nn import Blocks, PerStep, TdBN, recomputing, saved_bytes
from rheobase.nn.residual import Conv


def seven(width=4, **options):
    """Seven blocks of convolution, norm and neuron, as in the usual benchmark, but narrow."""
    plan, blocks, c_in = [(1, 1), (1, 1), (1, 1), (2, 2), (2, 1), (4, 2), (4, 1)], [], 3
    for k, (factor, stride) in enumerate(plan):
        c_out = width * factor
        blocks.append(nn.Sequential(Conv(c_in, c_out, 3, "binary" if k else "real", stride), TdBN(c_out), LIF()))
        c_in = c_out
    return Blocks(*blocks, **options)


def train_step(model, x, mode, autocast=False):
    """All that a step of training leaves: output, gradients, buffers."""
    model = copy.deepcopy(model)
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast), rb.memory(mode):
        y = model(x)
    y.backward(torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape).sin())
    return [y.detach(), x.grad, *(p.grad for p in model.parameters()), *model.buffers()]


def assert_equal_modes(model, x, autocast=False):
    full, bits = train_step(model, x, "full", autocast), train_step(model, x, "bits", autocast)
    assert len(full) == len(bits)
    assert all(torch.equal(a, b) for a, b in zip(full, bits, strict=True))
    assert full[1].abs().sum() > 0


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradients_and_statistics_are_equal(memory_format, autocast):
    x = torch.randn(6, 3, 8, 8).to(memory_format=memory_format).unflatten(0, (3, 2)) * 2
    assert_equal_modes(seven(), x, autocast)


@pytest.mark.parametrize("segments", [(7,), (2, 5), (3, 2, 2)])
def test_any_segments_give_the_same(segments):
    assert_equal_modes(seven(segments=segments), torch.randn(3, 2, 3, 8, 8) * 2)


def test_a_static_input_stays_static():
    model, image = seven(), torch.randn(2, 3, 8, 8) * 2
    found = []
    for mode in ("full", "bits"):
        other, a = copy.deepcopy(model), image.clone().requires_grad_()
        with rb.memory(mode):
            other(a.expand(4, *a.shape)).cumsum(0).sum().backward()
        found.append([a.grad, *(p.grad for p in other.parameters()), *other.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_static_segment_of_spikes_is_packed_once():
    blocks = [nn.Sequential(Conv(64, 64, 3, "binary"), LIF()) for _ in range(2)]
    model, image = Blocks(*blocks, reads="binary"), (torch.rand(2, 64, 8, 8) < 0.3).float()
    with rb.memory("bits"):
        assert saved_bytes(model, image.expand(4, *image.shape)) == image.numel() // 8
        y = model(image.expand(4, *image.shape))
    y.sum().backward()
    packed = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model(image.expand(4, *image.shape)).sum().backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(packed, model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("blocks", "sizes"), [(0, (0,)), (1, (1,)), (2, (2,)), (3, (3,)), (4, (2, 2)), (7, (3, 2, 2)), (8, (3, 3, 2))]
)
def test_segments_are_about_the_square_root(blocks, sizes):
    assert Blocks(*(nn.Identity() for _ in range(blocks))).sizes() == sizes
    assert len(Blocks(*(nn.Identity() for _ in range(240))).sizes()) == 15


@pytest.mark.parametrize("segments", [(6, 1), (2, 2), (4, 4), ()])
def test_impossible_segments_are_refused(segments):
    with pytest.raises(ValueError, match="expected sizes of at least 2 that add up to 7"):
        seven(segments=segments)


def test_an_unknown_mode_is_refused(untyped):
    with pytest.raises(ValueError, match="no memory mode 'low'; expected 'full' or 'bits'"), rb.memory("low"):
        pass


# What is kept.


def test_what_is_kept_is_counted_by_hand():
    """Two segments: the first reads real values, the second spikes."""
    x = torch.randn(4, 2, 64, 8, 8)
    blocks = [nn.Sequential(Conv(64, 64, 3, "binary" if k else "real"), TdBN(64), LIF()) for k in range(4)]
    model = Blocks(*blocks)
    with rb.memory("bits"):
        assert saved_bytes(model, x) == x.nbytes + x.nbytes // 32
    small = 4 * 2 * 64 * 4 + 4 * 8  # mean and variance of four norms, and numbers of neurons
    full = saved_bytes(model, x)
    dense = x.nbytes + 4 * 2 * x.nbytes  # the input, and what goes into norms and neurons
    assert dense + 3 * x.nbytes // 32 < full < dense + 3 * x.nbytes // 32 + 2 * small
    with rb.packing(False):
        unpacked = saved_bytes(model, x)
    assert unpacked - full == 3 * x.nbytes - 3 * x.nbytes // 32


def test_saved_bytes_counts_storages_once_and_no_parameters():
    x = torch.randn(5, 8)
    assert saved_bytes(nn.Linear(8, 3), x) == x.nbytes
    assert saved_bytes(nn.Sequential(nn.Linear(8, 8), nn.Identity()), x) == x.nbytes

    class Twice(nn.Module):
        def forward(self, x):
            return x * x[:2].sum() * x

    assert saved_bytes(Twice(), x.requires_grad_()) == 2 * x.nbytes + 4
    with torch.no_grad():
        assert saved_bytes(nn.Linear(8, 3), x.detach()) == x.nbytes


@pytest.mark.slow
def test_a_ms_resnet_keeps_a_third_in_bits_mode():
    model, x = create_model("ms_resnet20"), torch.rand(4, 2, 3, 32, 32)
    full = saved_bytes(model, x)
    with rb.memory("bits"):
        assert saved_bytes(model, x) < full / 3


def test_nothing_stays_alive_after_backward():
    model, x = seven(), torch.randn(3, 2, 3, 8, 8)
    with rb.memory("bits"), rb.stream(model) as run:
        y = run(x)
    alive = [weakref.ref(y.grad_fn), weakref.ref(y)]
    y.sum().backward()
    run.detach()
    gc.collect()
    gc.disable()
    try:
        del y
        assert [ref() for ref in alive] == [None, None]  # no cycle that waits for the collector
    finally:
        gc.enable()


# The second run is the first one again.


class Noisy(nn.Module):
    """Dropout whose mask is drawn in every run."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return nn.functional.dropout(x * self.weight, 0.5, self.training)


def test_random_numbers_are_replayed():
    model, x = Blocks(*(Noisy() for _ in range(4))), torch.randn(2, 3, 50)
    found = []
    for mode in ("full", "bits"):
        torch.manual_seed(5)
        found.append([*train_step(model, x, mode), torch.rand(1)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_batch_norm_of_torch_counts_a_batch_once():
    blocks = [PerStep(nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5))) for _ in range(4)]
    assert_equal_modes(Blocks(*blocks), torch.randn(3, 4, 5))


def test_modes_engine_and_packing_may_change_before_backward():
    model, x = seven().double(), torch.randn(3, 2, 3, 8, 8).double() * 2
    expected = train_step(model, x, "bits")
    a, other = x.clone().requires_grad_(), copy.deepcopy(model)
    with rb.memory("bits"):
        y = other(a)
    other.eval()
    with rb.engine("reference"), rb.packing(False):
        y.backward(torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape).sin())
    assert not any(module.training for module in other.modules())
    found = [y.detach(), a.grad, *(p.grad for p in other.parameters()), *other.buffers()]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_parameters_may_not_change_before_backward():
    model, x = seven(), torch.randn(3, 2, 3, 8, 8)
    with rb.memory("bits"):
        y = model(x)
    with torch.no_grad():
        model[0][0].module.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_only_what_is_wanted_gets_a_gradient():
    model, x = seven(), torch.randn(3, 2, 3, 8, 8)
    frozen = model[3][0].module.weight.requires_grad_(False)
    with rb.memory("bits"):
        y = model(x)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(y.cumsum(0).sum(), parameters, retain_graph=True)
    again = torch.autograd.grad(y.cumsum(0).sum(), parameters)
    expected = torch.autograd.grad(model(x).cumsum(0).sum(), parameters)
    for name, a, b, c in zip(names, found, again, expected, strict=True):
        assert torch.equal(a, c), name
        assert torch.equal(b, c), name
    assert frozen.grad is None
    assert all(p.grad is None for p in parameters)


def test_functional_calls_use_the_given_parameters():
    model, x = seven(), torch.randn(3, 2, 3, 8, 8)
    given = {name: (p.detach() * 1.5).requires_grad_() for name, p in model.named_parameters()}
    found = []
    for mode in ("full", "bits"):
        with rb.memory(mode):
            y = torch.func.functional_call(model, given, (x,))
        found.append(torch.autograd.grad(y.cumsum(0).sum(), list(given.values())))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_hooks_can_tell_the_second_run():
    model, seen, watched = seven(), [], []
    model[0].register_forward_hook(lambda *_: seen.append(recomputing()))
    with rb.memory("bits"), rb.observe(model, lambda name, *_: watched.append(name)):
        y = model(torch.randn(3, 2, 3, 8, 8))
        y.sum().backward()
    assert seen == [False, True]
    assert len(watched) == 7
    assert not recomputing()


def test_an_error_in_the_second_run_leaves_the_process_as_it_was():
    class Breaks(nn.Module):
        def forward(self, x):
            if recomputing():
                raise KeyError("again")
            return x

    model = Blocks(nn.Linear(2, 2), Breaks())
    with rb.memory("bits"):
        y = model(torch.randn(1, 1, 2))
    before = torch.get_rng_state()
    with pytest.raises(KeyError, match="again"):
        y.sum().backward()
    assert not recomputing()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_second_derivative_is_refused():
    model, x = seven(), torch.randn(3, 2, 3, 8, 8, requires_grad=True)
    with rb.memory("bits"):
        y = model(x)
    with pytest.raises(RuntimeError, match="memory mode 'full'"):
        torch.autograd.grad(y.sum(), x, create_graph=True)


def test_blocks_within_blocks():
    inner = [seven()[1:3] for _ in range(2)]
    assert all(isinstance(block, Blocks) for block in inner)
    assert_equal_modes(Blocks(*inner, reads="binary"), (torch.rand(3, 2, 4, 6, 6) < 0.4).float())


def test_a_wrong_declaration_raises():
    model = seven()
    model.reads = "binary"
    with rb.memory("bits"), pytest.raises(ValueError, match="neither 0 nor 1"):
        model(torch.randn(3, 2, 3, 8, 8))


# State over time.


@pytest.mark.parametrize("detach", [True, False])
def test_streams_give_and_take_the_same_states_and_gradients(detach):
    """Gradients flow through the states between chunks, or are cut there."""
    blocks = [nn.Sequential(PerStep(nn.Linear(6, 6)), LIF(reset="subtract", detach_reset=False)) for _ in range(4)]
    model, x = Blocks(*blocks), torch.randn(6, 2, 6) * 3
    found = []
    for mode in ("full", "bits"):
        a, other = x.clone().requires_grad_(), copy.deepcopy(model)
        with rb.memory(mode), rb.stream(other) as run:
            first = run(a[:2])
            if detach:
                run.detach()
            y = torch.cat([first, run(a[2:5]), run(a[5:])])
        end = torch.cat([s for state in run.state.values() for s in state])
        (y.cumsum(0).sin().sum() + end.sin().sum()).backward()
        assert list(run.state) == [f"{k}.1#0" for k in range(4)]
        found.append([y.detach(), end.detach(), a.grad, *(p.grad for p in other.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert found[0][2].abs().sum() > 0


def test_a_neuron_that_several_segments_share_has_a_state_for_each_call():
    neuron, x = LIF(), torch.randn(4, 2, 6) * 3
    model = Blocks(*(nn.Sequential(PerStep(nn.Linear(6, 6)), neuron) for _ in range(4)))
    expected, state = rb.call(model, x)
    with rb.memory("bits"):
        y, found = rb.call(model, x)
        again, _ = rb.call(model, x, found)
    assert torch.equal(y, expected)
    assert torch.equal(again, rb.call(model, x, state)[0])
    assert list(found) == list(state) == [f"0.1#{k}" for k in range(4)]


def test_a_module_that_cannot_be_streamed_is_named():
    class Whole(rb.nn.Temporal):
        streamable = False

        def sequence(self, x, state):
            return x.flip(0), ()

    model = Blocks(PerStep(nn.Linear(2, 2)), Whole())
    with rb.memory("bits"):
        assert model(torch.ones(2, 1, 2)).requires_grad
        with pytest.raises(ValueError, match="1: Whole needs the whole sequence"), rb.stream(model) as run:
            run(torch.ones(2, 1, 2))


def test_backward_within_another_call_does_not_mix():
    model, x = seven(), torch.randn(3, 2, 3, 8, 8)

    class Learns(nn.Module):
        def __init__(self):
            super().__init__()
            self.neuron = LIF()

        def forward(self, x):
            y.sum().backward()
            return self.neuron(x)

    with rb.memory("bits"):
        y = model(x)
    _, state = rb.call(Learns(), torch.randn(2, 1, 3))
    assert list(state) == ["neuron#0"]
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model_falls_back_or_says_why_it_cannot():
    torch.compiler.reset()
    model, x = seven(), torch.randn(3, 2, 3, 8, 8)
    expected = model(x).detach()
    with rb.memory("bits"):
        assert torch.equal(torch.compile(model, backend="aot_eager")(x).detach(), expected)
        torch.compiler.reset()
        with pytest.raises(Exception, match="compile in memory mode 'full'"):
            torch.compile(model, backend="aot_eager", fullgraph=True)(x)
