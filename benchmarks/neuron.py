"""One layer of leaky integrate-and-fire neurons on the CPU, in every library (`benchmarks.lif`).

Before anything is timed, spikes and input gradient are compared: those of a peer with a Rheobase neuron of its equation
in its order of operations, those of Rheobase with its reference engine (the plain step in a loop). A library that
cannot be imported, or disagrees, has rows that say so.

Phases: "forward" builds the graph for backward, as in training; "forward+backward" adds the gradient of the input.
Letting go of the graph, and of the state that a peer keeps on its module, is not timed. Inputs `[T, 32, N/32]` are
normal with mean 0.5 and deviation 1.5: one value in six is a spike.

The contestant "copy" moves the bytes that no implementation can do without, into memory that is there already: forward
reads x and writes s; backward reads x and ds and writes dx (`torch.add`).
"""

import os
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.agreement import Agreement, agree, attempt, reason
from benchmarks.lif import CASE, CONTESTANTS, Contestant
from benchmarks.measure import Contest, Effort, compare
from benchmarks.rows import REFUSED, Facts, Row, Show, over_first

SIZES = tuple((T, N) for T in (4, 16, 64) for N in (2**15, 2**18, 2**21))
QUICK = tuple((T, N) for T in (4, 16) for N in (2**15, 2**18))
MEMORY = 10 * 2**30
HELD = 7
"""Tensors of the input's size that the comparison itself holds: inputs, cotangent, copies, results to compare."""
COPY = "copy"


def train(run: Callable[[Tensor], Tensor], x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Forward and backward: spikes and the gradient of x under the cotangent g."""
    y = run(x)
    return y.detach(), torch.autograd.grad(y, x, g)[0]


def forward(run: Callable[[Tensor], Tensor], x: Tensor, g: Tensor) -> Tensor:  # noqa: ARG001
    """Forward alone; x requires a gradient, so the graph is built."""
    return run(x)


PHASES = {"forward": forward, "forward+backward": train}


def check(contestant: Contestant, x: Tensor, g: Tensor) -> Agreement:
    """Run a contestant and its twin once."""
    try:
        found = train(contestant.run, x, g)
    finally:
        contestant.release()
    return agree(found, train(contestant.twin, x, g))


def copies(x: Tensor, g: Tensor) -> dict[str, Contest]:
    """Moving the same bytes, by phase."""
    s, dx = torch.empty_like(x), torch.empty_like(x)

    def both() -> None:
        s.copy_(x)
        torch.add(x, g, out=dx)

    return {"forward": Contest(lambda: s.copy_(x)), "forward+backward": Contest(both)}


def measure(contestants: Sequence[Contestant], T: int, N: int, effort: Effort, where: Facts) -> list[Row]:
    """Rows of one size: every contestant in both phases. The first contestant is the one that ratios refer to."""
    first = contestants[0].name

    def row(name: str, version: str, phase: str, agreement: str, note: str, times: dict[str, float]) -> Row:
        return Row(
            benchmark="neuron",
            contestant=name,
            version=version,
            case=CASE,
            T=T,
            N=N,
            phase=phase,
            median_ms=times.get(name),
            ratio=over_first(times, name, first),
            agreement=agreement,
            copy_ms=times.get(COPY),
            facts=where,
            note=note,
        )

    greedy = max(contestants, key=lambda c: c.tensors)
    if (needed := (greedy.tensors + HELD) * T * N * 4) > memory():
        note = f"skipped: {greedy.name} would need {needed / 2**30:.1f} GiB, the limit is {memory() / 2**30:.1f}"
        return [row(c.name, c.version, phase, "", note, {}) for phase in PHASES for c in contestants]

    torch.manual_seed(0)
    common = torch.randn(T, 32, N // 32).mul_(1.5).add_(0.5)
    g = torch.randn_like(common)
    scaled = {c.scale: common if c.scale == 1 else common * c.scale for c in contestants}
    inputs = {c.name: scaled[c.scale].detach().requires_grad_() for c in contestants}
    agreements = {c.name: attempt(partial(check, c, inputs[c.name], g)) for c in contestants}
    sound = [c for c in contestants if agreements[c.name].holds]
    copying = copies(common, g)

    rows = []
    for phase in PHASES:
        entries = {c.name: Contest(partial(PHASES[phase], c.run, inputs[c.name], g), c.release) for c in sound}
        times, note = compare({**entries, COPY: copying[phase]}, effort)
        for c in contestants:
            said = "; ".join(word for word in (f"its own equation: {c.differs}" if c.differs else "", note) if word)
            holds, text = agreements[c.name].holds, agreements[c.name].text
            rows.append(row(c.name, c.version, phase, text, said if holds else f"{REFUSED}: does not agree", times))
        rows.append(row(COPY, torch.__version__, phase, "", note, times))
    return rows


def memory() -> float:
    """Bytes that a case may need: 10 GiB, or 60 % of the machine's memory if that is less."""
    if not hasattr(os, "sysconf"):
        return MEMORY
    return min(MEMORY, 0.6 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def make(names: Sequence[str]) -> tuple[list[Contestant], dict[str, str]]:
    """The contestants that can be had, and why the others cannot."""
    found, missing = [], {}
    for name in names:
        try:
            found.append(CONTESTANTS[name]())
        except Exception as error:  # whatever a peer raises, its row says so and the others go on
            missing[name] = reason(error)
    return found, missing


def run(effort: Effort, where: Facts, show: Show) -> list[Row]:
    """The whole comparison, size by size."""
    rows = []
    for T, N in QUICK if effort.quick else SIZES:
        contestants, missing = make(tuple(CONTESTANTS))
        found = measure(contestants, T, N, effort, where)
        found += [
            Row(
                benchmark="neuron",
                contestant=name,
                version="",
                case=CASE,
                T=T,
                N=N,
                phase=phase,
                facts=where,
                note=f"not here: {why}",
            )
            for phase in PHASES
            for name, why in missing.items()
        ]
        show(found)
        rows += found
    return rows
