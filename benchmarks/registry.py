"""The benchmarks by name."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import conv, events, fc, first_use, gpu, memory, neuron, parallel_reset, products, psn, sparse, trained
from benchmarks.measure import Effort
from benchmarks.rows import Facts, Row, Show


@dataclass(frozen=True)
class Benchmark:
    """One comparison.

    Attributes:
        run: measures and returns the rows; calls `show` with each group of rows as it is ready.
        peers: whether it needs the contestants' environment.
        missing: why it cannot run on this machine, or nothing.
    """

    run: Callable[[Effort, Facts, Show], list[Row]]
    peers: bool = True
    missing: Callable[[], str] = str


BENCHMARKS: dict[str, Benchmark] = {
    "neuron": Benchmark(neuron.run),
    "fc": Benchmark(fc.run),
    "conv": Benchmark(conv.run),
    "memory": Benchmark(memory.run),
    "compile": Benchmark(first_use.run),
    "parallel_reset": Benchmark(parallel_reset.run, peers=False),
    "psn": Benchmark(psn.run, peers=False),
    "products": Benchmark(products.run, peers=False, missing=products.missing),
    "sparse": Benchmark(sparse.run, peers=False, missing=sparse.missing),
    "trained": Benchmark(trained.run, missing=trained.missing),
    "events": Benchmark(events.run),
    "gpu": Benchmark(gpu.run, peers=False, missing=gpu.missing),
}
