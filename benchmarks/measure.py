"""Timing to be believed: contestants take turns, medians are kept, and nobody else may be using the machine.

Other processes hurt contestants unequally: a library that joins its threads after every operation waits for the slowest
of them hundreds of times a call, and was seen to slow down sixtyfold beside one busy process. So a busy machine is
refused, not averaged over.
"""

import gc
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks.rows import BUSY, Facts

ROOT = Path(__file__).resolve().parents[1]
CALM = 0.1
"""Other processes may use this much of one core while we measure."""
IDLE = 0.5
"""Above this much of one core, used by others, no benchmark starts."""
ENOUGH = 10.0
"""Seconds for one contestant, where its calls are slow."""


@dataclass(frozen=True)
class Effort:
    """How much to measure.

    Attributes:
        quick: few cases and repetitions.
        loaded: measure although other processes use the machine, and say so in the rows.
    """

    quick: bool = False
    loaded: bool = False


def nothing() -> None:
    """For a call that keeps nothing."""


class Others:
    """What other processes use of one core while inside: `share`, or None where the system does not say."""

    share: float | None = None

    def __enter__(self) -> "Others":
        self._before = _busy(), _own(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        busy, own, wall = self._before
        now = _busy()
        if busy is not None and now is not None:
            foreign = (now - busy) - (_own() - own)
            self.share = max(0.0, foreign / (time.perf_counter() - wall))


def _own() -> float:
    """Seconds of processor time that this process and the children it has waited for have used."""
    return sum(os.times()[:4])


def _busy() -> float | None:
    """Seconds that all cores together have been busy since the system started."""
    try:
        with Path("/proc/stat").open() as file:
            ticks = [int(word) for word in file.readline().split()[1:9]]
    except OSError:
        return None
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def wait_for_calm(seconds: float) -> None:
    """Return once other processes have been quiet for a second, after `seconds` at the latest."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        with Others() as others:
            time.sleep(1.0)
        if others.share is None or others.share < CALM:
            return


def load() -> float:
    """What other processes use of one core just now; 0 where the system does not say.

    Not the load average, in which a benchmark that has just ended would count.
    """
    with Others() as others:
        time.sleep(2.0)
    return others.share or 0.0


@dataclass(frozen=True)
class Contest:
    """A call to time, and what follows it untimed.

    Attributes:
        call: what it returns is freed after its time is taken.
        release: lets go of what the call keeps elsewhere.
    """

    call: Callable[[], object]
    release: Callable[[], object] = nothing

    def seconds(self) -> float:
        """Wall time of one call."""
        start = time.perf_counter()
        result = self.call()
        taken = time.perf_counter() - start
        del result
        self.release()
        return taken


def alternate(contests: Mapping[str, Contest], seconds: float, least: int = 7, most: int = 101) -> dict[str, float]:
    """Median milliseconds of each contest.

    A repetition takes all in turn, each once untimed and once timed, so that the timed call finds its own data in the
    caches. Threads that OpenMP leaves spinning for some milliseconds count against whoever comes next and has threads
    of its own, as they do in a network. Repeats until `seconds` have passed, `least` to `most` times. Who is so slow
    that this would take minutes sits out: after `ENOUGH` seconds and three timed calls, or, where a single timed call
    takes half of that, after that one. The very first call, which may compile, never counts.
    """
    times: dict[str, list[float]] = {name: [] for name in contests}
    spent = dict.fromkeys(contests, 0.0)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        for repetition in range(most):
            if repetition >= least and time.perf_counter() > end:
                break
            for name, contest in contests.items():
                if times[name] and (times[name][0] > ENOUGH / 2 or (spent[name] > ENOUGH and len(times[name]) >= 3)):
                    continue
                untimed = contest.seconds()
                spent[name] += untimed if times[name] else 0.0
                times[name].append(contest.seconds())
                spent[name] += times[name][-1]
    finally:
        if collecting:
            gc.enable()
    return {name: 1000 * statistics.median(found) for name, found in times.items()}


def compare(contests: Mapping[str, Contest], effort: Effort) -> tuple[dict[str, float], str]:
    """Medians of `alternate` on a calm machine, and a note: what other processes used if it was too much.

    Waits and measures anew while others are at work, a few times; then gives up and returns no medians. With
    `effort.loaded` it measures once and returns what it saw.
    """
    used, patience = "", 5 if effort.quick else 20
    for _ in range(1 if effort.loaded else 2 if effort.quick else 3):
        if not effort.loaded:
            wait_for_calm(patience)
        with Others() as others:
            medians = alternate(contests, *((0.3, 3) if effort.quick else (3.0, 7)))
        if others.share is None or others.share < CALM:
            return medians, ""
        used = f"other processes used {others.share:.2f} of a core"
    return (medians, used) if effort.loaded else ({}, f"{BUSY}: {used}")


def facts() -> Facts:
    """Threads, commit (with + if sources were changed since), UTC date, processor and torch of this process."""
    return Facts(
        threads=torch.get_num_threads(),
        commit=_git("rev-parse", "--short", "HEAD")
        + ("+" if _git("status", "--porcelain", "src", "benchmarks") else ""),
        date=datetime.now(UTC).date().isoformat(),
        machine=f"{_processor()}, {os.cpu_count()} cores",
        torch=torch.__version__,
    )


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else "unknown"


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open() as file:
            return next(row.partition(":")[2].strip() for row in file if row.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
