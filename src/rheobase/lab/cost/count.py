"""Looking at the values of one tensor, and counting what meets in a product, exactly, borders and zero weights too."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from rheobase.nn.values import Values
from rheobase.scan.bits import is_binary

aten = torch.ops.aten

_GLANCE = 4096
"""Values that are looked at first: most real-valued tensors show themselves there."""

_EXACT = 2**24
"""Whole numbers up to here are exact in fp32."""


@dataclass(frozen=True)
class Convolution:
    """How a convolution lays its weights over its input: the arguments of torch's operator, for `rank` axes of space.

    Attributes:
        stride, padding, dilation, output_padding: one number per axis of space.
        transposed: it is a transposed convolution.
        groups: of channels.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int

    def fanout(self, weight: Tensor, space: Sequence[int], output: Sequence[int]) -> Tensor:
        """Weights that are not zero and that meet a value of the input: float64 `[C, *space]`.

        Args:
            weight: as torch keeps it.
            space: size of the input without batch and channels.
            output: size of the output likewise.
        """
        taps = weight != 0
        taps = taps.sum(1, keepdim=True) if self.transposed else taps.unflatten(0, (self.groups, -1)).sum(1)
        return self.reach(taps.double(), self.groups, space, output)

    def inside(self, weight: Sequence[int], space: Sequence[int], output: Sequence[int]) -> int:
        """Pairs of a value and a weight of one sample that meet within the borders, from shapes alone."""
        return _reached(self, tuple(weight[2:]), tuple(space), tuple(output)) * weight[0] * weight[1]

    def reach(self, taps: Tensor, groups: int, space: Sequence[int], output: Sequence[int]) -> Tensor:
        """Sum of the taps that meet each value: what ones at every output send back to the input."""
        sent = taps.new_ones(1, groups, *output)
        like = taps.new_empty(1, taps.shape[0] if self.transposed else groups * taps.shape[1], *space)
        settings = (self.stride, self.padding, self.dilation, self.transposed, self.output_padding, groups)
        found = aten.convolution_backward(sent, like, taps, None, *settings, [True, False, False])[0]
        return found[0]  # type: ignore[no-any-return]


@lru_cache(maxsize=1024)
def _reached(how: Convolution, kernel: tuple[int, ...], space: tuple[int, ...], output: tuple[int, ...]) -> int:
    """Pairs of one channel that meet within the borders."""
    taps = torch.ones(1, 1, *kernel, dtype=torch.float64, device="cpu")
    return int(how.reach(taps, 1, space, output).sum().round())


@dataclass(frozen=True)
class Seen:
    """What a tensor `[N, ...]` holds.

    Attributes:
        holds: {0, 1}, whole numbers, or anything.
        nonzero: how many of the N values at each place are not zero: float64 of the shape of one.
        sizes: sum of the absolute values at each place; None of real values.
        peak: largest absolute value; None of real values.
        count: how many values there are.
    """

    holds: Values
    nonzero: Tensor
    sizes: Tensor | None
    peak: float | None
    count: int


def look(x: Tensor) -> Seen:
    """Look at all values of x `[N, ...]`."""
    flat, places = _in_memory_order(x.detach())
    dtype = torch.float32 if len(flat) <= _EXACT else torch.float64
    if _is_binary(flat):
        nonzero = places(flat.sum(0, dtype=dtype))
        return Seen("binary", nonzero, nonzero, float(bool(nonzero.any())), x.numel())
    nonzero = places(flat.bool().sum(0, dtype=dtype))
    if not _is_whole(flat):
        return Seen("real", nonzero, None, None, x.numel())
    sizes = flat.abs()
    return Seen("graded", nonzero, places(sizes.sum(0, dtype=torch.float64)), float(sizes.max()), x.numel())


def values_of(x: Tensor) -> Values:
    """What a tensor holds: {0, 1}, whole numbers, or anything."""
    flat, _ = _in_memory_order(x.detach().unsqueeze(0))
    return "binary" if _is_binary(flat) else "graded" if _is_whole(flat) else "real"


def selects(x: Tensor) -> bool:
    """Whether x holds -1, 0 and 1 alone, so that a product with it adds, subtracts or leaves out."""
    flat, _ = _in_memory_order(x.detach().unsqueeze(0))
    size = flat[0, :_GLANCE].abs()
    return torch.equal(size, size * size) and _is_binary(flat.abs())


def _in_memory_order(x: Tensor) -> tuple[Tensor, "_Places"]:
    """`[N, places]` with the places in the order of memory, and what brings counts by place back to x's order."""
    strides = x.stride()
    order = sorted(range(1, x.dim()), key=lambda axis: (-strides[axis], axis))
    ordered = x.permute(0, *order)
    return ordered.reshape(x.shape[0], -1), _Places(tuple(ordered.shape[1:]), tuple(order))


@dataclass(frozen=True)
class _Places:
    """The axes of places in the order of memory, and their sizes."""

    shape: tuple[int, ...]
    order: tuple[int, ...]

    def __call__(self, counts: Tensor) -> Tensor:
        back = [self.order.index(axis) for axis in range(1, len(self.order) + 1)]
        return counts.double().view(self.shape).permute(back)


def _is_binary(flat: Tensor) -> bool:
    """Whether all values are 0 or 1."""
    return all(map(is_binary, (flat[:1, :_GLANCE], flat)))


def _is_whole(flat: Tensor) -> bool:
    """Whether all values are finite whole numbers."""
    return all(torch.equal(part, part.round()) and bool(part.isfinite().all()) for part in (flat[:1, :_GLANCE], flat))


def pairs(left: Tensor, right: Tensor) -> int:
    """Sum of all products of `[..., m, k]` and `[..., k, n]`: of masks, the pairs of two values that meet."""
    return int((left.sum(-2, dtype=torch.float64) * right.sum(-1, dtype=torch.float64)).sum().round())


def elements(shape: Sequence[int]) -> int:
    """How many values a tensor of that shape holds."""
    return math.prod(shape)
