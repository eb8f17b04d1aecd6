"""How long the first use of a neuron takes: tracing, printing and compiling its kernels, forward and backward.

Each row is a process of its own that first imports torch, its tracer and numba (not counted), then, on the clock:
imports the library, makes a neuron, and runs it forward and backward on a small input.

Phases: "first use" (no kernels yet), "second process" (kernels lie in the folder), "4 at once" (four processes start
together with an empty folder; the slowest one counts, and all four must give the same).

Contestants: "rheobase", with its kernels in `$RHEOBASE_KERNELS`; "spikingjelly-inductor": SpikingJelly's function under
`torch.compile`, with its cache in `$TORCHINDUCTOR_CACHE_DIR`; T is 4, since torch.compile unrolls time.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.measure import ROOT, Effort, Others
from benchmarks.rows import REFUSED, Facts, Row, Show, over_first

PHASES = ("first use", "second process", "4 at once")
NEURONS = ("lif", "plif", "adex")
"""Of these, those that are registered are timed: a plain one, one with a learned parameter, one with an exponential."""
T, SHAPE = 4, (8, 1024)
AT_ONCE = 4
LONGEST = 180
"""Seconds after which a process is given up."""


def use(contestant: str, neuron: str) -> tuple[float, float]:
    """Seconds of a first use in this process, and a number that all processes must agree on."""
    import numba  # noqa: F401
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    make_fx(lambda x: x + 1)(torch.ones(1))  # the tracer imports the rest of itself when it is first called
    generator = torch.Generator().manual_seed(0)
    x = (2 * torch.randn(T, *SHAPE, generator=generator)).requires_grad_()
    start = time.perf_counter()
    run = MAKERS[contestant](neuron)
    y = run(x)
    y.sum().backward()
    taken = time.perf_counter() - start
    assert x.grad is not None
    return taken, float(y.sum() + x.grad.double().sum())


def _rheobase(neuron: str) -> Callable[[Any], Any]:
    from rheobase.neurons import create_neuron

    return create_neuron(neuron)


def _inductor(neuron: str) -> Callable[[Any], Any]:  # noqa: ARG001
    from benchmarks.lif import spikingjelly_inductor

    return spikingjelly_inductor().run


MAKERS: dict[str, Callable[[str], Callable[[Any], Any]]] = {
    "rheobase": _rheobase,
    "spikingjelly-inductor": _inductor,
}


def start(contestant: str, neuron: str, folder: Path) -> "subprocess.Popen[str]":
    """A process that uses a neuron with this folder for what is compiled."""
    places = {"RHEOBASE_KERNELS": str(folder), "TORCHINDUCTOR_CACHE_DIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.first_use", contestant, neuron],
        cwd=ROOT,
        env={**os.environ, **places},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> tuple[float, float]:
    """What a process found.

    Raises:
        RuntimeError: it failed, or took too long.
    """
    try:
        out, error = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired as late:
        process.kill()
        process.communicate()
        raise RuntimeError(f"not done after {LONGEST} s") from late
    if process.returncode:
        raise RuntimeError(error.strip().splitlines()[-1] if error.strip() else f"ended with {process.returncode}")
    seconds, found = json.loads(out.splitlines()[-1])
    return seconds, found


def together(contestant: str, neuron: str, folder: Path, count: int) -> list[tuple[float, float]]:
    """What several processes found that started together."""
    return [finish(process) for process in [start(contestant, neuron, folder) for _ in range(count)]]


def measure(neuron: str, contestants: Sequence[str], effort: Effort, where: Facts) -> list[Row]:
    """Rows of one neuron. The first contestant is the one that ratios refer to."""
    times: dict[str, dict[str, float]] = {phase: {} for phase in PHASES}
    notes: dict[str, str] = dict.fromkeys(contestants, "")
    words: dict[str, str] = dict.fromkeys(contestants, "")
    with Others() as others:
        for name in contestants:
            seen: dict[str, list[float]] = {phase: [] for phase in PHASES}
            values = []
            try:
                for _ in range(1 if effort.quick or name != contestants[0] else 3):
                    with TemporaryDirectory() as folder:
                        for phase in PHASES[:2]:
                            (found,) = together(name, neuron, Path(folder), 1)
                            seen[phase].append(found[0])
                            values.append(found[1])
                    with TemporaryDirectory() as folder:
                        all_found = together(name, neuron, Path(folder), AT_ONCE)
                        seen[PHASES[2]].append(max(seconds for seconds, _ in all_found))
                        values += [value for _, value in all_found]
            except RuntimeError as error:
                notes[name] = f"{REFUSED}: {error}"[:120]
                continue
            words[name] = f"{len(values)} processes gave {len(set(values))} result" + "s" * (len(set(values)) > 1)
            if len(set(values)) > 1:
                notes[name] = f"{REFUSED}: does not agree"
                continue
            for phase in PHASES:
                times[phase][name] = 1000 * statistics.median(seen[phase])
    busy = f"other processes used {others.share:.2f} of a core" if (others.share or 0) > 0.1 else ""
    return [
        Row(
            benchmark="compile",
            contestant=name,
            version=version("rheobase" if name == "rheobase" else "spikingjelly"),
            case=neuron,
            T=T,
            N=SHAPE[0] * SHAPE[1],
            phase=phase,
            median_ms=times[phase].get(name),
            ratio=over_first(times[phase], name, contestants[0]),
            agreement=words[name],
            facts=where,
            note=notes[name] or busy,
        )
        for phase in PHASES
        for name in contestants
    ]


def run(effort: Effort, where: Facts, show: Show) -> list[Row]:
    """All neurons; the peer has the first of them."""
    from rheobase.neurons import list_neurons

    rows = []
    for neuron in [name for name in NEURONS if name in list_neurons()][: 1 if effort.quick else None]:
        found = measure(neuron, tuple(MAKERS) if neuron == NEURONS[0] else ("rheobase",), effort, where)
        show(found)
        rows += found
    return rows


if __name__ == "__main__":
    print(json.dumps(use(*sys.argv[1:])))
