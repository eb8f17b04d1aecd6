"""The frame of the residual networks: stem, blocks, pooling, linear layers. The families fill it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from rheobase.models.head import head
from rheobase.nn.fuse import Sequential
from rheobase.nn.memory import Blocks
from rheobase.nn.norm import TdBN
from rheobase.nn.residual import BLOCKS, Block, Conv, MakeNeuron, Residual, maker_of, threshold_of
from rheobase.nn.time import PerStep
from rheobase.nn.values import Values, emits

IMAGENET_WIDTHS = (64, 128, 256, 512)
IMAGENET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 104: (3, 8, 32, 8)}
"""Blocks of each of the four stages, by depth."""


@dataclass(frozen=True)
class Stem:
    """Convolutions in a row and one norm; where blocks read spikes, a neuron comes after it.

    Args:
        convs: output channels, side of the kernel (odd) and stride of each.
        bias: of every convolution.
        pool: 3x3 pooling of stride 2 at the end, "max" (spikes stay spikes) or "average"; None is none.
    """

    convs: tuple[tuple[int, int, int], ...]
    bias: bool = False
    pool: Literal["max", "average"] | None = None


class ResNet(nn.Module):
    """Stem, residual blocks, average pooling, linear layers: images `[T, B, C, H, W]` to logits `[T, B, K]`.

    The stem ends in a neuron where blocks read spikes; MS blocks read the membrane input, and have one neuron after the
    last of them instead.

    Args:
        block: "ms", "vanilla" or "sew"; or a function that makes a block with its neuron on the sum.
        plan: output channels and stride of each block.
        in_channels: C.
        classes: K.
        pooled: side of the map that is left before the linear layers.
        neuron: makes one neuron; a name from `rheobase.neurons.list_neurons()`, or a function without arguments.
        last_gamma: gain at the start of the last norm of every residual branch; None is the block's own.
        stem: None is one 3x3 convolution with the channels of the first block.
        pool_shortcut: shortcuts of MS blocks that stride average 2x2 pixels before their 1x1 convolution.
        hidden: neurons of a hidden layer before the last one, without a norm; 0 for none.
        dropout: share of the pooled features that is dropped in training, drawn anew at every step.

    Raises:
        ValueError: no such block or neuron; pooled shortcuts in blocks other than MS.
    """

    def __init__(
        self,
        block: str | Block,
        plan: Sequence[tuple[int, int]],
        in_channels: int,
        classes: int,
        pooled: int,
        neuron: str | MakeNeuron,
        last_gamma: float | None,
        *,
        stem: Stem | None = None,
        pool_shortcut: bool = False,
        hidden: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if isinstance(block, str) and block not in BLOCKS:
            raise ValueError(f"there is no residual block {block!r}; expected one of {', '.join(BLOCKS)}")
        if pool_shortcut and block != "ms":
            raise ValueError(f"pooled shortcuts are for 'ms' blocks; got block {block!r}")
        if stem is not None and stem.pool not in (None, "max", "average"):
            raise ValueError(f"the stem's pool is {stem.pool!r}; expected 'max', 'average' or None")
        make, make_block = maker_of(neuron), BLOCKS[block] if isinstance(block, str) else block
        outer = make()
        stem = stem or Stem(((plan[0][0], 3, 1),))
        self.stem, width = Sequential(), in_channels
        for channels, kernel, stride in stem.convs:
            self.stem.append(Conv(width, channels, kernel, "real", stride, stem.bias))
            width = channels
        self.stem.append(TdBN(width, threshold_of(outer)))
        reads: Values = "real"
        if block != "ms":
            self.stem.append(outer)
            reads = emits(outer)
        if stem.pool:
            self.stem.append(PerStep(nn.MaxPool2d(3, 2, 1) if stem.pool == "max" else nn.AvgPool2d(3, 2, 1)))
            reads = emits(self.stem[-1], reads)
        self.body = Blocks(reads=reads)
        options: dict[str, Any] = {"pool_shortcut": True} if pool_shortcut else {}
        for (c_in, _), (c_out, stride) in pairwise([(width, 1), *plan]):
            residual = make_block(c_in, c_out, stride, make, reads, last_gamma, **options)
            self.body.append(residual)
            reads = residual.emits
        self.head = head(plan[-1][0], pooled, classes, make, hidden=hidden, dropout=dropout)
        if block == "ms":
            self.head.insert(0, outer)

    def blocks(self) -> list[Residual]:
        """The residual blocks in order."""
        return [block for block in self.body if isinstance(block, Residual)]

    def forward(self, x: Float[Tensor, "T B C H W"]) -> Float[Tensor, "T B K"]:
        """Logits of every step."""
        logits: Tensor = self.head(self.body(self.stem(x)))
        return logits


def stages(counts: Sequence[int], widths: Sequence[int], first_stride: int) -> list[tuple[int, int]]:
    """The plan of stages of blocks: each stage begins with stride 2, the first one with `first_stride`."""
    return [
        (width, (2 if stage else first_stride) if not k else 1)
        for stage, (count, width) in enumerate(zip(counts, widths, strict=True))
        for k in range(count)
    ]
