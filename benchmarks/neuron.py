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

from functools import partial

import torch

from benchmarks import layer
from benchmarks.layer import PHASES, Setting, Task, Tensors
from benchmarks.lif import CASE, CONTESTANTS
from benchmarks.measure import Contest, Effort
from benchmarks.rows import Facts, Row, Show

SIZES = tuple((T, N) for T in (4, 16, 64) for N in (2**15, 2**18, 2**21))
QUICK = tuple((T, N) for T in (4, 16) for N in (2**15, 2**18))


def tensors(T: int, N: int) -> Tensors:
    """Currents into the neurons themselves, and copies of their bytes."""
    torch.manual_seed(0)
    x = torch.randn(T, 32, N // 32).mul_(1.5).add_(0.5)
    g, s, dx = torch.randn_like(x), torch.empty_like(x), torch.empty_like(x)

    def setting(scale: float) -> Setting:
        leaf = (x.detach() if scale == 1 else x * scale).requires_grad_()
        return Setting(lambda run: run(leaf), (leaf,))

    def both() -> None:
        s.copy_(x)
        torch.add(x, g, out=dx)

    return Tensors(setting, g, dict(zip(PHASES, (Contest(lambda: s.copy_(x)), Contest(both)), strict=True)))


def task(T: int, N: int) -> Task:
    return Task("neuron", CASE, T, N, partial(tensors, T, N))


def run(effort: Effort, where: Facts, show: Show) -> list[Row]:
    """The whole comparison, size by size."""
    sizes = QUICK if effort.quick else SIZES
    return layer.run([task(T, N) for T, N in sizes], tuple(CONTESTANTS), effort, where, show)
