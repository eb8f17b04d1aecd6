r"""Residual blocks that differ in where the shortcut meets the neuron: of two 3x3 convolutions, or of any layers.

    ms       O = N2(W2 LIF(N1(W1 LIF(x)))) + sc(x)         x, O real: membrane inputs
    vanilla  O = LIF(N2(W2 LIF(N1(W1 x))) + sc(x))         x, O spikes
    sew      O = LIF(N2(W2 LIF(N1(W1 x)))) + sc(x)         x, O sums of spikes

Source: arXiv:2112.08954 (ms), arXiv:2011.05280 (vanilla, with the scale of its norms), arXiv:2102.04159 (sew, ADD).
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from rheobase.neurons import create_neuron
from rheobase.nn.fuse import Sequential, run_with_sum
from rheobase.nn.norm import TdBN
from rheobase.nn.packing import Conv1d, Conv2d
from rheobase.nn.time import PerStep
from rheobase.nn.values import Values, added, emits

MakeNeuron = Callable[[], nn.Module]


@dataclass(frozen=True)
class PerChannel:
    """Makes neurons whose parameters each channel has of its own, in a model that says how many channels there are.

    Args:
        make: makes one neuron; takes `shape=`, the shape of its parameters.
    """

    make: Callable[..., nn.Module]

    def __call__(self) -> nn.Module:
        """Refuse: the number of channels is not known.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "this model does not say how many channels a neuron has; take neurons with one set of parameters for a "
            "layer, or a model of ConvSNN"
        )


def neuron_of(make: MakeNeuron, channels: int, axes: int = 0) -> nn.Module:
    """One neuron for `channels` channels and as many axes of space; what `make` is decides whether these matter."""
    return make.make(shape=(channels, *(1,) * axes)) if isinstance(make, PerChannel) else make()


class Conv(PerStep):
    """A convolution at every step, padded by half its kernel, that declares what it reads.

    Args:
        c_in: input channels.
        c_out: output channels.
        kernel: side of the kernel, odd.
        reads: what the input holds. In training a "binary" one is checked, and kept for backward as bits.
        stride: of the convolution.
        bias: whether it has one.
        axes: of space, 1 or 2.

    Raises:
        ValueError: an even kernel, which half of itself would not centre.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int, reads: Values, stride: int = 1, bias: bool = False, axes: int = 2
    ) -> None:
        if kernel % 2 == 0:
            raise ValueError(f"Conv: kernel is {kernel}; expected an odd side")
        layer = {1: Conv1d, 2: Conv2d}[axes]
        super().__init__(layer(c_in, c_out, kernel, stride, kernel // 2, bias=bias, binary_input=reads == "binary"))
        self.reads: Values = reads

    def extra_repr(self) -> str:
        """What it reads."""
        return f"reads={self.reads!r}"


class Residual(nn.Module):
    """`after(branch(x) + shortcut(x))` on `[T, B, C, H, W]`; `emits` declares what comes out."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module, after: nn.Module, emits: Values) -> None:
        super().__init__()
        self.branch, self.shortcut, self.after = branch, shortcut, after
        self.emits: Values = emits

    def forward(self, x: Float[Tensor, "T B C H W"]) -> Float[Tensor, "T B C2 H2 W2"]:
        """Run the block."""
        y: Tensor = run_with_sum(self.branch, x, self.shortcut(x), self.after)
        return y


def around(
    order: str, layers: Callable[[Values], Mapping[str, nn.Module]], neuron: MakeNeuron, reads: Values
) -> Residual:
    """A residual block around any layers F that keep the shape; its neuron sits where `order` says.

        ms       O = F(LIF(x)) + x       x, O real
        vanilla  O = LIF(F(x) + x)       x, O spikes
        sew      O = LIF(F(x)) + x       x, O sums of spikes

    Args:
        order: "ms", "vanilla" or "sew".
        layers: makes the named layers F for what they read; a norm is the last.
        neuron: makes the block's own neuron.
        reads: what x holds.

    Raises:
        ValueError: no such order.
    """
    own = neuron()
    if order == "ms":
        branch = Sequential(OrderedDict({"neuron": own, **layers(emits(own))}))
        return Residual(branch, nn.Identity(), nn.Identity(), "real")
    if order == "vanilla":
        return Residual(Sequential(OrderedDict(layers(reads))), nn.Identity(), own, emits(own))
    if order == "sew":
        branch = Sequential(OrderedDict({**layers(reads), "neuron": own}))
        return Residual(branch, nn.Identity(), nn.Identity(), added(reads, emits(own)))
    raise ValueError(f"there is no order {order!r} of residual blocks; expected one of {', '.join(BLOCKS)}")


def maker_of(neuron: str | MakeNeuron) -> MakeNeuron:
    """What makes one neuron, from its registered name or from itself. An unknown name raises when it is called."""
    return partial(create_neuron, neuron) if isinstance(neuron, str) else neuron


def threshold_of(neuron: nn.Module) -> float:
    """The threshold that the norm before a neuron scales to: the mean of the neuron's `threshold`; 1 if it has none."""
    threshold = getattr(neuron, "threshold", 1.0)
    return float(threshold.detach().mean() if isinstance(threshold, Tensor) else threshold)


def ms_block(
    c_in: int,
    c_out: int,
    stride: int,
    neuron: MakeNeuron,
    reads: Values = "real",
    last_gamma: float | None = None,
    pool_shortcut: bool = False,
) -> Residual:
    """The membrane-shortcut block, the identity at the start; arguments as in `Block`.

    `pool_shortcut`: a shortcut that strides averages squares of pixels, then its convolution does not stride.
    """
    first, second = neuron(), neuron()
    branch = OrderedDict(
        neuron1=first,
        conv1=Conv(c_in, c_out, 3, emits(first), stride),
        norm1=TdBN(c_out, threshold_of(second)),
        neuron2=second,
        conv2=Conv(c_out, c_out, 3, emits(second)),
        norm2=TdBN(c_out, threshold_of(first), init=0.0 if last_gamma is None else last_gamma),
    )
    shortcut = _shortcut(c_in, c_out, stride, reads, threshold_of(first), pool=pool_shortcut)
    return Residual(Sequential(branch), shortcut, nn.Identity(), "real")


def vanilla_block(
    c_in: int, c_out: int, stride: int, neuron: MakeNeuron, reads: Values = "binary", last_gamma: float | None = None
) -> Residual:
    r"""The block with its neuron on the sum; both summands start at $V_{th}/\sqrt2$; arguments as in `Block`."""
    first, after = neuron(), neuron()
    threshold, alpha = threshold_of(after), 1 / math.sqrt(2)
    branch = OrderedDict(
        conv1=Conv(c_in, c_out, 3, reads, stride),
        norm1=TdBN(c_out, threshold_of(first)),
        neuron1=first,
        conv2=Conv(c_out, c_out, 3, emits(first)),
        norm2=TdBN(c_out, threshold, alpha, init=last_gamma),
    )
    shortcut = _shortcut(c_in, c_out, stride, reads, threshold, alpha)
    return Residual(Sequential(branch), shortcut, after, emits(after))


def vanilla_bottleneck(
    c_in: int, c_out: int, stride: int, neuron: MakeNeuron, reads: Values = "binary", last_gamma: float | None = None
) -> Residual:
    """The vanilla block of three convolutions, 1x1, 3x3 (which strides) and 1x1, the inner ones a quarter as wide.

    Arguments as in `Block`.

    Raises:
        ValueError: c_out is no multiple of 4.
    """
    if c_out % 4:
        raise ValueError(f"vanilla_bottleneck: c_out is {c_out}; expected a multiple of 4")
    first, second, after = neuron(), neuron(), neuron()
    inner, threshold, alpha = c_out // 4, threshold_of(after), 1 / math.sqrt(2)
    branch = OrderedDict(
        conv1=Conv(c_in, inner, 1, reads),
        norm1=TdBN(inner, threshold_of(first)),
        neuron1=first,
        conv2=Conv(inner, inner, 3, emits(first), stride),
        norm2=TdBN(inner, threshold_of(second)),
        neuron2=second,
        conv3=Conv(inner, c_out, 1, emits(second)),
        norm3=TdBN(c_out, threshold, alpha, init=last_gamma),
    )
    shortcut = _shortcut(c_in, c_out, stride, reads, threshold, alpha)
    return Residual(Sequential(branch), shortcut, after, emits(after))


def sew_block(
    c_in: int, c_out: int, stride: int, neuron: MakeNeuron, reads: Values = "graded", last_gamma: float | None = None
) -> Residual:
    """The spike-element-wise block (ADD): spikes are summed, and grow with depth; arguments as in `Block`."""
    first, second = neuron(), neuron()
    branch = OrderedDict(
        conv1=Conv(c_in, c_out, 3, reads, stride),
        norm1=TdBN(c_out, threshold_of(first)),
        neuron1=first,
        conv2=Conv(c_out, c_out, 3, emits(first)),
        norm2=TdBN(c_out, threshold_of(second), init=last_gamma),
        neuron2=second,
    )
    shortcut = _shortcut(c_in, c_out, stride, reads, threshold_of(second), neuron=neuron)
    out = added(emits(shortcut, reads), emits(second))
    return Residual(Sequential(branch), shortcut, nn.Identity(), out)


Block = Callable[..., Residual]
"""`(c_in, c_out, stride, neuron, reads, last_gamma)` -> block.

`neuron` is called once per neuron. `reads` says what the block's input holds. `last_gamma` is the gain at the start of
the branch's last norm; None is the block's own: 0 (ms), V/sqrt(2) (vanilla), V (sew) with V the neuron's threshold. A
block that changes stride or channels has a 1x1 convolution and a norm (sew: and a neuron) on its shortcut."""

BLOCKS: dict[str, Block] = {"ms": ms_block, "vanilla": vanilla_block, "sew": sew_block}


def _shortcut(
    c_in: int,
    c_out: int,
    stride: int,
    reads: Values,
    threshold: float,
    alpha: float = 1.0,
    neuron: MakeNeuron | None = None,
    pool: bool = False,
) -> nn.Module:
    """The identity where shapes stay, else `[average pooling,] conv1x1, norm[, neuron]`."""
    if stride == 1 and c_in == c_out:
        return nn.Identity()
    layers = OrderedDict[str, nn.Module]()
    if pool and stride > 1:
        layers["pool"] = PerStep(nn.AvgPool2d(stride, ceil_mode=True))
        reads, stride = "real", 1
    layers.update(conv=Conv(c_in, c_out, 1, reads, stride), norm=TdBN(c_out, threshold, alpha))
    if neuron is not None:
        layers["neuron"] = neuron()
    return Sequential(layers)
