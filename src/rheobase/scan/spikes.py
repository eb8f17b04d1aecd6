"""Spikes that were never written as numbers: bits on their way from the neuron to a layer that reads bits."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rheobase.scan.bits import unpack


@dataclass(frozen=True, eq=False)
class Spikes:
    """A sequence of spikes as bits.

    Attributes:
        carrier: a tensor of the spikes' shape and format that takes their gradient. It holds one number, NaN, wherever
            it is read: whoever takes it for the spikes will notice.
        bits: int64 `[rows, words]`, as `rheobase.scan.bits.pack` would give them.
        stride: of the spikes, were they written as numbers.
        needed: bits, like the spikes', that say where their gradient is needed; None: everywhere.
    """

    carrier: Tensor
    bits: Tensor
    stride: tuple[int, ...]
    needed: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        """Of the spikes."""
        return self.carrier.shape

    @property
    def dtype(self) -> torch.dtype:
        """Of the spikes."""
        return self.carrier.dtype

    @property
    def density(self) -> float:
        """The share of ones."""
        return ones(self.bits) / max(1, self.carrier.numel())

    def folded(self) -> "Spikes":
        """The spikes `[T*B, ...]`, time folded into the batch."""
        return replace(self, carrier=self.carrier.flatten(0, 1), stride=self.stride[1:])

    def value(self) -> Tensor:
        """The spikes as numbers."""
        y: Tensor = _Unpack.apply(self.carrier, self.bits, self.stride)
        return y


@dataclass(frozen=True, eq=False)
class AsBits:
    """What a neuron is given when its spikes are wanted as bits, and can be had so (`Scan.can_pack`): its input x."""

    x: Any


def ones(bits: Tensor) -> int:
    """How many bits are set."""
    import numpy as np

    return int(np.bitwise_count(bits.numpy().view(np.uint64)).sum(dtype=np.int64))


def carrier(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """See `Spikes`."""
    return torch.full((), torch.nan, dtype=dtype).expand(shape)


class _Unpack(torch.autograd.Function):
    """The spikes of a carrier; their gradient is the carrier's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bits: Tensor, stride: tuple[int, ...]) -> Tensor:  # noqa: ARG004
        return unpack(bits, x.shape, stride, x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # noqa: ARG004
        return grad, None, None
