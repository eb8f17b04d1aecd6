"""From what a model puts out at each step to one answer per sample."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def _earliest(y: Tensor) -> Tensor:
    weight = torch.arange(len(y), 0, -1, device=y.device, dtype=y.dtype) / len(y)
    return (y * weight.view(-1, *(1,) * (y.dim() - 1))).amax(0)


READOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda y: y.mean(0),
    "sum": lambda y: y.sum(0),
    "last": lambda y: y[-1],
    "max": lambda y: y.amax(0),
    "first": _earliest,
}


def read_out(y: Float[Tensor, "T B *rest"], how: str = "mean") -> Float[Tensor, "B *rest"]:
    """One value for each sample and class: `[T, B, K]` to `[B, K]` by mean, sum, last step or maximum over time.

    Spikes are averaged or summed; of leaky integrators the last or the largest value serves as well. "first" is the
    maximum of $y_t (T - t)/T$, t from 0: the class that fires first wins.

    Raises:
        ValueError: no such readout.
    """
    if how not in READOUTS:
        raise ValueError(f"read_out: there is no readout {how!r}; expected one of {', '.join(READOUTS)}")
    return READOUTS[how](y)
