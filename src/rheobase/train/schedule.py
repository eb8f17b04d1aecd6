"""Learning-rate schedules: pure functions of the step number, so that resuming needs no scheduler state.

A schedule gives the factor in [0, 1] that multiplies the base learning rate at optimiser step `at` (0 .. total - 1).
All of them start with a linear warm-up over the first `warmup` steps, start + (1 - start) (at + 1) / warmup.
"""

import math
from collections.abc import Callable, Sequence


def constant(at: int, total: int, warmup: int = 0, start: float = 0.0) -> float:
    """1 after the warm-up. Raises ValueError unless 0 <= at < total and 0 <= warmup <= total."""
    return _warm(at, total, warmup, start)


def cosine(at: int, total: int, warmup: int = 0, start: float = 0.0, floor: float = 0.0, cooldown: int = 0) -> float:
    """floor + (1 - floor) (1 + cos(pi (at - warmup) / (total - cooldown - warmup))) / 2 after the warm-up.

    The last `cooldown` steps stay at `floor`. Raises like `constant`, and if warm-up and cool-down overlap.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5, without restarts.
    """
    warm, end = _warm(at, total, warmup, start), total - cooldown
    if not warmup <= end <= total:
        raise ValueError(
            f"schedule: a cool-down of {cooldown} steps does not fit {total} steps after a warm-up of {warmup}; "
            "shorten either or train longer"
        )
    if at < warmup:
        return warm
    return floor if at >= end else floor + (1 - floor) * (1 + math.cos(math.pi * (at - warmup) / (end - warmup))) / 2


def step_decay(
    at: int,
    total: int,
    warmup: int = 0,
    start: float = 0.0,
    milestones: Sequence[int] = (),
    gamma: float = 0.1,
) -> float:
    """gamma^m after m of the `milestones` (step numbers) have passed, times the warm-up. Raises like `constant`."""
    return float(_warm(at, total, warmup, start) * gamma ** sum(at >= milestone for milestone in milestones))


SCHEDULES: dict[str, Callable[..., float]] = {"constant": constant, "cosine": cosine, "step": step_decay}


def schedule(name: str) -> Callable[..., float]:
    """The schedule called `name`: constant, cosine or step. Raises ValueError for an unknown name."""
    if name not in SCHEDULES:
        raise ValueError(f"schedule: no schedule is called {name!r}; choose one of {', '.join(sorted(SCHEDULES))}")
    return SCHEDULES[name]


def _warm(at: int, total: int, warmup: int, start: float) -> float:
    if not 0 <= at < total:
        raise ValueError(
            f"schedule: step {at} is outside 0 .. {total - 1}; pass the global step and the total of steps"
        )
    if not 0 <= warmup <= total:
        raise ValueError(f"schedule: warmup is {warmup} steps but must lie in 0 .. {total}; shorten the warm-up")
    return start + (1 - start) * min(1.0, (at + 1) / warmup) if warmup else 1.0
