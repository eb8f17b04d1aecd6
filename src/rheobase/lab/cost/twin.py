r"""The quantised network of the same shape beside a spiking one, both in whole numbers of the same widths.

A rate code of T binary steps tells T + 1 levels apart, so the network to compare with has activations of
$b = \lceil\log_2(T + 1)\rceil$ bits and runs once. Source: Yan et al. 2024, arXiv:2409.08290, for this pairing; the
prices here are not theirs.
"""

import math
from dataclasses import dataclass, replace

from rheobase.lab.cost.energy import Arithmetic, Energy, LayerEnergy, updates
from rheobase.lab.cost.memory import NOTHING, Memory
from rheobase.lab.cost.operations import Operations
from rheobase.lab.cost.report import Elementwise, NeuronLayer, Product, Report


@dataclass(frozen=True)
class Integers:
    """Widths and prices of whole-number arithmetic, 45 nm, from its 8-bit units (Horowitz, ISSCC 2014).

    A multiplier costs in proportion to the product of its two widths, an adder to its width: assumptions.

    Attributes:
        weight_bits: of weights, and of constants of neurons and norms.
        value_bits: of what is neither spikes nor activations of the quantised network: the input, and what shortcuts
            read of membranes; equal in both networks.
        state_bits: of sums and membranes.
        multiply8_pJ: picojoule of a product of two 8-bit numbers.
        add8_pJ: picojoule of an 8-bit addition.
        rest_macs: multiply-accumulates of widths `state_bits` and `weight_bits` that a division or a function of a
            neuron costs; assumed, without a source.
    """

    weight_bits: int = 8
    value_bits: int = 8
    state_bits: int = 32
    multiply8_pJ: float = 0.2  # noqa: N815
    add8_pJ: float = 0.03  # noqa: N815
    rest_macs: int = 10

    @property
    def add_pJ(self) -> float:  # noqa: N802
        """An addition to a sum."""
        return self.add8_pJ * self.state_bits / 8

    def multiply_pJ(self, left: int, right: int) -> float:  # noqa: N802
        """A product of two widths."""
        return self.multiply8_pJ * left * right / 64

    def arithmetic(self) -> Arithmetic:
        """Prices of element-wise operations on sums."""
        multiply = self.multiply_pJ(self.state_bits, self.weight_bits)
        rest = self.rest_macs * (multiply + self.add_pJ)
        return Arithmetic(self.add_pJ, multiply, self.add_pJ, 0.0, rest, rest)


@dataclass(frozen=True)
class Twin:
    """Two networks of one shape, per sample.

    Attributes:
        T: steps of the spiking network.
        bits: of the activations of the quantised one.
        snn: the spiking network in whole numbers.
        ann: the quantised network.
    """

    T: int
    bits: int
    snn: Energy
    ann: Energy

    @property
    def ratio(self) -> float:
        """Energy of the spiking network over that of the quantised one; below one, spikes save energy."""
        return self.snn.total_pJ / self.ann.total_pJ if self.ann.total_pJ else math.inf

    def __str__(self) -> str:
        return (
            f"spiking network, T = {self.T}\n{self.snn}\n\nquantised network, {self.bits} bits\n{self.ann}\n\n"
            f"the spiking network costs {self.ratio:.3f} times the quantised one"
        )


def quantised_twin(
    report: Report, integers: Integers = Integers(), density: float = 1.0, memory: Memory | None = None
) -> Twin:
    r"""Price a spiking network and the quantised network of the same shape alike.

    The quantised network has the same layers, weights and borders; each product runs as often as within one step, with
    activations of $b = \lceil\log_2(T + 1)\rceil$ bits in the place of spikes (and of sums of spikes). It multiplies
    `Product.inside` times the density of the weights times `density`, but in a stem that reads real numbers the pairs
    that met, as both networks read the same input. Its neurons scale and compare with zero: one multiplication and one
    comparison each. Products of neurons themselves, as of parallel ones (PSN), it does not have. Both networks add
    biases and sums of branches; norms are folded.

    This is about a static image that T steps encode; of a sequence the quantised network would read one step alone.

    The spiking network adds where a product reads {0, 1} and multiplies elsewhere, over the pairs that met, at every
    step that it ran; its neurons compute their traced steps.

    Args:
        report: what `trace` found of the spiking network.
        integers: widths and prices.
        density: share of the quantised network's activations that are not zero; 1 is dense, a network of ReLU has less.
        memory: prices of moving data; its widths are replaced by those of `integers`. None: free.

    Raises:
        ValueError: `density` outside of 0 to 1; values are unknown, as the trace ran on the meta device.

    Source: arXiv:2409.08290 for the pairing of T and b.
    """
    if not 0 <= density <= 1:
        raise ValueError(f"quantised_twin: density is {density}; expected a share from 0 to 1")
    bits = report.T.bit_length()
    moved = memory and replace(
        memory,
        weight_bits=integers.weight_bits,
        value_bits=integers.state_bits,
        state_bits=integers.state_bits,
    )
    arithmetic = integers.arithmetic()
    spiking = Energy(
        f"T = {report.T}",
        tuple(_spiking(product, integers, moved) for product in report.products),
        tuple(updates(layer, arithmetic, moved) for layer in report.neurons),
        tuple(_sums(each, arithmetic, 1) for each in report.elementwise),
        tuple(layer.name for layer in report.neurons if layer.operations is None),
    )
    own = {layer.name for layer in report.neurons}
    quantised = Energy(
        f"{bits} bits",
        tuple(
            LayerEnergy(product.name, 0.0, 0.0, 0.0)
            if product.name in own
            else _quantised(product, integers, bits, density, moved)
            for product in report.products
        ),
        tuple(_activations(layer, arithmetic, bits, moved) for layer in report.neurons),
        tuple(_sums(each, arithmetic, report.T) for each in report.elementwise),
    )
    return Twin(report.T, bits, spiking, quantised)


def _spiking(product: Product, integers: Integers, memory: Memory | None) -> LayerEnergy:
    times, pairs = product.executed, (product.effective or 0.0) * product.executed
    widths = (_width(product, 0, integers), _width(product, 1, integers))
    traffic = memory.of_product(product, times, widths) if memory else NOTHING
    biases = float(product.bias_adds * times)
    if product.spike_driven:
        acs = pairs + biases
        return LayerEnergy(product.name, 0.0, acs, integers.add_pJ * acs + traffic.energy_pJ, traffic)
    price = pairs * (integers.multiply_pJ(*widths) + integers.add_pJ) + integers.add_pJ * biases
    return LayerEnergy(product.name, pairs, biases, price + traffic.energy_pJ, traffic)


def _quantised(product: Product, integers: Integers, bits: int, density: float, memory: Memory | None) -> LayerEnergy:
    pairs, widths = float(product.inside), []
    for k, operand in enumerate(product.operands):
        width = _width(product, k, integers)
        if operand.weight:
            pairs *= 1.0 if operand.density is None else operand.density
        elif operand.holds != "real":
            width, pairs = bits, pairs * density
        widths.append(width)
    if product.stem and all(operand.holds == "real" for operand in product.activations):
        pairs = product.effective or 0.0
    pairs *= product.once
    left, right = widths
    traffic = memory.of_product(product, product.once, (left, right)) if memory else NOTHING
    biases = float(product.bias_adds * product.once)
    price = pairs * (integers.multiply_pJ(left, right) + integers.add_pJ) + integers.add_pJ * biases
    return LayerEnergy(product.name, pairs, biases, price + traffic.energy_pJ, traffic)


def _width(product: Product, side: int, integers: Integers) -> int:
    """Bits of an operand of the spiking network."""
    operand = product.operands[side]
    if operand.weight:
        return integers.weight_bits
    if operand.holds == "binary":
        return 1
    return max(1, int(operand.peak or 0).bit_length()) if operand.holds == "graded" else integers.value_bits


def _activations(layer: NeuronLayer, arithmetic: Arithmetic, bits: int, memory: Memory | None) -> LayerEnergy:
    price = layer.units * arithmetic.price(Operations(multiply=1, compare=1))
    traffic = memory.move([layer.units * memory.value_bits], [layer.units * bits]) if memory else NOTHING
    return LayerEnergy(layer.name, 0.0, 0.0, price + traffic.energy_pJ, traffic)


def _sums(each: Elementwise, arithmetic: Arithmetic, share: int) -> LayerEnergy:
    price = arithmetic.price(Operations(add=each.added, multiply=each.multiplied)) / share
    return LayerEnergy(each.name, 0.0, 0.0, price)
