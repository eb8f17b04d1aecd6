"""numba kernels that pack floats in {0, 1} into words of 64 bits, and back.

Compiled, cached and called like the generated kernels, see `kernels` and `native`. Floats are read as unsigned integers
of their width, 32 bits here; for other widths another pointer is written in the place of `uint32_at`. A value is 1 if
its bits are those of 1, and 0 if they are zero but for the sign. Rows hold `inner` values, and `words` words of 64 of
them; bit k of word w is value 64 w + k.

Slots of both kernels: threads, taken, blocks (as of generated kernels), rows in all, rows in a block, addresses of
values, words and a byte that tells of other values, inner, words, the bits of 1.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.extending import intrinsic

from rheobase.scan.native import take, uint8_at, uint64_at
from rheobase.scan.native import uint32_at as values_at

CACHE: bool
"""Whether to keep the machine code beside this file; set by who runs it."""
OPTIONS = {"error_model": "numpy", "boundscheck": False, "fastmath": False}
ALL = (1 << 48,)
FULL = np.uint64(0xFFFFFFFFFFFFFFFF)
ZERO = np.uint64(0)


def _vector(context: Any, builder: Any, array: Any, index: Any, data: Any) -> Any:
    """Pointer to 64 values of an array from `index` on, and their type."""
    lane = context.get_value_type(array.dtype)
    kind = ir.VectorType(lane, 64)
    where = builder.gep(context.make_array(array)(context, builder, data).data, [index])
    return builder.bitcast(where, kind.as_pointer()), kind


def _splat(kind: Any, value: Any, builder: Any) -> Any:
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), lanes)


@intrinsic
def equal64(typing: Any, array: Any, index: Any, mask: Any, value: Any) -> Any:  # noqa: ARG001
    """A word whose bit k says whether `array[index + k] & mask == value`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, (data, index, mask, value) = signature.args[0], arguments
        where, kind = _vector(context, builder, array, index, data)
        x = builder.load(where, align=array.dtype.bitwidth // 8)
        found = builder.icmp_unsigned("==", builder.and_(x, _splat(kind, mask, builder)), _splat(kind, value, builder))
        return builder.bitcast(found, ir.IntType(64))

    return types.uint64(array, types.intp, array.dtype, array.dtype), generate


@intrinsic
def spread64(typing: Any, array: Any, index: Any, word: Any, value: Any) -> Any:  # noqa: ARG001
    """`array[index + k] = value if bit k of word else 0` for all 64 bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, (data, index, word, value) = signature.args[0], arguments
        where, kind = _vector(context, builder, array, index, data)
        chosen = builder.bitcast(word, ir.VectorType(ir.IntType(1), 64))
        x = builder.select(chosen, _splat(kind, value, builder), ir.Constant(kind, None))
        builder.store(x, where, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.uint64, array.dtype), generate


@njit(**OPTIONS)
def pack_rows(first, last, x, bits, other, inner, words, one):  # type: ignore[no-untyped-def]
    """Pack rows first <= r < last of x into bits; other[0] becomes 1 if a value is neither 0 nor 1.

    `one` is the number 1 in x's format.
    """
    every = x.dtype.type(FULL)
    unsigned = every >> x.dtype.type(1)
    strange = ZERO
    whole, rest = inner // 64, inner % 64
    for r in range(first, last):
        base, word = r * inner, r * words
        for w in range(whole):
            ones = equal64(x, base + 64 * w, every, one)
            zeros = equal64(x, base + 64 * w, unsigned, x.dtype.type(0))
            strange |= FULL ^ (ones | zeros)
            bits[word + w] = ones
        if rest and whole:  # the last 64 values, of which the word before has the first
            ones = equal64(x, base + inner - 64, every, one)
            zeros = equal64(x, base + inner - 64, unsigned, x.dtype.type(0))
            strange |= FULL ^ (ones | zeros)
            bits[word + whole] = ones >> np.uint64(64 - rest)
        elif rest:
            ones = ZERO
            for k in range(rest):
                if x[base + k] == one:
                    ones |= np.uint64(1) << np.uint64(k)
                elif x[base + k] & unsigned:
                    strange = FULL
            bits[word] = ones
    if strange != ZERO:
        other[0] = 1


@njit(**OPTIONS)
def unpack_rows(first, last, bits, x, inner, words, one):  # type: ignore[no-untyped-def]
    """Write rows first <= r < last of x from bits; the arguments are those of `pack_rows`."""
    whole, rest = inner // 64, inner % 64
    for r in range(first, last):
        base, word = r * inner, r * words
        for w in range(whole):
            spread64(x, base + 64 * w, bits[word + w], one)
        if rest and whole:
            both = (bits[word + whole - 1] >> np.uint64(rest)) | (bits[word + whole] << np.uint64(64 - rest))
            spread64(x, base + inner - 64, both, one)
        elif rest:
            for k in range(rest):
                x[base + k] = one if (bits[word] >> np.uint64(k)) & np.uint64(1) else x.dtype.type(0)


@cfunc("void(CPointer(int64))", cache=CACHE, **OPTIONS)
def pack(slots):  # type: ignore[no-untyped-def]
    """Values to words."""
    x, bits, other = (
        carray(values_at(slots[5]), ALL),
        carray(uint64_at(slots[6]), ALL),
        carray(uint8_at(slots[7]), (1,)),
    )
    rows, block, one = slots[3], slots[4], x.dtype.type(slots[10])
    b = take(slots, 1)
    while b < slots[2]:
        pack_rows(b * block, min(rows, (b + 1) * block), x, bits, other, slots[8], slots[9], one)
        b = take(slots, 1)


@cfunc("void(CPointer(int64))", cache=CACHE, **OPTIONS)
def unpack(slots):  # type: ignore[no-untyped-def]
    """Words to values."""
    x, bits = carray(values_at(slots[5]), ALL), carray(uint64_at(slots[6]), ALL)
    rows, block, one = slots[3], slots[4], x.dtype.type(slots[10])
    b = take(slots, 1)
    while b < slots[2]:
        unpack_rows(b * block, min(rows, (b + 1) * block), bits, x, slots[8], slots[9], one)
        b = take(slots, 1)
