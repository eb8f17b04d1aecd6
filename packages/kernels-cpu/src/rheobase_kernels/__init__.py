"""Products of binary matrices and convolutions that read spikes, on the CPU: a plain C library and its loader.

Nothing here imports torch. Arrays are given as addresses; see `kernels.h` for what each kernel computes, and the README
for an example.
"""

from rheobase_kernels.choose import MEASURED, Costs, choose, estimate, estimate_sparse
from rheobase_kernels.library import (
    FORMATS,
    ISAS,
    Call,
    Forward,
    InputGradient,
    Job,
    Lay,
    Library,
    Sparse,
    Turn,
    WeightGradient,
    load,
    supported,
)
from rheobase_kernels.shape import Shape, chunks, convolution, laid_size, linear, tile

__all__ = [
    "FORMATS",
    "ISAS",
    "MEASURED",
    "Call",
    "Costs",
    "Forward",
    "InputGradient",
    "Job",
    "Lay",
    "Library",
    "Shape",
    "Sparse",
    "Turn",
    "WeightGradient",
    "choose",
    "chunks",
    "convolution",
    "estimate",
    "estimate_sparse",
    "laid_size",
    "linear",
    "load",
    "supported",
    "tile",
]
