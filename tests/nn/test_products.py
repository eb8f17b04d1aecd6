"""Products of bits: equal to torch's up to rounding, whatever way is taken; bits handed from neuron to layer."""

import copy
import warnings

import pytest
import torch
from torch import nn

import rheobase as rb
from rheobase.neurons import LIF, Atan, Rectangle, Triangle
from rheobase.nn import Blocks, Conv2d, Linear, NormNeuron, PerStep, Sequential, TdBN, packing, products
from rheobase.nn.packing import ReadsSpikes
from rheobase.scan import op

rk = pytest.importorskip("rheobase_kernels", reason="rheobase-kernels-cpu is not installed")

SETTINGS = [
    {"padding": 1},
    {"padding": 1, "stride": 2, "bias": False},
    {"padding": 2, "dilation": 2},
    {"groups": 2, "padding": 1},
    {"padding": "same", "kernel_size": (3, 5)},
    {"padding": (0, 1), "kernel_size": (1, 3), "stride": (2, 1)},
]


@pytest.fixture
def ways(monkeypatch):
    """Sets by which way products are carried out, and lists what was: (product, way)."""
    seen = []

    def use(way):
        def choose(product, kind, density, csr=None):
            how = "events" if kind == "input_gradient" else way
            seen.append((kind, how, round(density, 3)))
            return how

        monkeypatch.setattr(products, "_WORTH_NS", -1)
        monkeypatch.setattr(products.Product, "choose", choose)
        products._product.cache_clear()
        return seen

    yield use
    monkeypatch.undo()
    products._product.cache_clear()


def spikes(*shape, density=0.2):
    x = (torch.rand(shape) < density).float()
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def learn(layer, x, autocast=False):
    """Output, gradient of the input, gradients of the parameters."""
    layer.zero_grad()
    x = x.detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = layer(x)
    y.backward(torch.linspace(-1, 1, y.numel()).sin().view(y.shape).to(y.dtype))
    return [y.detach(), x.grad, *(p.grad for p in layer.parameters())]


def close(found, expected, tolerance):
    for a, b in zip(found, expected, strict=True):
        assert (a.dtype, a.shape, a.stride()) == (b.dtype, b.shape, b.stride())
        assert float((a - b).abs().max()) <= tolerance * float(b.abs().max())


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("how", ["events", "table"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_convolutions_equal_torchs(settings, how, autocast, ways):
    layer, x = Conv2d(24, 40, **{"kernel_size": 3, **settings}, binary_input=True), spikes(3, 24, 9, 8)
    with rb.packing(False):
        expected = learn(layer, x, autocast)
    seen = ways(how)
    found = learn(layer, x, autocast)
    close(found, expected, 1e-2 if autocast else 1e-5)
    assert {(kind, way) for kind, way, _ in seen} == {("forward", how), ("weight_gradient", how)}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert torch.equal(layer(x), found[0]) or autocast  # in inference weights are not rounded
        close([layer(x)], expected[:1], 1e-2 if autocast else 1e-5)


@pytest.mark.parametrize("how", ["events", "table"])
@pytest.mark.parametrize("shape", [(5, 70), (2, 3, 70), (4, 7, 16)], ids=str)
def test_linear_layers_equal_torchs(shape, how, ways):
    layer, x = Linear(shape[-1], 33, binary_input=True), spikes(*shape)
    with rb.packing(False):
        expected = learn(layer, x)
    seen = ways(how)
    close(learn(layer, x), expected, 1e-5)
    assert seen


def test_the_density_is_counted(ways):
    layer, x = Conv2d(64, 8, 1, binary_input=True), torch.zeros(1, 64, 4, 4).to(memory_format=torch.channels_last)
    x[0, :, 1, 2] = 1.0
    seen = ways("events")
    learn(layer, x)
    assert {density for _, _, density in seen} == {round(1 / 16, 3)}


def test_in_inference_other_values_are_multiplied_as_they_are(ways):
    layer, x = Conv2d(24, 8, 3, binary_input=True).eval(), spikes(2, 24, 5, 5) * 2
    seen = ways("events")
    with torch.no_grad():
        assert torch.equal(layer(x), nn.functional.conv2d(x, layer.weight, layer.bias))
    assert not seen
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        layer.train()(x)


@pytest.mark.parametrize("layer", [Conv2d(3, 5, 3, padding=1, binary_input=True), Linear(12, 5, binary_input=True)])
def test_a_layer_that_does_not_learn_reads_bits_though_its_input_has_a_gradient(layer, ways):
    seen = ways("events")
    layer.requires_grad_(False)
    x = spikes(4, 3, 6, 6) if isinstance(layer, Conv2d) else spikes(40, 12)
    for values, read in ((x, True), (x + 0.5, False)):
        seen.clear()
        for_bits = learn(layer, values)
        assert any(kind == "forward" for kind, *_ in seen) == read
        with packing.packing(False):
            for got, expected in zip(for_bits[:2], learn(layer, values)[:2], strict=True):
                torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("x", [spikes(2, 24, 5, 5).contiguous(), spikes(2, 24, 5, 5).double()], ids=["order", "fp64"])
def test_what_the_kernels_cannot_read_is_multiplied_densely(x, ways):
    layer = Conv2d(24, 8, 3, binary_input=True).to(x.dtype)
    seen = ways("events")
    learn(layer, x)
    assert not seen


def test_small_products_are_not_looked_at():
    weight = torch.empty(8, 8, 3, 3)
    assert products.find((1, 8, 4, 4), (128, 1, 32, 8), torch.float32, weight, products.Settings()) is None
    weight, size = torch.empty(64, 64, 3, 3), (64, 64, 32, 32)
    stride = (65536, 1, 2048, 64)
    found = products.find(size, stride, torch.float32, weight, products.Settings(padding=(1, 1)))
    assert found.choose("forward", 0.1) == "events"
    assert found.choose("forward", 1.0) != "events"
    assert products.find(size, (65536, 1024, 32, 1), torch.float32, weight, products.Settings()) is None


def test_without_the_kernels_it_is_said_once(monkeypatch):
    def load():
        raise FileNotFoundError("nothing is compiled")

    monkeypatch.setattr(rk, "load", load)
    products.kernels.cache_clear()
    products._product.cache_clear()
    layer, x = Conv2d(64, 64, 3, padding=1, binary_input=True), spikes(16, 64, 16, 16)
    try:
        with pytest.warns(RuntimeWarning, match="multiply densely on this CPU: nothing is compiled; install"):
            found = learn(layer, x)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with rb.packing(False):
                expected = learn(layer, x)
            assert all(map(torch.equal, learn(layer, x), expected))
    finally:
        products.kernels.cache_clear()
        products._product.cache_clear()
    assert all(map(torch.equal, found, expected))


@pytest.fixture
def handed(monkeypatch):
    """Collects the spikes that neurons hand over as bits."""
    found, made = [], op.Scan.spikes

    def spikes(*args, **kwargs):
        result = made(*args, **kwargs)
        found.append(result[0])
        return result

    monkeypatch.setattr(op.Scan, "spikes", spikes)
    return found


def network(container=nn.Sequential, surrogate=None, middle=()):
    """Three layers of 64 channels in blocks, the spikes of the first two read by convolutions."""
    torch.manual_seed(0)

    def block(c_in):
        layers = [PerStep(nn.Conv2d(c_in, 64, 3, padding=1)), TdBN(64), LIF(surrogate=surrogate or Atan())]
        return nn.Sequential(*layers)

    return rb.fuse(container(block(3), *middle, block(64), block(64)))


def train_once(model, x):
    model.zero_grad()
    y = model(x)
    y.backward(torch.linspace(-1, 1, y.numel()).sin().view(y.shape))
    return y.detach(), [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("surrogate", [Atan(), Rectangle(), Triangle(0.3)], ids=str)
@pytest.mark.parametrize("container", [nn.Sequential, Blocks])
def test_blocks_hand_bits_to_each_other(container, surrogate, ways, handed):
    model, x = network(container, surrogate), torch.randn(3, 2, 3, 8, 8)
    with rb.packing(False):
        y, grads = train_once(model, x)
    assert not handed
    seen = ways("events")
    y_, grads_ = train_once(model, x)
    assert len(handed) == 2
    assert all(s.carrier.isnan().all() for s in handed)
    assert torch.equal(y, y_)
    largest = max(float(g.norm()) for g in grads)
    for a, b in zip(grads_, grads, strict=True):
        assert float((a - b).norm()) <= 1e-5 * float(b.norm()) + 1e-6 * largest
    inputs = [density for kind, _, density in seen if kind == "input_gradient"]
    assert len(inputs) == (0 if surrogate == Atan() else 2)
    assert all(0 < density < 1 for density in inputs)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), copy.deepcopy(model)(x))
    assert all(s.needed is None for s in handed[-2:])


def test_only_bits_are_kept_between_neuron_and_layer(ways):
    model, x, kept = network(), torch.randn(4, 8, 3, 16, 16), []
    ways("events")
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        model(x)
    mine = {p.data_ptr() for p in model.parameters()}
    dense = [t for t in kept if t.numel() == 4 * 8 * 64 * 16 * 16 and t.data_ptr() not in mine]
    assert len({t.data_ptr() for t in dense}) == 3  # what the three convolutions put out


@pytest.mark.parametrize(
    ("middle", "count"),
    [
        ((), 2),
        ((PerStep(nn.MaxPool2d(2)),), 1),
        ((PerStep(nn.Sequential(Conv2d(64, 64, 1, binary_input=True), nn.ReLU())),), 2),
    ],
    ids=["nothing", "pooling", "a sequence"],
)
def test_who_reads_no_bits_gets_numbers(middle, count, ways, handed):
    model, x = network(middle=middle), torch.randn(3, 2, 3, 8, 8)
    with rb.packing(False):
        y, _ = train_once(model, x)
    ways("events")
    y_, _ = train_once(model, x)
    assert torch.equal(y, y_)
    assert len(handed) == count


@pytest.mark.parametrize("watch", ["neuron", "reader", "norm and neuron"])
def test_who_is_watched_gets_numbers(watch, ways, handed):
    layers = [NormNeuron(TdBN(64), LIF()), PerStep(Conv2d(64, 8, 3, binary_input=True))]
    model, x, seen = Sequential(*layers), torch.randn(6, 64, 8, 8), []
    x = x.contiguous(memory_format=torch.channels_last).unflatten(0, (3, 2))
    watched = {"neuron": layers[0].neuron, "reader": layers[1].module, "norm and neuron": layers[0]}[watch]
    ways("events")
    model(x)
    assert len(handed) == 1
    handle = watched.register_forward_hook(lambda *what: seen.append(what))
    model(x)
    assert len(handed) == 1
    assert isinstance(seen[0][2], torch.Tensor)
    handle.remove()
    with rb.engine("reference"):
        model(x)
    with rb.packing(False):
        model(x)
    assert len(handed) == 1


def test_spikes_that_nobody_reads_as_bits_are_numbers_again(ways, handed, monkeypatch):
    model, x = network(), torch.randn(3, 2, 3, 8, 8)
    ways("events")
    expected, _ = train_once(model, x)
    monkeypatch.setattr(ReadsSpikes, "product", lambda *_: None)
    y, _ = train_once(model, x)
    assert torch.equal(y, expected)


def test_state_goes_on_in_a_stream(ways, handed):
    model, x = network().eval(), torch.randn(4, 2, 3, 8, 8)
    ways("events")
    with torch.no_grad():
        whole = model(x)
        with rb.stream(model) as run:
            halves = torch.cat([run(x[:1]), run(x[1:])])
    assert torch.equal(whole, halves)
    assert handed


def test_two_hundred_steps_of_training_follow_the_dense_ones(ways):
    """Losses on the same samples: equal but for what rounding makes of them."""
    x, labels = torch.randn(2, 8, 3, 4, 4), torch.arange(8)

    def curve():
        model, losses = network(), []
        optimiser = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(200):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(4 * model(x).mean((0, 3, 4)), labels)
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        return torch.tensor(losses)

    dense = curve()
    seen = ways("events")
    bits = curve()
    assert seen
    assert dense[-1] < 0.5 * dense[0]
    torch.testing.assert_close(bits, dense, rtol=0.01, atol=1e-5)


@pytest.mark.parametrize("layer", [Conv2d(64, 24, 3, binary_input=True), Linear(64, 24, binary_input=True)], ids=str)
def test_kept_weights_notice_every_change(layer, ways, monkeypatch):
    x = spikes(2, 64, 5, 5) if isinstance(layer, Conv2d) else spikes(9, 64)
    laid, lay = [], products.Product._laid
    monkeypatch.setattr(products.Product, "_laid", lambda *a: laid.append(1) or lay(*a))
    ways("events")

    def check(times):
        with torch.no_grad():
            found = layer(x)
            with rb.packing(False):
                torch.testing.assert_close(found, layer(x), rtol=1e-5, atol=1e-5)
        assert len(laid) == times

    check(1)
    check(1)
    layer.weight.data[3, 5] *= 0.0  # which no version counts
    check(2)
    layer.weight.data = layer.weight.data.flip(0)
    check(3)
    layer.load_state_dict({name: value + 1 for name, value in layer.state_dict().items()})
    check(4)
    check(4)
    layer(x).sum().backward()
    assert layer not in packing._kept
    laid.clear()
    check(1)
    copied = copy.deepcopy(layer)
    assert copied not in packing._kept
