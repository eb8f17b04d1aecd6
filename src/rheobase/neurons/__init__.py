"""The neurons: a file per family, its equations beside the code."""

from rheobase.neurons.if_ import IF
from rheobase.neurons.lif import LIF, IterativeLIF
from rheobase.neurons.neuron import Neuron, Reset
from rheobase.neurons.plif import PLIF
from rheobase.neurons.psn import PSN, MaskedPSN, SlidingPSN, masking
from rheobase.neurons.registry import NEURONS, create_neuron, list_neurons, register
from rheobase.neurons.surrogate import (
    SURROGATES,
    Atan,
    FastSigmoid,
    Gaussian,
    Rectangle,
    Sigmoid,
    Smooth,
    Surrogate,
    Triangle,
)

__all__ = [
    "IF",
    "LIF",
    "NEURONS",
    "PLIF",
    "PSN",
    "SURROGATES",
    "Atan",
    "FastSigmoid",
    "Gaussian",
    "IterativeLIF",
    "MaskedPSN",
    "Neuron",
    "Rectangle",
    "Reset",
    "Sigmoid",
    "SlidingPSN",
    "Smooth",
    "Surrogate",
    "Triangle",
    "create_neuron",
    "list_neurons",
    "masking",
    "register",
]
