"""`rheobase::pack` and `rheobase::unpack`: spikes in {0, 1} as bits, 32 times smaller than fp32.

How they lie is said in `rheobase.scan.bit_layout`.
"""

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from rheobase.scan import kernels
from rheobase.scan.bit_layout import rows
from rheobase.scan.pool import Kernel, kernel_at, run

_library = torch.library.Library("rheobase", "FRAGMENT")
_library.define("pack(Tensor x) -> Tensor")
_library.define("unpack(Tensor bits, SymInt[] shape, SymInt[] stride, ScalarType dtype) -> Tensor")

_WORDS_A_BLOCK = 512
_WORTH_WORDS = 2048
"""Words, of some 0.02 us each, that are worth a second thread."""


def dense_stride(x: Tensor) -> tuple[int, ...]:
    """The strides in which `unpack` gives x back: x's own if it lies densely in memory, else those of its copy."""
    return torch.empty_like(x, device="meta").stride()


def pack(x: Float[Tensor, "*shape"]) -> Int64[Tensor, "rows words"]:
    """Spikes as bits, in x's memory order (-0 counts as 0).

    Raises:
        ValueError: x is not floating point, or holds a value that is neither 0 nor 1 (the message names the first).
    """
    bits: Tensor = _pack_op(x)
    return bits


def unpack(
    bits: Int64[Tensor, "rows words"], shape: Sequence[int], stride: Sequence[int], dtype: torch.dtype
) -> Float[Tensor, "*shape"]:
    """What was packed: `unpack(pack(x), x.shape, dense_stride(x), x.dtype)` equals x and lies in memory as x does.

    Raises:
        ValueError: the bits are not those of such a tensor.
    """
    x: Tensor = _unpack_op(bits, shape, stride, dtype)
    return x


def is_binary(x: Tensor) -> bool:
    """Whether x, of any number format, holds 0 and 1 alone (-0 counts as 0)."""
    if _fits(x):
        return _packed(x)[1]
    return bool(((x == 0) | (x == 1)).all())


def _pack(x: Tensor) -> Tensor:
    _check(x)
    bits, fine = _packed(x)
    if not fine:
        raise _strange(x)
    return bits


def try_pack(x: Float[Tensor, "*shape"]) -> Int64[Tensor, "rows words"] | None:
    """As `pack`, but None where x holds a value that is neither 0 nor 1."""
    bits, fine = _packed(x)
    return bits if fine else None


def _packed(x: Tensor) -> tuple[Tensor, bool]:
    """The bits of x, and whether it holds no other values."""
    dense = _dense(x)
    count, inner = rows(dense.shape, dense.stride())
    if not x.numel():
        return torch.empty(count, -(-inner // 64), dtype=torch.int64, device=x.device), True
    flat = dense.as_strided((count, inner), (inner, 1))
    return _pack_cpu(flat) if x.device.type == "cpu" else _pack_torch(flat)


def _unpack(bits: Tensor, shape: Sequence[int], stride: Sequence[int], dtype: torch.dtype) -> Tensor:
    count, inner = rows(shape, stride)
    if bits.dtype != torch.int64 or bits.shape != (count, -(-inner // 64)):
        raise ValueError(
            f"unpack: bits are {bits.dtype} {tuple(bits.shape)}; a tensor of shape {tuple(shape)} and stride "
            f"{tuple(stride)} has int64 {(count, -(-inner // 64))}; pass the shape and dense_stride of what was packed"
        )
    x = torch.empty_strided(shape, stride, dtype=dtype, device=bits.device)
    if x.numel():
        (_unpack_cpu if x.device.type == "cpu" else _unpack_torch)(bits, x.as_strided((count, inner), (inner, 1)))
    return x


def _fits(x: Tensor) -> bool:
    return x.is_floating_point() and x.element_size() > 1


def _check(x: Tensor) -> None:
    if not _fits(x):
        raise ValueError(f"pack: x is {x.dtype}; expected float16, bfloat16, float32 or float64")


def _dense(x: Tensor) -> Tensor:
    stride = dense_stride(x)
    return x if x.stride() == stride else x.new_empty_strided(x.shape, stride).copy_(x)


def _strange(x: Tensor) -> ValueError:
    where = ((x != 0) & (x != 1)).nonzero()
    first = tuple(where[0].tolist())
    return ValueError(
        f"pack: x{list(first)} is {x[first].item():.6g}, and {len(where)} of {x.numel()} values are neither 0 nor 1; "
        f"only a layer that reads spikes may be declared binary: build it without binary_input"
    )


_SHIFTS = [1 << k for k in range(8)]


def _pack_torch(flat: Tensor) -> tuple[Tensor, bool]:
    ones = flat == 1
    fine = bool((ones | (flat == 0)).all())
    rows, inner = flat.shape
    padded = torch.nn.functional.pad(ones.view(torch.uint8), (0, -inner % 64))
    weights = torch.tensor(_SHIFTS, dtype=torch.uint8, device=flat.device)
    eights = (padded.view(rows, -1, 8) * weights).sum(-1, dtype=torch.uint8)
    return eights.view(torch.int64), fine


def _unpack_torch(bits: Tensor, flat: Tensor) -> None:
    weights = torch.tensor(_SHIFTS, dtype=torch.uint8, device=bits.device)
    ones = (bits.view(torch.uint8).unsqueeze(-1) & weights) != 0
    flat.copy_(ones.flatten(1)[:, : flat.shape[1]])


_SIGNED = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@lru_cache
def _kernel(name: str, width: int) -> tuple[Kernel, int]:
    """A kernel for values of so many bytes, and its address."""
    text = Path(__file__).with_name("bit_kernels.py").read_text().replace("uint32_at", f"uint{8 * width}_at")
    with kernels.compiling:
        address = getattr(kernels.kernel_module(text, kernels.toolchain()), name).address
    return kernel_at(address), address


@lru_cache
def _one(dtype: torch.dtype) -> int:
    """The bits of the number 1."""
    return int(torch.ones(1, dtype=dtype).view(_SIGNED[dtype.itemsize]).item())


def _run(name: str, flat: Tensor, bits: Tensor, other: int = 0) -> None:
    """Run a kernel over rows; those of whole words are cut into one word each."""
    rows, inner = flat.shape
    if inner % 64 == 0:
        rows, inner = rows * (inner // 64), 64
    words = -(-inner // 64)
    block = max(1, _WORDS_A_BLOCK // words)
    blocks = -(-rows // block)
    addresses = flat.data_ptr(), bits.data_ptr(), other
    slots = (ctypes.c_int64 * 11)(0, 0, blocks, rows, block, *addresses, inner, words, _one(flat.dtype))
    threads = min(torch.get_num_threads(), blocks) if bits.numel() > _WORTH_WORDS else 1
    run(*_kernel(name, flat.element_size()), ctypes.addressof(slots), threads)


def _pack_cpu(flat: Tensor) -> tuple[Tensor, bool]:
    bits = torch.empty(flat.shape[0], -(-flat.shape[1] // 64), dtype=torch.int64)
    other = ctypes.c_uint8(0)
    _run("pack", flat, bits, ctypes.addressof(other))
    return bits, other.value == 0


def _unpack_cpu(bits: Tensor, flat: Tensor) -> None:
    _run("unpack", flat, bits.contiguous())


def _pack_fake(x: Tensor) -> Tensor:
    _check(x)
    count, inner = rows(x.shape, dense_stride(x))
    return torch.empty(count, -(-inner // 64), dtype=torch.int64, device=x.device)


def _unpack_fake(bits: Tensor, shape: Sequence[int], stride: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty_strided(shape, stride, dtype=dtype, device=bits.device)


_library.impl("pack", _pack, "CompositeExplicitAutograd")
_library.impl("unpack", _unpack, "CompositeExplicitAutograd")
torch.library.register_fake("rheobase::pack", _pack_fake, lib=_library)
torch.library.register_fake("rheobase::unpack", _unpack_fake, lib=_library)
_pack_op, _unpack_op = torch.ops.rheobase.pack.default, torch.ops.rheobase.unpack.default
