"""Plain convolutional networks, for frames of events and small images."""

from collections.abc import Sequence
from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from rheobase.models.registry import image_of, register
from rheobase.neurons import LIF
from rheobase.nn.fuse import Sequential
from rheobase.nn.norm import TdBN
from rheobase.nn.residual import Conv, MakeNeuron, maker_of, threshold_of
from rheobase.nn.time import PerStep
from rheobase.nn.values import Values, emits

PLAN = ((1, 5, 2), (2, 3, 2), (4, 3, 2))


class ConvSNN(nn.Module):
    """Layers of convolution, norm and neuron, average pooling, one linear layer: `[T, B, C, H, W]` to `[T, B, K]`.

    Args:
        plan: output channels, side of the kernel (odd) and stride of each layer.
        in_channels: C.
        classes: K.
        pooled: side of the map that is left before the linear layer.
        neuron: makes one neuron; a name from `rheobase.neurons.list_neurons()`, or a function without arguments.

    Raises:
        ValueError: no layer, or no such neuron.
    """

    def __init__(
        self,
        plan: Sequence[tuple[int, int, int]],
        in_channels: int,
        classes: int,
        pooled: int,
        neuron: str | MakeNeuron,
    ) -> None:
        super().__init__()
        if not plan:
            raise ValueError("ConvSNN: the plan has no layer; expected at least one (channels, kernel, stride)")
        make = maker_of(neuron)
        self.body = nn.Sequential()
        c_in = in_channels
        reads: Values = "real"
        for c_out, kernel, stride in plan:
            cell = make()
            self.body.append(
                Sequential(Conv(c_in, c_out, kernel, reads, stride), TdBN(c_out, threshold_of(cell)), cell)
            )
            c_in, reads = c_out, emits(cell)
        self.head = nn.Sequential(
            PerStep(nn.Sequential(nn.AdaptiveAvgPool2d(pooled), nn.Flatten())),
            PerStep(nn.Linear(c_in * pooled**2, classes)),
        )

    def blocks(self) -> list[nn.Module]:
        """The layers in order."""
        return list(self.body)

    def forward(self, x: Float[Tensor, "T B C H W"]) -> Float[Tensor, "T B K"]:
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


register(lambda **_: (2, 12, 12), name="test_conv_snn", reproduces="nothing: it is small, for tests")(
    partial(conv_snn, width=4, pooled=2)
)
