"""What a network costs: every matrix product it computes, what its operands hold, operations, traffic and energy.

`spike_driven(model, x)` runs a model and says layer by layer whether its products see only {0, 1}; `energy` prices that
report by a named rule, `quantised_twin` beside the quantised network of the same shape, `activity` gives firing rates,
`neurobench` counts as NeuroBench does. `trace` and `tracing` give the report of any run.
"""

from rheobase.lab.cost.energy import RULES, Arithmetic, Energy, LayerEnergy, Rule, energy, rule_named
from rheobase.lab.cost.memory import HOROWITZ, Level, Memory, Traffic
from rheobase.lab.cost.neurobench import NeuroBench, neurobench
from rheobase.lab.cost.operations import Operations, operations
from rheobase.lab.cost.report import Activity, Elementwise, NeuronLayer, Operand, Product, Report, activity
from rheobase.lab.cost.trace import Tracer, spike_driven, trace, tracing
from rheobase.lab.cost.twin import Integers, Twin, quantised_twin

__all__ = [
    "HOROWITZ",
    "RULES",
    "Activity",
    "Arithmetic",
    "Elementwise",
    "Energy",
    "Integers",
    "LayerEnergy",
    "Level",
    "Memory",
    "NeuroBench",
    "NeuronLayer",
    "Operand",
    "Operations",
    "Product",
    "Report",
    "Rule",
    "Tracer",
    "Traffic",
    "Twin",
    "activity",
    "energy",
    "neurobench",
    "operations",
    "quantised_twin",
    "rule_named",
    "spike_driven",
    "trace",
    "tracing",
]
