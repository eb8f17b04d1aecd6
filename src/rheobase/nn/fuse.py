"""Layers that run as one.

A norm waits for the neuron or the sum behind it, so that its value is never written; a neuron hands its spikes as bits
to a layer behind it that reads bits, so that they are never written as numbers.
"""

from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from rheobase.neurons import Neuron
from rheobase.nn.norm import TdBN
from rheobase.nn.packing import ReadsSpikes, pair
from rheobase.nn.time import PerStep
from rheobase.scan import lanes
from rheobase.scan.engine import resolve
from rheobase.scan.norm import Normed
from rheobase.scan.spikes import AsBits, Spikes

Model = TypeVar("Model", bound=nn.Module)


def settled(x: Any) -> Any:
    """x itself, or the value of a norm or of spikes that waited in vain."""
    if isinstance(x, Normed):
        return x.value(resolve(x.x.device))
    return x.value() if isinstance(x, Spikes) else x


def run(layer: nn.Module, x: Any, reader: nn.Module | None = None) -> Any:
    """`layer(x)`, but a norm gives a `Normed` that waits for what comes next, and a neuron takes one in.

    A neuron gives `Spikes` where `reader`, the layer that will be handed its output, reads bits. A layer that somebody
    watches through a hook, and any layer on the reference engine, gives its value.
    """
    if isinstance(layer, Sequential | NormNeuron) and not _watched(layer):
        return layer.waiting(x, reader)
    if isinstance(x, Normed) and not _is_plain_neuron(layer):
        x = settled(x)
    if isinstance(x, Spikes) and _reader_in(layer) is None:
        x = settled(x)
    if isinstance(layer, TdBN) and not _watched(layer) and layer.can_wait(x):
        return layer.waiting(x)
    asked = reader is not None and not torch.compiler.is_compiling() and _hands_bits(layer, x, reader)
    return layer(AsBits(x) if asked else x)


def _is_plain_neuron(layer: nn.Module) -> bool:
    return isinstance(layer, Neuron) and type(layer).sequence is Neuron.sequence and layer.scan.fused


def _hands_bits(neuron: nn.Module, x: Any, reader: nn.Module) -> bool:
    """Whether the neuron's spikes for x may come as bits, and the reader is glad of them."""
    found = _reader_in(reader) if _is_plain_neuron(neuron) and not _watched(neuron) else None
    if found is None:
        return False
    layer, per_step = found
    x = x.x if isinstance(x, Normed) else x
    if not isinstance(x, Tensor) or x.dim() < 3 or not neuron.scan.can_pack(x):  # type: ignore[union-attr, operator]
        return False
    size, stride = tuple(x.shape), lanes.stride(x)
    if per_step:
        size, stride = (size[0] * size[1], *size[2:]), stride[1:]
    return layer.takes_bits(size, stride, x.dtype)


def _reader_in(layer: nn.Module, per_step: bool = False) -> tuple[ReadsSpikes, bool] | None:
    """The layer that would read what this one is handed, if it may be handed bits, and whether time is folded there."""
    if _watched(layer):
        return None
    if isinstance(layer, ReadsSpikes):
        return layer, per_step
    if isinstance(layer, PerStep):
        return None if per_step else _reader_in(layer.module, True)
    if isinstance(layer, nn.Sequential) and len(layer):
        return _reader_in(layer[0], per_step)
    return None


def _watched(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def run_with_sum(branch: nn.Module, x: Any, summand: Tensor, after: nn.Module) -> Any:
    """`after(branch(x) + summand)`; a norm at the end of the branch, the sum and a neuron behind it are one kernel."""
    y = run(branch, x)
    if isinstance(y, Normed) and y.plus is None and (y.x.shape, y.x.dtype) == (summand.shape, summand.dtype):
        return settled(run(after, replace(y, plus=summand)))
    y = settled(y)
    if y.shape != summand.shape:
        raise ValueError(
            f"the branch puts out {tuple(y.shape)} but the shortcut {tuple(summand.shape)}; make them equal"
        )
    return after(y + summand)


class Sequential(nn.Sequential):
    """nn.Sequential in which a `TdBN` and the neuron behind it run as one kernel; names and results are the same.

    A neuron hands its spikes as bits to a layer behind it that reads them so: see `rheobase.nn.Conv2d`. In half formats
    the normalised value is not rounded between norm and neuron.
    """

    def waiting(self, x: Any, reader: nn.Module | None = None) -> Any:
        """As calling it, but a norm at the end, or bits for the `reader` that comes next, are left waiting."""
        layers = list(self)
        for layer, following in zip(layers, [*layers[1:], reader], strict=True):
            x = run(layer, x, following)
        return x

    def forward(self, x: Any) -> Any:  # noqa: D102
        return settled(self.waiting(x))


class NormNeuron(nn.Module):
    r"""A norm and a neuron as one layer: $S = f(\mathrm{N}(X))$; only X is kept for backward.

    Args:
        norm: over time, batch and space.
        neuron: reads its output.
    """

    def __init__(self, norm: TdBN, neuron: nn.Module) -> None:
        super().__init__()
        self.norm, self.neuron = norm, neuron

    @property
    def emits(self) -> str:
        """What the neuron emits."""
        return getattr(self.neuron, "emits", "real")

    def waiting(self, x: Any, reader: nn.Module | None = None) -> Any:
        """As calling it, but spikes as bits for the `reader` that comes next are left waiting."""
        return run(self.neuron, run(self.norm, x), reader)

    def forward(self, x: Tensor) -> Tensor:
        """Run x `[T, B, C, ...]`."""
        y: Tensor = settled(self.waiting(x))
        return y


def fuse(model: Model) -> Model:
    """Let neighbours in every nn.Sequential of the model run as one; returns the model itself.

    A norm and the neuron behind it become one kernel; a plain convolution or linear layer behind an emitter of spikes
    keeps its input packed (see `rheobase.nn.packing.pair`). Names, parameters, buffers and results stay: weights saved
    before are loaded after, and the other way round.
    """
    for module in list(model.modules()):
        if isinstance(module, nn.Sequential):
            pair(module)
        if type(module) is nn.Sequential:
            module.__class__ = Sequential
    return model
