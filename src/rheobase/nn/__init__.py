"""Layers on sequences: time, normalisation, residual blocks."""

from rheobase.nn.fuse import NormNeuron, Sequential, fuse
from rheobase.nn.norm import TdBN, fold, fold_all
from rheobase.nn.observe import check, observe
from rheobase.nn.residual import BLOCKS, Residual
from rheobase.nn.time import PerStep, Stream, call, is_static, stream
from rheobase.scan import ModelState, Temporal

__all__ = [
    "BLOCKS",
    "ModelState",
    "NormNeuron",
    "PerStep",
    "Residual",
    "Sequential",
    "Stream",
    "TdBN",
    "Temporal",
    "call",
    "check",
    "fold",
    "fold_all",
    "fuse",
    "is_static",
    "observe",
    "stream",
]
