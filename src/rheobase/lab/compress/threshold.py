"""Threshold schedules of soft-threshold pruning: how the threshold d rises to its end value D. Pure functions.

Training theta with w = S_d(theta) is the iteration ISTA for the objective L(w) + lambda |w|_1 with
lambda_t = (d_{t+1} - d_t) / eta_t: a schedule of thresholds is a choice of lambda.

Source: Chen et al. 2023, arXiv:2302.13019 ("LATS"), and its code; the reading of lambda is derived in our sheet.
"""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise


def from_rates(rates: Sequence[float]) -> list[float]:
    """d / D before every step and behind the last one: sums of the learning rates over their total, n + 1 numbers.

    LATS itself: lambda is constant, D over the sum of all rates, whatever the schedule of the rates is.

    Raises:
        ValueError: the rates do not add up to more than 0.
    """
    total = math.fsum(rates)
    if not total > 0:
        raise ValueError(f"from_rates: the learning rates add up to {total}; expected more than 0")
    return [0.0, *(min(1.0, part / total) for part in accumulate(rates))]


def s_lats(x: float) -> float:
    """x + sin(pi x) / pi: LATS for a cosine of learning rates to 0, smooth; x is the share of steps done, in [0, 1]."""
    return x + math.sin(math.pi * x) / math.pi


def lats(epoch: int, done: int, epochs: int, per_epoch: int) -> float:
    """LATS for a cosine that is constant within an epoch, as its code has it: d / D with `done` steps of `epoch` made.

    base(n) + done (1 + cos(n pi / N)) / (B (N + 1)), base(n) = sum over k < n of (1 + cos(k pi / N)) / (N + 1).
    """
    last = math.pi / epochs
    base = 0.5 * (1 + 2 * epoch + math.sin(last * (epoch - 0.5)) / math.sin(last / 2)) / (epochs + 1)
    return base + done * (1 + math.cos(epoch * last)) / (per_epoch * (epochs + 1))


def pgh(x: float, beta: float = 0.1) -> float:
    """Proximal gradient homotopy: d'(x) is proportional to beta^x (1 + cos(pi x)), so that lambda falls as beta^x.

    With l = ln beta: (pi^2 (beta^x - 1) + (beta^x - 2) l^2 + beta^x l (l cos(pi x) + pi sin(pi x)))
    / (pi^2 (beta - 1) - 2 l^2). At beta = 1 it is `s_lats`, the limit.

    Raises:
        ValueError: beta is not above 0.
    """
    if not beta > 0:
        raise ValueError(f"pgh: beta is {beta}; expected a number above 0, below 1 for a threshold that rises early")
    if beta == 1:
        return s_lats(x)
    log, power = math.log(beta), beta**x
    wave = log * math.cos(math.pi * x) + math.pi * math.sin(math.pi * x)
    above = math.pi**2 * (power - 1) + (power - 2) * log**2 + power * log * wave
    return above / (math.pi**2 * (beta - 1) - 2 * log**2)


def linear(x: float) -> float:
    """x. With a cosine of learning rates lambda rises without bound: a baseline (STDS)."""
    return x


def sine(x: float) -> float:
    """(1 + sin(pi (x - 1/2))) / 2, the schedule of STDS."""
    return (1 + math.sin(math.pi * (x - 0.5))) / 2


def constant(x: float) -> float:  # noqa: ARG001
    """1: no pull at all. Starts from sign(theta) (|theta| + D), whose shrunk weights are the dense ones."""
    return 1.0


SMOOTH: dict[str, Callable[..., float]] = {
    "s-lats": s_lats, "pgh": pgh, "linear": linear, "sine": sine, "constant": constant,
}  # fmt: skip
"""Schedules of the share of steps done."""
SCHEDULES = ("lats", "lats-closed", *SMOOTH)


def thresholds(name: str, rates: Sequence[float], per_epoch: int, beta: float = 0.1) -> list[float]:
    """d / D before every step and behind the last one: n + 1 numbers for n learning rates.

    Args:
        name: one of `SCHEDULES`: "lats" follows the rates, whatever they are; "lats-closed" is the code's closed form.
        rates: the learning rate of every step.
        per_epoch: steps of an epoch, for "lats-closed".
        beta: of "pgh".

    Raises:
        ValueError: no such schedule, or what the schedule itself refuses.
    """
    n = len(rates)
    if name == "lats":
        return from_rates(rates)
    if name == "lats-closed":
        epochs = n // per_epoch
        inner = [lats(k // per_epoch, k % per_epoch, epochs, per_epoch) for k in range(n)]
        return [*inner, lats(epochs, 0, epochs, per_epoch)]
    if name not in SMOOTH:
        raise ValueError(f"there is no schedule {name!r}; expected one of {', '.join(SCHEDULES)}")
    extra = {"beta": beta} if name == "pgh" else {}
    return [SMOOTH[name](k / n, **extra) for k in range(n + 1)]


def pressure(found: Sequence[float], rates: Sequence[float], D: float) -> list[float]:
    """lambda of every step: (d_{t+1} - d_t) / eta_t; infinite where the rate is 0 and d rises."""
    steps = zip(pairwise(found), rates, strict=True)
    return [D * (b - a) / eta if eta else (math.inf if b > a else 0.0) for (a, b), eta in steps]
