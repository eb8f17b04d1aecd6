"""Steps that tell their windows: where a surrogate's derivative is not zero, so that a gradient passes the spike.

Where the window is closed nobody need compute the gradient for the spike.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, reduce, wraps
from typing import Any

import torch
from torch import Tensor

from rheobase.scan.language import lacks
from rheobase.scan.spike import Derivative
from rheobase.scan.trace import Step


@dataclass(frozen=True, eq=False)
class Watched:
    """A surrogate that keeps, for every step, how far the membrane was from the threshold."""

    surrogate: Any
    seen: list[tuple[Any, Tensor]] = field(default_factory=list)

    def derivative(self, x: Tensor) -> Tensor:
        """That of the surrogate."""
        found: Tensor = self.surrogate.derivative(x)
        return found

    def __call__(self, x: Tensor, strict: bool = False) -> Tensor:
        """The surrogate's spike."""
        self.seen.append((self.surrogate, x))
        s: Tensor = self.surrogate(x, strict)
        return s


def watched(constants: Mapping[str, Any], seen: list[tuple[Derivative, Tensor]]) -> dict[str, Any]:
    """The constants of a step, with surrogates that tell what they are called with."""
    return {name: Watched(v, seen) if isinstance(v, Derivative) else v for name, v in constants.items()}


def window(surrogate: Derivative, distance: Tensor) -> Tensor:
    """Where a surrogate's derivative is not zero, as bool."""
    told: Callable[[Tensor], Tensor] | None = getattr(surrogate, "window", None)
    return surrogate.derivative(distance) != 0 if told is None else told(distance)


def close(constants: Mapping[str, Any]) -> bool:
    """Whether a step with these constants has surrogates, and all say that their windows close."""
    found = [v for v in constants.values() if isinstance(v, Derivative)]
    return bool(found) and all(getattr(v, "closes", False) for v in found)


@lru_cache(maxsize=256)
def windows_of(step: Step, spikes: bool = False) -> Step:
    """The step that puts out 1 where a window is open, else 0; it cannot be traced if no surrogate is called.

    Args:
        step: any.
        spikes: it puts out its own outputs first.
    """

    @wraps(step.fn)
    def windows(*args: Tensor, **arguments: Any) -> Any:
        seen: list[tuple[Derivative, Tensor]] = []
        outputs, state = step.fn(*args, **watched(arguments, seen))
        if not seen:
            raise lacks(step.name, "no surrogate")
        found = reduce(torch.logical_or, [window(*call) for call in seen]).to(args[0].dtype)
        if not spikes:
            return found, state
        return (*(outputs if isinstance(outputs, tuple) else (outputs,)), found), state

    return Step(windows, step.inputs, step.state)
