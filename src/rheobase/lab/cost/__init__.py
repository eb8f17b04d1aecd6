"""What a network costs: every matrix product it computes, what its operands hold, operations and energy.

`spike_driven(model, x)` runs a model and says layer by layer whether its products see only {0, 1}; `energy` prices that
report by a named rule, `activity` gives firing rates. `trace` and `tracing` give the report of any run.
"""

from rheobase.lab.cost.energy import RULES, Energy, LayerEnergy, Rule, energy, rule_named
from rheobase.lab.cost.report import Activity, NeuronLayer, Operand, Product, Report, activity
from rheobase.lab.cost.trace import Tracer, spike_driven, trace, tracing

__all__ = [
    "RULES",
    "Activity",
    "Energy",
    "LayerEnergy",
    "NeuronLayer",
    "Operand",
    "Product",
    "Report",
    "Rule",
    "Tracer",
    "activity",
    "energy",
    "rule_named",
    "spike_driven",
    "trace",
    "tracing",
]
