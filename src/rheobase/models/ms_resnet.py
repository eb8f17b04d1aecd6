"""Residual networks for small images in three kinds: membrane shortcut (MS), vanilla, spike-element-wise (SEW)."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from rheobase.models.registry import register
from rheobase.neurons import IterativeLIF, create_neuron
from rheobase.nn.fuse import Sequential
from rheobase.nn.memory import Blocks
from rheobase.nn.norm import TdBN
from rheobase.nn.residual import BLOCKS, Conv, MakeNeuron, Residual, threshold_of
from rheobase.nn.time import PerStep
from rheobase.nn.values import Values, emits


class ResNet(nn.Module):
    """3x3 stem, residual blocks, average pooling, one linear layer: images `[T, B, C, H, W]` to logits `[T, B, K]`.

    The stem ends in a neuron where blocks read spikes; MS blocks read the membrane input, and have one neuron after the
    last of them instead.

    Args:
        block: "ms", "vanilla" or "sew".
        plan: output channels and stride of each block; the stem has the channels of the first.
        in_channels: C.
        classes: K.
        pooled: side of the map that is left before the linear layer.
        neuron: makes one neuron; a name from `rheobase.neurons.list_neurons()`, or a function without arguments.
        last_gamma: gain at the start of the last norm of every residual branch; None is the block's own.

    Raises:
        ValueError: no such block or neuron.
    """

    def __init__(
        self,
        block: str,
        plan: Sequence[tuple[int, int]],
        in_channels: int,
        classes: int,
        pooled: int,
        neuron: str | MakeNeuron,
        last_gamma: float | None,
    ) -> None:
        super().__init__()
        if block not in BLOCKS:
            raise ValueError(f"there is no residual block {block!r}; expected one of {', '.join(BLOCKS)}")
        make: MakeNeuron = partial(create_neuron, neuron) if isinstance(neuron, str) else neuron
        width, features = plan[0][0], plan[-1][0]
        outer = make()
        self.stem = Sequential(Conv(in_channels, width, 3, "real"), TdBN(width, threshold_of(outer)))
        reads: Values = "real"
        if block != "ms":
            self.stem.append(outer)
            reads = emits(outer)
        self.body = Blocks(reads=reads)
        for (c_in, _), (c_out, stride) in pairwise([(width, 1), *plan]):
            residual = BLOCKS[block](c_in, c_out, stride, make, reads, last_gamma)
            self.body.append(residual)
            reads = residual.emits
        self.head = nn.Sequential(
            PerStep(nn.Sequential(nn.AdaptiveAvgPool2d(pooled), nn.Flatten())),
            PerStep(nn.Linear(features * pooled**2, classes)),
        )
        if block == "ms":
            self.head.insert(0, outer)

    def blocks(self) -> list[Residual]:
        """The residual blocks in order."""
        return [block for block in self.body if isinstance(block, Residual)]

    def forward(self, x: Float[Tensor, "T B C H W"]) -> Float[Tensor, "T B K"]:
        """Logits of every step."""
        logits: Tensor = self.head(self.body(self.stem(x)))
        return logits


def _image(side: int, channels: int) -> Callable[..., tuple[int, ...]]:
    """The shape of an example for a model that takes `in_channels`."""
    return lambda in_channels=channels, **_: (in_channels, side, side)


SOURCE = (
    "arXiv:2112.08954 (MS-ResNet); widths and stem of the CIFAR nets of arXiv:1512.03385, shortcuts of 1x1 convolutions"
)


@register(_image(32, 3), reproduces=SOURCE)
def cifar_resnet(
    depth: int = 20,
    block: str = "ms",
    in_channels: int = 3,
    classes: int = 10,
    width: int = 16,
    neuron: str | MakeNeuron = IterativeLIF,
    last_gamma: float | None = None,
) -> ResNet:
    """Three stages of n blocks, of `width` times 1, 2 and 4 channels and strides 1, 2 and 2: depth 6n+2.

    See `ResNet` for the other arguments.

    Raises:
        ValueError: a depth that is not 6n+2 with n of at least 1; no such block or neuron.
    """
    n = (depth - 2) // 6
    if n < 1 or depth != 6 * n + 2:
        near = " or ".join(str(6 * m + 2) for m in (n, n + 1) if m >= 1) or "8"
        raise ValueError(f"cifar_resnet: depth is {depth}; expected 6n+2, so take {near}")
    plan = [(width * 2**stage, 2 if stage and not i else 1) for stage in range(3) for i in range(n)]
    return ResNet(block, plan, in_channels, classes, 1, neuron, last_gamma)


@register(_image(8, 1), reproduces="the degradation study: depth alone changes")
def plain_stack(
    blocks: int = 3,
    block: str = "ms",
    in_channels: int = 1,
    classes: int = 10,
    width: int = 16,
    neuron: str | MakeNeuron = IterativeLIF,
    last_gamma: float | None = None,
) -> ResNet:
    """Equal blocks without down-sampling, pooled to 2x2: 2 * blocks + 2 layers. See `ResNet` for the arguments.

    Raises:
        ValueError: fewer than one block; no such block or neuron.
    """
    if blocks < 1:
        raise ValueError(f"plain_stack: blocks is {blocks}; expected at least 1")
    return ResNet(block, [(width, 1)] * blocks, in_channels, classes, 2, neuron, last_gamma)


for _block in BLOCKS:
    for _depth in (8, 20, 32, 44, 56, 110, 482):
        register(_image(32, 3), name=f"{_block}_resnet{_depth}", reproduces=SOURCE)(
            partial(cifar_resnet, _depth, _block)
        )
    register(_image(8, 3), name=f"test_{_block}_resnet", reproduces="nothing: it is small, for tests")(
        partial(cifar_resnet, 8, _block, width=4)
    )
