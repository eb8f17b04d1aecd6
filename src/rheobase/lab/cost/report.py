"""What a trace found: matrix products with their operands, and neurons with their spikes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rheobase.lab.cost.operations import Operations
from rheobase.nn.values import Values, concatenated

Kind = Literal["convolution", "linear", "matmul"]
"""A convolution with weights, another product with weights, or a product of two activations."""


@dataclass(frozen=True)
class Operand:
    """One side of a matrix product.

    Attributes:
        shape: of weights as they are; of activations without time and batch: `(C, H, W)`, `(features,)`, or the matrix.
        weight: whether it depends on parameters and constants alone.
        holds: the least special values seen in any batch: "binary" {0, 1}, "graded" whole numbers, "real"; None if
            values are unknown (meta device), and of weights.
        density: share of values that are not zero, over all batches; None if unknown.
        size: values read for one sample when the product runs once; of weights all of them.
        peak: largest absolute value, of "binary" and "graded" ones; None of others.
    """

    shape: tuple[int, ...]
    weight: bool
    holds: Values | None = None
    density: float | None = None
    size: int = 0
    peak: float | None = None


@dataclass(frozen=True)
class Product:
    """One matrix product of a network.

    Attributes:
        name: qualified name of the layer: of the weight's owner, else of the innermost module that ran.
        kind: "convolution", "linear" or "matmul".
        operands: left and right; the weight of a convolution is the right one.
        macs: multiply-accumulates per sample and step, dense; a zero-padded border counts as the inside.
        bias_adds: additions of a bias per sample and step.
        effective: pairs of two non-zero values that really meet, per sample and step, exact at borders; None if
            unknown. A mean over samples and steps.
        executed: times the product ran for a sample.
        steps: times it would run if a static image were computed at every step. As `executed` but for layers that
            `PerStep` runs once on an image that is expanded over time.
        once: times it runs within one step: 1 unless weights are shared within a step.
        declared: what the layer declares to read (`reads` or `binary_input`); None if it says nothing.
        stem: it runs before the first neuron, in the same top-level module as the first product.
        readout: the last product, with weights and after the last neuron.
        inside: as `macs`, without those that meet the zeros of a padded border.
        outputs: values put out for one sample when it runs once.
        additions: as `effective`, a whole number k counted |k| times: additions where sums of spikes are added spike by
            spike. None where that cannot be: of real values, and of two activations without {0, 1}.
        selected: the part of `effective` in steps at which an activation held -1, 0 and 1 alone.
    """

    name: str
    kind: Kind
    operands: tuple[Operand, Operand]
    macs: int
    bias_adds: int
    effective: float | None
    executed: int
    steps: int
    once: int = 1
    declared: Values | None = None
    stem: bool = False
    readout: bool = False
    inside: int = 0
    outputs: int = 0
    additions: float | None = None
    selected: float | None = None

    @property
    def activations(self) -> tuple[Operand, ...]:
        """The operands that are not weights."""
        return tuple(operand for operand in self.operands if not operand.weight)

    @property
    def known(self) -> bool:
        """Whether values were seen."""
        return all(operand.holds is not None for operand in self.activations)

    @property
    def spike_driven(self) -> bool:
        """Whether at least one operand is an activation in {0, 1}: then every multiplication is select and add.

        Raises:
            ValueError: values are unknown.
        """
        return "binary" in self._held()

    @property
    def strict(self) -> bool:
        """Whether all operands that are activations are in {0, 1}.

        Raises:
            ValueError: values are unknown.
        """
        return set(self._held()) == {"binary"}

    @property
    def verdict(self) -> str:
        """ "yes" if all activations are in {0, 1}, "additions" if one is, "no" if none is, "unknown" without values."""
        if not self.known:
            return "unknown"
        return "yes" if self.strict else "additions" if self.spike_driven else "no"

    @property
    def mismatch(self) -> bool:
        """Whether an activation held less special values than the layer declares to read. Unknown values fit."""
        if self.declared is None or not self.known:
            return False
        return any(concatenated(held, self.declared) != self.declared for held in self._held())

    @property
    def rate(self) -> float:
        """Share of multiplications whose spike is one: the density of the activation with {0, 1}.

        Of two activations the least dense one with {0, 1} counts; if none is in {0, 1}, the least dense one.

        Raises:
            ValueError: values are unknown.
        """
        self._held()
        binary = [operand for operand in self.activations if operand.holds == "binary"]
        return min(operand.density or 0.0 for operand in binary or self.activations)

    def _held(self) -> list[Values]:
        held = [operand.holds for operand in self.activations if operand.holds is not None]
        if not self.known:
            raise ValueError(
                f"{self.name}: what its operands hold is unknown, as the trace ran on the meta device; "
                f"trace the model on the CPU or a GPU with real inputs"
            )
        return held


@dataclass(frozen=True)
class NeuronLayer:
    """One layer of neurons.

    Attributes:
        name: qualified name.
        units: neurons per sample.
        spikes: sum of the outputs over steps and units, mean over samples; None if unknown.
        rate: share of outputs that are not zero; None if unknown.
        emits: what it declares to emit.
        updates: neuron updates per sample, units times steps.
        operations: of one update, from the traced step; None if it was not traced.
        states: state variables of a neuron; None if unknown.
        peak: largest absolute output; None if unknown, or if it emits real values.
    """

    name: str
    units: int
    spikes: float | None
    rate: float | None
    emits: Values
    updates: int
    operations: Operations | None = None
    states: int | None = None
    peak: float | None = None


@dataclass(frozen=True)
class Elementwise:
    """What a module computes element by element outside of neurons, per sample: norms, sums of branches, scalings.

    Pooling, means over time or space, softmax and other functions are not counted.

    Attributes:
        name: qualified name of the innermost module that ran.
        scaled: products with parameters or numbers; those of a batch norm fold into the layer before it.
        shifted: additions of them, likewise.
        added: sums of two activations, and those that a layer or group norm needs for its statistics.
        multiplied: products or quotients of two activations, likewise.
    """

    name: str
    scaled: int
    shifted: int
    added: int
    multiplied: int


@dataclass(frozen=True)
class Report:
    """Products and neurons in order of execution.

    Attributes:
        products: the matrix products.
        neurons: the layers of neurons.
        T: time steps.
        samples: how many samples were seen.
        elementwise: what is computed between products and neurons.
    """

    products: tuple[Product, ...]
    neurons: tuple[NeuronLayer, ...]
    T: int
    samples: int
    elementwise: tuple[Elementwise, ...] = ()

    @property
    def spike_driven(self) -> bool:
        """Whether every product is; see `exceptions`. Raises ValueError if values are unknown."""
        return not self.exceptions

    @property
    def exceptions(self) -> tuple[str, ...]:
        """Names of the layers whose products are not spike-driven. Raises ValueError if values are unknown."""
        return tuple(product.name for product in self.products if not product.spike_driven)

    @property
    def mismatches(self) -> tuple[str, ...]:
        """Names of the layers that read other values than they declare."""
        return tuple(product.name for product in self.products if product.mismatch)

    @property
    def silent(self) -> tuple[str, ...]:
        """Names of the layers that read nothing but zeros: of what they would read, the trace says nothing."""
        return tuple(p.name for p in self.products if any(operand.density == 0 for operand in p.activations))

    @property
    def macs(self) -> int:
        """Dense multiply-accumulates per sample and step."""
        return sum(product.macs * product.once for product in self.products)

    @property
    def mac_share(self) -> float:
        """Share of dense multiply-accumulates, over all steps, in products that are not spike-driven.

        Raises:
            ValueError: values are unknown.
        """
        every = sum(product.macs * product.steps for product in self.products)
        return sum(p.macs * p.steps for p in self.products if not p.spike_driven) / every if every else 0.0

    @property
    def updates(self) -> int:
        """Neuron updates per sample."""
        return sum(layer.updates for layer in self.neurons)

    def __str__(self) -> str:
        rows = [("layer", "kind", "shape", "MACs/step", "steps", "holds", "density", "declared", "spikes only")]
        for product in self.products:
            seen = product.activations
            rows.append(
                (
                    product.name or "(model)",
                    product.kind,
                    shapes(product),
                    str(product.macs),
                    f"{product.executed}"
                    if product.executed == product.steps
                    else f"{product.executed} of {product.steps}",
                    " x ".join(operand.holds or "?" for operand in seen),
                    " x ".join("?" if operand.density is None else f"{operand.density:.4f}" for operand in seen),
                    product.declared or "-",
                    product.verdict + (", not as declared" if product.mismatch else ""),
                )
            )
        last = f"{self.samples} samples, T = {self.T}, {self.macs} MACs a step, {self.updates} neuron updates a sample"
        if all(product.known for product in self.products):
            verdict = "spike-driven" if self.spike_driven else f"not spike-driven: {', '.join(self.exceptions)}"
            last += f"\n{self.mac_share:.2%} of the MACs need a multiplier; {verdict}"
        if self.silent:
            last += f"\nread zeros alone, so their verdict says nothing: {', '.join(self.silent)}"
        return f"{table(rows)}\n{last}"


def shapes(product: Product) -> str:
    """The shapes of both operands: `3x8x8 * 4x3x3x3`."""
    return " * ".join("x".join(map(str, operand.shape)) for operand in product.operands)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text as columns of equal width; the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


@dataclass(frozen=True)
class Activity:
    """How much a network fires.

    Attributes:
        rates: name of each layer of neurons to the share of its outputs that are not zero.
        spikes_per_neuron: spikes per neuron and sample, over all layers that emit {0, 1}; None if there are none.
    """

    rates: dict[str, float]
    spikes_per_neuron: float | None


def activity(report: Report) -> Activity:
    """Firing rates per layer, and mean spikes per neuron and sample over all layers that emit {0, 1}.

    Raises:
        ValueError: values are unknown, as the trace ran on the meta device.
    """
    rates, spikes, units = {}, 0.0, 0
    for layer in report.neurons:
        if layer.rate is None or layer.spikes is None:
            raise ValueError(f"{layer.name}: its spikes are unknown; trace the model with real inputs")
        rates[layer.name] = layer.rate
        if layer.emits == "binary":
            spikes, units = spikes + layer.spikes, units + layer.units
    return Activity(rates, spikes / units if units else None)
