import math

import pytest
import torch

from rheobase.neurons import IterativeLIF
from rheobase.nn import gradient_norms
from rheobase.recipes.gradients import CASES, depth_gradients, stack

pytestmark = pytest.mark.usefixtures("one_thread")


def ratio(block, count, last_gamma):
    """|dL/dx_first| / |dL/dx_last| over block inputs, and the largest activation."""
    torch.manual_seed(0)
    x = torch.randn(4, 8, 16, 8, 8) * 0.5
    norms, y = gradient_norms(list(stack(block, count, last_gamma)), x if block == "ms" else IterativeLIF()(x))
    return (norms[0] / norms[-1]).item(), y.abs().max().item()


def test_gradient_is_as_large_below_240_ms_blocks_as_above():
    assert ratio("ms", 240, 0.0)[0] == pytest.approx(1, abs=1e-5)
    assert 1 < ratio("ms", 240, 0.1)[0] < 10


def test_gradient_vanishes_in_vanilla_blocks():
    assert ratio("vanilla", 120, 0.5)[0] < 0.1
    assert ratio("vanilla", 120, 0.5 / math.sqrt(2))[0] < 1e-4


def test_sew_sums_grow_with_depth():
    grown, largest = ratio("sew", 27, 0.5)
    assert 1 < grown < 20
    assert 3 < ratio("sew", 4, 0.5)[1] < largest
    assert largest == int(largest)


def test_the_study_yields_every_case(monkeypatch):
    """Its first sizes alone, within a fifth of what they are compared with."""
    first = {case: {4: sizes[4]} for case, sizes in CASES.items()}
    monkeypatch.setattr("rheobase.recipes.gradients.CASES", first)
    found = list(depth_gradients(0))
    ratios = [each for each in found if each.metric == "gradient ratio"]
    assert [each.subject.split(",")[0] for each in ratios] == [block for block, _ in CASES]
    assert all(each.value == pytest.approx(float(each.published), rel=0.2) for each in ratios)
    assert len(found) == len(ratios) + 1
