"""The published counts of Spikingformer, arXiv:2304.11954, from shapes alone."""

from dataclasses import replace

import pytest
import torch

from rheobase.lab.cost import energy, spike_driven, trace
from rheobase.models import create_model

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


def test_every_product_but_the_first_and_the_last_adds():
    model = create_model("cifar_spikingformer_2_384", classes=10)
    report = spike_driven(model.eval(), torch.rand(1, 1, 3, 32, 32).expand(2, -1, -1, -1, -1))
    assert set(report.exceptions) <= {report.products[0].name, report.products[-1].name}
    assert report.products[0].name in report.exceptions
    assert report.mismatches == ()
