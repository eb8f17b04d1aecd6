"""State as a value: what a module remembers between chunks is handed in and out, never kept on the module."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

ModelState = dict[str, tuple[Tensor, ...]]
"""State of a whole model: `qualified name#call number` -> tensors."""


@dataclass
class Call:
    """One call of a model with state: what came in, what goes out, how often each module ran."""

    names: dict[nn.Module, str]
    before: ModelState
    after: ModelState = field(default_factory=dict)
    count: dict[nn.Module, int] = field(default_factory=dict)

    def key(self, module: nn.Module) -> str:
        """The key of this call of `module`; a module that runs twice in a forward pass has two states."""
        number = self.count.get(module, 0)
        self.count[module] = number + 1
        return f"{self.names.get(module, '')}#{number}"


_active: ContextVar[Call | None] = ContextVar("rheobase_call", default=None)


def active() -> Call | None:
    """The surrounding call with state, if there is one."""
    return _active.get()


@contextmanager
def within(call: Call | None) -> Iterator[None]:
    """Make `call` the surrounding one; None: modules inside start from rest."""
    token = _active.set(call)
    try:
        yield
    finally:
        _active.reset(token)


class Temporal(nn.Module):
    """A module with state over time. Subclasses write `sequence`; calling the module starts from rest.

    Inside `rb.call` and `rb.stream` the state is taken from and given back to the caller.
    """

    streamable = True

    def sequence(self, x: Any, state: tuple[Tensor, ...] | None) -> tuple[Any, tuple[Tensor, ...]]:
        """Map x `[T, B, ...]` and the state before it (None: rest) to the output and the state after it."""
        raise NotImplementedError

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Set what follows a schedule, before epoch `epoch` (from 0) of so many; nothing unless a subclass says so."""

    def forward(self, x: Any) -> Any:
        """Run the sequence x `[T, B, ...]`, from rest or from the state of the surrounding call."""
        call = None if torch.compiler.is_compiling() else active()
        if call is None:
            return self.sequence(x, None)[0]
        key = call.key(self)
        if not self.streamable:
            raise ValueError(
                f"{_named(key, self)}: {type(self).__name__} needs the whole sequence and "
                f"cannot be streamed; call the model on the whole sequence"
            )
        try:
            y, after = self.sequence(x, call.before.get(key))
        except ValueError as error:
            raise ValueError(f"{_named(key, self)}: {error}") from error
        if after and call.before and key not in call.before:
            raise ValueError(
                f"{_named(key, self)}: the state has no entry {key!r}, only {sorted(call.before)[:3]}; "
                f"pass what this model returned, or None to start from rest"
            )
        call.after[key] = after
        return y


def _named(key: str, module: nn.Module) -> str:
    """The name of a module in its model, or its class where it is the model."""
    return key.partition("#")[0] or type(module).__name__


@contextmanager
def calling(model: nn.Module, state: ModelState) -> Iterator[Call]:
    """Make `state` the state of every `Temporal` module inside; the yielded call collects the state after.

    Raises:
        ValueError: `state` has an entry that no module asked for, so it belongs to another model; or no temporal module
            handed its state over, as in a compiled model.
    """
    call = Call({module: name for name, module in model.named_modules()}, state)
    with within(call):
        yield call
    if not call.after and any(isinstance(module, Temporal) for module in call.names):
        raise ValueError(
            f"{type(model).__name__} has temporal modules but none handed its state over; a compiled model cannot be "
            f"streamed: stream the module it was compiled from"
        )
    if unread := state.keys() - call.after.keys():
        raise ValueError(
            f"state has entries {sorted(unread)[:3]} that the model did not read; pass what this model returned"
        )
