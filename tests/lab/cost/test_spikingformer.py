"""The published counts of Spikingformer, arXiv:2304.11954, from shapes alone."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from rheobase.lab.cost import energy, spike_driven, trace
from rheobase.models import create_model
from rheobase.neurons import LIF
from rheobase.nn import TdBN

T = 4


def counted(name):
    with torch.device("meta"):
        return trace(create_model(name), torch.empty(1, 1, 3, 224, 224).expand(T, -1, -1, -1, -1))


def forced(report, rate):
    """The report as if every layer but the first and the last read spikes of this density."""

    def known(product, holds, density):
        operands = (o if o.weight else replace(o, holds=holds, density=density) for o in product.operands)
        return replace(product, operands=tuple(operands))

    first, *inner, last = report.products
    products = known(first, "real", 1.0), *(known(p, "binary", rate) for p in inner), known(last, "real", 1.0)
    return replace(report, products=products)


@pytest.mark.parametrize(("width", "macs", "stem"), [(512, 347_329_512, 86_704_128), (768, 520_993_768, 130_056_192)])
def test_published_multiplications(width, macs, stem):
    """0.347329512 and 0.520993768 G: the first convolution T times, the last layer once with its bias."""
    report = forced(counted(f"imagenet_spikingformer_8_{width}"), 0.125)
    assert [product.macs for product in report.products if product.stem] == [stem]
    found = energy(report, "spikingformer-tool")
    assert found.macs == macs
    assert macs - stem * (T - 1) == stem + 1000 * (width + 1)
    attention = [
        layer for layer, product in zip(found.layers, report.products, strict=True) if product.kind == "matmul"
    ]
    d = min(next(product for product in report.products if product.kind == "matmul").operands[0].shape)
    assert sum(layer.acs for layer in attention) == 8 * T * 196 * width * d * 2 * 0.125


def awake():
    """A small Spikingformer whose norms let every layer fire."""
    torch.manual_seed(0)
    model = create_model("test_spikingformer").eval()
    with torch.no_grad():
        for norm in (module for module in model.modules() if isinstance(module, TdBN)):
            norm.bias.uniform_(0.2, 1.0)
    return model


IMAGES = torch.rand(1, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).expand(4, -1, -1, -1, -1)


def test_every_product_but_the_first_and_the_last_adds():
    report = spike_driven(awake(), IMAGES)
    assert report.silent == ()
    assert report.mismatches == ()
    assert report.exceptions == (report.products[0].name, report.products[-1].name)


@pytest.mark.parametrize("removed", ["tokenizer.2", "body.0.mlp.branch.neuron", "body.1.attention.branch.neuron"])
def test_a_neuron_that_is_missing_is_found(removed):
    model = awake()
    parent, _, child = removed.rpartition(".")
    assert isinstance(model.get_submodule(removed), LIF)
    setattr(model.get_submodule(parent), child, nn.Identity())
    report = spike_driven(model, IMAGES)
    assert len(report.exceptions) > 2
    assert report.mismatches
