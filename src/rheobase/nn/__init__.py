"""Layers on sequences: time, normalisation, residual blocks."""

from rheobase.nn.fuse import NormNeuron, Sequential, fuse
from rheobase.nn.memory import Blocks, recomputing, saved_bytes
from rheobase.nn.norm import TdBN, fold, fold_all
from rheobase.nn.observe import check, observe
from rheobase.nn.packing import Conv1d, Conv2d, Conv3d, Linear, pair
from rheobase.nn.residual import BLOCKS, Residual
from rheobase.nn.time import PerStep, Stream, call, is_static, stream
from rheobase.nn.values import emits
from rheobase.scan import ModelState, Temporal
from rheobase.scan.bits import pack, unpack

__all__ = [
    "BLOCKS",
    "Blocks",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "Linear",
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
    "emits",
    "fold",
    "fold_all",
    "fuse",
    "is_static",
    "observe",
    "pack",
    "pair",
    "recomputing",
    "saved_bytes",
    "stream",
    "unpack",
]
