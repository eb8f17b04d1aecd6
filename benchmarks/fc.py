"""Fully connected layers with leaky integrate-and-fire neurons, on the CPU.

- "linear n-n + LIF": the task of the Open Neuromorphic comparison of libraries
  (open-neuromorphic.org/blog/spiking-neural-network-framework-benchmarking): one linear layer of n inputs and n outputs
  and one of LIF, batch 16, 500 steps; n is smaller here than on its GPU. Phases: "forward" (with the graph) and
  "forward+backward" (gradients of weight and bias). Inputs are spikes, one value in seven. Every library brings its own
  neurons (`benchmarks.lif`); the linear layer is torch's for all. "spikingjelly-inductor" is left out: it is unrolled
  over the 500 steps, and takes many minutes to compile.
- "700-256-256-20": three linear layers, each with LIF, batch 64, at T=100 and T=500: a training step of Rheobase's and
  SpikingJelly's networks on equal weights, checked and timed as in `benchmarks.conv`.
"""

from functools import partial

import torch
from torch.nn.functional import linear

from benchmarks import conv, layer, nets
from benchmarks.conv import Case
from benchmarks.layer import Setting, Task, Tensors
from benchmarks.lif import CONTESTANTS
from benchmarks.measure import Effort
from benchmarks.nets import SpikingJelly
from benchmarks.rows import Facts, Row, Show

STEPS, BATCH = 500, 16
WIDTHS, QUICK = (256, 512, 1024), (256,)
LENGTHS, QUICK_LENGTHS = (100, 500), (100,)
LIBRARIES = tuple(name for name in CONTESTANTS if name != "spikingjelly-inductor")
SPIKES = 1 / 7
"""Share of the inputs that are spikes."""


def tensors(width: int) -> Tensors:
    """Spikes into a linear layer, whose currents have mean 0.5 and deviation 1.5."""
    torch.manual_seed(0)
    x = (torch.rand(STEPS, BATCH, width) < SPIKES).float()
    weight = torch.randn(width, width) * (1.5 / (width * SPIKES) ** 0.5)
    bias = torch.full((width,), 0.5)

    def setting(scale: float) -> Setting:
        w, b = (weight * scale).requires_grad_(), (bias * scale).requires_grad_()
        return Setting(lambda run: run(linear(x, w, b)), (w, b))

    return Tensors(setting, torch.randn(x.shape))


def task(width: int) -> Task:
    return Task("fc", "linear n-n + LIF", STEPS, BATCH * width, partial(tensors, width))


def net(T: int, batch: int = 64) -> Case:
    return Case("-".join(map(str, nets.DENSE)), nets.dense, (T, batch, nets.DENSE[0]), 1e-6, nets.DENSE[-1], True)


def run(effort: Effort, where: Facts, show: Show) -> list[Row]:
    """The layer in every library, then the network in two."""
    widths, lengths = (QUICK, QUICK_LENGTHS) if effort.quick else (WIDTHS, LENGTHS)
    rows = layer.run([task(width) for width in widths], LIBRARIES, effort, where, show)
    return rows + conv.measure_all("fc", [net(T) for T in lengths], [SpikingJelly()], effort, where, show)
