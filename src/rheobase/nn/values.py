"""What tensors hold: declared by who emits them, kept by what only moves values, never guessed from a batch."""

from typing import Literal

from torch import nn

from rheobase.nn.time import PerStep

Values = Literal["binary", "graded", "real"]
"""What a tensor holds: {0, 1}, whole numbers (sums of spikes), or anything."""

_ORDER: tuple[Values, ...] = ("binary", "graded", "real")

_KEEP = (
    nn.Identity,
    nn.Flatten,
    nn.Unflatten,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
    nn.ZeroPad1d,
    nn.ZeroPad2d,
    nn.ZeroPad3d,
    nn.ReflectionPad1d,
    nn.ReflectionPad2d,
    nn.ReflectionPad3d,
    nn.ReplicationPad1d,
    nn.ReplicationPad2d,
    nn.ReplicationPad3d,
    nn.CircularPad1d,
    nn.CircularPad2d,
    nn.CircularPad3d,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.ChannelShuffle,
)
"""Modules that put out values they were given, or zeros: reshaping, max-pooling, cropping (negative pads), padding."""


def emits(module: nn.Module, reads: Values = "real") -> Values:
    """What comes out of a module that reads values of the given kind.

    A module that declares `emits` emits that. `PerStep` emits what its inner module does, nn.Sequential what its last
    does; modules that only move values keep their kind; any other emits "real".
    """
    declared: Values | None = getattr(module, "emits", None)
    if declared is not None:
        return declared
    if isinstance(module, PerStep):
        return emits(module.module, reads)
    if isinstance(module, nn.Sequential):
        for layer in module:
            reads = emits(layer, reads)
        return reads
    return reads if isinstance(module, _KEEP) else "real"


def concatenated(*values: Values) -> Values:
    """What a concatenation of tensors of these kinds holds: the least special of them."""
    return max(values, key=_ORDER.index)


def added(*values: Values) -> Values:
    """What a sum of tensors of these kinds holds: sums of spikes are graded."""
    return "real" if "real" in values else "graded"
