r"""The frame of the spiking transformers: tokenizer, blocks of attention and MLP, head. The families fill it.

    x <- x + Attention(x)          x <- x + MLP(x)          tokens are the pixels of a map [T, B, D, H, W]

Both are residual blocks of the order "ms" (neurons before the layers; sums are real, layers read spikes) or "sew"
(neurons behind the layers; sums of spikes).
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from rheobase.neurons import LIF, Sigmoid
from rheobase.nn.attention import Attention
from rheobase.nn.fuse import Sequential
from rheobase.nn.memory import Blocks
from rheobase.nn.norm import TdBN
from rheobase.nn.packing import Linear
from rheobase.nn.residual import Conv, MakeNeuron, Residual, around
from rheobase.nn.time import PerStep
from rheobase.nn.values import Values, emits

IMAGENET_POOLS = (True, True, True, True)
CIFAR_POOLS = (False, False, True, True)
LAST_POOL = (False, False, False, True)
"""Which of the four stages of a tokenizer halve the side of the map."""

transformer_lif = partial(LIF, tau=2.0, surrogate=Sigmoid(4.0))
"""The neuron for still images: hard reset that is detached; the surrogate of SpikingJelly's default."""

event_lif = partial(LIF, tau=1.5, surrogate=Sigmoid(4.0))
"""The neuron for frames of events."""

tiny_lif = partial(transformer_lif, threshold=0.5)
"""Of the tiny variants: fires so often that their attention of few tokens is alive at the start."""


class TransformerBlock(nn.Module):
    """Two residual blocks in a row: attention, then MLP.

    `unused_width`: also hold two LayerNorms of that width which nothing reads, as official code does; 0 for none.
    """

    def __init__(self, attention: Residual, mlp: Residual, unused_width: int = 0) -> None:
        super().__init__()
        if unused_width:
            self.norm1, self.norm2 = nn.LayerNorm(unused_width), nn.LayerNorm(unused_width)
        self.attention, self.mlp = attention, mlp

    @property
    def emits(self) -> Values:
        """What the MLP's residual block emits."""
        return self.mlp.emits

    def forward(self, x: Float[Tensor, "T B D H W"]) -> Float[Tensor, "T B D H W"]:
        """Run the block."""
        y: Tensor = self.mlp(self.attention(x))
        return y


class SpikingTransformer(nn.Module):
    """Tokenizer, blocks, head: images `[T, B, C, H, W]` to logits `[T, B, K]` of every step.

    The mean of the logits over time equals the logits of features averaged over time, for the last layer is linear.
    """

    def __init__(self, tokenizer: nn.Module, body: Blocks, head: nn.Module) -> None:
        super().__init__()
        self.tokenizer, self.body, self.head = tokenizer, body, head

    def blocks(self) -> list[nn.Module]:
        """What the body is made of, in order."""
        return list(self.body)

    def forward(self, x: Float[Tensor, "T B C H W"]) -> Float[Tensor, "T B K"]:
        """Logits of every step."""
        logits: Tensor = self.head(self.body(self.tokenizer(x)))
        return logits


def convolutions(
    c_in: int,
    widths: Sequence[int],
    pools: Sequence[bool],
    neuron: MakeNeuron,
    reads: Values = "real",
    pool_first: bool = False,
) -> Sequential:
    """Stages of 3x3 convolution, norm, neuron and, where `pools` says, 3x3 max-pooling of stride 2.

    Max-pooling of spikes is a logical or. `pool_first` has the real values pooled, before the neuron.

    Raises:
        ValueError: not as many pools as widths, or a width below one.
    """
    if len(pools) != len(widths) or min(widths) < 1:
        raise ValueError(
            f"the tokenizer has widths {tuple(widths)} and pools {tuple(pools)}; expected widths of at least 1 and as "
            f"many pools"
        )
    layers = Sequential()
    for (before, width), pool in zip(pairwise((c_in, *widths)), pools, strict=True):
        pooling = [PerStep(nn.MaxPool2d(3, 2, 1))] if pool else []
        cell = neuron()
        layers.extend([Conv(before, width, 3, reads), TdBN(width)])
        layers.extend([*pooling, cell] if pool_first else [cell, *pooling])
        reads = emits(cell)
    return layers


def eighths(width: int) -> tuple[int, int, int, int]:
    """The widths of a tokenizer's first four convolutions: D/8, D/4, D/2, D."""
    return width // 8, width // 4, width // 2, width


def transformer_block(
    order: str,
    attention: Callable[[Values], Attention],
    width: int,
    neuron: MakeNeuron,
    reads: Values,
    ratio: int = 4,
    unused_norms: bool = False,
) -> TransformerBlock:
    """A block of one attention and an MLP of `ratio` times the width; projection and MLP have biases.

    Args:
        order: "ms", "sew" or "vanilla", see `rheobase.nn.residual.around`.
        attention: makes the attention for what it reads.
        width: D.
        neuron: makes one neuron.
        reads: what the block's input holds.
        ratio: of the MLP's hidden channels to D.
        unused_norms: see `TransformerBlock`.
    """

    def attend(reads: Values) -> dict[str, nn.Module]:
        mixer = attention(reads)
        return {"attention": mixer, "conv": Conv(width, width, 1, emits(mixer), bias=True), "norm": TdBN(width)}

    def mlp(reads: Values) -> dict[str, nn.Module]:
        inner, hidden = neuron(), ratio * width
        return {
            "conv1": Conv(width, hidden, 1, reads, bias=True),
            "norm1": TdBN(hidden),
            "neuron1": inner,
            "conv2": Conv(hidden, width, 1, emits(inner), bias=True),
            "norm2": TdBN(width),
        }

    first = around(order, attend, neuron, reads)
    return TransformerBlock(first, around(order, mlp, neuron, first.emits), width if unused_norms else 0)


def classifier(width: int, classes: int, neuron: nn.Module | None = None) -> nn.Sequential:
    """Average over tokens, a neuron if there is one, a linear layer at every step (weights of deviation 0.02)."""
    reads: Values = "real" if neuron is None else emits(neuron)
    linear = Linear(width, classes, binary_input=reads == "binary")
    nn.init.trunc_normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)
    layers = OrderedDict[str, nn.Module](pool=PerStep(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())))
    if neuron is not None:
        layers["neuron"] = neuron
    return nn.Sequential(OrderedDict(**layers, linear=PerStep(linear)))
