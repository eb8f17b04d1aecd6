"""Energy by named rules: papers count alike in name only, so each way of counting is a frozen table."""

from dataclasses import dataclass
from typing import Literal

from rheobase.lab.cost.memory import HOROWITZ, NOTHING, Memory, Traffic
from rheobase.lab.cost.operations import Operations
from rheobase.lab.cost.report import Elementwise, NeuronLayer, Product, Report, table

Times = Literal["once", "executed", "steps"]
"""How often a product counts: within one step, as often as it ran, or at every step even of a static image."""


@dataclass(frozen=True)
class Arithmetic:
    """Picojoule of element-wise operations, 32-bit floating point in 45 nm (Horowitz, ISSCC 2014).

    Attributes:
        add_pJ: an addition.
        multiply_pJ: a multiplication.
        compare_pJ: a comparison; assumed to cost an addition.
        select_pJ: choosing by a bit; assumed to be free.
        divide_pJ: a division; assumed to cost ten multiplications and additions, without a source.
        function_pJ: a root, an exponential and the like; likewise.
    """

    add_pJ: float = 0.9  # noqa: N815
    multiply_pJ: float = 3.7  # noqa: N815
    compare_pJ: float = 0.9  # noqa: N815
    select_pJ: float = 0.0  # noqa: N815
    divide_pJ: float = 46.0  # noqa: N815
    function_pJ: float = 46.0  # noqa: N815

    def price(self, counted: Operations) -> float:
        """Picojoule of so many operations."""
        return (
            self.add_pJ * counted.add
            + self.multiply_pJ * counted.multiply
            + self.compare_pJ * counted.compare
            + self.select_pJ * counted.select
            + self.divide_pJ * counted.divide
            + self.function_pJ * counted.function
        )


@dataclass(frozen=True)
class Rule:
    r"""A way to count: $E = E_{MAC} N_{MAC} + E_{AC} N_{AC}$, and what the rule adds for neurons and memory.

    A product of M multiply-accumulates that counts n times is either multiplied, $N_{MAC} = nM$, or added,
    $N_{AC} = rnM$ with r the density of its spikes (`Product.rate`). M is dense: it counts zero-padded borders. A rule
    that counts "effective" pairs takes the pairs of two non-zero values that met instead of M and of rM.

    Attributes:
        mac: what is multiplied: the "stem" alone, or all that is not spike-driven by the "values" that were seen.
        stem: how often the stem counts.
        readout: how often the last layer counts.
        others: how often all else counts.
        bias: whether the additions of the bias count: as part of M, or of "effective" pairs as additions.
        mac_pJ: picojoule of a multiply-accumulate, 32-bit floating point in 45 nm.
        ac_pJ: picojoule of an addition there.
        pairs: "dense" or "effective".
        graded: a product that reads sums of spikes "multiply"s, or "add"s a sum k as k spikes (`Product.additions`;
            needs "values" and "effective").
        neurons: whether updates of neurons cost what their traced steps compute.
        between: what is computed between products and neurons: "free"; "unfolded" prices sums and products of two
            activations, as norms fold into the layers before them; "all" prices norms and scalings too.
        arithmetic: prices of `neurons` and `between`.
        memory: prices of moving operands, results and states; None: free.
    """

    mac: Literal["stem", "values"]
    stem: Times
    readout: Times
    others: Times
    bias: bool = False
    mac_pJ: float = 4.6  # noqa: N815
    ac_pJ: float = 0.9  # noqa: N815
    pairs: Literal["dense", "effective"] = "dense"
    graded: Literal["multiply", "add"] = "multiply"
    neurons: bool = False
    between: Literal["free", "unfolded", "all"] = "free"
    arithmetic: Arithmetic = Arithmetic()
    memory: Memory | None = None

    def __post_init__(self) -> None:
        if self.graded == "add" and (self.mac, self.pairs) != ("values", "effective"):
            raise ValueError(
                f"Rule: graded is 'add' with mac={self.mac!r} and pairs={self.pairs!r}; expected 'values' and "
                f"'effective', since additions of single spikes are counted by the values that met"
            )


_EXACT = Rule(
    mac="values",
    stem="executed",
    readout="executed",
    others="executed",
    bias=True,
    pairs="effective",
    neurons=True,
    between="unfolded",
)

RULES: dict[str, Rule] = {
    "papers": Rule(mac="stem", stem="once", readout="steps", others="steps"),
    "papers-T": Rule(mac="stem", stem="steps", readout="steps", others="steps"),
    "strict": Rule(mac="values", stem="executed", readout="executed", others="executed"),
    "spikingformer-tool": Rule(mac="values", stem="steps", readout="once", others="steps", bias=True),
    "exact": _EXACT,
    "exact-spikes": Rule(**{**_EXACT.__dict__, "graded": "add"}),
    "memory": Rule(**{**_EXACT.__dict__, "memory": HOROWITZ}),
}
"""The rules by name.

- "papers": the stem multiplies, once, as for a static image; all else adds, also shortcuts and the last layer,
  whatever they read. The formula of arXiv:2209.13929 section 4 and arXiv:2304.11954. There the last layer may be left
  out; here it counts.
- "papers-T": the same with the stem at every step.
- "strict": whatever reads no {0, 1} multiplies: stem, shortcuts on membranes, last layer; each as often as it ran.
- "spikingformer-tool": what the published tool of arXiv:2304.11954 counts: by values, the stem at every step, biases
  too, the last layer once, and a product of two spike tensors by the least dense of them. Departure: the tool finds
  layers by their names, this counts all of them.
- "exact": as "strict", but pairs of two non-zero values to the unit, without padded borders and zero weights; biases,
  what neurons compute by their traced steps, and sums of branches count. Norms are taken as folded.
- "exact-spikes": as "exact", but a sum of k spikes is added as k spikes where "exact" multiplies.
- "memory": as "exact", and moving operands, results and states costs what `HOROWITZ` says.
"""


def rule_named(name: str) -> Rule:
    """The rule of that name. Raises ValueError if there is none."""
    if name not in RULES:
        raise ValueError(f"there is no rule {name!r}; expected one of {', '.join(RULES)}")
    return RULES[name]


@dataclass(frozen=True)
class LayerEnergy:
    """Operations and energy per sample of one product, one layer of neurons, or one module between them.

    Attributes:
        name: qualified name.
        macs: multiply-accumulates of a product.
        acs: additions of a product.
        energy_pJ: of all, memory too.
        traffic: what is moved, and its energy.
    """

    name: str
    macs: float
    acs: float
    energy_pJ: float  # noqa: N815
    traffic: Traffic = NOTHING

    @property
    def operations_pJ(self) -> float:  # noqa: N802
        """Energy without that of memory."""
        return self.energy_pJ - self.traffic.energy_pJ


@dataclass(frozen=True)
class Energy:
    """Operations and energy per sample, by layer and in all.

    Attributes:
        rule: name of the rule.
        layers: matrix products.
        neurons: layers of neurons; empty where they are free.
        between: what is computed between; empty where it is free.
        unpriced: layers of neurons whose step was not traced, so that their operations are missing.
    """

    rule: str
    layers: tuple[LayerEnergy, ...]
    neurons: tuple[LayerEnergy, ...] = ()
    between: tuple[LayerEnergy, ...] = ()
    unpriced: tuple[str, ...] = ()

    @property
    def everything(self) -> tuple[LayerEnergy, ...]:
        """Products, neurons and what is between."""
        return (*self.layers, *self.neurons, *self.between)

    @property
    def macs(self) -> float:
        """Multiply-accumulates of products."""
        return sum((layer.macs for layer in self.layers), 0.0)

    @property
    def acs(self) -> float:
        """Additions of spikes' weights: synaptic operations."""
        return sum((layer.acs for layer in self.layers), 0.0)

    @property
    def total_pJ(self) -> float:  # noqa: N802
        """Picojoule."""
        return sum((layer.energy_pJ for layer in self.everything), 0.0)

    @property
    def memory_pJ(self) -> float:  # noqa: N802
        """Picojoule of moving data."""
        return sum((layer.traffic.energy_pJ for layer in self.everything), 0.0)

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("layer", "MACs", "ACs", "energy in nJ", "of it memory")]
        rows += [_shown(row) for row in self.layers]
        rows += [_shown(row, operations=False) for row in (*self.neurons, *self.between)]
        whole = LayerEnergy(f"sum ({self.rule})", self.macs, self.acs, self.total_pJ, Traffic(energy_pJ=self.memory_pJ))
        return table([*rows, _shown(whole)])


def _shown(row: LayerEnergy, operations: bool = True) -> tuple[str, ...]:
    counts = (f"{row.macs:.12g}", f"{row.acs:.1f}") if operations else ("-", "-")
    return (row.name, *counts, f"{row.energy_pJ / 1e3:.4f}", f"{row.traffic.energy_pJ / 1e3:.4f}")


def energy(report: Report, rule: str | Rule = "strict") -> Energy:
    """Price a report by a rule: operations and energy per sample.

    Args:
        report: what `trace` or `spike_driven` found.
        rule: a name of `RULES`, or a rule of one's own.

    Raises:
        ValueError: no such rule, or values are unknown, as the trace ran on the meta device.
    """
    name, counted = (rule, rule_named(rule)) if isinstance(rule, str) else ("own rule", rule)
    return Energy(
        name,
        tuple(_product(product, counted) for product in report.products),
        tuple(
            updates(layer, counted.arithmetic if counted.neurons else None, counted.memory) for layer in report.neurons
        )
        if counted.neurons or counted.memory
        else (),
        tuple(_between(each, counted) for each in report.elementwise) if counted.between != "free" else (),
        tuple(layer.name for layer in report.neurons if counted.neurons and layer.operations is None),
    )


def _product(product: Product, rule: Rule) -> LayerEnergy:
    which = rule.stem if product.stem else rule.readout if product.readout else rule.others
    times = getattr(product, which)
    multiplies = product.stem if rule.mac == "stem" else not product.spike_driven
    biases = float(rule.bias * product.bias_adds * times)
    if rule.pairs == "dense":
        operations = product.macs * times + biases
        macs, acs = (operations, 0.0) if multiplies else (0.0, product.rate * operations)
    else:
        pairs = (product.effective or 0.0) * times
        macs, acs = (pairs, 0.0) if multiplies else (0.0, pairs)
        if multiplies and rule.graded == "add" and product.additions is not None:
            macs, acs = 0.0, product.additions * times
        acs += biases
    traffic = rule.memory.of_product(product, times) if rule.memory else NOTHING
    return LayerEnergy(product.name, macs, acs, rule.mac_pJ * macs + rule.ac_pJ * acs + traffic.energy_pJ, traffic)


def updates(layer: NeuronLayer, arithmetic: Arithmetic | None, memory: Memory | None) -> LayerEnergy:
    """Energy of a layer of neurons over all steps; None: what it computes, or moves, is free."""
    computed = layer.updates * arithmetic.price(layer.operations) if arithmetic and layer.operations else 0.0
    steps = layer.updates // layer.units if layer.units else 0
    traffic = memory.of_neurons(layer).times(steps) if memory else NOTHING
    return LayerEnergy(layer.name, 0.0, 0.0, computed + traffic.energy_pJ, traffic)


def _between(each: Elementwise, rule: Rule) -> LayerEnergy:
    norms = rule.between == "all"
    counted = Operations(add=each.added + norms * each.shifted, multiply=each.multiplied + norms * each.scaled)
    return LayerEnergy(each.name, 0.0, 0.0, rule.arithmetic.price(counted))
