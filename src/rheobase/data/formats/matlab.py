"""Spiking Tactile MNIST's MATLAB files (`.mat`, version 5).

The variable `spiketrain` is a real matrix `[101, N]`: column n holds for each of the 100 taxels 1 (ON), -1 (OFF) or 0
at one time, and in the last row that time in seconds. Taxel k is x = k mod 10, y = k div 10. Times are rounded to
microseconds; events of one column are in the order of their taxels.

A version 5 file is 128 bytes of header, then elements: type and size (uint32 each), or both in one word if the content
has at most 4 bytes; contents begin at multiples of 8. Type 14 is a matrix of elements (flags, sizes, name, numbers);
type 15 packs one element with zlib.

Source: H. H. See et al., "ST-MNIST - the spiking tactile MNIST neuromorphic dataset", arXiv:2005.04319, 2020; The
MathWorks, "MAT-File Format", chapter "Level 5 MAT-File Format".
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rheobase.data.events import Events
from rheobase.data.formats.checks import Sensor, agreed_sensor, as_events, damaged, read_bytes, ticks

SIDE = 10
MAGIC = b"MATLAB 5.0 MAT-file"
_HEADER = 128
_MATRIX, _PACKED = 14, 15
_DEFLATE_RATIO = 1032
_TYPES = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}


def read_matlab(path: Path, *, sensor: Sensor | None = None, sort: bool = False) -> Events:
    """Read a file of Spiking Tactile MNIST: events on 10 x 10, times in us.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a damaged file, no matrix `spiketrain` of 101 rows, values other than -1, 0 and 1, another sensor
            than 10 x 10, times that fall (without `sort`).
    """
    data = read_bytes(path)
    if not data.startswith(MAGIC) or len(data) < _HEADER or data[126:128] != b"IM":
        raise damaged(path, f"bytes {data[:20]!r}", 0, f"{_HEADER} bytes that begin with {MAGIC!r}, little-endian")
    matrix, place = _spike_train(path, data)
    spikes, times = matrix[:-1], matrix[-1]
    if not np.isin(spikes, (-1, 0, 1)).all():
        raise damaged(path, "spikes other than -1, 0 and 1 in the matrix", place, "a spike train")
    t, unit = ticks(path, times, "s", place, decimal=True)
    column, taxel = np.nonzero(spikes.T)
    agreed_sensor(path, sensor, (SIDE, SIDE), place)
    columns = (t[column], taxel % SIDE, taxel // SIDE, spikes[taxel, column] > 0)
    return as_events(path, columns, (SIDE, SIDE), unit, sort=sort, at=lambda _k: place)


@dataclass(frozen=True)
class _Element:
    kind: int
    content: bytes


def _spike_train(path: Path, data: bytes) -> tuple[np.ndarray, int]:
    position = _HEADER
    while position < len(data):
        place = position
        element, position = _element(path, data, position, place, align=False)
        if element.kind == _PACKED:
            element, _ = _element(path, _unpacked(path, element.content, place), 0, place)
        if element.kind == _MATRIX:
            parts = list(_elements(path, element.content, place))
            if len(parts) == 4 and parts[2].content == b"spiketrain":
                return _matrix(path, parts, place), place
    raise damaged(path, "no matrix spiketrain in the elements that begin", _HEADER, "a file of Spiking Tactile MNIST")


def _matrix(path: Path, parts: list[_Element], place: int) -> np.ndarray:
    sizes, numbers = parts[1].content, parts[3]
    kind = np.dtype(_TYPES.get(numbers.kind, "V1"))
    shape = struct.unpack("<2i", sizes) if len(sizes) == 8 else ()
    count, over = divmod(len(numbers.content), kind.itemsize)
    if kind.kind == "V" or over or len(shape) != 2 or shape[0] != SIDE * SIDE + 1 or shape[0] * shape[1] != count:
        raise damaged(
            path,
            f"a matrix {list(shape)} of {len(numbers.content)} bytes of type {numbers.kind}",
            place,
            f"[{SIDE * SIDE + 1}, N] numbers",
        )
    return np.frombuffer(numbers.content, kind).reshape(shape, order="F").astype(np.float64)


def _elements(path: Path, data: bytes, place: int) -> Iterator[_Element]:
    position = 0
    while position < len(data):
        element, position = _element(path, data, position, place)
        yield element


def _element(path: Path, data: bytes, position: int, place: int, align: bool = True) -> tuple[_Element, int]:
    """The element at `position`, and where the next one begins; `place` is where all this lies in the file."""
    if len(data) - position < 8:
        raise damaged(path, "an element ends early, in the element", place, "8 bytes or more")
    kind, size = struct.unpack_from("<2I", data, position)
    start, after = position + 8, position + 8 + size + (-size % 8 if align else 0)
    if kind >> 16:
        kind, size, start, after = kind & 0xFFFF, kind >> 16, position + 4, position + 8
    if size > (4 if start == position + 4 else len(data) - start):
        raise damaged(path, f"a content of {size} bytes, in the element", place, f"at most {len(data) - start}")
    return _Element(kind, data[start : start + size]), after


def _unpacked(path: Path, packed: bytes, place: int) -> bytes:
    """The element in a zlib stream, whose size is looked at before it is unpacked."""
    stream = zlib.decompressobj()
    try:
        head = stream.decompress(packed, 8)
        size = struct.unpack("<2I", head)[1] if len(head) == 8 else 0
        if not 0 < size <= _DEFLATE_RATIO * len(packed):
            raise damaged(path, f"{size} bytes packed into {len(packed)}, in the element", place, "as many as fit")
        return head + stream.decompress(stream.unconsumed_tail, size)
    except zlib.error as error:
        raise damaged(path, f"a damaged zlib stream ({error}) in the element", place, "a whole stream") from error
