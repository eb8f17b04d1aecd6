"""Layers on sequences: time, normalisation, residual blocks, recurrence, delays, graphs."""

from rheobase.nn.attention import (
    ATTENTIONS,
    Attention,
    ChannelAttention,
    SelfAttention,
    SpikeDrivenAttention,
    TokenAttention,
    attend,
)
from rheobase.nn.delay import Delay, DelayedLinear, delay_sigma, sharpen
from rheobase.nn.dense import Dense
from rheobase.nn.embedding import TemporalEmbedding
from rheobase.nn.fuse import NormNeuron, Sequential, fuse
from rheobase.nn.graph import GraphAttention, GraphConv, OnGraph, SparseInput, dirichlet_energy, propagate
from rheobase.nn.isometry import gain, gradient_norms
from rheobase.nn.links import Links, add_ends, add_neighbours, softmax_in_rows
from rheobase.nn.memory import Blocks, recomputing, saved_bytes
from rheobase.nn.norm import TdBN, fold, fold_all, synchronise
from rheobase.nn.observe import check, observe
from rheobase.nn.packing import Conv1d, Conv2d, Conv3d, Linear, pair, sparsify
from rheobase.nn.rank import RankOrder
from rheobase.nn.readout import read_out
from rheobase.nn.recurrent import Recurrent
from rheobase.nn.residual import BLOCKS, PerChannel, Residual
from rheobase.nn.stfn import STFN
from rheobase.nn.time import PerStep, Stream, begin_epoch, call, flatten_state, stream, unflatten_state
from rheobase.nn.values import emits
from rheobase.scan import ModelState, Temporal
from rheobase.scan.bits import pack, unpack
from rheobase.scan.static import is_static

__all__ = [
    "ATTENTIONS",
    "BLOCKS",
    "STFN",
    "Attention",
    "Blocks",
    "ChannelAttention",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "Delay",
    "DelayedLinear",
    "Dense",
    "GraphAttention",
    "GraphConv",
    "Linear",
    "Links",
    "ModelState",
    "NormNeuron",
    "OnGraph",
    "PerChannel",
    "PerStep",
    "RankOrder",
    "Recurrent",
    "Residual",
    "SelfAttention",
    "Sequential",
    "SparseInput",
    "SpikeDrivenAttention",
    "Stream",
    "TdBN",
    "Temporal",
    "TemporalEmbedding",
    "TokenAttention",
    "add_ends",
    "add_neighbours",
    "attend",
    "begin_epoch",
    "call",
    "check",
    "delay_sigma",
    "dirichlet_energy",
    "emits",
    "flatten_state",
    "fold",
    "fold_all",
    "fuse",
    "gain",
    "gradient_norms",
    "is_static",
    "observe",
    "pack",
    "pair",
    "propagate",
    "read_out",
    "recomputing",
    "saved_bytes",
    "sharpen",
    "softmax_in_rows",
    "sparsify",
    "stream",
    "synchronise",
    "unflatten_state",
    "unpack",
]
