"""The C library: its structures, and its kernels as calls that threads share."""

import ctypes
import os
from collections.abc import Callable
from ctypes import POINTER, c_int64, c_void_p
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from rheobase_kernels.shape import Shape

ISAS = ("generic", "avx2", "avx512")
FORMATS = {"float32": 0, "bfloat16": 1}
"""Of the weights that "lay" reads."""


class Lay(ctypes.Structure):
    """`rk_lay`: arguments of "lay"."""

    _fields_ = [
        *(("shape", Shape), ("weight", c_void_p), ("stride", c_int64 * 4)),
        *(("format", c_int64), ("laid", c_void_p)),
    ]


class Forward(ctypes.Structure):
    """`rk_forward`: arguments of "forward_events" and "forward_table"."""

    _fields_ = [
        *(("shape", Shape), ("bits", c_void_p), ("weight", c_void_p)),
        *(("bias", c_void_p), ("out", c_void_p), ("tile", c_int64)),
    ]


class WeightGradient(ctypes.Structure):
    """`rk_weight_gradient`: arguments of "weight_gradient_events", "weight_gradient_table", and of "gather_weight"."""

    _fields_ = [
        *(("shape", Shape), ("bits", c_void_p), ("grad", c_void_p), ("chunks", c_int64)),
        *(("partial", c_void_p), ("weight_grad", c_void_p), ("stride", c_int64 * 4)),
    ]


class InputGradient(ctypes.Structure):
    """`rk_input_gradient`: arguments of "input_gradient"."""

    _fields_ = [
        ("shape", Shape),
        *((name, c_void_p) for name in ("needed", "grad", "weight", "input_grad")),
    ]


class Sparse(ctypes.Structure):
    """`rk_sparse`: arguments of "sparse_bits" and "sparse_dense"."""

    _fields_ = [
        ("shape", Shape),
        *((name, c_void_p) for name in ("bits", "input", "first", "column", "value", "bias", "out")),
    ]


class Turn(ctypes.Structure):
    """`rk_turn`: arguments of "turn"."""

    _fields_ = [("shape", Shape), ("bits", c_void_p), ("turned", c_void_p), ("words", c_int64)]


class _Job(ctypes.Structure):
    _fields_ = [
        *(("kernel", c_void_p), ("arguments", c_void_p), ("items", c_int64), ("grain", c_int64)),
        *(("scratch", c_void_p), ("scratch_size", c_int64), ("taken", c_int64), ("threads", c_int64)),
    ]


_STRUCTURES = (Shape, Lay, Forward, WeightGradient, InputGradient, Sparse, Turn, _Job)
KERNELS: dict[str, type[ctypes.Structure]] = {
    "lay": Lay,
    "forward_events": Forward,
    "forward_table": Forward,
    "weight_gradient_events": WeightGradient,
    "weight_gradient_table": WeightGradient,
    "gather_weight": WeightGradient,
    "input_gradient": InputGradient,
    "sparse_bits": Sparse,
    "sparse_dense": Sparse,
    "turn": Turn,
}


@dataclass(frozen=True)
class Job:
    """Work for a team: each of its threads calls the C function at `function` once, with `address`.

    No more threads may call it than the job was made for, and only once each. It is spent then.

    Attributes:
        function: address of `void function(void *)`.
        address: what it is given.
        keeps: memory that must live until all are done.
    """

    function: int
    address: int
    keeps: tuple[object, ...] = field(repr=False)


@dataclass(frozen=True)
class Call:
    """A kernel with its arguments.

    Attributes:
        library: it is of.
        kernel: its address.
        arguments: a structure of this module. It holds addresses: whoever made it keeps their memory alive.
        items: that there are along its outer axis.
        scratch: bytes that every thread needs.
    """

    library: "Library"
    kernel: int
    arguments: ctypes.Structure
    items: int
    scratch: int

    def run(self, begin: int = 0, end: int | None = None) -> None:
        """Do items begin <= i < end (None: all) on the calling thread, without Python's lock."""
        memory, address = _aligned(self.scratch)
        function = ctypes.CFUNCTYPE(None, c_void_p, c_int64, c_int64, c_void_p)(self.kernel)
        function(ctypes.addressof(self.arguments), begin, self.items if end is None else min(end, self.items), address)
        del memory

    def job(self, threads: int, grain: int = 1) -> Job:
        """The call as work that so many threads, at most, share: `grain` items at a time."""
        size = -(-self.scratch // 64) * 64
        memory, address = _aligned(size * threads)
        job = _Job(self.kernel, ctypes.addressof(self.arguments), self.items, grain, address, size, 0, 0)
        return Job(self.library.share, ctypes.addressof(job), (job, self.arguments, memory))


def _aligned(size: int) -> tuple[object, int]:
    """Memory of so many bytes, and the address of its first at a multiple of 64."""
    memory = np.empty(size + 64, np.uint8)
    return memory, -(-memory.ctypes.data // 64) * 64


class Library:
    """The C library, with the kernels of one instruction set.

    Attributes:
        isa: "generic", "avx2" or "avx512".
        share: address of `rk_share`.
    """

    def __init__(self, c: ctypes.CDLL, isa: str) -> None:
        self.isa = isa
        self.share = _address(c.rk_share)
        self._kernels = {name: _address(getattr(c, f"rk_{name}_{isa}")) for name in KERNELS}
        self._items: dict[str, Callable[[ctypes.Structure], int]] = {}
        self._scratch: dict[str, Callable[[ctypes.Structure], int]] = {}
        for name, kind in KERNELS.items():
            for what, found in (("items", self._items), ("scratch", self._scratch)):
                function = getattr(c, f"rk_{name}_{what}")
                function.argtypes, function.restype = (POINTER(kind),), c_int64
                found[name] = function

    def call(self, kernel: str, arguments: ctypes.Structure) -> Call:
        """A kernel with its arguments.

        Raises:
            ValueError: there is no such kernel, or its arguments are others.
        """
        kind = KERNELS.get(kernel)
        if kind is None or not isinstance(arguments, kind):
            raise ValueError(
                f"kernel {kernel!r} with {type(arguments).__name__}; expected one of "
                f"{ {name: k.__name__ for name, k in KERNELS.items()} }"
            )
        return Call(
            self, self._kernels[kernel], arguments, self._items[kernel](arguments), self._scratch[kernel](arguments)
        )


def _address(function: object) -> int:
    return ctypes.cast(function, c_void_p).value or 0  # type: ignore[arg-type]


def _path() -> Path | None:
    here = Path(__file__).parent
    found = (here / f"librheobase_kernels.{end}" for end in ("so", "dylib", "dll"))
    return next((path for path in found if path.exists()), None)


@lru_cache
def _c() -> ctypes.CDLL:
    path = _path()
    if path is None:
        raise FileNotFoundError(
            f"{Path(__file__).parent} has no compiled library; install the package with a C compiler present: "
            f"pip install packages/kernels-cpu"
        )
    c = ctypes.CDLL(str(path))
    for function in (c.rk_best, c.rk_size_of):
        function.restype = c_int64
    c.rk_size_of.argtypes = (c_int64,)
    for k, kind in enumerate(_STRUCTURES):
        if c.rk_size_of(k) != ctypes.sizeof(kind):
            raise RuntimeError(
                f"{path} has a {kind.__name__} of {c.rk_size_of(k)} bytes, expected {ctypes.sizeof(kind)}: "
                f"it is of another version; install the package again"
            )
    return c


def supported() -> tuple[str, ...]:
    """Instruction sets that this processor can run, the best one last."""
    return ISAS[: _c().rk_best() + 1]


@lru_cache
def load(isa: str | None = None) -> Library:
    """The library with the kernels of one instruction set.

    Args:
        isa: "generic", "avx2" or "avx512". None: what RHEOBASE_KERNELS_ISA says, else the best that there is.

    Raises:
        FileNotFoundError: the library was not compiled.
        ValueError: this processor cannot run these kernels.
    """
    there = supported()
    wanted = isa or os.environ.get("RHEOBASE_KERNELS_ISA") or there[-1]
    if wanted not in there:
        raise ValueError(
            f"instruction set {wanted!r}; this processor has {', '.join(there)}; name one of these or none"
        )
    return Library(_c(), wanted)
