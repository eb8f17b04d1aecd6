"""The published counts of MS-ResNet, arXiv:2112.08954, from shapes alone."""

import pytest
import torch

from rheobase.lab.cost import spike_driven, trace
from rheobase.models import create_model
from rheobase.nn import TdBN


def counted(name, T=1):
    with torch.device("meta"):
        return trace(create_model(name), torch.empty(1, 1, 3, 224, 224).expand(T, -1, -1, -1, -1))


@pytest.mark.parametrize(
    ("depth", "macs", "stem", "units"),
    [
        (18, 1_826_918_400, 118_013_952, 2_308_096),
        (34, 3_676_606_464, 118_013_952, 3_562_496),
        (104, 12_597_497_856, 946_520_064, 7_225_344),
    ],
)
def test_published_counts(depth, macs, stem, units):
    """1.827, 3.677 and 12.597 G a step; stems of 118.0, 118.0 and 946.5 M; shortcut convolutions of 32.1 M."""
    report = counted(f"imagenet_ms_resnet{depth}")
    assert report.macs == macs
    assert sum(product.macs for product in report.products if product.stem) == stem
    shortcuts = [product for product in report.products if "shortcut" in product.name]
    assert (len(shortcuts), sum(product.macs for product in shortcuts)) == (4, 32_112_640)
    assert [product.declared for product in shortcuts] == ["real"] * 4
    assert sum(layer.units for layer in report.neurons) == units
    assert report.products[-1].readout


def test_a_static_image_is_seen_from_shapes_too():
    report = counted("imagenet_ms_resnet18", T=2)
    assert [p.name for p in report.products if p.executed < p.steps] == ["stem.0.module", "body.0.shortcut.conv.module"]
    assert report.macs == 1_826_918_400


@pytest.mark.parametrize(("block", "held"), [("ms", "real"), ("vanilla", "binary"), ("sew", "graded")])
def test_what_the_convolutions_of_a_block_read(block, held):
    """3x3 convolutions of MS blocks read {0, 1}, its shortcuts and the stem do not; SEW blocks read sums of spikes."""
    model = create_model(f"test_{block}_resnet", neuron="lif", last_gamma=3.0)
    with torch.no_grad():
        for norm in (module for module in model.modules() if isinstance(module, TdBN)):
            norm.bias.uniform_(0.5, 2.5)
            norm.weight.fill_(3.0)
    report = spike_driven(model, torch.rand(1, 4, 3, 8, 8).expand(4, -1, -1, -1, -1))
    assert report.silent == ()
    assert report.mismatches == ()
    assert not report.spike_driven
    inside = [p for p in report.products if "branch" in p.name]
    shortcuts = [p for p in report.products if "shortcut" in p.name]
    assert {p.activations[0].holds for p in shortcuts} == {held}
    assert {p.activations[0].holds for p in inside} == ({"binary"} if block != "sew" else {"binary", "graded"})
    assert [report.products[0].activations[0].holds, report.products[-1].activations[0].holds] == ["real", "real"]
    expected = {"ms": 4, "vanilla": 2}.get(block)
    assert expected is None or len(report.exceptions) == expected
