"""Convolutional networks without norms whose pooling and last layer fire too, and the same with ReLU."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from rheobase.models.registry import image_of, register
from rheobase.neurons import IterativeLIF
from rheobase.nn.dense import Dense
from rheobase.nn.fuse import Sequential
from rheobase.nn.residual import Conv, MakeNeuron, maker_of
from rheobase.nn.time import PerStep
from rheobase.nn.values import Values, emits

SOURCE = "Liang et al., arXiv:2001.01587, and the code published with it"
Part = int | float | Literal["pool"]

attacked_lif = partial(IterativeLIF, decay=0.25, threshold=0.3, detach_reset=False, strict=True)
"""The neuron of the paper: fires strictly above 0.3, the window is 0.5 to both sides, the reset is differentiated."""


class SpikingPoolNet(nn.Module):
    """3x3 convolutions and linear layers, each followed by a neuron: `[T, B, C, H, W]` to `[T, B, K]`.

    Pooling averages 2x2 pixels and fires. The last layer fires too, so that the mean over time of what comes out is a
    rate, a multiple of 1/T. Convolutions and linear layers have biases and start as torch starts them.

    Args:
        maps: channels of each convolution; "pool" between them; a number between 0 and 1 drops that share of the spikes
            before it in training, anew at every step.
        hidden: neurons of each hidden linear layer, and such numbers.
        in_channels: C.
        classes: K.
        side: H and W.
        neuron: makes one neuron; a name from `rheobase.neurons.list_neurons()`, or a function without arguments.
        fires: whether the last layer does; else it puts out its currents.

    Raises:
        ValueError: pooling leaves no pixel, a share outside (0, 1), or no such neuron.
    """

    def __init__(
        self,
        maps: Sequence[Part],
        hidden: Sequence[int | float],
        in_channels: int,
        classes: int,
        side: int,
        neuron: str | MakeNeuron,
        *,
        fires: bool = True,
    ) -> None:
        super().__init__()
        make = maker_of(neuron)
        self.body = Sequential()
        reads: Values = "real"
        width = in_channels
        for part in maps:
            if part == "pool":
                layer, side = Sequential(PerStep(nn.AvgPool2d(2)), make()), side // 2
            elif isinstance(part, float):
                layer = Sequential(_dropped(part))
            else:
                assert isinstance(part, int)
                layer, width = Sequential(Conv(width, part, 3, reads, bias=True), make()), part
            self.body.append(layer)
            reads = emits(layer, reads)
        if side < 1:
            raise ValueError(
                f"SpikingPoolNet: {list(maps).count('pool')} times 2x2 pooling leaves no pixel; expected less"
            )
        self.body.append(PerStep(nn.Flatten()))
        width *= side * side
        for size in hidden:
            if isinstance(size, float):
                layer = Sequential(_dropped(size))
            else:
                layer, width = Sequential(Dense(width, size, reads, bias=True), make()), size
            self.body.append(layer)
            reads = emits(layer, reads)
        last = Dense(width, classes, reads, bias=True)
        self.head = Sequential(last, make()) if fires else Sequential(last)

    def blocks(self) -> list[nn.Module]:
        """The layers in order, without the last."""
        return [layer for layer in self.body if isinstance(layer, Sequential)]

    def forward(self, x: Float[Tensor, "T B C H W"]) -> Float[Tensor, "T B K"]:
        """What the last layer puts out at every step."""
        y: Tensor = self.head(self.body(x))
        return y


def _dropped(share: float) -> nn.Dropout:
    if not 0 < share < 1:
        raise ValueError(f"SpikingPoolNet: the share {share} is dropped; expected a number between 0 and 1")
    return nn.Dropout(share)


@register(
    image_of(28, 1), reproduces=f"the neuron and the spiking pooling of {SOURCE}; a network that one core can take"
)
def pooled_snn(
    in_channels: int = 1,
    classes: int = 10,
    width: int = 32,
    neuron: str | MakeNeuron = attacked_lif,
    side: int = 28,
) -> SpikingPoolNet:
    """Two convolutions of `width` channels, spiking pooling behind each, a hidden layer of four times `width` neurons.

    Args:
        in_channels: C.
        classes: K.
        width: channels.
        neuron: makes one neuron.
        side: of the image.

    Raises:
        ValueError: as `SpikingPoolNet`.
    """
    return SpikingPoolNet([width, "pool", width, "pool"], [4 * width], in_channels, classes, side, neuron)


@register(image_of(28, 1), reproduces="nothing published: the network of `pooled_snn` with ReLU, one step at a time")
def pooled_ann(in_channels: int = 1, classes: int = 10, width: int = 32, side: int = 28) -> SpikingPoolNet:
    """The network of `pooled_snn` with ReLU in the place of neurons and logits in the place of rates.

    Args:
        in_channels: C.
        classes: K.
        width: channels.
        side: of the image.

    Raises:
        ValueError: as `SpikingPoolNet`.
    """
    maps: list[Part] = [width, "pool", width, "pool"]
    return SpikingPoolNet(maps, [4 * width], in_channels, classes, side, nn.ReLU, fires=False)


@register(image_of(28, 1), reproduces=SOURCE, tiny="test_wide_pooled_snn")
def wide_pooled_snn(
    in_channels: int = 1,
    classes: int = 10,
    width: int = 128,
    neuron: str | MakeNeuron = attacked_lif,
    side: int = 28,
) -> SpikingPoolNet:
    """The network of the paper for MNIST: convolutions of 1, 2, pool, 4, pool, 8 and 4 times `width` channels.

    Then hidden layers of 8 and 4 times `width` neurons. A quarter of the spikes is dropped behind the first and the
    last convolution, both poolings and the first hidden layer, half behind the convolution of 8 times `width`.

    Args:
        in_channels: C.
        classes: K.
        width: channels of the first convolution.
        neuron: makes one neuron.
        side: of the image.

    Raises:
        ValueError: as `SpikingPoolNet`.
    """
    one, two, four, eight = (times * width for times in (1, 2, 4, 8))
    maps: list[Part] = [one, 0.25, two, "pool", 0.25, four, "pool", 0.25, eight, 0.5, four, 0.25]
    return SpikingPoolNet(maps, [eight, 0.25, four], in_channels, classes, side, neuron)


register(image_of(34, 2), name="event_pooled_snn", reproduces="as `pooled_snn`, for frames of events of 34x34 pixels")(
    partial(pooled_snn, in_channels=2, side=34)
)
register(image_of(8, 1), name="test_pooled_snn", reproduces="nothing: it is small, for tests")(
    partial(pooled_snn, width=8, side=8)
)
register(image_of(8, 1), name="test_pooled_ann", reproduces="nothing: it is small, for tests")(
    partial(pooled_ann, width=8, side=8)
)
register(image_of(8, 1), name="test_wide_pooled_snn", reproduces="nothing: it is small, for tests")(
    partial(wide_pooled_snn, width=4, side=8)
)
