"""The heart: a neuron's step, traced once, run fused over time."""

from rheobase.scan.engine import engine
from rheobase.scan.language import UnsupportedOperationError
from rheobase.scan.op import Scan
from rheobase.scan.spike import round_ste, spike
from rheobase.scan.temporal import ModelState, Temporal
from rheobase.scan.trace import Step, step

__all__ = [
    "ModelState",
    "Scan",
    "Step",
    "Temporal",
    "UnsupportedOperationError",
    "engine",
    "round_ste",
    "spike",
    "step",
]
