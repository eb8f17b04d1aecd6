"""The neurons: a file per family, its equations beside the code."""

from rheobase.neurons.adaptive import ALIF, AdLIF
from rheobase.neurons.clif import CLIF
from rheobase.neurons.compartment import TCLIF
from rheobase.neurons.current import LI, CubaLI, CubaLIF
from rheobase.neurons.glif import GLIF
from rheobase.neurons.if_ import IF
from rheobase.neurons.integer import IntegerLIF, expand_integer, sum_substeps
from rheobase.neurons.izhikevich import Izhikevich
from rheobase.neurons.klif import KLIF
from rheobase.neurons.lif import LIF, IterativeLIF
from rheobase.neurons.neuron import Neuron, Reset
from rheobase.neurons.nonlinear import EIF, QIF, AdEx
from rheobase.neurons.plif import PLIF
from rheobase.neurons.psn import PSN, MaskedPSN, SlidingPSN, masking
from rheobase.neurons.registry import NEURONS, create_neuron, list_neurons, register
from rheobase.neurons.resonate import BRF, RF
from rheobase.neurons.stochastic import StochasticLIF
from rheobase.neurons.surrogate import (
    SURROGATES,
    Atan,
    FastSigmoid,
    Gaussian,
    Rectangle,
    Shifted,
    Sigmoid,
    Smooth,
    Surrogate,
    Triangle,
)

__all__ = [
    "ALIF",
    "BRF",
    "CLIF",
    "EIF",
    "GLIF",
    "IF",
    "KLIF",
    "LI",
    "LIF",
    "NEURONS",
    "PLIF",
    "PSN",
    "QIF",
    "RF",
    "SURROGATES",
    "TCLIF",
    "AdEx",
    "AdLIF",
    "Atan",
    "CubaLI",
    "CubaLIF",
    "FastSigmoid",
    "Gaussian",
    "IntegerLIF",
    "IterativeLIF",
    "Izhikevich",
    "MaskedPSN",
    "Neuron",
    "Rectangle",
    "Reset",
    "Shifted",
    "Sigmoid",
    "SlidingPSN",
    "Smooth",
    "StochasticLIF",
    "Surrogate",
    "Triangle",
    "create_neuron",
    "expand_integer",
    "list_neurons",
    "masking",
    "register",
    "sum_substeps",
]
