"""Plain torch networks: numbers of weights worked out by hand from the tables, forward and backward."""

import pytest
import torch
from torch import nn

from rheobase.models import mobilenet_v1, resnet50

STAGES = {
    # 1x1 in, 3x3, 1x1 out, shortcut of the first block; then the blocks after it
    64: (64 * 64 + 9 * 64 * 64 + 64 * 256 + 64 * 256) + 2 * (256 * 64 + 9 * 64 * 64 + 64 * 256),
    128: (256 * 128 + 9 * 128 * 128 + 128 * 512 + 256 * 512) + 3 * (512 * 128 + 9 * 128 * 128 + 128 * 512),
    256: (512 * 256 + 9 * 256 * 256 + 256 * 1024 + 512 * 1024) + 5 * (1024 * 256 + 9 * 256 * 256 + 256 * 1024),
    512: (1024 * 512 + 9 * 512 * 512 + 512 * 2048 + 1024 * 2048) + 2 * (2048 * 512 + 9 * 512 * 512 + 512 * 2048),
}


@pytest.fixture(autouse=True)
def _brief(one_thread):
    pass


def counts(model):
    """Weights of convolutions, parameters of norms, and those of all else."""
    kinds = [(nn.Conv2d, 0), (nn.BatchNorm2d, 0)]
    found = [
        sum(p.numel() for m in model.modules() if isinstance(m, kind) for p in m.parameters()) for kind, _ in kinds
    ]
    return *found, sum(p.numel() for p in model.parameters()) - sum(found)


def test_resnet50_has_its_weights():
    assert STAGES == {64: 212_992, 128: 1_212_416, 256: 7_077_888, 512: 14_942_208}
    weights = 3 * 64 * 49 + sum(STAGES.values()) + 2048 * 1000
    assert weights == 25_502_912
    norms = 64 + 3 * 64 * 6 + 256 + 4 * 128 * 6 + 512 + 6 * 256 * 6 + 1024 + 3 * 512 * 6 + 2048
    model = resnet50()
    assert counts(model) == (weights, 2 * norms, 0) == (25_502_912, 53_120, 0)
    assert len([m for m in model.modules() if isinstance(m, nn.Conv2d)]) == 54
    assert counts(resnet50(10))[0] == weights - 2048 * 990


def test_mobilenet_has_its_weights():
    reads = [32, 64, 128, 128, 256, 256, *[512] * 5, 512, 1024]
    makes = [64, 128, 128, 256, 256, 512, *[512] * 5, 1024, 1024]
    one = sum(a * b for a, b in zip(reads, makes, strict=True))
    weights = 3 * 32 * 9 + 9 * sum(reads) + one + 1024 * 1000
    assert weights == 864 + 44_640 + 3_139_584 + 1_024_000 == 4_209_088
    assert counts(mobilenet_v1()) == (weights, 2 * (32 + sum(reads) + sum(makes)), 0) == (4_209_088, 21_888, 0)


@pytest.mark.parametrize("make", [resnet50, mobilenet_v1])
def test_they_run_forward_and_backward(make):
    model, x = make(10), torch.randn(2, 3, 32, 32)
    y = model(x)
    assert y.shape == (2, 10)
    y.logsumexp(1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.eval()(x).isfinite().all()


def test_the_map_shrinks_as_on_images():
    sizes = {}
    for make in (resnet50, mobilenet_v1):
        model = make(3).eval()
        model.head.pool.register_forward_hook(
            lambda _, given, __, name=make.__name__: sizes.update({name: given[0].shape})
        )
        with torch.no_grad():
            model(torch.randn(1, 3, 64, 64))
    assert sizes == {"resnet50": (1, 2048, 2, 2), "mobilenet_v1": (1, 1024, 2, 2)}
