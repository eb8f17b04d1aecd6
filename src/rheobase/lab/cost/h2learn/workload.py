"""What a layer asks of the accelerator, per sample: sizes and densities, given or measured in a trace."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from rheobase.lab.cost.h2learn.backward import operands
from rheobase.lab.cost.h2learn.design import Design
from rheobase.lab.cost.h2learn.trace import LayerTrace, StepTrace


@dataclass(frozen=True)
class LayerWork:
    r"""One convolution or linear layer, for one sample of one training step.

    Attributes:
        name: of the layer.
        c_in, c_out: channels, or features.
        kernel: $K^2$, taps of the kernel.
        positions: $T H' W'$, places of the output over all steps.
        inputs: $T H W$, places of the input over all steps.
        steps: T; 1 of an image that all steps share.
        groups: of the convolution.
        binary: reads spikes.
        backward: a gradient for the input is wanted.
        rate: share of the inputs that are not zero.
        d_in: share of the gradient for the output that is not zero.
        d_out: share of the inputs whose gradient is needed.
        silent: z, share of groups of positions whose gradients are all zero.
        pairs: needed gradients times the non-zero values in their receptive fields; None is $N d_{in} d_{out}$.
        balance: share of the backward engine's MACs that is busy; None is the design's.
    """

    name: str
    c_in: int
    c_out: int
    kernel: int
    positions: int
    inputs: int
    steps: int = 1
    groups: int = 1
    binary: bool = True
    backward: bool = True
    rate: float = 1.0
    d_in: float = 1.0
    d_out: float = 1.0
    silent: float = 0.0
    pairs: float | None = None
    balance: float | None = None

    @property
    def reduction(self) -> int:
        """Weights of one output: $C_{in} K^2$ of one group."""
        return self.c_in // self.groups * self.kernel

    @property
    def macs(self) -> int:
        r"""$N = T H' W' C_{out} C_{in} K^2$, equal for forward, backward and update; padded borders count."""
        return self.positions * self.c_out * self.reduction

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.c_out * self.reduction

    def by_densities(self) -> "LayerWork":
        """The same by densities alone: pairs and balance are forgotten."""
        return replace(self, pairs=None, balance=None)


@dataclass(frozen=True)
class NeuronWork:
    """Neurons for one sample of one training step.

    Attributes:
        updates: neurons times steps.
        membrane: whether backward needs the membranes, beside spikes and windows.
    """

    updates: int
    membrane: bool = False


def measured(trace: LayerTrace, design: Design) -> LayerWork:
    r"""The work of a traced layer, cycle by cycle: mean over the samples of the batch.

    Needed gradients are dealt to lanes in the design's order; lanes run in lock-step, so that a round takes
    $\max_{lane} \lceil n / m \rceil$ cycles for n non-zero values in the receptive field of a lane's output.
    """
    conv = trace.kind == "convolution"
    T, B = trace.nonzero.shape[:2]
    c_out, c_in = len(trace.weight), trace.weight.shape[1] * trace.groups
    rounds, pairs, d_out = 0, 0, 0.0
    if trace.needed is not None:
        needed = trace.needed if design.output_sparsity else torch.ones_like(trace.needed)
        nonzero = trace.nonzero if design.input_sparsity else torch.ones_like(trace.nonzero)
        d_out = needed.float().mean().item()
        done = operands(
            nonzero,
            needed,
            trace.weight.shape,
            stride=trace.stride,
            padding=trace.padding,
            dilation=trace.dilation,
            groups=trace.groups,
        )
        if conv and design.dealt == "pixel":
            needed, done = needed.movedim(2, -1), done.movedim(2, -1)
        for b in range(B):
            lengths = done[:, b][needed[:, b]]
            pairs += int(lengths.sum())
            rounds += _lock_step(lengths, design)
    return LayerWork(
        trace.name,
        c_in,
        c_out,
        trace.weight[0, 0].numel() if conv else 1,
        trace.nonzero.numel() // B // c_out,
        trace.input.numel() // B // c_in,
        T,
        trace.groups,
        trace.holds == "binary",
        trace.needed is not None,
        (trace.input != 0).float().mean().item(),
        trace.nonzero.float().mean().item() if design.input_sparsity else 1.0,
        d_out,
        _silent(trace, design.fused),
        pairs / B,
        pairs / (rounds * design.macs) if rounds else 1.0,
    )


def works_of(step: StepTrace, design: Design) -> tuple[list[LayerWork], NeuronWork]:
    """The work of a traced step: its layers, and its neurons together."""
    layers = [measured(layer, design) for layer in step.layers]
    updates = sum(layer.units * layer.steps for layer in step.neurons)
    return layers, NeuronWork(updates, any(layer.membrane for layer in step.neurons))


def _lock_step(lengths: Tensor, design: Design) -> int:
    """Cycles of lanes in lock-step that take outputs of such lengths in order."""
    cycles = (lengths + design.lane_macs - 1) // design.lane_macs
    padded = F.pad(cycles, (0, -len(cycles) % design.lanes))
    return int(padded.view(-1, design.lanes).amax(1).sum()) if len(cycles) else 0


def _silent(trace: LayerTrace, g: int) -> float:
    """Share of groups of g consecutive positions, in the order (step, row, column), whose gradients are all zero."""
    conv = trace.kind == "convolution"
    x = trace.nonzero.flatten(3) if conv else trace.nonzero.movedim(-1, 2).unsqueeze(-1).flatten(3)
    rows = x.permute(1, 2, 0, 3).flatten(2)  # [B, channels, positions]
    rows = F.pad(rows, (0, -rows.shape[-1] % g))
    return 1 - cast(Tensor, rows.unflatten(-1, (-1, g)).any(-1)).float().mean().item()


def network(
    T: int,
    layers: Sequence[tuple[str, int, int, int, int, int]],
    *,
    d_in: float,
    d_out: float,
    silent: float,
    rate: float = 0.2,
) -> tuple[list[LayerWork], NeuronWork]:
    """A network by its shapes and densities alone.

    Args:
        T: time steps.
        layers: name, input channels, output channels, side of the kernel, side of the input, side of the output. The
            first layer wants no gradient for its input; all read spikes.
        d_in, d_out, silent, rate: see `LayerWork`.
    """
    found = [
        LayerWork(
            name,
            c_in,
            c_out,
            side * side,
            T * after * after,
            T * before * before,
            T,
            backward=k > 0,
            rate=rate,
            d_in=d_in,
            d_out=d_out,
            silent=silent,
        )
        for k, (name, c_in, c_out, side, before, after) in enumerate(layers)
    ]
    return found, NeuronWork(sum(work.positions * work.c_out for work in found))


CIFARNET = (
    ("conv1", 3, 128, 3, 32, 32),
    ("conv2", 128, 256, 3, 32, 32),
    ("conv3", 256, 512, 3, 16, 16),
    ("conv4", 512, 1024, 3, 8, 8),
    ("conv5", 1024, 512, 3, 8, 8),
    ("fc1", 32768, 1024, 1, 1, 1),
    ("fc2", 1024, 512, 1, 1, 1),
    ("fc3", 512, 10, 1, 1, 1),
)
"""128C3-256C3-P-512C3-P-1024C3-512C3-FC1024-FC512-FC10 for 32x32 pixels."""


def cifarnet() -> tuple[list[LayerWork], NeuronWork]:
    """CIFARNet at T = 8 with assumed densities: d_in .15, d_out .25, z .4; its input counts as spikes."""
    return network(8, CIFARNET, d_in=0.15, d_out=0.25, silent=0.4)
