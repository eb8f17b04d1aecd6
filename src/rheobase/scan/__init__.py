"""The heart: a neuron's step, traced once, run fused over time."""

from rheobase.scan.engine import engine
from rheobase.scan.op import Scan
from rheobase.scan.spike import spike
from rheobase.scan.temporal import ModelState, Temporal
from rheobase.scan.trace import Step, UnsupportedOperationError, step

__all__ = ["ModelState", "Scan", "Step", "Temporal", "UnsupportedOperationError", "engine", "spike", "step"]
