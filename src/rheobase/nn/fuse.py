"""Layers that run as one: a norm waits for the neuron or the sum behind it, so that its value is never written."""

from dataclasses import replace
from typing import Any, TypeVar

from torch import Tensor, nn

from rheobase.neurons import Neuron
from rheobase.nn.norm import TdBN
from rheobase.nn.packing import pair
from rheobase.scan.engine import resolve
from rheobase.scan.norm import Normed

Model = TypeVar("Model", bound=nn.Module)


def settled(x: Any) -> Any:
    """x itself, or the value of a norm that waited in vain."""
    return x.value(resolve(x.x.device)) if isinstance(x, Normed) else x


def run(layer: nn.Module, x: Any) -> Any:
    """`layer(x)`, but a norm gives a `Normed` that waits for what comes next, and a neuron takes one in.

    A norm that somebody watches through a hook, and any norm on the reference engine, gives its value.
    """
    if isinstance(x, Normed) and not _takes_norm(layer):
        x = settled(x)
    if isinstance(layer, TdBN) and not _watched(layer) and layer.can_wait(x):
        return layer.waiting(x)
    return layer(x)


def _takes_norm(layer: nn.Module) -> bool:
    return isinstance(layer, Neuron) and type(layer).sequence is Neuron.sequence and layer.scan.fused


def _watched(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def run_with_sum(branch: nn.Module, x: Any, summand: Tensor, after: nn.Module) -> Any:
    """`after(branch(x) + summand)`; a norm at the end of the branch, the sum and a neuron behind it are one kernel."""
    y = branch.waiting(x) if isinstance(branch, Sequential) and not _watched(branch) else branch(x)
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

    In half formats the normalised value is not rounded between the two.
    """

    def waiting(self, x: Any) -> Any:
        """As calling it, but a norm at the end is left waiting."""
        for layer in self:
            x = run(layer, x)
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

    def forward(self, x: Tensor) -> Tensor:
        """Run x `[T, B, C, ...]`."""
        y: Tensor = run(self.neuron, run(self.norm, x))
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
