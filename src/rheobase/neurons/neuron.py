"""A neuron is a step with parameters; how firing lowers the membrane is said once, here."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from rheobase.scan import Scan, Step, Temporal
from rheobase.scan.norm import Normed
from rheobase.scan.spikes import AsBits

Reset = Literal["zero", "subtract", "none"]


def fired(h: Tensor, s: Tensor, threshold: Tensor | float, reset: str, detach: bool) -> Tensor:
    r"""The membrane after firing: zero: $h(1-s)$; subtract: $h - \vartheta s$; none: $h$.

    Args:
        h: membrane before firing.
        s: the spike.
        threshold: $\vartheta$.
        reset: which of the three.
        detach: no gradient through the reset path.

    Raises:
        ValueError: an unknown reset.
    """
    if reset not in ("zero", "subtract", "none"):
        raise ValueError(f"reset is {reset!r}; expected 'zero', 'subtract' or 'none'")
    if detach:
        s = s.detach()
    if reset == "zero":
        return h * (1 - s)
    return h - threshold * s if reset == "subtract" else h


def reset_to(h: Tensor, s: Tensor, value: Tensor | float, detach: bool) -> Tensor:
    r"""The membrane after firing where a spike sets it to `value` $r$: $h(1-s) + r s$; arguments as in `fired`."""
    if detach:
        s = s.detach()
    return h * (1 - s) + value * s


def response(A: Sequence[Sequence[float]], b: Sequence[float], t: int) -> list[float]:
    r"""State after t steps of $z \leftarrow A z + b$ from zero: $(1 - A)^{-1}(1 - A^t)\,b$, for a regular $1 - A$."""
    a, one = np.asarray(A, dtype=np.float64), np.eye(len(b))
    found: list[float] = np.linalg.solve(one - a, (one - np.linalg.matrix_power(a, t)) @ np.asarray(b)).tolist()
    return found


class Neuron(Temporal):
    """Any step as a module: `[T, B, ...]` in, `[T, B, ...]` out, state held by the caller.

    Named arguments of the step are sorted by what they are: an `nn.Parameter` is learned, a tensor is a buffer, a
    number stays a number; everything else (surrogate, reset, flags) is a constant of the trace.
    """

    def __init__(self, step: Step, **arguments: Any) -> None:
        """Bind `step` to its arguments.

        Raises:
            ValueError: an argument that the step does not have, or one that is missing.
            UnsupportedOperationError: the step leaves the language of steps.
        """
        super().__init__()
        constants = {}
        for name, value in arguments.items():
            if isinstance(value, nn.Parameter):
                self.register_parameter(name, value)
            elif isinstance(value, Tensor):
                self.register_buffer(name, value)
            elif isinstance(value, int | float) and not isinstance(value, bool):
                setattr(self, name, float(value))
            else:
                constants[name] = value
        self.scan = Scan(step, **constants)
        missing = [name for name in self.scan.params if name not in arguments]
        if missing:
            raise ValueError(f"{type(self).__name__}: step {step.name!r} needs {missing[0]!r}; pass it by name")

    @property
    def emits(self) -> str:
        """What comes out: "binary" ({0, 1}, declared by the step itself) or "real"."""
        from rheobase.scan.ir import parse

        return "binary" if self.scan.fused and all(parse(self.scan.text()).binary) else "real"

    def noise(self, x: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG002
        """The inputs of the step that the module draws itself for the sequence x; none unless it is stochastic."""
        return ()

    def sequence(self, x: Any, state: tuple[Tensor, ...] | None) -> tuple[Any, tuple[Tensor, ...]]:
        """Run x `[T, B, ...]`, or a normalisation of it, from `state`, each `[B, ...]` (None: rest).

        A step with several inputs takes a tuple of sequences; noise is drawn unless it is in the tuple. What comes as
        `AsBits` is answered with `Spikes`.
        """
        packed = isinstance(x, AsBits)
        x = x.x if isinstance(x, AsBits) else x
        first, *others = x if isinstance(x, tuple | list) else (x,)
        if 1 + len(others) < len(self.scan.step.inputs):
            others += self.noise(first.x if isinstance(first, Normed) else first)
        params = {name: getattr(self, name) for name in self.scan.params}
        if packed:
            return self.scan.spikes(first, others, state, **params)
        if isinstance(first, Normed):
            return self.scan.normed(first, others, state, **params)
        return self.scan((first, *others), state, **params)

    def number(self, name: str) -> float:
        """The value of a parameter that is one number."""
        value = getattr(self, name)
        return float(value.item()) if isinstance(value, Tensor) else float(value)

    def extra_repr(self) -> str:
        """The step's name, its parameters and constants."""
        shown = []
        for name in self.scan.params:
            value = getattr(self, name)
            if isinstance(value, Tensor):
                value = value.item() if value.numel() == 1 else f"tensor{tuple(value.shape)}"
            shown.append(f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}")
        return ", ".join([*shown, *(f"{name}={value!r}" for name, value in self.scan.constants.items())])


def check_positive(owner: str, **values: float | Tensor) -> None:
    """Raise ValueError unless every value is above zero everywhere."""
    for name, value in values.items():
        low = value.min().item() if isinstance(value, Tensor) else value
        if not low > 0:
            raise ValueError(f"{owner}: {name} is {low}; expected a positive number")
