import copy

import pytest
import torch
from torch import nn

import rheobase as rb
from rheobase.neurons import LIF, PLIF, PSN, IntegerLIF, Neuron
from rheobase.nn import NormNeuron, PerStep, Residual, Sequential, TdBN
from rheobase.nn.fuse import run
from rheobase.scan.norm import Normed

SHAPES = [(4, 3, 5, 7, 7), (3, 4, 16, 32, 32), (3, 4, 300, 12), (4, 8, 5), (2, 2, 3, 30, 1)]


def pair_of(channels, neuron=PLIF, dtype=torch.float32):
    """The same norm and neuron twice: run one after the other, and as one."""
    torch.manual_seed(1)
    plain = nn.Sequential(TdBN(channels), neuron()).to(dtype)
    with torch.no_grad():
        plain[0].weight.uniform_(0.5, 1.5)
        plain[0].bias.normal_(0.0, 0.2)
    return plain, rb.fuse(copy.deepcopy(plain))


def trained(model, x, g, engine="cpu"):
    """Output, gradients of input and parameters, and buffers afterwards."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    with rb.engine(engine):
        y = model(x)
        grads = torch.autograd.grad(y, [x, *model.parameters()], g)
    return y.detach(), grads, list(model.buffers())


def close(a, b, tolerance=1e-5):
    for p, q in zip(a, b, strict=True):
        assert float((p - q).abs().max()) <= tolerance * max(float(q.abs().max()), 1e-30)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fused_equals_one_after_the_other_bit_for_bit(shape, training, dtype):
    plain, fused = (model.train(training) for model in pair_of(shape[2], dtype=dtype))
    assert type(fused) is Sequential
    x, g = torch.randn(shape, dtype=dtype) * 2 + 3, torch.randn(shape, dtype=dtype)
    (y, grads, buffers), (y_, grads_, buffers_) = (trained(model, x, g) for model in (fused, plain))
    assert y.any()
    assert torch.equal(y, y_)
    assert all(map(torch.equal, buffers, buffers_))
    close(grads, grads_)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("order", ["channels_last", "static", "strided"])
def test_gradients_are_those_of_the_reference_engine(order, training):
    plain, fused = (model.double().train(training) for model in pair_of(6))
    x = torch.randn(4, 3, 6, 5, 5, dtype=torch.float64) * 2 + 1
    if order == "channels_last":
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (4, 3))
    elif order == "static":
        x = x[:1].expand(4, 3, 6, 5, 5)
    else:
        x = torch.randn(3, 4, 6, 5, 10, dtype=torch.float64).transpose(0, 1)[..., ::2]
    g = torch.randn(4, 3, 6, 5, 5, dtype=torch.float64)
    found = []
    for model, engine in ((fused, "cpu"), (plain, "reference")):
        once = x[:1].detach().clone().requires_grad_() if order == "static" else x.detach().requires_grad_()
        with rb.engine(engine):
            y = model(once.expand(x.shape))
            found.append((y.detach(), torch.autograd.grad(y, [once, *model.parameters()], g)))
    assert torch.equal(found[0][0], found[1][0])
    close(found[0][1], found[1][1], 1e-10)


@pytest.mark.parametrize("wanted", ["x", "weight", "bias", "neuron"])
def test_single_gradients(wanted):
    plain, fused = pair_of(3)
    x, g = torch.randn(4, 2, 3, 5), torch.randn(4, 2, 3, 5)
    found = []
    for model in (fused, plain):
        model.requires_grad_(False)
        leaf = {"x": x.clone(), "weight": model[0].weight, "bias": model[0].bias, "neuron": model[1].w}[wanted]
        leaf.requires_grad_()
        y = model(leaf if wanted == "x" else x)
        found.append(torch.autograd.grad(y, leaf, g))
    close(*found)


def test_only_the_input_is_kept():
    _, fused = pair_of(64, LIF)
    x = torch.randn(4, 2, 64, 16, 16, requires_grad=True)
    assert rb.nn.saved_bytes(fused, x) < 1.01 * x.numel() * 4


@pytest.mark.parametrize("after", [nn.Identity, LIF])
@pytest.mark.parametrize("shortcut", ["identity", "norm"])
def test_norm_sum_and_neuron_are_one(after, shortcut):
    torch.manual_seed(2)
    parts = [PerStep(nn.Conv2d(4, 4, 3, padding=1, bias=False)), TdBN(4)]
    extra = Sequential(PerStep(nn.Conv2d(4, 4, 1, bias=False)), TdBN(4)) if shortcut == "norm" else nn.Identity()
    x, g = torch.randn(3, 2, 4, 6, 6) * 2, torch.randn(3, 2, 4, 6, 6)
    found = []
    for kind, engine in ((Sequential, "cpu"), (nn.Sequential, "cpu"), (nn.Sequential, "reference")):
        model = copy.deepcopy(Residual(kind(*parts), extra, after(), "real"))
        found.append(trained(model, x, g, engine))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][0], found[2][0])
    close(found[0][1], found[1][1], 1e-4)
    close(found[0][1], found[2][1], 1e-4)


def test_half_formats_differ_by_one_rounding_only():
    plain, fused = pair_of(8, LIF)
    x = (torch.randn(4, 4, 8, 9) * 2).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        a, b = fused(x), plain(x)
    assert a.dtype == b.dtype == torch.bfloat16
    assert (a != b).float().mean() < 0.01


def test_who_is_watched_is_not_fused():
    _, fused = pair_of(3)
    x, seen = torch.randn(4, 2, 3, 5), []
    expected = copy.deepcopy(fused)(x)
    handle = fused[0].register_forward_hook(lambda module, arguments, y: seen.append(y))
    assert torch.equal(fused(x), expected)
    assert isinstance(seen[0], torch.Tensor)
    handle.remove()
    fused[1].register_forward_hook(lambda module, arguments, y: seen.append(y))
    assert torch.equal(fused(x), seen[1])


def test_a_norm_waits_only_for_a_neuron_that_takes_it():
    x = torch.randn(4, 2, 3, 5)
    waiting = run(TdBN(3), x)
    assert isinstance(waiting, Normed)
    assert isinstance(run(nn.Identity(), waiting), torch.Tensor)
    with rb.engine("reference"):
        assert isinstance(run(TdBN(3), x), torch.Tensor)
    assert isinstance(Sequential(TdBN(3))(x), torch.Tensor)


@pytest.mark.parametrize("neuron", [lambda: PSN(T=4), lambda: IntegerLIF()])
def test_neurons_of_every_kind_stand_behind_a_norm(neuron):
    plain, fused = pair_of(3, neuron)
    x, g = torch.randn(4, 2, 3, 5) * 2, torch.randn(4, 2, 3, 5)
    (y, grads, _), (y_, grads_, _) = (trained(model, x, g) for model in (fused, plain))
    assert torch.equal(y, y_)
    close(grads, grads_)


def test_a_step_that_is_not_fused_gets_the_value():
    @rb.step(state={"v": 0.0}, fallback="reference")
    def sorted_lanes(x, v, *, tau):
        return torch.sort(x)[0] + v, (v + x / tau,)

    with pytest.warns(RuntimeWarning, match="sorted_lanes"):
        neuron = Neuron(sorted_lanes, tau=2.0)
    x = torch.randn(4, 2, 3, 5)
    norm = TdBN(3)
    assert torch.equal(Sequential(copy.deepcopy(norm), neuron)(x), neuron(norm(x)))


def test_streams_run_through():
    _, fused = pair_of(3)
    fused.eval()
    x = torch.randn(6, 2, 3, 5) * 2
    whole, last = rb.call(fused, x)
    with rb.stream(fused) as stream:
        assert torch.equal(torch.cat([stream(x[:2]), stream(x[2:])]), whole)
    assert stream.state.keys() == last.keys() == {"1#0"}


def test_names_and_weights_stay():
    plain, fused = pair_of(3)
    assert list(plain.state_dict()) == list(fused.state_dict())
    fused.load_state_dict(plain.state_dict())
    both = NormNeuron(TdBN(3), PLIF())
    assert both.emits == "binary"
    x = torch.randn(4, 2, 3, 5)
    assert torch.equal(both(x), nn.Sequential.forward(nn.Sequential(TdBN(3), PLIF()), x))


def test_fuse_reaches_every_sequence_and_packs_what_is_fed_with_spikes():
    net = nn.Sequential(
        nn.Sequential(PerStep(nn.Conv2d(2, 3, 3)), TdBN(3), LIF()),
        nn.Sequential(PerStep(nn.Conv2d(3, 4, 3)), TdBN(4), LIF()),
    )
    x = torch.randn(3, 2, 2, 8, 8) * 2
    expected = net(x)
    assert rb.fuse(net) is net
    assert {type(net), type(net[0]), type(net[1])} == {Sequential}
    assert [type(net[k][0].module) for k in (0, 1)] == [nn.Conv2d, rb.nn.Conv2d]
    assert torch.equal(net(x), expected)


def test_a_subclass_is_left_alone():
    class Mine(nn.Sequential):
        pass

    assert type(rb.fuse(Mine(TdBN(3), LIF()))) is Mine


def test_a_shortcut_of_another_shape_is_refused():
    """Sums would be broadcast."""
    block = Residual(nn.Sequential(PerStep(nn.Conv2d(2, 2, 3, 2, 1))), PerStep(nn.AvgPool2d(2)), nn.Identity(), "real")
    with pytest.raises(ValueError, match=r"puts out \(2, 1, 2, 2, 2\) but the shortcut \(2, 1, 2, 1, 1\)"):
        block(torch.randn(2, 1, 2, 3, 3))
