"""Bits law: what is written as bits and multiplied as bits is what numbers would have given.

Every neuron whose spikes can be written as bits, and every model with all its products on bits, however small.
"""

import itertools

import pytest
import torch

import rheobase as rb
from rheobase.models import MODELS, create_model, list_models
from rheobase.neurons import NEURONS
from rheobase.nn import products
from rheobase.scan.norm import Normed
from rheobase.scan.spikes import AsBits, Spikes

SMALL, LARGE = (5, 2, 64), (9, 3, 64, 5, 7)
CASES = [
    *((name, SMALL, torch.float32) for name, entry in NEURONS.items() if entry.any_T),
    *(("plif", LARGE, dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64)),
]
"""Large: more steps than are written out at once, and lanes that fill no tile."""


@pytest.mark.parametrize(("name", "shape", "dtype"), CASES, ids=str)
def test_spikes_as_bits_are_the_spikes(name, shape, dtype, laws):
    """Spikes, their place in memory, final state, all gradients: equal bits."""
    neuron = laws.make(name)
    if type(neuron).sequence is not rb.neurons.Neuron.sequence or neuron.emits != "binary":
        pytest.skip("puts out no spikes, or not by one step after the other")
    first = laws.signal(name, *shape).to(dtype)
    others = [torch.rand(shape).to(dtype) for _ in neuron.scan.step.inputs[1:]]
    assert neuron.scan.can_pack(first)
    found = []
    for wanted in (False, True):
        inputs = [x.clone().requires_grad_() for x in (first, *others)]
        x = tuple(inputs) if others else inputs[0]
        s, state = neuron.sequence(AsBits(x) if wanted else x, None)
        assert isinstance(s, Spikes) is wanted
        y = s.value() if wanted else s
        cotangent = torch.linspace(-1, 1, y.numel()).sin().view(y.shape)
        learned = [p for p in neuron.parameters() if p.requires_grad]
        upstream = (cotangent.to(dtype), *map(torch.ones_like, state))
        grads = torch.autograd.grad((y, *state), [*inputs, *learned], upstream, allow_unused=True)
        found.append((y.detach(), y.stride(), state, grads, s.density if wanted else float(y.detach().double().mean())))
    (y, stride, state, grads, density), (y_, stride_, state_, grads_, density_) = found
    assert torch.equal(y, y_)
    assert stride == stride_
    assert all(map(torch.equal, state, state_))
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(grads, grads_, strict=True))
    assert density == pytest.approx(density_)


@pytest.fixture
def on_bits(monkeypatch):
    """Every product that can reads bits, by the way that the fixture's call names; it gives how often that happened."""
    pytest.importorskip("rheobase_kernels", reason="rheobase-kernels-cpu is not installed")
    count = itertools.count()

    def use(how):
        monkeypatch.setattr(products, "_WORTH_NS", -1)
        monkeypatch.setattr(products.Product, "choose", lambda *_: (next(count), how)[1])
        products._product.cache_clear()
        return count

    yield use
    monkeypatch.undo()
    products._product.cache_clear()


def step(name, x, dtype=None):
    """Output and gradients of a training step, from weights that are always the same."""
    torch.manual_seed(1)
    model = rb.fuse(create_model(name, **({} if MODELS[name].any_T else {"T": len(x)})))
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        y = model(x)
    y.float().square().mean().backward()
    with torch.no_grad():
        again = model(x)
    return y.detach(), [p.grad for p in model.parameters()], again


@pytest.mark.parametrize("how", ["events", "table"])
@pytest.mark.parametrize("name", [name for name in list_models("test_*") if MODELS[name].equivariance == "batch"])
def test_products_of_bits_are_the_products(name, how, on_bits):
    x = torch.randn(4, 3, *MODELS[name].example()) * 2
    y, grads, again = step(name, x)
    used = on_bits(how)
    y_, grads_, again_ = step(name, x)
    if next(used) == 0:
        pytest.skip("no layer reads spikes in a map whose channels lie side by side")
    torch.testing.assert_close(y_, y, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(again_, again, rtol=1e-4, atol=1e-5)
    largest = max(float(g.norm()) for g in grads)  # the gradient of a bias before a norm is nothing but rounding
    for a, b in zip(grads_, grads, strict=True):
        assert float((a - b).norm()) <= 1e-4 * float(b.norm()) + 1e-6 * largest


def test_a_normalisation_goes_into_bits_too():
    norm, neuron = rb.nn.TdBN(64), rb.neurons.LIF()
    x = torch.randn(8, 64, 3, 3)
    x = x.contiguous(memory_format=torch.channels_last).unflatten(0, (4, 2))
    waiting = norm.waiting(x)
    assert isinstance(waiting, Normed)
    bits, _ = neuron.sequence(AsBits(waiting), None)
    plain, _ = neuron.sequence(waiting, None)
    assert torch.equal(bits.value(), plain)
