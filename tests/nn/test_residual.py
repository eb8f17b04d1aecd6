import math

import pytest
import torch
from torch import nn

from rheobase.neurons import IF, LIF, IterativeLIF
from rheobase.nn.norm import TdBN
from rheobase.nn.residual import BLOCKS, Conv, around, threshold_of
from rheobase.nn.values import emits

pytestmark = pytest.mark.usefixtures("one_thread")


def spikes(*shape):
    return (torch.rand(shape) < 0.2).float()


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize(("channels", "stride", "side"), [(4, 1, 8), (8, 1, 8), (8, 2, 4), (4, 2, 4)])
def test_shapes_and_gradients(kind, channels, stride, side):
    block, x = BLOCKS[kind](4, channels, stride, IterativeLIF), spikes(3, 2, 4, 8, 8).requires_grad_()
    y = block(x)
    assert y.shape == (3, 2, channels, side, side)
    y.square().sum().backward()
    assert x.grad is not None
    assert all(p.grad is not None for p in block.parameters())
    assert isinstance(block.shortcut, nn.Identity) == (stride == 1 and channels == 4)


@pytest.mark.parametrize("training", [True, False])
def test_ms_starts_as_the_identity(training):
    block, x = BLOCKS["ms"](4, 4, 1, IterativeLIF).train(training), torch.randn(4, 2, 4, 8, 8) * 3
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(("kind", "gain"), [("ms", 0.0), ("vanilla", 0.5 / math.sqrt(2)), ("sew", 0.5)])
def test_the_last_gain_is_the_blocks_own_unless_given(kind, gain):
    for last_gamma, expected in ((None, gain), (0.1, 0.1)):
        block = BLOCKS[kind](4, 4, 1, IterativeLIF, "binary", last_gamma)
        assert block.branch.norm2.gain().tolist() == pytest.approx([expected] * 4)
        assert block.branch.norm1.gain().tolist() == pytest.approx([0.5] * 4)


def test_norms_start_at_the_threshold_of_their_neuron():
    block = BLOCKS["sew"](4, 8, 2, lambda: LIF(threshold=0.8))
    gains = [module.gain()[0].item() for module in block.modules() if isinstance(module, TdBN)]
    assert gains == pytest.approx([0.8] * 3)
    assert threshold_of(nn.ReLU()) == 1.0
    assert threshold_of(IF(nn.Parameter(torch.tensor([[[0.5]], [[1.5]]])))) == 1.0


@pytest.mark.parametrize(
    ("kind", "after", "shortcut"),
    [("ms", "real", "real"), ("vanilla", "binary", "binary"), ("sew", "graded", "binary")],
)
def test_what_is_read_is_declared_and_true(kind, after, shortcut):
    block, x = BLOCKS[kind](4, 8, 2, IterativeLIF, "real" if kind == "ms" else "binary", 0.5), spikes(4, 2, 4, 8, 8)
    assert emits(block) == after
    assert [block.branch.conv1.reads, block.branch.conv2.reads] == ["binary", "binary"]
    assert block.shortcut.conv.reads == shortcut
    seen = {}
    for name, module in block.named_modules():
        if isinstance(module, Conv):
            module.register_forward_hook(
                lambda module, args, _, name=name: seen.update({name: args[0].unique().tolist()})
            )
    y = block(torch.randn_like(x) if kind == "ms" else x)
    assert seen["branch.conv1"] == seen["branch.conv2"] == [0, 1]
    assert (seen["shortcut.conv"] == [0, 1]) == (shortcut == "binary")
    values = {"real": None, "binary": {0, 1}, "graded": {0, 1, 2}}[after]
    assert values is None or set(y.unique().tolist()) == values


def test_sew_of_a_real_input_is_real():
    assert BLOCKS["sew"](4, 4, 1, IterativeLIF, "real").emits == "real"
    assert BLOCKS["sew"](4, 8, 1, IterativeLIF, "real").emits == "graded"
    assert BLOCKS["sew"](4, 4, 1, nn.ReLU, "binary").emits == "real"
    assert BLOCKS["ms"](4, 4, 1, nn.ReLU).branch.conv1.reads == "real"


@pytest.mark.parametrize("order", BLOCKS)
def test_around_places_its_neuron(order):
    x = torch.randn(3, 2, 4, 5, 5) if order == "ms" else spikes(3, 2, 4, 5, 5)
    told = []

    def layers(reads):
        told.append(reads)
        return {"conv": Conv(4, 4, 1, reads), "norm": TdBN(4)}

    block = around(order, layers, IterativeLIF, "real" if order == "ms" else "binary")
    F, f = nn.Sequential(block.branch.conv, block.branch.norm), IterativeLIF()
    expected = {"ms": lambda: F(f(x)) + x, "vanilla": lambda: f(F(x) + x), "sew": lambda: f(F(x)) + x}
    assert torch.equal(block(x), expected[order]())
    assert told == ["binary"]
    assert emits(block) == {"ms": "real", "vanilla": "binary", "sew": "graded"}[order]


def test_around_refuses_an_unknown_order():
    with pytest.raises(ValueError, match="no order 'post' of residual blocks; expected one of ms, vanilla, sew"):
        around("post", lambda reads: {"norm": TdBN(4)}, IterativeLIF, "real")
