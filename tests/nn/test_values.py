import pytest
import torch
from torch import nn

from rheobase.neurons import LIF
from rheobase.nn import Blocks, PerStep
from rheobase.nn.residual import Conv, ms_block
from rheobase.nn.values import added, concatenated, emits


class Graded(nn.Module):
    emits = "graded"


def test_what_is_declared_is_emitted_whatever_is_read():
    for reads in ("binary", "graded", "real"):
        assert emits(LIF(), reads) == "binary"
        assert emits(Graded(), reads) == "graded"
        assert emits(ms_block(2, 2, 1, LIF), reads) == "real"


@pytest.mark.parametrize("reads", ["binary", "graded", "real"])
@pytest.mark.parametrize(
    "module",
    [
        nn.Identity(),
        nn.MaxPool2d(2),
        nn.ZeroPad2d((1, 1, -1, -1)),
        nn.CircularPad2d(1),
        nn.PixelUnshuffle(2),
        nn.Sequential(nn.AdaptiveMaxPool2d(2), nn.Flatten()),
    ],
    ids=repr,
)
def test_what_only_moves_values_keeps_their_kind(module, reads):
    assert emits(module, reads) == emits(PerStep(module), reads) == reads
    x = torch.randint(0, 2 if reads == "binary" else 4, (3, 4, 6, 6)).float()
    assert torch.isin(module(x), x).all()


@pytest.mark.parametrize(
    "module", [nn.Conv2d(2, 2, 1), nn.AvgPool2d(2), nn.Linear(2, 2), nn.Dropout(), nn.ReLU(), Conv(2, 2, 3, "binary")]
)
def test_everything_else_emits_real_values(module):
    assert emits(module, "binary") == emits(PerStep(module), "binary") == "real"


def test_a_sequence_emits_what_its_last_layer_does():
    assert emits(nn.Sequential(Conv(2, 2, 3, "real"), LIF(), PerStep(nn.MaxPool2d(2)))) == "binary"
    assert emits(nn.Sequential(LIF(), PerStep(nn.AvgPool2d(2)))) == "real"
    assert emits(Blocks(nn.Sequential(Graded()), nn.Identity())) == "graded"
    assert emits(nn.Sequential(), "graded") == "graded"


def test_sums_and_concatenations():
    assert concatenated("binary", "binary") == "binary"
    assert concatenated("binary", "graded") == "graded"
    assert concatenated("graded", "real", "binary") == "real"
    assert added("binary", "binary") == added("graded", "binary") == "graded"
    assert added("binary", "real") == "real"
