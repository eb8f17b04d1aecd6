"""How sequences lie in memory: as lanes, a neuron of a sample each, which both engines run side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from rheobase.scan.bit_layout import rows

_FORMAT = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16", torch.float16: "f16"}


@dataclass(frozen=True, eq=False)
class Lanes:
    """How `[T, *shape]` lies in memory: `order` lists the axes of one step from the slowest to the fastest."""

    T: int
    shape: tuple[int, ...]
    order: tuple[int, ...]
    io: str

    @cached_property
    def count(self) -> int:
        """Lanes: neurons times samples."""
        return math.prod(self.shape)

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """Strides of one step; those of axes of size one are 0, for they may be anything."""
        found, stride = [0] * len(self.shape), 1
        for a in reversed(self.order):
            if self.shape[a] != 1:
                found[a] = stride
                stride *= self.shape[a]
        return tuple(found)

    @cached_property
    def whole(self) -> tuple[int, ...]:
        """Strides of the tensors that `empty` makes for a sequence."""
        return self._strides_of(self.count, [1 if size == 0 else size for size in self.shape])

    def _strides_of(self, first: int, shape: Sequence[int]) -> tuple[int, ...]:
        found, stride = [0] * len(shape), 1
        for a in reversed(self.order):
            found[a] = stride
            stride *= shape[a]
        return (first, *found)

    @cached_property
    def back(self) -> list[int]:
        """The permutation from memory order to the order of the axes."""
        return [self.order.index(a) for a in range(len(self.shape))]

    @property
    def inner(self) -> tuple[int, ...]:
        """Sizes of one sample's axes, in memory order."""
        return tuple(self.shape[a] for a in self.order[1:])

    def empty(self, T: int | None, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
        """An uninitialised tensor of this layout, with T steps or (None) of one step's shape."""
        if T is None:
            return torch.empty_strided(self.shape, self.whole[1:], dtype=dtype, device=device)
        return torch.empty_strided((T, *self.shape), self.whole, dtype=dtype, device=device)

    def fits(self, shape: Sequence[int], stride: Sequence[int]) -> bool:
        """Whether a tensor lies as this layout says (a sequence's steps may all be the same memory)."""
        if len(shape) > len(self.shape):
            if shape[0] > 1 and stride[0] not in (0, self.count):
                return False
            stride = stride[1:]
        return all(size == 1 or a == b for size, a, b in zip(self.shape, stride, self.strides, strict=True))

    def lay(self, x: Tensor) -> Tensor:
        """x itself if it fits, else a copy that does."""
        if self.fits(x.shape, x.stride()):
            return x
        steps = x.shape[0] if x.dim() > len(self.shape) else None
        return self.empty(steps, x.dtype, x.device).copy_(x)


def lanes_of(x: Tensor) -> Lanes:
    """The layout of a sequence `[T, *shape]`: its own, if it is dense, else that of a contiguous one."""
    return _as_they_lie(x.shape, x.stride(), x.dtype)


@lru_cache(maxsize=4096)
def _as_they_lie(shape: torch.Size, stride: tuple[int, ...], dtype: torch.dtype) -> Lanes:
    T, step = shape[0], tuple(shape[1:])
    axes = sorted(range(1, len(step)), key=lambda a: (-stride[a + 1], a))
    lanes = Lanes(T, step, (0, *axes), _FORMAT[dtype])
    return lanes if lanes.fits(shape, stride) else Lanes(T, step, tuple(range(len(step))), lanes.io)


@lru_cache(maxsize=4096)
def repeats(shape: torch.Size, lanes: Lanes) -> tuple[bool, int, int]:
    """How a parameter lies along the lanes: (whether as in its memory, lanes each value is repeated over, values)."""
    rest = lanes.shape[1:]
    aligned = (*(1,) * (len(rest) - len(shape)), *shape)
    varying = [k for k, size in enumerate(aligned) if size > 1]
    if len(varying) == 1:
        k = lanes.order.index(varying[0] + 1) - 1
        return True, math.prod(lanes.inner[k + 1 :]), lanes.inner[k]
    ordered = lanes.order == tuple(range(len(lanes.shape)))
    return ordered and aligned == rest, 1, math.prod(rest)


def spread(p: Tensor, lanes: Lanes) -> tuple[Tensor, int, int]:
    """A parameter's values along the lanes: (contiguous, lanes each is repeated over, how many there are)."""
    as_it_lies, inner, size = repeats(p.shape, lanes)
    if not as_it_lies:
        aligned = p.detach().reshape([1] * (len(lanes.shape) - 1 - p.dim()) + list(p.shape))
        p = aligned.expand(lanes.shape[1:]).permute([a - 1 for a in lanes.order[1:]]).contiguous()
    elif not p.is_contiguous():
        p = p.detach().contiguous()
    return p, inner, size


def stride(x: Tensor) -> tuple[int, ...]:
    """Strides of what the kernels put out for a sequence x."""
    return lanes_of(x).whole


def words(x: Tensor) -> tuple[int, int] | None:
    """(rows, words) of the bits of what the kernels put out for a sequence x.

    None if a row would need padding, or a step ends within a word.
    """
    lanes = lanes_of(x)
    count, inner = rows(x.shape, lanes.whole)
    return None if inner % 64 or lanes.count % 64 or not x.numel() else (count, inner // 64)
