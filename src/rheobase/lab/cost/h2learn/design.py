"""The accelerator in numbers: engines, buffers, energies, areas. Every number is a field, every field an assumption.

The paper's own numbers could not be read; both designs are derived, self-consistent ones.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from math import gcd
from typing import Any, Literal, TypeVar

Part = TypeVar("Part")
Builds = Literal["hidden", "overlapped", "exposed", "regrouped"]
"""What building tables takes, of gradients in the update engine.

In the forward engine, whose tables of weights are built once a tile, a tile takes at least as long as one build, and
one build more where builds are "exposed".

- "hidden": nothing, as double buffering hides it.
- "overlapped": a tile takes at least as long as one build.
- "exposed": a tile takes one build more, in the forward engine too.
- "regrouped": each group of positions has tables of its own, which all rows of tiles use before the next group comes;
  it takes at least as long as one build. Gradients change with positions, so this order of loops is the one that can
  be built.
"""


def numbers(part: Any) -> Mapping[str, int | float]:
    """The fields of a part that are numbers: its assumptions."""
    found = {field.name: getattr(part, field.name) for field in fields(part)}
    return {name: v for name, v in found.items() if isinstance(v, int | float) and not isinstance(v, bool)}


@dataclass(frozen=True)
class Design:
    """Engines, clock, memory and schedule.

    Attributes:
        clock_GHz: of all engines.
        forward_rows, forward_columns: R_F groups of inputs times C_F output channels of the forward engine.
        positions: p, positions that a cycle of it takes.
        update_rows, update_columns: R_W weights times C_W output channels of the weight-update engine.
        update_positions: p_W, groups of positions that a cycle of it takes.
        fused: g, binary operands that an access fuses.
        table_bits: operands of one table; g / table_bits tables serve one access, each of 2^table_bits entries, of
            which one is written in a cycle.
        macs: M_B of the backward engine.
        lane_macs: m, those of one lane; all lanes run in lock-step.
        dealt: outputs are dealt to lanes in "raster" order (step, channel, row, column), or "pixel" by pixel, so that
            lanes share what is not zero.
        balance: share of the MACs that is busy, where no masks are known.
        neuron_lanes: neuron updates in a cycle, forward and backward each.
        builds: see `Builds`.
        stem: an input that is no spikes runs as bit-"planes", or on the "macs" of the backward engine.
        stem_bits: planes.
        minibatch: B_s, samples between two updates of the weights.
        pipelined: whether the engines work on several samples at once.
        input_sparsity, output_sparsity: what the backward engine skips.
        stalls: whether engines wait for the DRAM.
        dram_GBps: bandwidth of the DRAM.
        weight_KB, spike_KB, gradient_KB, state_KB, sum_KB: buffers of weights; spikes; gradients; what neurons keep for
            backward; sums of weight gradients.

    Raises:
        ValueError: a number that is not above zero (of a buffer: below zero), a balance above one, tables that do not
            divide the operands of an access, or fewer MACs than those of a lane.
    """

    clock_GHz: float = 1.0  # noqa: N815
    forward_rows: int = 32
    forward_columns: int = 32
    positions: int = 1
    update_rows: int = 32
    update_columns: int = 32
    update_positions: int = 1
    fused: int = 8
    table_bits: int = 4
    macs: int = 256
    lane_macs: int = 8
    dealt: Literal["raster", "pixel"] = "raster"
    balance: float = 0.8
    neuron_lanes: int = 32
    builds: Builds = "hidden"
    stem: Literal["planes", "macs"] = "planes"
    stem_bits: int = 8
    minibatch: int = 64
    pipelined: bool = True
    input_sparsity: bool = True
    output_sparsity: bool = True
    stalls: bool = False
    dram_GBps: float = 900.0  # noqa: N815
    weight_KB: float = 4096.0  # noqa: N815
    spike_KB: float = 1024.0  # noqa: N815
    gradient_KB: float = 4096.0  # noqa: N815
    state_KB: float = 4096.0  # noqa: N815
    sum_KB: float = 4096.0  # noqa: N815

    def __post_init__(self) -> None:
        for name, value in numbers(self).items():
            if not (value >= 0 if name.endswith("_KB") else value > 0):
                raise ValueError(f"Design: {name} is {value}; expected a number above zero, of a buffer 0 KB at least")
        if self.balance > 1:
            raise ValueError(f"Design: balance is {self.balance}; expected the share of the MACs that is busy, up to 1")
        if self.fused % self.table_bits:
            raise ValueError(
                f"Design: {self.fused} operands do not fall into tables of {self.table_bits}; take a divisor"
            )
        if self.macs < self.lane_macs:
            raise ValueError(f"Design: {self.macs} MACs make no lane of {self.lane_macs}; take fewer a lane")

    @property
    def build(self) -> int:
        """Cycles to build the tables of a tile; none where a table has one operand."""
        return 0 if self.table_bits == 1 else 2**self.table_bits

    @property
    def tables(self) -> int:
        """Tables that serve one access."""
        return self.fused // self.table_bits

    @property
    def lanes(self) -> int:
        """Lanes of the backward engine."""
        return self.macs // self.lane_macs

    @property
    def buffer_KB(self) -> float:  # noqa: N802
        """All buffers."""
        return self.weight_KB + self.spike_KB + self.gradient_KB + self.state_KB + self.sum_KB


@dataclass(frozen=True)
class Units:
    """Energy in pJ of one operation, or one bit of a buffer or the DRAM. Storage is 16-bit floating point.

    Attributes:
        multiply, add: 16-bit.
        accumulate: an addition to a wider sum.
        lookup: one read of a table of 16 entries; of others in proportion to their multiplexers.
        compare, select, store, shift: what neurons do.
        buffer_bit, dram_bit: moving one bit.
    """

    multiply: float
    add: float
    accumulate: float
    lookup: float
    compare: float
    select: float
    store: float
    shift: float
    buffer_bit: float
    dram_bit: float


_SATA_MAC = 0.239 + 0.0389
_SCALE = (1.1 + 0.4) / _SATA_MAC
_HOROWITZ = Units(
    multiply=1.1,
    add=0.4,
    accumulate=0.9,
    lookup=15 * 0.00172 * _SCALE,
    compare=0.00309 * _SCALE,
    select=0.00172 * _SCALE,
    store=0.0301 * _SCALE,
    shift=0.00605 * _SCALE,
    buffer_bit=100 / 64,
    dram_bit=(1300 + 2600) / 2 / 64,
)
UNITS: dict[str, Units] = {
    "45nm": _HOROWITZ,
    "sata": Units(
        multiply=0.239,
        add=0.00967,
        accumulate=0.0389,
        lookup=15 * 0.00172,
        compare=0.00309,
        select=0.00172,
        store=0.0301,
        shift=0.00605,
        buffer_bit=1.95 / 16,
        dram_bit=55.58 / 16,
    ),
    "45nm-prosperity": replace(_HOROWITZ, dram_bit=12.45),
}
"""Tables of unit energies by name.

- "45nm": Horowitz, ISSCC 2014: fp16 multiplication and addition, fp32 addition, 1 MB SRAM of 64 bit, DRAM in the middle
  of its range. What it does not list is that of "sata", scaled by the energy of a multiply-accumulate.
- "sata": 16-bit integers in the code published with arXiv:2204.05422 (SATA), taken as pJ; it calls a
  multiply-accumulate 0.2779, an SRAM access 7 and a DRAM access 200 of them, here of 16 bit each.
- "45nm-prosperity": "45nm" with the 12.45 pJ/bit of DRAM in the code published with arXiv:2503.03379 (Prosperity).

A lookup is taken as a tree of 15 two-way multiplexers.
"""


@dataclass(frozen=True)
class Silicon:
    """Areas in um2 and leakage in uW of 16-bit units, mm2 and mW of buffers; 28 nm.

    Source: `inference-energy-cal/hw_kernels.py` and the CACTI report of the weight buffer (144 KB: 0.9024 mm x 0.582666
    mm, 24.9086 mW) in the code published with arXiv:2204.05422 (SATA). The selector of a table is taken as one AND a
    entry; a multiply-accumulate as multiplier, wide adder and wide register.

    Attributes:
        register_um2, wide_register_um2, adder_um2, wide_adder_um2, multiplier_um2, and_um2, comparator_um2: of 16 bit,
            wide ones of 32.
        register_uW, wide_register_uW, adder_uW, wide_adder_uW, multiplier_uW, and_uW, comparator_uW: their leakage.
        buffer_mm2: of one KB.
        buffer_mW: leakage of one KB.
    """

    register_um2: float = 68.04
    wide_register_um2: float = 135.07
    adder_um2: float = 45.024
    wide_adder_um2: float = 90.72
    multiplier_um2: float = 441.504
    and_um2: float = 13.44
    comparator_um2: float = 32.424
    register_uW: float = 4.02e-2  # noqa: N815
    wide_register_uW: float = 8.02e-2  # noqa: N815
    adder_uW: float = 3.50e-2  # noqa: N815
    wide_adder_uW: float = 7.08e-2  # noqa: N815
    multiplier_uW: float = 0.279  # noqa: N815
    and_uW: float = 9.62e-3  # noqa: N815
    comparator_uW: float = 1.82e-2  # noqa: N815
    buffer_mm2: float = 0.9024 * 0.582666 / 144
    buffer_mW: float = 24.9086 / 144  # noqa: N815

    def counts(self, design: Design) -> dict[str, dict[str, int]]:
        """How many units of each kind an engine has."""

        def lookups(elements: int, reads: int) -> dict[str, int]:
            tables = elements * design.tables
            return {
                "register": tables * 2**design.table_bits,
                "and": tables * 2**design.table_bits * reads,
                "adder": elements * design.tables * reads,
                "wide_adder": elements * reads,
                "wide_register": elements * reads,
            }

        return {
            "forward": lookups(design.forward_rows * design.forward_columns, design.positions),
            "backward": {
                "multiplier": design.macs,
                "wide_adder": design.macs,
                "wide_register": design.macs,
                "register": 2 * design.macs,
            },
            "update": lookups(design.update_rows * design.update_columns, design.update_positions),
            "neurons": {
                "adder": 3 * design.neuron_lanes,
                "comparator": design.neuron_lanes,
                "multiplier": design.neuron_lanes,
                "register": 3 * design.neuron_lanes,
            },
        }

    def area_mm2(self, design: Design) -> dict[str, float]:
        """Area of each engine and of the buffers."""
        found = {
            engine: sum(n * float(getattr(self, f"{unit}_um2")) for unit, n in units.items()) / 1e6
            for engine, units in self.counts(design).items()
        }
        return {**found, "buffers": design.buffer_KB * self.buffer_mm2}

    def leakage_mW(self, design: Design) -> float:  # noqa: N802
        """Leakage of all engines and buffers."""
        units = (item for engine in self.counts(design).values() for item in engine.items())
        return sum(n * getattr(self, f"{unit}_uW") for unit, n in units) / 1e3 + design.buffer_KB * self.buffer_mW


REF_S = Design()
REF_L = Design(positions=2, macs=384, neuron_lanes=64)
PRESETS: dict[str, Design] = {"ref-S": REF_S, "ref-L": REF_L}


def preset(name: str) -> Design:
    """The design of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in PRESETS:
        raise ValueError(f"there is no design {name!r}; expected one of {', '.join(PRESETS)}")
    return PRESETS[name]


def scaled(part: Part, name: str, factor: float) -> Part:
    """A part with one number halved or doubled.

    Whole numbers stay whole and at least one, shares at most one; of a design, tables divide the operands of an access,
    and a lane has no more MACs than there are.
    """
    value = getattr(part, name)
    new = max(1, round(value * factor)) if isinstance(value, int) else value * factor
    if name in ("balance", "efficiency", "bandwidth_share", "power_share"):
        new = min(1.0, new)
    changed = {name: new}
    if isinstance(part, Design):
        fused, bits, macs, lane = (
            changed.get(n, getattr(part, n)) for n in ("fused", "table_bits", "macs", "lane_macs")
        )
        changed |= {"table_bits": gcd(int(fused), int(bits)), "lane_macs": min(lane, macs)}
    return replace(part, **changed)  # type: ignore[type-var]


def variations(*parts: Any) -> Iterator[tuple[str, int | float, tuple[Any, ...], tuple[Any, ...]]]:
    """Every assumption of some parts: its name, its value, and the parts with it halved and doubled."""
    for k, part in enumerate(parts):
        for name, value in numbers(part).items():
            low, high = ((*parts[:k], scaled(part, name, factor), *parts[k + 1 :]) for factor in (0.5, 2.0))
            yield f"{type(part).__name__.lower()}.{name}", value, low, high
