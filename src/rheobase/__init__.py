"""Rheobase: spiking neural networks in PyTorch. Write a neuron as one step; it runs as one fused kernel over time."""

from rheobase import lab, models, neurons, nn
from rheobase.nn import call, check, fuse, observe, stream
from rheobase.nn.memory import memory
from rheobase.nn.packing import packing
from rheobase.scan import engine, step

__version__ = "0.1.0"
__all__ = [
    "call",
    "check",
    "engine",
    "fuse",
    "lab",
    "memory",
    "models",
    "neurons",
    "nn",
    "observe",
    "packing",
    "step",
    "stream",
]
