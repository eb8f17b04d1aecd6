"""What goes along with a training: a term of the loss, and changes of gradients and weights around every update."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Step:
    """An optimiser step of a training.

    Attributes:
        index: optimiser steps before it.
        total: steps of the whole training.
        per_epoch: steps of an epoch.
        lr: the learning rate it is made with.
    """

    index: int
    total: int
    per_epoch: int
    lr: float

    @property
    def ends_epoch(self) -> bool:
        """Whether it is the last of its epoch."""
        return (self.index + 1) % self.per_epoch == 0


class Hooks:
    """Called by `fit` in this order; each does nothing unless a subclass says so.

    What a subclass remembers from step to step must lie in the state_dict of the model, such as in buffers that it
    registers before `fit`: then a training that was killed goes on with equal bits.
    """

    def begin(self, model: nn.Module, rates: Sequence[float]) -> None:
        """Before the first step, again where a training is resumed: the model and the learning rate of every step."""

    def penalty(self, x: Tensor, y: Tensor) -> Tensor | None:
        """Behind every forward pass: a scalar to add to the loss, or None, from what the model read and the labels."""

    def before_update(self, step: Step) -> None:
        """When the gradients are there, before they are clipped and the optimiser uses them."""

    def after_update(self, step: Step) -> None:
        """When the optimiser has changed the weights."""

    def end(self) -> None:
        """Behind the last step, and whatever ends a training before."""


class Together(Hooks):
    """Several hooks as one; each is called in order."""

    def __init__(self, hooks: Sequence[Hooks]) -> None:
        self.hooks = tuple(hooks)

    def begin(self, model: nn.Module, rates: Sequence[float]) -> None:
        """See `Hooks`."""
        for hook in self.hooks:
            hook.begin(model, rates)

    def penalty(self, x: Tensor, y: Tensor) -> Tensor | None:
        """The sum of all."""
        found = [term for term in (hook.penalty(x, y) for hook in self.hooks) if term is not None]
        return sum(found[1:], found[0]) if found else None

    def before_update(self, step: Step) -> None:
        """See `Hooks`."""
        for hook in self.hooks:
            hook.before_update(step)

    def after_update(self, step: Step) -> None:
        """See `Hooks`."""
        for hook in self.hooks:
            hook.after_update(step)

    def end(self) -> None:
        """See `Hooks`."""
        for hook in self.hooks:
            hook.end()
