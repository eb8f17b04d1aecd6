"""One layer of neurons in every library: checked against its twin, then timed in turns with all others."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from benchmarks.agreement import Agreement, agree, attempt
from benchmarks.lif import Contestant, make
from benchmarks.measure import Contest, Effort, compare
from benchmarks.rows import REFUSED, Facts, Row, Show, over_first

PHASES = ("forward", "forward+backward")
COPY = "copy"
MEMORY = 10 * 2**30
HELD = 7
"""Tensors of the neurons' size that the comparison itself holds: inputs, cotangent, copies, results to compare."""

Run = Callable[[Tensor], Tensor]
"""Input currents `[T, B, K]` to spikes."""


@dataclass(frozen=True)
class Setting:
    """What one library's neurons are put into.

    Attributes:
        call: makes spikes, given the neurons.
        leaves: what gradients are asked for.
    """

    call: Callable[[Run], Tensor]
    leaves: tuple[Tensor, ...]

    def train(self, run: Run, g: Tensor) -> tuple[Tensor, ...]:
        """Spikes, and the gradients of the leaves under the cotangent g."""
        y = self.call(run)
        return y.detach(), *torch.autograd.grad(y, self.leaves, g)


@dataclass(frozen=True)
class Tensors:
    """The tensors of a task.

    Attributes:
        setting: from the factor that a library needs its currents scaled with.
        g: cotangent of the spikes.
        copies: moving the same bytes, by phase; empty: there is nothing to compare with.
    """

    setting: Callable[[float], Setting]
    g: Tensor
    copies: Mapping[str, Contest] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A layer of T steps and N neurons, all samples counted; `make` makes its tensors."""

    benchmark: str
    case: str
    T: int
    N: int
    make: Callable[[], Tensors]


def check(contestant: Contestant, setting: Setting, g: Tensor) -> Agreement:
    """Run a contestant and its twin once."""
    try:
        found = setting.train(contestant.run, g)
    finally:
        contestant.release()
    return agree(found, setting.train(contestant.twin, g))


def measure(task: Task, contestants: Sequence[Contestant], effort: Effort, where: Facts) -> list[Row]:
    """Rows of one task: every contestant in both phases. The first contestant is the one that ratios refer to."""
    common = {"benchmark": task.benchmark, "case": task.case, "T": task.T, "N": task.N, "facts": where}

    limit = memory()
    needs = {c.name: (c.tensors + HELD) * task.T * task.N * 4 for c in contestants}
    greedy = {
        name: f"skipped: needs {size / 2**30:.1f} GiB, the limit is {limit / 2**30:.1f}"
        for name, size in needs.items()
        if size > limit
    }
    runs = [c for c in contestants if c.name not in greedy]

    tensors = task.make() if runs else Tensors(lambda _: Setting(lambda _: torch.empty(0), ()), torch.empty(0))
    scaled = {scale: tensors.setting(scale) for scale in {c.scale for c in runs}}
    agreements = {c.name: attempt(partial(check, c, scaled[c.scale], tensors.g)) for c in runs}

    rows = []
    for phase in PHASES:
        entries = {}
        for c in runs:
            if agreements[c.name].holds:
                setting = scaled[c.scale]
                forward, train = partial(setting.call, c.run), partial(setting.train, c.run, tensors.g)
                entries[c.name] = Contest(forward if phase == PHASES[0] else train, c.release)
        if phase in tensors.copies:
            entries[COPY] = tensors.copies[phase]
        times, note = compare(entries, effort)

        found = [(c.name, c.version, agreements.get(c.name, Agreement(True, "")), c.differs) for c in contestants]
        if phase in tensors.copies:
            found.append((COPY, torch.__version__, Agreement(True, ""), ""))
        for name, version, agreement, differs in found:
            words = [f"another equation: {differs}" if differs else "", greedy.get(name, note)]
            rows.append(
                Row(
                    **common,
                    contestant=name,
                    version=version,
                    phase=phase,
                    median_ms=times.get(name),
                    ratio=over_first(times, name, contestants[0].name),
                    agreement=agreement.text,
                    copy_ms=times.get(COPY),
                    note="; ".join(filter(None, words)) if agreement.holds else f"{REFUSED}: does not agree",
                )
            )
    return rows


def memory() -> float:
    """Bytes that a task may need: 10 GiB, or 60 % of the machine's memory if that is less."""
    if not hasattr(os, "sysconf"):
        return MEMORY
    return min(MEMORY, 0.6 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def run(tasks: Sequence[Task], names: Sequence[str], effort: Effort, where: Facts, show: Show) -> list[Row]:
    """All tasks with the libraries of these names; one that is not here has rows that say why."""
    rows = []
    for task in tasks:
        contestants, missing = make(names)
        found = measure(task, contestants, effort, where)
        for phase in PHASES:
            for name, why in missing.items():
                found.append(
                    Row(
                        benchmark=task.benchmark,
                        contestant=name,
                        version="",
                        case=task.case,
                        T=task.T,
                        N=task.N,
                        phase=phase,
                        facts=where,
                        note=f"not here: {why}",
                    )
                )
        show(found)
        rows += found
    return rows
