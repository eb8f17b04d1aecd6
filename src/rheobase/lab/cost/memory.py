"""Memory traffic of products and neurons by one simple dataflow, and what it costs at each level of memory."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from math import fsum

from rheobase.lab.cost.report import NeuronLayer, Operand, Product
from rheobase.nn.values import Values


@dataclass(frozen=True)
class Level:
    """One level of memory.

    Attributes:
        name: what it is called.
        capacity: bytes that fit into it.
        word_pJ: picojoule to read or write 64 bits.
    """

    name: str
    capacity: float
    word_pJ: float  # noqa: N815


@dataclass(frozen=True)
class Traffic:
    """Bits read and written, and what they cost.

    Attributes:
        read: bits read.
        written: bits written.
        energy_pJ: picojoule of both.
    """

    read: int = 0
    written: int = 0
    energy_pJ: float = 0.0  # noqa: N815

    @property
    def moved_bytes(self) -> float:
        """Bytes read and written."""
        return (self.read + self.written) / 8

    def plus(self, other: "Traffic") -> "Traffic":
        """Both together."""
        return Traffic(self.read + other.read, self.written + other.written, self.energy_pJ + other.energy_pJ)

    def times(self, count: int) -> "Traffic":
        """The same so many times."""
        return Traffic(self.read * count, self.written * count, self.energy_pJ * count)


NOTHING = Traffic()
"""Nothing is moved."""


@dataclass(frozen=True)
class Memory:
    """Levels of memory, formats, and the dataflow: every tensor is moved once whenever what reads or writes it runs.

    A product reads its two operands and writes its result, all of it, zeros too; a neuron reads its input and its state
    and writes its state and its output at every step. Each tensor lives in the first level into which it fits as a
    whole, that of one sample, as if it were alone there; nothing is kept from one step to the next, unless
    `weights_once`. Sums within a product, and what lies between products and neurons (norms, sums of branches,
    pooling), move nothing.

    Attributes:
        levels: from the smallest to the largest.
        weight_bits: of a weight.
        value_bits: of a real-valued activation and of a product's result.
        state_bits: of a state variable of a neuron.
        weights_once: weights are read once for all steps of a sample, as where a layer runs all its steps in a row.
    """

    levels: tuple[Level, ...]
    weight_bits: int = 32
    value_bits: int = 32
    state_bits: int = 32
    weights_once: bool = False

    def move(self, reads: Iterable[int], writes: Iterable[int]) -> Traffic:
        """Traffic of tensors of so many bits."""
        reads, writes = list(reads), list(writes)
        return Traffic(sum(reads), sum(writes), fsum(self._price(bits) for bits in (*reads, *writes)))

    def bits(self, holds: Values | None, peak: float | None) -> int:
        """Bits of one activation: 1 of {0, 1}, as whole numbers need (unsigned), else `value_bits`."""
        if holds == "binary":
            return 1
        return max(1, int(peak).bit_length()) if holds == "graded" and peak is not None else self.value_bits

    def of_operand(self, operand: Operand) -> int:
        """Bits of one side of a product."""
        return operand.size * (self.weight_bits if operand.weight else self.bits(operand.holds, operand.peak))

    def of_product(self, product: Product, times: int, widths: tuple[int, int] | None = None) -> Traffic:
        """Traffic of a product that runs so many times for a sample; `widths` are bits of both operands if given."""
        weights: list[int] = []
        read: list[int] = []
        for k, operand in enumerate(product.operands):
            bits = self.of_operand(operand) if widths is None else operand.size * widths[k]
            (weights if operand.weight else read).append(bits)
        runs = min(times, product.once) if self.weights_once else times
        written = [product.outputs * self.value_bits]
        return self.move(weights, []).times(runs).plus(self.move(read, written).times(times))

    def of_neurons(self, layer: NeuronLayer) -> Traffic:
        """Traffic of one step of a layer of neurons for a sample; a layer without a traced step has no state here."""
        state = (layer.states or 0) * layer.units * self.state_bits
        out = layer.units * self.bits(layer.emits, layer.peak)
        return self.move([layer.units * self.value_bits, state], [state, out])

    def _price(self, bits: int) -> float:
        level = next((level for level in self.levels if bits <= 8 * level.capacity), self.levels[-1])
        return bits / 64 * level.word_pJ


HOROWITZ = Memory(
    (
        Level("SRAM 8 KB", 8.0 * 2**10, 10.0),
        Level("SRAM 32 KB", 32.0 * 2**10, 20.0),
        Level("SRAM 1 MB", 2.0**20, 100.0),
        Level("DRAM", math.inf, 1300.0),
    )
)
"""45 nm, Horowitz, ISSCC 2014: 10, 20 and 100 pJ per 64 bits of caches of these sizes; of DRAM the lower end of
1300 to 2600 pJ."""
