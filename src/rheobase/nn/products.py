"""Products that read spikes as bits: by the kernels of `rheobase_kernels` where they pay, else by torch.

A product is a 2-D convolution of a map whose channels lie side by side, or a linear layer, in fp32 or bf16, on the CPU.
At every call the spikes are counted, and the way that should be the fastest at their density is taken: rows of weights
added where bits are set, rows of tables of their sums, or the dense product. Results are equal up to rounding: sums of
the kernels are in fp32, in an order that depends on the shapes alone.

Without the library products are torch's, but for those of pruned weights in CSR, which loops of numba can carry out.
"""

import ctypes
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor

from rheobase.scan import pool
from rheobase.scan.kernels import kernels_of
from rheobase.scan.op import is_direct

How = Literal["dense", "events", "table", "csr"]
Kind = Literal["forward", "weight_gradient", "input_gradient"]

_WORTH_NS = 200_000
"""Of the dense product, on one thread, from which on spikes are looked at."""
_FORMATS = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_CAST_NS = 0.1
"""Of a value that is converted from or to bf16."""


@lru_cache(maxsize=1)
def kernels() -> ModuleType | None:
    """The package `rheobase_kernels`; None where it cannot be had, which is said once."""
    try:
        import rheobase_kernels  # type: ignore[import-not-found, unused-ignore]

        rheobase_kernels.load()
    except (ImportError, OSError) as error:
        warnings.warn(
            f"layers that read spikes multiply densely on this CPU: {error}; "
            f"install packages/kernels-cpu to let them read bits (in the repository: make kernels)",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return rheobase_kernels


@dataclass(frozen=True)
class Settings:
    """Of a convolution, as torch has them, (y, x). A linear layer is one of a single pixel, with these."""

    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1


@dataclass(frozen=True, eq=False)
class Csr:
    """Weights `[C', C / groups, y, x]` of which most are zero, by rows of output channels.

    Attributes:
        first: int64 `[C' + 1]`; the entries of channel c are those from `first[c]` to `first[c + 1]`.
        column: int32, of every entry: (y, x, channel of the group), y slowest.
        value: fp32.
        weight: what they were taken from.
        version: of the weight then.
    """

    first: Tensor
    column: Tensor
    value: Tensor
    weight: Tensor
    version: int

    @staticmethod
    def of(weight: Tensor) -> "Csr":
        """The weights that are not zero."""
        rows = weight.detach().permute(0, 2, 3, 1).reshape(len(weight), -1).float()
        there = rows != 0
        first = torch.zeros(len(weight) + 1, dtype=torch.int64)
        first[1:] = there.sum(1).cumsum(0)
        column = there.nonzero()[:, 1].to(torch.int32).contiguous()
        return Csr(first, column, rows[there], weight, weight._version)

    def is_of(self, weight: Tensor) -> bool:
        """Whether the weight is still what they were taken from."""
        return weight.data_ptr() == self.weight.data_ptr() and weight._version == self.version


@dataclass(eq=False)
class Kept:
    """Weights in the kernels' order, kept from one call to the next.

    They are taken again if the product of the weights with a fixed random vector is another: a change of the weights
    that does not show there is within rounding.

    Attributes:
        laid: the weights in the kernels' order, None before the first call.
        mark: the product.
    """

    laid: Tensor | None = None
    mark: Tensor | None = None

    def of(self, weight: Tensor, lay: Callable[[Tensor], Tensor]) -> Tensor:
        """What `lay` makes of the weights, made anew only if they have changed."""
        mark = torch.mv(weight.detach().reshape(len(weight), -1), _random(weight[0].numel()))
        if self.laid is None or self.mark is None or not torch.equal(mark, self.mark):
            self.laid, self.mark = lay(weight), mark
        return self.laid


@lru_cache(maxsize=256)
def _random(size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Product:
    """A product whose spikes may be read as bits; made by `find`.

    Attributes:
        shape: as the kernels have it.
        format: of the dense product that there is else.
    """

    shape: Any
    format: torch.dtype

    def choose(self, kind: Kind, density: float, csr: Csr | None = None) -> How:
        """The way that should be the fastest for spikes, or of the input's gradient for needed values, so dense.

        `csr`: the weights so, where they may be read so.
        """
        rk: Any = kernels()
        found = rk.estimate(kind, self.shape, density, _FORMATS[self.format])
        if csr is not None:
            found["csr"] = rk.estimate_sparse(self.shape, len(csr.value), True)
        if self.format != torch.float32:
            casts = _CAST_NS * self.shape.positions * self.shape.out_channels
            found = {how: ns + casts * (how != "dense") for how, ns in found.items()}
        best: How = min(found, key=found.__getitem__)
        return best

    def forward(self, how: How, bits: Tensor, weight: Tensor, bias: Tensor | None, kept: Kept | None = None) -> Tensor:
        """The output, a map `[N, C, H, W]` with channels side by side, of spikes as bits and weights `[C, c, y, x]`.

        `kept`: where to keep the weights for the next call.
        """
        rk: Any = kernels()
        s, library = self.shape, rk.load()
        laid = self._laid(weight) if kept is None else kept.of(weight, self._laid)
        out = _map(s.batch, s.out_channels, s.out_height, s.out_width)
        bias = None if bias is None else bias.float().contiguous()
        name = f"forward_{how}"
        tile = rk.tile(name, s, torch.get_num_threads())
        places = (bits.data_ptr(), laid.data_ptr(), None if bias is None else bias.data_ptr(), out.data_ptr())
        share(library.call(name, rk.Forward(s, *places, tile)))
        return out.to(self.format)

    def sparse(self, csr: Csr, bias: Tensor | None, *, bits: Tensor | None = None, x: Tensor | None = None) -> Tensor:
        """The output by the weights that are not zero, of spikes as bits, or of x in fp32, channels side by side."""
        rk: Any = kernels()
        s = self.shape
        out = _map(s.batch, s.out_channels, s.out_height, s.out_width)
        bias = None if bias is None else bias.float().contiguous()
        tensors = (bits, x, csr.first, csr.column, csr.value, bias, out)
        arguments = rk.Sparse(s, *(None if t is None else t.data_ptr() for t in tensors))
        share(rk.load().call("sparse_dense" if bits is None else "sparse_bits", arguments))
        return out.to(self.format)

    def is_sparse_faster(self, csr: Csr) -> bool:
        """Whether the weights that are not zero should be faster than all, for values that are not bits, in fp32."""
        rk: Any = kernels()
        dense = rk.estimate("forward", self.shape, 0.0, _FORMATS[self.format])["dense"]
        return self.format == torch.float32 and bool(rk.estimate_sparse(self.shape, len(csr.value), False) < dense)

    def _laid(self, weight: Tensor) -> Tensor:
        """Weights in the order of the kernels, in fp32."""
        rk: Any = kernels()
        laid = torch.empty(rk.laid_size(self.shape))
        form = rk.FORMATS[_FORMATS[weight.dtype]]
        arguments = rk.Lay(self.shape, weight.data_ptr(), _strides(weight), form, laid.data_ptr())
        share(rk.load().call("lay", arguments))
        return laid

    def input_gradient(self, needed: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
        """The gradient of the spikes `[N, C, H, W]` from the output's, zero where bits say that it is not needed."""
        rk: Any = kernels()
        s = self.shape
        grad = grad.float().contiguous(memory_format=torch.channels_last)
        laid, out = self._laid(weight), _map(s.batch, s.channels, s.height, s.width)
        places = (t.data_ptr() for t in (needed, grad, laid, out))
        share(rk.load().call("input_gradient", rk.InputGradient(s, *places)))
        return out.to(self.format)

    def weight_gradient(self, how: How, bits: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
        """The gradient of weights `[C, c, y, x]` from the output's, `[N, C, H, W]`."""
        rk: Any = kernels()
        s, library = self.shape, rk.load()
        grad = grad.float().contiguous(memory_format=torch.channels_last)
        chunks, out = rk.chunks(s), torch.empty_like(weight, dtype=torch.float32)
        partial = torch.empty(chunks * rk.laid_size(s))
        places = (bits.data_ptr(), grad.data_ptr(), chunks, partial.data_ptr(), out.data_ptr())
        arguments = rk.WeightGradient(s, *places, _strides(out))
        share(library.call(f"weight_gradient_{how}", arguments))
        share(library.call("gather_weight", arguments))
        return out.to(weight.dtype)


@dataclass(frozen=True)
class Loops:
    """A product in fp32 of values, spikes or others, and weights in CSR, by loops of numba: without the library.

    Attributes:
        sizes: as `sparse_kernels` has them.
        images: in a tile.
    """

    sizes: tuple[int, ...]
    images: int

    def sparse(self, csr: Csr, bias: Tensor | None, *, x: Tensor) -> Tensor:
        """The output, of x with channels side by side."""
        N, outputs, height, width = self.sizes[0], *self.sizes[4:7]
        out, bias = _map(N, outputs, height, width), torch.zeros(outputs) if bias is None else bias.contiguous()
        tiles = -(-N // self.images)
        places = (t.data_ptr() for t in (x, csr.first, csr.column, csr.value, bias, out))
        slots = (ctypes.c_int64 * (10 + len(self.sizes)))(0, 0, tiles, *places, self.images, *self.sizes)
        pool.run(*_loops(), ctypes.addressof(slots), min(torch.get_num_threads(), tiles))
        return out

    def is_sparse_faster(self, csr: Csr) -> bool:
        """Whether the weights that are not zero should be faster than all.

        They are where `places (nonzeros ADD + planes TURN) + runs nonzeros START` is less than the dense product's
        multiply-adds times MULTIPLY: for 3x3 convolutions of 64 to 256 channels from 84 to 89 % of zeros on, for
        linear layers of a thousand features from 96 %.
        """
        N, C, outputs, (stride_y, stride_x) = *self.sizes[:2], self.sizes[4], self.sizes[9:11]
        high, wide = self.sizes[16:]
        places, planes = N * high * wide, C * stride_y * stride_x + outputs
        runs = max(-(-N // self.images), places / _RUN_MOST)
        each = places * _ADD_NS + runs * _START_NS
        return len(csr.value) * each + places * planes * _TURN_NS < self.dense_ns()

    def dense_ns(self) -> float:
        """What the dense product takes."""
        N, C, _, _, outputs, height, width, kernel_y, kernel_x = self.sizes[:9]
        return N * height * width * outputs * C // self.sizes[15] * kernel_y * kernel_x * _MULTIPLY_NS


_MULTIPLY_NS, _ADD_NS, _START_NS, _TURN_NS = 0.020, 0.08, 14.0, 1.3
"""Of a multiply-add of the dense product, of one of the loops, of a run of them, and of a value turned into a plane or
out of one: on one thread, roughly."""
_TILE, _RUN, _RUN_MOST = 1 << 17, 64, 512
"""Values in the planes of a tile that stay in a second-level cache, places that a run should have, and the most."""


@lru_cache(maxsize=1)
def _loops() -> tuple[pool.Kernel, int]:
    """The kernel of `sparse_kernels` and its address."""
    address = kernels_of(Path(__file__).with_name("sparse_kernels.py")).multiply.address
    return pool.kernel_at(address), address


def find_loops(
    size: Sequence[int], stride: Sequence[int], format: torch.dtype, weight: Tensor, settings: Settings
) -> Loops | None:
    """The product of values and weights in CSR where the library is not there, if it may be worth it.

    Args: see `find`.
    """
    fits = weight.device.type == "cpu" and weight.dim() == len(size) == 4 and format == torch.float32
    if not fits or not is_direct(weight) or not _channels_are_inner(size, stride):
        return None
    found = loops(tuple(size), tuple(weight.shape), settings)
    worth = found is not None and found.dense_ns() > _WORTH_NS
    return found if worth and kernels() is None else None


@lru_cache(maxsize=4096)
def loops(size: tuple[int, ...], weight: tuple[int, ...], s: Settings) -> Loops | None:
    """The product of values `[N, C, H, W]` and weights `[C', C / groups, y, x]` of these sizes; None: there is none."""
    N, C, *space = size
    kernel = weight[2:]
    axes = list(zip(space, kernel, s.stride, s.padding, s.dilation, strict=True))
    out = [(n + 2 * pad - step * (taps - 1) - 1) // jump + 1 for n, taps, jump, pad, step in axes]
    if min(N, *out) < 1 or weight[1] * s.groups != C:
        return None  # torch will say what is wrong
    plane = [-(-(n + 2 * pad) // jump) for n, _, jump, pad, _ in axes]
    each = math.prod(plane)
    images = max(1, _TILE // (C * math.prod(s.stride) * each), -(-_RUN // each))
    sizes = (N, C, *space, weight[0], *out, *kernel, *s.stride, *s.padding, *s.dilation, s.groups, *plane)
    return Loops(sizes, min(N, images))


def find(
    size: Sequence[int],
    stride: Sequence[int],
    format: torch.dtype,
    weight: Tensor,
    settings: Settings,
) -> Product | None:
    """The product of spikes `[N, C, H, W]` and weights `[C', C / groups, y, x]`, if it may be worth reading bits.

    Args:
        size: of the spikes.
        stride: of the spikes as numbers.
        format: in which the product is carried out.
        weight: in any format.
        settings: of the convolution.
    """
    fits = weight.device.type == "cpu" and weight.dim() == len(size) == 4 and format in _FORMATS and is_direct(weight)
    if not fits or not _channels_are_inner(size, stride):
        return None
    return _product(tuple(size), tuple(weight.shape), settings, format)


@lru_cache(maxsize=4096)
def _product(size: tuple[int, ...], weight: tuple[int, ...], settings: Settings, format: torch.dtype) -> Product | None:
    N, C, H, W = size
    multiplications = N * H * W * weight[0] * weight[1] * weight[2] * weight[3]
    if multiplications * 0.01 < _WORTH_NS:
        return None
    rk = kernels()
    if rk is None:
        return None
    try:
        shape = rk.convolution(
            *(N, C, H, W, weight[0], weight[2:], settings.stride, settings.padding, settings.dilation, settings.groups)
        )
    except ValueError:
        return None  # torch will say what is wrong
    dense = rk.estimate("forward", shape, 0.0, _FORMATS[format])["dense"]
    return Product(shape, format) if dense > _WORTH_NS else None


def _channels_are_inner(size: Sequence[int], stride: Sequence[int]) -> bool:
    step = 1
    for axis in (1, 3, 2, 0):
        if size[axis] != 1 and stride[axis] != step:
            return False
        step *= size[axis]
    return True


def _map(N: int, C: int, H: int, W: int) -> Tensor:
    return torch.empty((N, C, H, W), memory_format=torch.channels_last)


def _strides(weight: Tensor) -> Any:
    return (ctypes.c_int64 * 4)(*weight.stride())


def share(call: Any) -> None:
    """Run a kernel on torch's threads."""
    threads = min(torch.get_num_threads(), max(1, call.items))
    if threads == 1:
        call.run()
        return
    job = call.job(threads)
    pool.run(pool.kernel_at(job.function), job.function, job.address, threads)
