"""Layers on sequences: time, normalisation, residual blocks, recurrence, delays."""

from rheobase.nn.delay import Delay, DelayedLinear, delay_sigma, sharpen
from rheobase.nn.norm import TdBN, fold, fold_all
from rheobase.nn.observe import check, observe
from rheobase.nn.readout import read_out
from rheobase.nn.recurrent import Recurrent
from rheobase.nn.residual import BLOCKS, Residual
from rheobase.nn.time import PerStep, Stream, call, flatten_state, is_static, stream, unflatten_state
from rheobase.scan import ModelState, Temporal

__all__ = [
    "BLOCKS",
    "Delay",
    "DelayedLinear",
    "ModelState",
    "PerStep",
    "Recurrent",
    "Residual",
    "Stream",
    "TdBN",
    "Temporal",
    "call",
    "check",
    "delay_sigma",
    "flatten_state",
    "fold",
    "fold_all",
    "is_static",
    "observe",
    "read_out",
    "sharpen",
    "stream",
    "unflatten_state",
]
