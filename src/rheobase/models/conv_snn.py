"""Plain convolutional networks, for frames of events and small images."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from rheobase.models.head import head
from rheobase.models.registry import image_of, register
from rheobase.neurons import LIF, IterativeLIF
from rheobase.nn.fuse import Sequential
from rheobase.nn.norm import TdBN
from rheobase.nn.residual import Conv, MakeNeuron, maker_of, neuron_of, threshold_of
from rheobase.nn.time import PerStep
from rheobase.nn.values import Values, emits

PLAN = ((1, 5, 2), (2, 3, 2), (4, 3, 2))
Layer = tuple[int, int, int] | tuple[int, int, int, Literal["max"]] | Literal["pool"]
_AVERAGE = {1: nn.AvgPool1d, 2: nn.AvgPool2d}
_LARGEST = {1: nn.MaxPool1d, 2: nn.MaxPool2d}


class ConvSNN(nn.Module):
    """Layers of convolution, norm and neuron, average pooling, linear layers: `[T, B, C, H, W]` to `[T, B, K]`.

    Args:
        plan: output channels, side of the kernel (odd) and stride of each layer. A fourth value "max" keeps the largest
            of each 2x2 pixels (pairs, if there is one axis) between convolution and norm; arXiv:2305.05954 has it
            behind the norm, which has four times as much to do there. "pool" averages such squares.
        in_channels: C.
        classes: K.
        pooled: side of the map that is left before the linear layers.
        neuron: makes one neuron; a name from `rheobase.neurons.list_neurons()`, or a function without arguments, or a
            `PerChannel` of one.
        axes: of space: 2, or 1 for `[T, B, C, L]`.
        bias: whether convolutions have one.
        gain: of the norms at the start; None is the threshold of the neuron that comes next.
        hidden: neurons of a hidden layer before the last one, without a norm; 0 for none.
        dropout: share of the pooled features that is dropped in training, drawn anew at every step.

    Raises:
        ValueError: no layer, or no such neuron.
    """

    def __init__(
        self,
        plan: Sequence[Layer],
        in_channels: int,
        classes: int,
        pooled: int,
        neuron: str | MakeNeuron,
        *,
        axes: int = 2,
        bias: bool = False,
        gain: float | None = None,
        hidden: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not plan:
            raise ValueError("ConvSNN: the plan has no layer; expected at least one (channels, kernel, stride)")
        for layer in plan:
            if len(layer) == 4 and layer not in ("pool", (*layer[:3], "max")):
                raise ValueError(f"ConvSNN: a layer of the plan ends in {layer[3]!r}; expected 'max' or nothing")
        make = maker_of(neuron)
        self.body = Sequential()
        c_in = in_channels
        reads: Values = "real"
        for layer in plan:
            if layer == "pool":
                self.body.append(PerStep(_AVERAGE[axes](2)))
            else:
                c_out, kernel, stride = layer[:3]
                cell = neuron_of(make, c_out, axes)
                block = Sequential(Conv(c_in, c_out, kernel, reads, stride, bias, axes))
                if len(layer) == 4:
                    block.append(PerStep(_LARGEST[axes](2)))
                block.extend([TdBN(c_out, threshold_of(cell), init=gain), cell])
                self.body.append(block)
                c_in = c_out
            reads = emits(self.body[-1], reads)
        self.head = head(c_in, pooled, classes, make, axes=axes, hidden=hidden, dropout=dropout)

    def blocks(self) -> list[nn.Module]:
        """The layers in order, without pooling."""
        return [layer for layer in self.body if isinstance(layer, Sequential)]

    def forward(self, x: Float[Tensor, "T B C *space"]) -> Float[Tensor, "T B K"]:
        """Logits of every step."""
        logits: Tensor = self.head(self.body(x))
        return logits


@register(image_of(34, 2), reproduces="nothing published: a small network for frames of events")
def conv_snn(
    in_channels: int = 2, classes: int = 10, width: int = 16, neuron: str | MakeNeuron = LIF, pooled: int = 4
) -> ConvSNN:
    """Three layers of `width` times 1, 2 and 4 channels, each halving the side: a 5x5 kernel, then two of 3x3.

    See `ConvSNN` for the other arguments.

    Raises:
        ValueError: no such neuron.
    """
    return ConvSNN(
        [(width * times, kernel, stride) for times, kernel, stride in PLAN], in_channels, classes, pooled, neuron
    )


@register(image_of(32), reproduces="nothing published: it learns fast on a CPU")
def cifar_conv7(
    in_channels: int = 3, classes: int = 10, width: int = 32, neuron: str | MakeNeuron = IterativeLIF
) -> ConvSNN:
    """Seven 3x3 convolutions for 32x32 images, the second, fourth and sixth of them max-pooled before their norm.

    Channels are 1, 2, 2, 4, 4, 8 and 8 times `width`; the last map, 4x4, is averaged before the linear layer.

    Raises:
        ValueError: no such neuron.
    """
    plan: list[Layer] = [(width, 3, 1)]
    for times in (2, 4, 8):
        plan += [(times * width, 3, 1, "max"), (times * width, 3, 1)]
    return ConvSNN(plan, in_channels, classes, 1, neuron)


@register(image_of(28, 1), reproduces="arXiv:1911.00822: the weights of its released network for MNIST")
def mnist_conv(
    in_channels: int = 1, classes: int = 10, width: int = 32, neuron: str | MakeNeuron = IterativeLIF, pooled: int = 7
) -> ConvSNN:
    """32C3-MP-32C3-MP-128-10 for 28x28 images: 211,488 weights of convolutions and linear layers.

    Two 3x3 convolutions of `width` channels, max-pooled before their norm and neuron; 4 `width` neurons; logits.
    Departures: the released network averages where this one takes the largest, so that layers read spikes; and it has
    biases, where this one has a norm behind each convolution.

    Raises:
        ValueError: no such neuron.
    """
    plan: list[Layer] = [(width, 3, 1, "max"), (width, 3, 1, "max")]
    return ConvSNN(plan, in_channels, classes, pooled, neuron, hidden=4 * width)


register(lambda **_: (2, 12, 12), name="test_conv_snn", reproduces="nothing: it is small, for tests")(
    partial(conv_snn, width=4, pooled=2)
)
register(image_of(8), name="test_cifar_conv7", reproduces="nothing: it is small, for tests")(
    partial(cifar_conv7, width=4)
)
register(image_of(8, 1), name="test_mnist_conv", reproduces="nothing: it is small, for tests")(
    partial(mnist_conv, width=4, pooled=2)
)
