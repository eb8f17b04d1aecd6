"""How the kernel of a convolution moves over its input; a linear layer is a kernel of one place on a map of one."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

Pair = int | tuple[int, int]
"""One number for both axes, or one for the rows and one for the columns."""


@dataclass(frozen=True)
class Geometry:
    """Settings of a convolution, (rows, columns) each.

    Raises:
        ValueError: a stride, dilation or number of groups below 1, or a padding below 0.
    """

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    def __post_init__(self) -> None:
        if min(*self.stride, *self.dilation, self.groups) < 1 or min(self.padding) < 0:
            raise ValueError(f"{self} is no convolution; expected stride, dilation and groups >= 1 and padding >= 0")

    @staticmethod
    def of(stride: Pair, padding: Pair, dilation: Pair, groups: int) -> "Geometry":
        """The settings from numbers or pairs."""
        return Geometry(_pair(stride), _pair(padding), _pair(dilation), groups)

    def output_shape(self, read: Sequence[int], weight: Sequence[int]) -> tuple[int, ...]:
        """Shape of what a layer puts out.

        Args:
            read: shape of what it reads, `[..., K]` or `[..., Cin, H, W]`.
            weight: shape of its weight, `[N, K]` or `[Cout, Cin / groups, rows, columns]`.

        Raises:
            ValueError: they do not fit, a kernel is larger than the padded input, or a linear layer has other settings
                than a linear layer's.
        """
        dims = len(weight)
        if dims not in (2, 4):
            raise ValueError(
                f"the weight has shape {tuple(weight)}; expected [out, in] of a linear layer or [out, in/groups, "
                f"rows, columns] of a 2-D convolution"
            )
        if len(read) < dims:
            raise ValueError(
                f"the input has shape {tuple(read)}; a weight {tuple(weight)} reads "
                f"{'[..., C, H, W]' if dims == 4 else '[..., K]'}"
            )
        channels = read[-3 if dims == 4 else -1]
        if weight[1] * self.groups != channels or weight[0] % self.groups:
            raise ValueError(
                f"the weight has shape {tuple(weight)} in {self.groups} groups and the input {channels} channels; "
                f"expected {weight[1] * self.groups} channels, and outputs that divide by the groups"
            )
        if dims == 2:
            if self != POINT:
                raise ValueError(f"a linear layer has stride 1, padding 0, dilation 1 and 1 group; got {self}")
            return (*read[:-1], weight[0])
        settings = zip(read[-2:], weight[2:], self.stride, self.padding, self.dilation, strict=True)
        rows, columns = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in settings)
        if min(rows, columns) < 1:
            raise ValueError(f"a kernel {tuple(weight[2:])} with {self} does not fit on an input of {tuple(read[-2:])}")
        return (*read[:-3], weight[0], rows, columns)

    def check_gradient(self, gradient: Sequence[int], read: Sequence[int], weight: Sequence[int]) -> None:
        """Raises ValueError unless a gradient has the shape of what the layer puts out; see `output_shape`."""
        expected = self.output_shape(read, weight)
        if tuple(gradient) != expected:
            raise ValueError(
                f"the gradient has shape {tuple(gradient)}; the output of weights {tuple(weight)} on an input "
                f"{tuple(read)} has {expected}"
            )


POINT = Geometry((1, 1), (0, 0), (1, 1), 1)
"""A linear layer's."""


def as_maps(x: Tensor, dims: int) -> Tensor:
    """What a layer reads or puts out as `[samples, channels, rows, columns]`; `dims` are those of the weight."""
    return x.flatten(0, -2)[..., None, None] if dims == 2 else x.flatten(0, -4)


def kernel_of(weight: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of the kernel of a weight of that shape."""
    return (weight[2], weight[3]) if len(weight) == 4 else (1, 1)


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value
