import pytest
import torch
from torch import nn

from rheobase.lab.attack import Share, distances, silent_samples, traps
from rheobase.models import create_model
from rheobase.neurons import IterativeLIF, Rectangle, Sigmoid
from rheobase.nn import PerStep


def trapped():
    """A hidden layer of three neurons that drives the last one far beyond its window."""
    model = nn.Sequential(
        PerStep(nn.Linear(3, 3, bias=False)),
        IterativeLIF(0.25, 0.3, Rectangle()),
        PerStep(nn.Linear(3, 2, bias=False)),
        IterativeLIF(0.25, 0.3, Rectangle()),
    )
    with torch.no_grad():
        model[0].module.weight.copy_(0.7 * torch.eye(3))
        model[2].module.weight.copy_(torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]]))
    return model


def test_membranes_far_from_the_window_leave_no_gradient_and_a_higher_threshold_brings_it_back():
    x, y = torch.ones(4, 2, 3), torch.tensor([0, 1])
    assert silent_samples(trapped(), x, y).all()
    own, high = traps(trapped(), x, y, [None, 2.0])
    assert own.silent == Share(2, 2)
    assert high.silent == Share(0, 2)
    assert own.open == 0
    assert (own.below, own.above) == (0.5, 0.5)
    assert high.open > 0
    assert sum(own.counts) == 4 * 2 * 2
    (smooth,) = traps(trapped(), x, y, [None], surrogate=Sigmoid(0.5))
    assert smooth.silent == Share(0, 2)
    assert smooth.open == 1


def test_distances_are_those_of_the_membrane():
    model = trapped()
    found, is_open = distances(model, torch.ones(3, 1, 3))
    torch.testing.assert_close(found[:, 0, 0], torch.full((3,), 2.7))  # 3 of current; the reset empties it each step
    torch.testing.assert_close(found[:, 0, 1], torch.tensor([-3.3, -4.05, -4.2375]))  # -3, then a quarter is left
    assert not is_open.any()
    hidden, is_open = distances(model, torch.ones(3, 1, 3), "1")
    torch.testing.assert_close(hidden, torch.full((3, 1, 3), 0.4))
    assert is_open.all()


def test_distances_behind_a_norm():
    model = create_model("test_conv_snn").eval()
    found, is_open = distances(model, torch.rand(3, 2, 2, 12, 12))
    assert found.shape == is_open.shape == (3, 2, 16, 2, 2)
    with pytest.raises(ValueError, match="there is no spiking layer 'x'"):
        distances(model, torch.rand(3, 2, 2, 12, 12), "x")
