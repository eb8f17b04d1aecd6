"""Weights on disk in as few bytes as their zeros and their few distinct values allow, and back bit by bit.

What is looked at is the content alone: no mask, scale or level set is needed. A file is one safetensors file. Its
metadata have one key, `rheobase.packed`: JSON, `{"version": 1, "tensors": {NAME: ROW, ...}}`. For every NAME it holds a
U8 tensor of that name, the bytes INDEX, CODEBOOK and VALUES one after another. ROW has seven words with a blank between
them:

    dtype      as torch names it: float32, bfloat16, int64, bool, ...
    shape      sizes with commas, "2,3"; "-" for a tensor without axes
    form       dense, bitmap, gaps4 or gaps8
    bits       of one value in VALUES
    entries    how many values there are in VALUES
    distinct   how many there are in CODEBOOK, at most 256; 0: there is none
    crc        CRC-32 (zlib's) of NAME, a blank, the six words before with their blanks, a newline (all UTF-8), and
               then the tensor's bytes; eight hexadecimal digits

Words: a tensor is a row of N words, in row-major order. An element is a word of 1, 2, 4 or 8 bytes; one of complex128
is two words of 8. Words are little-endian. A word is zero if all its bits are: -0.0 is a value like any other. So set
pruned weights to zero, or add 0.0: a negative number times a mask of 0 is -0.0, which is written.

Bit streams: number k of a stream of b-bit numbers has the bits k b to k b + b - 1, the least significant first. Bit i
of a stream is bit i % 8 (of value 2 to the power of i % 8) of byte i // 8. The last byte is filled up with zeros.

INDEX says where the entries are; all other words are zero.

- dense: 0 bytes. Entry k is word k, and entries is N.
- bitmap: a stream of N 1-bit numbers, 1 for every word that is an entry; entries are in order.
- gaps4: a stream of 4-bit numbers, one for each entry: how many words lie between it and the entry before it (for the
  first: before it). Where more than 15 do, entries with the value zero come between, each behind a gap of 15.
- gaps8: the same with 8 bits, and 255.

CODEBOOK has `distinct` words, ascending as unsigned integers. VALUES is a stream of `entries` numbers: with a codebook,
of ceil(log2(distinct)) bits, which are places in it (none at all for a single one: 0 bits); without, of the words.

The smallest of these eight ways is taken; where several are, the first in the order of the forms above, each without a
codebook first. Gaps of few bits with fillers, and codes into a codebook, are those of Han et al. 2015,
arXiv:1510.00149, section 3; without its Huffman coding.
"""

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor

from rheobase.files import write_atomic

Form = Literal["dense", "bitmap", "gaps4", "gaps8"]

VERSION = 1
KEY = "rheobase.packed"
_GAP_BITS: dict[Form, int] = {"gaps4": 4, "gaps8": 8}
_MOST = 256
"""Values that a codebook may hold."""

Words = np.ndarray
"""One axis, of unsigned integers."""


@dataclass(frozen=True)
class Packed:
    """How one tensor was written, and in how many bytes.

    Attributes:
        form: "dense", "bitmap", "gaps4" or "gaps8": how it is known which elements are not zero.
        bits: of one value: of a code, or of the value itself where there is no codebook.
        elements: of the tensor.
        entries: values that are written, fillers of gaps among them.
        distinct: values in the codebook; 0 where there is none.
        index: bytes that say where the entries are.
        codebook: bytes of the codebook.
        values: bytes of the values or codes.
    """

    form: Form
    bits: int
    elements: int
    entries: int
    distinct: int
    index: int
    codebook: int
    values: int

    @property
    def bytes(self) -> int:
        """All of them; names and sizes in the file's header come on top."""
        return self.index + self.codebook + self.values


def save_packed(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Packed]:
    """Write tensors to one file, each in the smallest of the forms; the module says how they lie.

    The file is written whole or not at all. Tensors that share memory are written once each.

    Args:
        path: of the file; its folder is there.
        tensors: of any number format, on any device.

    Returns:
        how each was written, by name.

    Raises:
        ValueError: what is no dense tensor with values (sparse, quantised by torch, on the device "meta").
        FileNotFoundError: there is no such folder.
    """
    import safetensors.numpy

    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"save_packed: there is no folder {path.parent}; make it first")
    rows, blobs, found = {}, {}, {}
    for name, tensor in tensors.items():
        words = _words(name, tensor)
        form, codebook = _smallest(words)
        index, values = _placed(words, form)
        distinct = len(codebook)
        bits = 8 * words.itemsize if not distinct else _code_bits(distinct)
        parts = (
            index.tobytes(),
            codebook.tobytes(),
            _stream(np.searchsorted(codebook, values), bits).tobytes() if distinct else values.tobytes(),
        )
        blob = b"".join(parts)
        shape = ",".join(map(str, tensor.shape)) or "-"
        row = f"{str(tensor.dtype).removeprefix('torch.')} {shape} {form} {bits} {len(values)} {distinct}"
        rows[name] = f"{row} {_checksum(name, row, blob)}"
        blobs[name] = np.frombuffer(blob, np.uint8)
        found[name] = Packed(form, bits, tensor.numel(), len(values), distinct, *map(len, parts))
    listing = json.dumps({"version": VERSION, "tensors": rows}, separators=(",", ":"), ensure_ascii=False)
    write_atomic(path, safetensors.numpy.save(blobs, {KEY: listing}))
    return found


def load_packed(path: Path) -> dict[str, Tensor]:
    """The tensors of a file written by `save_packed`, bit by bit as they were, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is none of these, or of another version.
    """
    import safetensors
    import safetensors.numpy

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"load_packed: there is no file {path}; save_packed writes one")
    try:
        with safetensors.safe_open(path, "np") as file:
            listing = (file.metadata() or {}).get(KEY)
            blobs = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"load_packed: {path} cannot be read as safetensors ({error}); get or write it anew"
        ) from error
    if listing is None:
        raise ValueError(
            f"load_packed: {path} has no {KEY!r} in its metadata, so save_packed did not write it; "
            f"read it with safetensors.torch.load_file"
        )
    try:
        table = json.loads(listing)
        version, rows = table["version"], dict(table["tensors"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"load_packed: the list of tensors in {path} is damaged; get or write it anew") from error
    if version != VERSION:
        raise ValueError(f"load_packed: {path} has version {version}; this reads {VERSION}: take a newer Rheobase")
    if odd := sorted(rows.keys() ^ blobs.keys()):
        raise ValueError(f"load_packed: {path} does not list what it holds: {', '.join(odd[:3])}; get or write it anew")
    return {name: _decoded(path, name, row, blobs[name].tobytes()) for name, row in rows.items()}


def _decoded(path: Path, name: str, row: str, blob: bytes) -> Tensor:
    damaged = f"load_packed: {name!r} in {path} is damaged; get or write the file anew"
    start, _, checksum = str(row).rpartition(" ")
    if checksum != _checksum(name, start, blob):
        raise ValueError(damaged)
    try:
        dtype_name, sizes, form, *numbers = start.split(" ")
        shape = [] if sizes == "-" else [int(size) for size in sizes.split(",")]
        bits, entries, distinct = map(int, numbers)
        dtype = getattr(torch, dtype_name)
        N, word = _layout(math.prod(shape), dtype)
        parts = _split(blob, _index_bytes(cast(Form, form), N, entries), distinct * word, -(-entries * bits // 8))
        index, codebook, coded = parts
        kind = f"<u{word}"
        values = np.frombuffer(codebook if distinct else coded, kind)
        if distinct:
            values = values[_numbers(coded, bits, entries)]
        words = np.zeros(N, kind)
        words[_places(index, cast(Form, form), N, entries)] = values
    except (ValueError, AttributeError, IndexError, TypeError) as error:
        raise ValueError(damaged) from error
    native = words.astype(f"u{word}", copy=False)
    return torch.from_numpy(native.view(np.uint8)).view(dtype).reshape(shape)


def _checksum(name: str, row: str, blob: bytes) -> str:
    line = f"{name} {row}\n".encode()
    return f"{zlib.crc32(blob, zlib.crc32(line)):08x}"


def _layout(elements: int, dtype: torch.dtype) -> tuple[int, int]:
    """How many words there are, and the bytes of one."""
    word = min(8, dtype.itemsize)
    return elements * dtype.itemsize // word, word


def _words(name: str, tensor: Tensor) -> Words:
    """All bits of a tensor."""
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        kind = type(tensor).__name__
        form = f"{kind} ({tensor.dtype}, {tensor.layout}, on {tensor.device})" if isinstance(tensor, Tensor) else kind
        raise ValueError(f"save_packed: {name!r} is a {form}; expected a dense tensor with values: convert it first")
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    _, word = _layout(tensor.numel(), tensor.dtype)
    if not len(plain):  # which torch cannot look at in another format
        return np.zeros(0, f"<u{word}")
    return plain.view(torch.uint8).numpy().view(f"u{word}").astype(f"<u{word}", copy=False)


def _smallest(words: Words) -> tuple[Form, Words]:
    """The form that takes the fewest bytes, and its codebook, which may be empty."""
    N, word = len(words), words.itemsize
    there = np.flatnonzero(words)
    values, zero = np.unique(words[there]), np.zeros(1, words.dtype)
    gaps = np.diff(there, prepend=-1) - 1
    best: tuple[int, Form, Words] | None = None
    for form in get_args(Form):
        fillers = int((gaps >> _GAP_BITS[form]).sum()) if form in _GAP_BITS else 0
        entries = N if form == "dense" else len(there) + fillers
        with_zero = fillers or (form == "dense" and len(there) < N)
        book = np.concatenate([zero, values]) if with_zero else values
        index = _index_bytes(form, N, entries)
        sizes = [(index + entries * word, zero[:0])]
        if 0 < len(book) <= _MOST:
            sizes.append((index + len(book) * word + -(-entries * _code_bits(len(book)) // 8), book))
        for size, codebook in sizes:
            if best is None or size < best[0]:
                best = size, form, codebook
    assert best is not None
    return best[1:]


def _code_bits(distinct: int) -> int:
    return (distinct - 1).bit_length()


def _index_bytes(form: Form, N: int, entries: int) -> int:
    return {"dense": 0, "bitmap": -(-N // 8), "gaps4": -(-entries // 2), "gaps8": entries}[form]


def _placed(words: Words, form: Form) -> tuple[Words, Words]:
    """The index of a form as bytes, and the entries."""
    if form == "dense":
        return np.zeros(0, np.uint8), words
    if form == "bitmap":
        return np.packbits(words != 0, bitorder="little"), words[words != 0]
    bits, there = _GAP_BITS[form], np.flatnonzero(words)
    gaps = np.diff(there, prepend=-1) - 1
    last = np.cumsum((gaps >> bits) + 1) - 1  # the entry of each word, behind its fillers
    count = int(last[-1]) + 1 if len(last) else 0
    numbers, values = np.full(count, (1 << bits) - 1), np.zeros(count, words.dtype)
    numbers[last], values[last] = gaps & ((1 << bits) - 1), words[there]
    return _stream(numbers, bits), values


def _places(index: bytes, form: Form, N: int, entries: int) -> Any:
    """Where the entries are among the words."""
    if form == "dense":
        return slice(None)
    if form == "bitmap":
        return np.flatnonzero(_numbers(index, 1, N))
    return np.cumsum(_numbers(index, _GAP_BITS[form], entries).astype(np.int64) + 1) - 1


def _stream(numbers: Words, bits: int) -> Words:
    """Numbers of at most 8 bits as a bit stream."""
    if bits == 8:
        return numbers.astype(np.uint8)
    each = np.unpackbits(numbers.astype(np.uint8)[:, None], axis=1, count=bits, bitorder="little")
    return np.packbits(each, bitorder="little")


def _numbers(stream: bytes, bits: int, count: int) -> Words:
    """The first so many numbers of a bit stream."""
    if bits == 0:
        return np.zeros(count, np.uint8)
    each = np.unpackbits(np.frombuffer(stream, np.uint8), count=count * bits, bitorder="little")
    return np.packbits(each.reshape(count, bits), axis=1, bitorder="little")[:, 0]


def _split(blob: bytes, *sizes: int) -> list[bytes]:
    if sum(sizes) != len(blob):
        raise ValueError("other bytes than the row tells")
    found, start = [], 0
    for size in sizes:
        found.append(blob[start : start + size])
        start += size
    return found
