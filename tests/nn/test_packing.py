import copy

import pytest
import torch
from torch import nn

import rheobase as rb
from rheobase.neurons import LIF
from rheobase.nn import Conv1d, Conv2d, Conv3d, Linear, PerStep, pair
from rheobase.nn.residual import Conv

CONVOLUTIONS = {1: (Conv1d, nn.Conv1d), 2: (Conv2d, nn.Conv2d), 3: (Conv3d, nn.Conv3d)}
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
SETTINGS = [
    {},
    {"padding": 1},
    {"stride": 2, "padding": 1, "bias": False},
    {"groups": 2, "padding": 1},
    {"dilation": 2, "padding": 2},
    {"padding": "same"},
    {"padding": "same", "kernel_size": 4},
    {"padding": "valid"},
    {"padding": 1, "padding_mode": "circular"},
]


def spikes(*shape):
    return (torch.rand(shape) < 0.3).float()


def learn(layer, x, autocast=False):
    """Output, gradient of the input, gradients of the parameters; for an uneven cotangent."""
    layer.zero_grad()
    x = x.detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = layer(x)
    y.backward(torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape).sin())
    return [y.detach(), x.grad, *(p.grad for p in layer.parameters())]


def assert_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
        assert (a.dtype, a.stride()) == (b.dtype, b.stride())


def kept(layer, x):
    """The tensors that a layer keeps for backward, its own parameters apart."""
    seen = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t) or t, lambda t: t):
        layer(x)
    mine = {p.data_ptr() for p in layer.parameters()}
    return [t for t in seen if t.data_ptr() not in mine]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("dims", CONVOLUTIONS)
def test_gradients_of_convolutions_are_torchs_own(dims, settings):
    """Bit for bit, in every format and memory order, whether the layer is ours without packing or torch's."""
    mine, plain = CONVOLUTIONS[dims]
    settings = {"kernel_size": 3, **settings}
    layer, other = mine(4, 6, **settings, binary_input=True), plain(4, 6, **settings)
    other.load_state_dict(layer.state_dict())
    x = spikes(3, 4, *(7,) * dims)
    for memory_format in (torch.contiguous_format, CHANNELS_LAST.get(dims, torch.contiguous_format)):
        for dtype, autocast in ((torch.float32, False), (torch.float32, True), (torch.float64, False)):
            image = x.to(dtype, memory_format=memory_format)
            found = learn(layer.to(dtype), image, autocast)
            assert_equal(found, learn(other.to(dtype), image, autocast))
            with rb.packing(False):
                assert_equal(found, learn(layer, image, autocast))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(8,), (5, 8), (3, 4, 8), (2, 3, 4, 8)])
def test_gradients_of_linear_layers_are_torchs_own(shape, bias):
    layer, other = Linear(8, 6, bias, binary_input=True), nn.Linear(8, 6, bias)
    other.load_state_dict(layer.state_dict())
    for dtype, autocast in ((torch.float32, False), (torch.float32, True), (torch.float64, False)):
        x = spikes(*shape).to(dtype)
        assert_equal(learn(layer.to(dtype), x, autocast), learn(other.to(dtype), x, autocast))


def test_one_image_without_a_batch():
    layer = Conv2d(2, 3, 3, binary_input=True)
    packed = learn(layer, spikes(2, 5, 5))
    assert packed[0].shape == (3, 3, 3)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("layer", [Conv2d(64, 8, 3, binary_input=True), Linear(64, 8, binary_input=True)], ids=str)
def test_what_is_kept_are_bits(layer, autocast):
    x = spikes(8, 64, 64, 64)
    x = x.to(memory_format=torch.channels_last) if isinstance(layer, Conv2d) else x
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        tensors = kept(layer, x)
        bits = [t for t in tensors if t.dtype == torch.int64]
        assert sum(t.nbytes for t in bits) == x.numel() // 8
        assert all(t.numel() <= layer.weight.numel() for t in tensors if t.dtype != torch.int64)  # a cast of the weight
        with rb.packing(False):
            assert any(t.numel() == x.numel() for t in kept(layer, x))


def test_where_nothing_is_learned_nothing_is_packed_or_checked():
    layer, graded = Conv2d(2, 3, 3, binary_input=True), torch.full((1, 2, 5, 5), 2.0)
    with pytest.raises(ValueError, match=r"x\[0, 0, 0, 0\] is 2, and 50 of 50 values are neither 0 nor 1"):
        layer(graded)
    with torch.no_grad():
        layer(graded)
    with rb.packing(False):
        layer(graded)
    layer.eval()(graded)
    layer.train().weight.requires_grad_(False)
    layer(graded)
    Conv2d(2, 3, 3)(graded)


@pytest.mark.parametrize("layer", [Linear(4, 2, binary_input=True), Conv1d(4, 2, 1, binary_input=True)])
def test_values_are_checked_before_autocast_rounds_them(layer):
    x = torch.ones(1, 4, 4)
    x[0, 1, 2] += 1e-4
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match=r"x\[0, 1, 2\] is 1.0001"):
        layer(x)


def test_only_the_wanted_gradients_are_computed():
    layer, x = Conv2d(2, 3, 3, binary_input=True), spikes(2, 2, 5, 5)
    expected = learn(layer, x)
    x = x.clone().requires_grad_()
    y = layer(x)
    cotangent = torch.linspace(-1, 1, y.numel()).view(y.shape).sin()
    for wanted, gradient in ((x, expected[1]), (layer.weight, expected[2]), (layer.bias, expected[3])):
        (found,) = torch.autograd.grad(y, wanted, cotangent, retain_graph=True)
        assert torch.equal(found, gradient)


@pytest.mark.parametrize("layer", [Linear(3, 2, binary_input=True), Conv1d(3, 2, 1, binary_input=True)])
def test_a_second_derivative_is_refused_and_has_a_way_out(layer):
    x = spikes(2, 3, 3).requires_grad_()
    with pytest.raises(RuntimeError, match=r"run forward and backward inside rb.packing\(False\)"):
        torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with rb.packing(False):
        (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        first.sum().backward()
    assert layer.weight.grad.abs().sum() > 0


def test_the_setting_is_put_back():
    layer, graded = Linear(2, 2, binary_input=True), torch.full((1, 2), 2.0)

    def fail():
        with rb.packing(False):
            with rb.packing(True), pytest.raises(ValueError):
                layer(graded)
            layer(graded)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with pytest.raises(ValueError):
        layer(graded)


def test_a_layer_is_torchs_but_for_the_declaration():
    layer = Conv2d(2, 3, 3, 2, padding=1, bias=False, binary_input=True)
    assert isinstance(layer, nn.Conv2d)
    assert list(layer.state_dict()) == ["weight"]
    assert "binary_input=True" in repr(layer)
    assert copy.deepcopy(layer).binary_input
    assert not Linear(2, 3).binary_input


def test_a_static_image_is_packed_once():
    layer, image = Conv(64, 3, 3, "binary"), spikes(2, 64, 8, 8)
    tensors = kept(layer, image.expand(5, 2, 64, 8, 8))
    assert [t.numel() for t in tensors if t.dtype == torch.int64] == [2 * 64]


# pair: who is fed with spikes keeps bits.


def network():
    return nn.Sequential(
        PerStep(nn.Conv2d(2, 4, 3, padding=1)),
        LIF(),
        PerStep(nn.MaxPool2d(2)),
        nn.Sequential(PerStep(nn.Conv2d(4, 4, 3, padding=1)), LIF()),
        PerStep(nn.Sequential(nn.Flatten(), nn.Linear(4 * 4 * 4, 8))),
        LIF(),
        PerStep(nn.AvgPool1d(1)),
        PerStep(nn.Linear(8, 3)),
    )


def readers(net):
    return {name for name, layer in net.named_modules() if getattr(layer, "binary_input", False)}


def test_pair_finds_the_readers_of_spikes():
    net = network()
    before, parameters = list(net.state_dict()), list(net.parameters())
    pair(net)
    assert readers(net) == {"3.0.module", "4.module.1"}
    assert list(net.state_dict()) == before
    assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))
    pair(net)
    assert readers(net) == {"3.0.module", "4.module.1"}
    fed = network()
    pair(fed, "binary")
    assert readers(fed) == {"0.module", *readers(net)}


def test_paired_layers_learn_as_before():
    net, x = network(), spikes(3, 2, 2, 8, 8) * 2
    expected = learn(net, x)
    pair(net)
    assert_equal(learn(net, x), expected)
    assert any(t.dtype == torch.int64 for t in kept(net, x))


def test_pair_leaves_strangers_alone():
    class Mine(nn.Linear):
        pass

    net = nn.Sequential(LIF(), Mine(2, 2), LIF(), nn.Dropout(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    pair(net)
    assert readers(net) == set()
    assert type(net[1]) is Mine


def test_hooks_survive_pairing():
    net, seen = nn.Sequential(LIF(), PerStep(nn.Linear(4, 2))), []
    net[1].module.register_forward_hook(lambda *_: seen.append(1))
    pair(net)
    net(torch.randn(2, 1, 4))
    assert seen == [1]


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(Conv(2, 64, 3, "real"), LIF(), Conv(64, 2, 3, "binary"), LIF())
        self.head = PerStep(Linear(2 * 36, 3, binary_input=True))

    def forward(self, x):
        return self.head(self.net(x).flatten(2))


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore")
def test_compiled_equals_eager_and_keeps_bits():
    torch.compiler.reset()
    model, x = Both(), torch.randn(3, 2, 2, 6, 6) * 3
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected = learn(model, x)
    assert_equal([t.contiguous() for t in learn(compiled, x)], [t.contiguous() for t in expected])
    dense = [t for t in kept(compiled, x) if t.is_floating_point() and torch.isin(t, torch.tensor([0.0, 1.0])).all()]
    assert [t for t in dense if t.dim() > 1] == []
    assert sum(t.dtype == torch.int64 for t in kept(compiled, x)) == 2
    with rb.packing(False):
        assert_equal([t.contiguous() for t in learn(compiled, x)], [t.contiguous() for t in expected])
        assert sum(t.dtype == torch.int64 for t in kept(compiled, x)) == 0


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore")
def test_an_exported_program_is_plain_torch():
    model, x = Both(), torch.randn(3, 2, 2, 6, 6) * 3
    exported = torch.export.export(model, (x,))
    assert torch.equal(exported.module()(x), model(x))
    assert not [node for node in exported.graph.nodes if "pack" in str(node.target)]
