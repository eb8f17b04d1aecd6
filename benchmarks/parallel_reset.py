r"""LIF with its exact reset, parallel over time, against the fused loop over time: does it pay, and from which T on?

$h_t = a_t h_{t-1} + x_t/\tau$ with $a_t = (1 - 1/\tau)(1 - s_{t-1})$ is linear once the spikes are known, and a linear
recurrence is a scan: $\log_2 T$ passes over all steps at once (recursive doubling). So guess the spikes, compute all
membranes, threshold them, and repeat until no spike changes. What is found is the neuron's own answer: a fixed point
satisfies every step's equation, and these have one solution. Every round makes at least one more step right, so there
are at most T + 1 rounds; a leak forgets, so on noise there are far fewer (2 to 13 here).

Both compute spikes without building a graph, reset to zero, tau 2, threshold 1, fp32, from rest; inputs `[T, 1, N]` are
normal with mean 0.5 and deviation 1.5. Compared in fp64 first, where the spikes must be equal, then in fp32. The fused
loop does the least work there is and runs its vector lanes over neurons; the scan does rounds times $\log_2 T$ times as
much, and could only win where there are fewer neurons than vector lanes.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.measure import Contest, Effort, compare
from benchmarks.rows import REFUSED, Facts, Row, Show, over_first
from rheobase.neurons import LIF

CASE = "LIF tau=2, threshold 1, reset to zero, spikes only"
SIZES = tuple((T, N) for N in (1, 32, 1024) for T in (16, 64, 256, 1024, 4096))
QUICK = tuple((T, N) for N in (1, 32) for T in (16, 256, 4096))
TIES = 1e-6
"""Share of the fp32 spikes that may differ: membranes within rounding of the threshold."""


def linear_scan(x: Tensor, decay: Tensor) -> Tensor:
    """Solve $h_t = d_t h_{t-1} + x_t$ from $h_0 = 0$ over the leading axis, by recursive doubling."""
    h, distance = x, 1
    while distance < len(x):
        h = torch.cat([h[:distance], h[distance:] + decay[distance:] * h[:-distance]])
        decay = torch.cat([decay[:distance], decay[distance:] * decay[:-distance]])
        distance *= 2
    return h


def fixed_point(x: Tensor, tau: float, threshold: float) -> tuple[Tensor, int]:
    """Spikes of x `[T, ...]`, and the rounds it took until none changed."""
    leak = 1 - 1 / tau
    decay = torch.full_like(x, leak)
    spikes = linear_scan(x / tau, decay) >= threshold
    for rounds in range(2, len(x) + 2):
        decay[1:] = torch.where(spikes[:-1], 0.0, leak)
        before, spikes = spikes, linear_scan(x / tau, decay) >= threshold
        if torch.equal(before, spikes):
            return spikes.to(x.dtype), rounds
    raise AssertionError("a round more than there are steps changed a spike")


def check(x: Tensor) -> tuple[bool, str]:
    """Whether both agree on x, in fp64 exactly and in fp32 but for ties; and in words what was seen."""
    exact = torch.equal(fixed_point(x.double(), 2.0, 1.0)[0], LIF(tau=2.0)(x.double()))
    spikes, rounds = fixed_point(x, 2.0, 1.0)
    other = int((spikes != LIF(tau=2.0)(x)).sum())
    words = f"fp64 {'equal' if exact else 'differs'}, fp32 {other} of {x.numel()} differ, {rounds} rounds"
    return exact and other <= 1 + TIES * x.numel(), words


@torch.no_grad()
def measure(T: int, N: int, effort: Effort, where: Facts) -> list[Row]:
    """Rows of one size: the fused loop, and the fixed point with its ratio to it."""
    torch.manual_seed(0)
    x = torch.randn(T, 1, N) * 1.5 + 0.5
    holds, words = check(x)
    run: dict[str, Callable[[], object]] = {"rheobase": partial(LIF(tau=2.0), x)}
    if holds:
        run["fixed point"] = partial(fixed_point, x, 2.0, 1.0)
    copy = torch.empty_like(x)
    contests = {name: Contest(call) for name, call in run.items()}
    times, note = compare({**contests, "copy": Contest(lambda: copy.copy_(x))}, effort)

    def row(name: str) -> Row:
        return Row(
            benchmark="parallel_reset",
            contestant=name,
            version=where.commit if name == "rheobase" else torch.__version__,
            case=CASE,
            T=T,
            N=N,
            phase="forward",
            median_ms=times.get(name),
            ratio=over_first(times, name, "rheobase"),
            agreement=words,
            copy_ms=times.get("copy"),
            facts=where,
            note=note if holds else f"{REFUSED}: does not agree",
        )

    return [row("rheobase"), row("fixed point")]


def run(effort: Effort, where: Facts, show: Show) -> list[Row]:
    """The whole comparison, size by size."""
    rows = []
    for T, N in QUICK if effort.quick else SIZES:
        found = measure(T, N, effort, where)
        show(found)
        rows += found
    return rows
