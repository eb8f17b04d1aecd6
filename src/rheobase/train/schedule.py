"""Learning-rate schedules: pure functions of the step number, so that resuming needs no scheduler state.

A schedule gives the factor in [0, 1] that multiplies the base learning rate at optimiser step `at` (0 .. total - 1).
All of them start with a linear warm-up, (at + 1) / warmup, over the first `warmup` steps.
"""

import math
from collections.abc import Callable, Sequence


def constant(at: int, total: int, warmup: int = 0) -> float:
    """1 after the warm-up. Raises ValueError unless 0 <= at < total and 0 <= warmup <= total."""
    return _warm(at, total, warmup)


def cosine(at: int, total: int, warmup: int = 0) -> float:
    """(1 + cos(pi * (at - warmup) / (total - warmup))) / 2 after the warm-up. Raises like `constant`.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5, without restarts.
    """
    warm = _warm(at, total, warmup)
    return warm if at < warmup else (1 + math.cos(math.pi * (at - warmup) / (total - warmup))) / 2


def step_decay(at: int, total: int, warmup: int = 0, milestones: Sequence[int] = (), gamma: float = 0.1) -> float:
    """gamma^m after m of the `milestones` (step numbers) have passed, times the warm-up. Raises like `constant`."""
    return float(_warm(at, total, warmup) * gamma ** sum(at >= milestone for milestone in milestones))


SCHEDULES: dict[str, Callable[..., float]] = {"constant": constant, "cosine": cosine, "step": step_decay}


def schedule(name: str) -> Callable[..., float]:
    """The schedule called `name`: constant, cosine or step. Raises ValueError for an unknown name."""
    if name not in SCHEDULES:
        raise ValueError(f"schedule: no schedule is called {name!r}; choose one of {', '.join(sorted(SCHEDULES))}")
    return SCHEDULES[name]


def _warm(at: int, total: int, warmup: int) -> float:
    if not 0 <= at < total:
        raise ValueError(
            f"schedule: step {at} is outside 0 .. {total - 1}; pass the global step and the total of steps"
        )
    if not 0 <= warmup <= total:
        raise ValueError(f"schedule: warmup is {warmup} steps but must lie in 0 .. {total}; shorten the warm-up")
    return min(1.0, (at + 1) / warmup) if warmup else 1.0
