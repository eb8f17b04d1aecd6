"""Pruned layers pass over their zeros: by the library's kernels, and by loops where it is not installed."""

import importlib.util

import pytest
import torch
from torch import nn

import rheobase as rb
from rheobase.neurons import LIF
from rheobase.nn import Conv2d, Linear, PerStep, products

SETTINGS = [
    {"padding": 1},
    {"padding": 1, "stride": 2, "bias": False},
    {"padding": 2, "dilation": 2},
    {"groups": 2, "padding": 1},
    {"padding": "same", "kernel_size": (3, 5)},
    {"padding": (0, 1), "kernel_size": (1, 3), "stride": (2, 1)},
    {"padding": (2, 1), "kernel_size": (4, 2), "stride": (3, 2), "dilation": (1, 2), "groups": 4},
    {"padding": 1, "padding_mode": "circular"},
]


@pytest.fixture(params=[True, False], ids=["library", "loops"])
def library(request, monkeypatch, one_thread):
    """Whether the kernels are there; products of any size may be read as bits, and those by CSR are always taken."""
    if request.param and importlib.util.find_spec("rheobase_kernels") is None:
        pytest.skip("rheobase-kernels-cpu is not installed")
    if not request.param:
        monkeypatch.setattr(products, "kernels", lambda: None)
    monkeypatch.setattr(products, "_WORTH_NS", -1)
    forget()
    yield request.param
    monkeypatch.undo()
    forget()


def forget():
    products._product.cache_clear()


@pytest.fixture
def used(library, monkeypatch):
    """Lists what products by CSR are given: "bits" or "x"."""
    seen = []
    for kind in (products.Product, products.Loops):
        sparse = kind.sparse

        def see(*arguments, sparse=sparse, **options):
            seen.append(next(name for name in ("bits", "x") if name in options))
            return sparse(*arguments, **options)

        monkeypatch.setattr(kind, "sparse", see)
        monkeypatch.setattr(kind, "is_sparse_faster", lambda *_: True)
    choose = lambda _, kind, density, csr=None: "csr" if csr else "events"  # noqa: E731
    monkeypatch.setattr(products.Product, "choose", choose)
    return seen


def pruned(layer, share=0.9):
    """The layer with so many of its weights set to zero, whole rows among them."""
    with torch.no_grad():
        layer.weight.mul_(torch.rand_like(layer.weight) >= share)
        layer.weight[0] = 0.0
    return layer


def spikes(*shape):
    x = (torch.rand(shape) < 0.2).float()
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("size", [(3, 24, 9, 8), (70, 24, 4, 4)], ids=str)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_weights_in_csr_give_the_same(settings, size, binary, library, used):
    layer = pruned(Conv2d(24, 40, **{"kernel_size": 3, **settings}, binary_input=binary))
    model, x = nn.Sequential(layer), spikes(*size) * (1.0 if binary else 0.7)
    thin = rb.nn.sparsify(model)
    with torch.no_grad():
        y = thin(x)
        assert used == (["bits" if binary and library else "x"] if layer.padding_mode == "zeros" else used)
        with rb.packing(False):
            expected = model(x)
    assert y.shape == expected.shape
    assert y.stride() == expected.stride()
    assert float((y - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    assert model.state_dict().keys() == thin.state_dict().keys()
    assert layer.csr is None


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_share_the_tiles(threads, used, monkeypatch):
    layer = pruned(Conv2d(24, 16, 3, padding=1))
    thin, x = rb.nn.sparsify(nn.Sequential(layer)), torch.randn(200, 24, 6, 6).to(memory_format=torch.channels_last)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    with torch.no_grad():
        torch.testing.assert_close(thin(x), nn.functional.conv2d(x, layer.weight, layer.bias, padding=1))
    assert used == ["x"]


def test_pruned_linear_layers_are_thin_too(library, used):
    model = nn.Sequential(PerStep(nn.Linear(70, 50)), LIF(), PerStep(Linear(50, 30, binary_input=True)))
    for layer in (model[0].module, model[2].module):
        pruned(layer)
    thin, x = rb.nn.sparsify(model), torch.randn(4, 5, 70)
    with torch.no_grad():
        torch.testing.assert_close(thin(x), model(x))
        assert used == ["x", "bits" if library else "x"]
        for rows in (x[0], x[0, 0], torch.randn(300, 70)):
            torch.testing.assert_close(thin[0].module(rows), model[0].module(rows))
    assert all(thin[k].module.csr is not None for k in (0, 2))
    assert all(thin[k].module.csr.value.numel() == model[k].module.weight.count_nonzero() for k in (0, 2))


def test_a_changed_weight_is_multiplied_as_it_is(used):
    layer, x = pruned(Conv2d(24, 8, 1, binary_input=True)), spikes(2, 24, 4, 4)
    thin = rb.nn.sparsify(nn.Sequential(layer))
    with torch.no_grad():
        before = thin(x)
        assert used
        thin[0].weight.fill_(1.0)
        torch.testing.assert_close(thin(x), nn.functional.conv2d(x, thin[0].weight, layer.bias))
        assert len(used) == 1
    assert not torch.equal(before, thin(x))
    thin(x).sum().backward()  # with gradients too
    assert thin[0].weight.grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_other_orders_and_formats_are_multiplied_densely(dtype, used):
    order = torch.contiguous_format if dtype == torch.float32 else torch.channels_last
    layer, x = pruned(Conv2d(24, 8, 3)).to(dtype), torch.randn(2, 24, 5, 5, dtype=dtype).to(memory_format=order)
    thin = rb.nn.sparsify(nn.Sequential(layer))
    with torch.no_grad():
        assert torch.equal(thin(x), layer(x))
    assert not used


def test_few_zeros_stay_where_they_are():
    layer = pruned(Linear(40, 40), 0.3)
    assert rb.nn.sparsify(nn.Sequential(layer))[0].csr is None
    assert rb.nn.sparsify(nn.Sequential(layer), 0.2)[0].csr is not None
    with pytest.raises(ValueError, match="from 0 to 1"):
        rb.nn.sparsify(layer, 2.0)


def test_the_loops_are_taken_where_they_pay(monkeypatch):
    monkeypatch.setattr(products, "kernels", lambda: None)
    forget()
    settings, size, stride = products.Settings(padding=(1, 1)), (64, 64, 32, 32), (65536, 1, 2048, 64)

    def pays(share):
        weight = torch.rand(64, 64, 3, 3) * (torch.rand(64, 64, 3, 3) >= share)
        found = products.find_loops(size, stride, torch.float32, weight, settings)
        return found.is_sparse_faster(products.Csr.of(weight))

    try:
        assert [pays(share) for share in (0.0, 0.5, 0.7, 0.9, 0.98)] == [False, False, False, True, True]
        small = torch.empty(8, 8, 3, 3)
        assert products.find_loops((1, 8, 4, 4), (128, 1, 32, 8), torch.float32, small, settings) is None
        weight = torch.empty(64, 64, 3, 3)
        assert products.find_loops(size, (65536, 1024, 32, 1), torch.float32, weight, settings) is None
        assert products.find_loops(size, stride, torch.bfloat16, weight, settings) is None
        if importlib.util.find_spec("rheobase_kernels") is not None:
            monkeypatch.undo()
            forget()
            assert products.find_loops(size, stride, torch.float32, weight, settings) is None
    finally:
        forget()
