"""The benchmarks by name."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import gpu, neuron
from benchmarks.measure import Effort
from benchmarks.rows import Facts, Row, Show


@dataclass(frozen=True)
class Benchmark:
    """One comparison.

    Attributes:
        run: measures and returns the rows; calls `show` with each group of rows as it is ready.
        peers: what the contestants install, as pip requirements without their dependencies; empty: nothing.
        missing: why it cannot run on this machine, or nothing.
    """

    run: Callable[[Effort, Facts, Show], list[Row]]
    peers: tuple[str, ...] = ()
    missing: Callable[[], str] = str


BENCHMARKS: dict[str, Benchmark] = {
    "neuron": Benchmark(neuron.run, neuron.PEERS),
    "gpu": Benchmark(gpu.run, missing=gpu.missing),
}
