"""Energy by named rules: papers count alike in name only, so each way of counting is a frozen table."""

from dataclasses import dataclass
from typing import Literal

from rheobase.lab.cost.report import Product, Report, table

Times = Literal["once", "executed", "steps"]
"""How often a product counts: within one step, as often as it ran, or at every step even of a static image."""


@dataclass(frozen=True)
class Rule:
    r"""A way to count: $E = E_{MAC} N_{MAC} + E_{AC} N_{AC}$, norms folded and neurons free.

    A product of M multiply-accumulates that counts n times is either multiplied, $N_{MAC} = nM$, or added,
    $N_{AC} = rnM$ with r the density of its spikes (`Product.rate`). M is dense: it counts zero-padded borders.

    Attributes:
        mac: what is multiplied: the "stem" alone, or all that is not spike-driven by the "values" that were seen.
        stem: how often the stem counts.
        readout: how often the last layer counts.
        others: how often all else counts.
        bias: whether M includes the additions of the bias.
        mac_pJ: picojoule of a multiply-accumulate, 32-bit floating point in 45 nm.
        ac_pJ: picojoule of an addition there.
    """

    mac: Literal["stem", "values"]
    stem: Times
    readout: Times
    others: Times
    bias: bool = False
    mac_pJ: float = 4.6  # noqa: N815
    ac_pJ: float = 0.9  # noqa: N815


RULES: dict[str, Rule] = {
    "papers": Rule(mac="stem", stem="once", readout="steps", others="steps"),
    "papers-T": Rule(mac="stem", stem="steps", readout="steps", others="steps"),
    "strict": Rule(mac="values", stem="executed", readout="executed", others="executed"),
    "spikingformer-tool": Rule(mac="values", stem="steps", readout="once", others="steps", bias=True),
}
"""The rules by name.

- "papers": the stem multiplies, once; all else adds, also shortcuts and the last layer, whatever they read. The formula
  of arXiv:2209.13929 section 4 and arXiv:2304.11954. There the last layer may be left out; here it counts.
- "papers-T": the same with the stem at every step.
- "strict": whatever reads no {0, 1} multiplies: stem, shortcuts on membranes, last layer; each as often as it ran.
- "spikingformer-tool": what the published tool of arXiv:2304.11954 counts: by values, the stem at every step, biases
  too, the last layer once, and a product of two spike tensors by the least dense of them. Departure: the tool finds
  layers by their names, this counts all of them.
"""


def rule_named(name: str) -> Rule:
    """The rule of that name. Raises ValueError if there is none."""
    if name not in RULES:
        raise ValueError(f"there is no rule {name!r}; expected one of {', '.join(RULES)}")
    return RULES[name]


@dataclass(frozen=True)
class LayerEnergy:
    """One product's operations and energy per sample."""

    name: str
    macs: int
    acs: float
    energy_pJ: float  # noqa: N815


@dataclass(frozen=True)
class Energy:
    """Operations and energy per sample, by layer and in all."""

    rule: str
    layers: tuple[LayerEnergy, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return sum(layer.macs for layer in self.layers)

    @property
    def acs(self) -> float:
        """Additions of spikes' weights: synaptic operations."""
        return sum(layer.acs for layer in self.layers)

    @property
    def total_pJ(self) -> float:  # noqa: N802
        """Picojoule."""
        return sum(layer.energy_pJ for layer in self.layers)

    def __str__(self) -> str:
        rows = [("layer", "MACs", "ACs", "energy in nJ")]
        rows += [(row.name, f"{row.macs}", f"{row.acs:.1f}", f"{row.energy_pJ / 1e3:.4f}") for row in self.layers]
        rows.append((f"sum ({self.rule})", f"{self.macs}", f"{self.acs:.1f}", f"{self.total_pJ / 1e3:.4f}"))
        return table(rows)


def energy(report: Report, rule: str | Rule = "strict") -> Energy:
    """Price a report by a rule: operations and energy per sample.

    Args:
        report: what `trace` or `spike_driven` found.
        rule: a name of `RULES`, or a rule of one's own.

    Raises:
        ValueError: no such rule, or values are unknown, as the trace ran on the meta device.
    """
    name, counted = (rule, rule_named(rule)) if isinstance(rule, str) else ("own rule", rule)
    return Energy(name, tuple(_priced(product, counted) for product in report.products))


def _priced(product: Product, rule: Rule) -> LayerEnergy:
    which = rule.stem if product.stem else rule.readout if product.readout else rule.others
    operations = (product.macs + rule.bias * product.bias_adds) * getattr(product, which)
    multiplies = product.stem if rule.mac == "stem" else not product.spike_driven
    macs, acs = (operations, 0.0) if multiplies else (0, product.rate * operations)
    return LayerEnergy(product.name, macs, acs, rule.mac_pJ * macs + rule.ac_pJ * acs)
