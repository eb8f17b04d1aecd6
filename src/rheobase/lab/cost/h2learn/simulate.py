"""The accelerator on a network: cycles, energy, area, utilisation and roofline, and what its parts bring."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from rheobase.lab.cost.h2learn.design import UNITS, Design, Silicon, Units
from rheobase.lab.cost.h2learn.engines import Phase, backward, dram_cycles, forward, neurons, totals, update
from rheobase.lab.cost.h2learn.workload import LayerWork, NeuronWork

Work = tuple[Sequence[LayerWork], NeuronWork]
"""Layers in order, and the neurons together."""


@dataclass(frozen=True)
class LayerResult:
    """One layer on the three engines; `backward` is None where no gradient for the input is wanted."""

    work: LayerWork
    forward: Phase
    backward: Phase | None
    update: Phase

    @property
    def phases(self) -> tuple[Phase, ...]:
        """All phases there are."""
        return tuple(phase for phase in (self.forward, self.backward, self.update) if phase is not None)


@dataclass(frozen=True)
class Roof:
    """One engine under the roofline.

    Attributes:
        engine: which.
        macs: multiply-accumulates, or what replaces them, per sample.
        per_byte: of them per byte of DRAM traffic; infinite without any.
        peak: of them per cycle, every unit busy.
        reached: of them per cycle.
        bound: "compute", or "memory" where traffic takes longer than computing.
    """

    engine: str
    macs: float
    per_byte: float
    peak: float
    reached: float
    bound: str


@dataclass(frozen=True)
class Simulation:
    """A network on a design, per sample of a minibatch.

    Attributes:
        layers: by layer.
        neurons: forward and backward.
        design, units, silicon: what it was simulated with.
    """

    layers: tuple[LayerResult, ...]
    neurons: tuple[Phase, Phase]
    design: Design
    units: Units
    silicon: Silicon = field(default_factory=Silicon)

    @property
    def phases(self) -> Iterator[Phase]:
        """All phases of all layers and of the neurons."""
        for layer in self.layers:
            yield from layer.phases
        yield from self.neurons

    @cached_property
    def cycles(self) -> Mapping[str, float]:
        """Cycles of each engine for one sample; of neurons those of forward and backward apart."""
        found = dict.fromkeys(("forward", "backward", "update"), 0.0)
        for layer in self.layers:
            for phase in layer.phases:
                found[phase.engine] += phase.cycles(self.design)
        charge, gradient = self.neurons
        return {
            **found,
            "neurons forward": charge.cycles(self.design),
            "neurons backward": gradient.cycles(self.design),
        }

    @property
    def dram_bits(self) -> float:
        """DRAM traffic of a sample."""
        return sum((phase.dram_bits for phase in self.phases), 0.0)

    @property
    def stage(self) -> float:
        """Cycles between two samples in a full pipeline: those of the slowest engine, or of all traffic."""
        waits = dram_cycles(self.dram_bits, self.design) if self.design.stalls else 0.0
        return max(*self.cycles.values(), waits)

    @property
    def minibatch_cycles(self) -> float:
        r"""Cycles of $B_s$ samples: $F + (B_s - 1)\max(F, B, W) + B + W_{tail}$, or serial $B_s (F + B + W)$.

        $W_{tail}$ is what the update engine does when the backward engine has ended: the first layer, or what it lags
        behind. Neurons work while their engine does.
        """
        found, design = self.cycles, self.design
        F = max(found["forward"], found["neurons forward"])
        B = max(found["backward"], found["neurons backward"])
        W = found["update"]
        if not design.pipelined:
            return design.minibatch * (F + B + W)
        first = self.layers[0].update.cycles(design) if self.layers else 0.0
        return F + (design.minibatch - 1) * self.stage + B + max(first, W - B)

    @property
    def seconds(self) -> float:
        """Per sample."""
        return self.minibatch_cycles / self.design.minibatch / (self.design.clock_GHz * 1e9)

    @cached_property
    def energy_pJ(self) -> Mapping[str, float]:  # noqa: N802
        """Per sample: of each engine's arithmetic, of buffers, DRAM and leakage."""
        found = dict.fromkeys(("forward", "backward", "update", "neurons", "buffers", "dram"), 0.0)
        for phase in self.phases:
            for unit, count in phase.counts.items():
                kind = {"buffer_bit": "buffers", "dram_bit": "dram"}.get(unit, phase.engine)
                found[kind] += count * getattr(self.units, unit)
        return {**found, "leakage": self.silicon.leakage_mW(self.design) * 1e-3 * self.seconds * 1e12}

    @property
    def joules(self) -> float:
        """Per sample."""
        return sum(self.energy_pJ.values()) * 1e-12

    @property
    def area_mm2(self) -> float:
        """All engines and buffers."""
        return sum(self.silicon.area_mm2(self.design).values())

    @cached_property
    def utilisation(self) -> Mapping[str, float]:
        """Share of each engine's units that is busy with work that counts while the engine runs; 0 if it never does."""
        found = {}
        for engine in ("forward", "backward", "update"):
            phases = [phase for phase in self.phases if phase.engine == engine]
            cycles = sum(phase.cycles(self.design) for phase in phases)
            found[engine] = sum(phase.useful for phase in phases) / cycles if cycles else 0.0
        return found

    @property
    def roofline(self) -> tuple[Roof, ...]:
        """The three engines under their roofs. Skipped work counts as done."""
        design = self.design
        peaks = {
            "forward": design.forward_rows * design.forward_columns * design.positions * design.fused,
            "backward": design.macs,
            "update": design.update_rows * design.update_columns * design.update_positions * design.fused,
        }
        found = []
        for engine, peak in peaks.items():
            at = [(layer, p) for layer in self.layers for p in layer.phases if p.engine == engine]
            macs = float(sum(layer.work.macs for layer, _ in at))
            size = sum((phase.dram_bits for _, phase in at), 0.0) / 8
            compute = sum((phase.compute for _, phase in at), 0.0)
            waits = dram_cycles(size * 8, design)
            longest = max(compute, waits)
            found.append(
                Roof(
                    engine,
                    macs,
                    macs / size if size else float("inf"),
                    float(peak),
                    macs / longest if longest else 0.0,
                    "memory" if waits > compute else "compute",
                )
            )
        return tuple(found)


def simulate(work: Work, design: Design, units: str | Units = "45nm", silicon: Silicon | None = None) -> Simulation:
    """Run a network on a design.

    Args:
        work: what `works_of` measured in a trace, or `network` made of shapes.
        design: of `PRESETS`, or one of one's own.
        units: a name of `UNITS`, or a table of one's own.
        silicon: areas and leakage.

    Raises:
        ValueError: no such table of units, or no layer at all.
    """
    layers, cells = work
    if not layers:
        raise ValueError("simulate: there is no layer that the engines can take; see `StepTrace.unmapped`")
    if isinstance(units, str) and units not in UNITS:
        raise ValueError(f"there are no units {units!r}; expected one of {', '.join(UNITS)}")
    held = totals(list(layers))
    return Simulation(
        tuple(
            LayerResult(each, forward(each, design, held), backward(each, design, held), update(each, design, held))
            for each in layers
        ),
        neurons(cells, design),
        design,
        UNITS[units] if isinstance(units, str) else units,
        silicon or Silicon(),
    )


def ablation(work: Callable[[Design], Work], design: Design, units: str | Units = "45nm") -> dict[str, Simulation]:
    """What each part brings: every row adds one to the row before, the last is the design itself.

    Additions alone take one operand an access; dense means that the backward engine skips nothing; serial that a sample
    is done before the next begins.

    Args:
        work: the network, measured for a design: masks are grouped as it groups them.
        design: the whole.
        units: see `simulate`.
    """
    plain = replace(design, fused=1, table_bits=1, input_sparsity=False, output_sparsity=False, pipelined=False)
    tables4 = replace(plain, fused=4, table_bits=4)
    tables = replace(plain, fused=design.fused, table_bits=design.table_bits)
    sparse = replace(tables, input_sparsity=True)
    dual = replace(sparse, output_sparsity=True)
    rows = {
        "additions, dense, serial": plain,
        "tables of 4": tables4,
        f"tables of {design.fused}": tables,
        "input sparsity": sparse,
        "dual sparsity": dual,
        "pipelined": replace(dual, pipelined=True),
    }
    return {name: simulate(work(each), each, units) for name, each in rows.items()}
