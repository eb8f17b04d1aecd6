"""The engines: cycles, operations and traffic of one layer and one sample.

Symbols: R x C processing elements (groups of inputs x output channels), g operands in one access, p positions a cycle.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Literal

from rheobase.lab.cost.h2learn.design import Design
from rheobase.lab.cost.h2learn.workload import LayerWork, NeuronWork

Engine = Literal["forward", "backward", "update", "neurons"]
KB = 8192
"""Bits of a KB."""


@dataclass(frozen=True)
class Phase:
    """What an engine does for one layer and one sample.

    Attributes:
        engine: which one.
        compute: cycles, waits for the DRAM left out.
        useful: cycles if every unit were busy with work that counts.
        counts: how often each of `Units` is used; "dram_bit" and "buffer_bit" are bits.
    """

    engine: Engine
    compute: float
    useful: float
    counts: Mapping[str, int | float]

    @property
    def dram_bits(self) -> float:
        """Bits to and from the DRAM."""
        return float(self.counts["dram_bit"])

    def cycles(self, design: Design) -> float:
        """Cycles, with waits for the DRAM if the design has them."""
        return max(self.compute, dram_cycles(self.dram_bits, design)) if design.stalls else self.compute


@dataclass(frozen=True)
class Totals:
    """Bits that all layers of a network hold together and that share buffers: weights, and sums of their gradients."""

    weights: int
    sums: int


def totals(layers: list[LayerWork]) -> Totals:
    """Weights of 16 bits, sums of 32."""
    return Totals(16 * sum(work.weights for work in layers), 32 * sum(work.weights for work in layers))


def dram_cycles(bits: float, design: Design) -> float:
    """Cycles that moving so many bits takes."""
    return bits / 8 / (design.dram_GBps / design.clock_GHz)


def forward(work: LayerWork, design: Design, held: Totals) -> Phase:
    r"""The forward engine, weight-stationary: $\sum_{tiles}\max(T H' W' / p,\ t_{build})$.

    tiles = ceil(ceil(C_in K^2 / g) / R) ceil(C_out / C); $t_{build}$ is hidden by double buffering where it is shorter,
    and added where `Design.builds` is "exposed". The spike rate plays no part. A stem that reads no spikes runs once
    for each bit-plane, or on the MACs.
    """
    if not work.binary and design.stem == "macs":
        return _on_macs(work, design, held)
    planes = 1 if work.binary else design.stem_bits
    groups = ceil(work.reduction / design.fused)
    rows = ceil(groups / design.forward_rows)
    columns = ceil(work.c_out / work.groups / design.forward_columns) * work.groups
    stream = work.positions / design.positions
    tile = stream + design.build if design.builds == "exposed" else max(stream, design.build)
    accesses = planes * work.positions * groups * work.c_out
    spikes = planes * work.inputs * work.c_in
    over = max(0.0, spikes - design.spike_KB * KB)
    width = min(design.forward_columns, work.c_out)
    partial = max(0.0, work.positions * width * 32 - design.sum_KB * KB)
    moved = (spikes + (columns - 1) * over) if not work.backward else (1 + columns) * over
    compute = float(planes * rows * columns * tile)
    return Phase(
        "forward",
        compute,
        planes * work.macs / design.fused / (design.forward_rows * design.forward_columns * design.positions),
        {
            "lookup": accesses * _lookups(design),
            "add": accesses * (design.tables - 1) + planes * groups * work.c_out * _additions(design),
            "accumulate": accesses,
            "shift": (planes - 1) * work.positions * work.c_out,
            "store": planes * groups * work.c_out * design.tables * (2**design.table_bits - 1),
            "buffer_bit": planes * rows * columns * stream * design.forward_rows * design.fused * design.positions
            + 64 * rows * planes * work.positions * work.c_out
            + 16 * work.weights,
            "dram_bit": _weights(work, design, held) + moved + 2 * (rows - 1) * columns * partial,
        },
    )


def backward(work: LayerWork, design: Design, held: Totals) -> Phase | None:
    r"""The backward engine: pairs / (M_B beta), for the gradients that are needed; None where there are none.

    pairs is counted in masks, or $N d_{in} d_{out}$; beta is measured, or the design's, 1 where nothing is skipped.
    """
    if not work.backward:
        return None
    pairs, balance = work.pairs, work.balance
    d_in = work.d_in if design.input_sparsity else 1.0
    d_out = work.d_out if design.output_sparsity else 1.0
    if pairs is None:
        pairs = work.macs * d_in * d_out
    if balance is None:
        balance = design.balance if design.input_sparsity or design.output_sparsity else 1.0
    useful = pairs / design.macs
    return Phase(
        "backward",
        useful / balance,
        useful,
        {
            "multiply": pairs,
            "accumulate": pairs,
            "buffer_bit": 32 * pairs + 16 * work.inputs * work.c_in * d_out,
            "dram_bit": _weights(work, design, held)
            + (1 + ceil(work.c_in / design.lanes)) * _gradient_over(work, design, d_in),
        },
    )


def update(work: LayerWork, design: Design, held: Totals) -> Phase:
    r"""The weight-update engine: tiles * ceil(T H' W' / g) (1 - z) / p_W, and what building tables takes.

    tiles = ceil(C_in K^2 / R) ceil(C_out / C). Tables are of gradients, so a group of positions whose gradients are all
    zero is skipped before its table is built. For builds see `Builds`.
    """
    if not work.binary and design.stem == "macs":
        return _on_macs(work, design, held, updates=True)
    planes = 1 if work.binary else design.stem_bits
    rows = ceil(work.reduction / design.update_rows)
    columns = ceil(work.c_out / work.groups / design.update_columns) * work.groups
    groups = ceil(work.positions / design.fused) * (1 - work.silent)
    stream = planes * groups / design.update_positions
    tile = {
        "hidden": stream,
        "overlapped": max(stream, design.build),
        "exposed": stream + design.build,
        "regrouped": stream * max(1.0, design.build / (planes * rows)),
    }[design.builds]
    compute = float(rows * columns * tile)
    accesses = planes * groups * work.weights
    d_in = work.d_in if design.input_sparsity else 1.0
    built = groups * work.c_out
    spikes = planes * work.inputs * work.c_in
    over_sums = max(0.0, 1 - design.sum_KB * KB / held.sums) if held.sums else 0.0
    sums = 32 * work.weights
    size = design.update_rows * design.update_columns * design.update_positions
    return Phase(
        "update",
        compute,
        planes * work.macs * (1 - work.silent) / design.fused / size,
        {
            "lookup": accesses * _lookups(design),
            "add": accesses * (design.tables - 1) + built * _additions(design),
            "accumulate": accesses,
            "shift": (planes - 1) * work.weights,
            "store": built * design.tables * (2**design.table_bits - 1),
            "buffer_bit": rows * columns * stream * design.update_rows * design.fused * design.update_positions
            + rows * _gradient_bits(work, d_in)
            + 2 * sums,
            "dram_bit": rows * _gradient_over(work, design, d_in)
            + columns * max(0.0, spikes - design.spike_KB * KB)
            + sums * (2 * over_sums + 1 / design.minibatch),
        },
    )


def neurons(work: NeuronWork, design: Design) -> tuple[Phase, Phase]:
    """Neuron units, forward and backward: one update per lane and cycle.

    Forward: 1 addition, 1 comparison, 2 selections, 3 registers, 1 shift. Backward: 1 multiplication, 2 additions, 1
    selection, 2 shifts. What does not fit into its buffer until backward is written out and read again: spike and
    window, and the membrane where it is needed.

    Source: the operation counts of SATA, arXiv:2204.05422, and the code published with it.
    """
    n, cycles = work.updates, work.updates / design.neuron_lanes
    over = max(0.0, n * (2 + 16 * work.membrane) - design.state_KB * KB)
    kept = n * (2 + 16 * work.membrane)
    charge = {"add": n, "compare": n, "select": 2 * n, "store": 3 * n, "shift": n}
    gradient = {"multiply": n, "add": 2 * n, "select": n, "shift": 2 * n}
    return (
        Phase("neurons", cycles, cycles, {**charge, "buffer_bit": 48 * n + kept, "dram_bit": over}),
        Phase("neurons", cycles, cycles, {**gradient, "buffer_bit": 48 * n + kept, "dram_bit": over}),
    )


def _additions(design: Design) -> int:
    """Additions that build the tables of one access: one for each entry but zero and the operands themselves."""
    return design.tables * (2**design.table_bits - design.table_bits - 1)


def _lookups(design: Design) -> float:
    """What an access costs in reads of a table of 16 entries: a table of E is a tree of E - 1 multiplexers."""
    return design.tables * (2**design.table_bits - 1) / 15


def _on_macs(work: LayerWork, design: Design, held: Totals, updates: bool = False) -> Phase:
    """A stem that reads no spikes on the MACs of the backward engine, forward or for its weights; nothing skipped."""
    useful = work.macs / design.macs
    inputs = 16 * work.inputs * work.c_in
    traffic = _weights(work, design, held) if not updates else 32 * work.weights / design.minibatch
    counts = {
        "multiply": work.macs,
        "accumulate": work.macs,
        "buffer_bit": 32 * work.macs,
        "dram_bit": inputs + traffic,
    }
    return Phase("backward", useful, useful, counts)


def _weights(work: LayerWork, design: Design, held: Totals) -> float:
    """Bits of weights from the DRAM: what the buffer holds once for a minibatch, the rest for every sample."""
    again = max(0.0, 1 - design.weight_KB * KB / held.weights) if held.weights else 0.0
    return 16 * work.weights * (again + (1 - again) / design.minibatch)


def _gradient_bits(work: LayerWork, d_in: float) -> float:
    """Gradients for a layer's output as a mask and the values that are not zero."""
    return work.positions * work.c_out * (1 + 16 * d_in)


def _gradient_over(work: LayerWork, design: Design, d_in: float) -> float:
    """What of them does not fit into its buffer."""
    return max(0.0, _gradient_bits(work, d_in) - design.gradient_KB * KB)
