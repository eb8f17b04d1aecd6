"""The idx format of the MNIST family: two zero bytes, type, number of axes, axis lengths (uint32, big-endian), data.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", section "File formats".
"""

import math
import struct
import zlib
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from rheobase.data.fetch import check_md5

_UNSIGNED_BYTE = 0x08
_GZIP = 31  # zlib's window code for a gzip stream; it also checks the stream's CRC and length
_CHUNK = 1 << 16


def read_idx(path: Path, shape: tuple[int, ...], md5: str | None = None) -> UInt8[Tensor, "..."]:
    """Read an idx file of unsigned bytes, packed if its name ends in `.gz`, that must hold exactly `shape`.

    Args:
        path: the file.
        shape: the expected shape, every axis at least 1.
        md5: expected MD5 of the file as it lies on disk, checked first; None skips it.

    Raises:
        ValueError: wrong MD5, damaged gzip stream, other type or shape, too few or too many bytes; names the file,
            what was found and the byte offset.
    """
    if md5 is not None:
        check_md5(path, md5)
    data = bytearray(path.read_bytes())
    if path.suffix == ".gz":
        data = _gunzip(path, data)
    header = struct.pack(f">HBB{len(shape)}I", 0, _UNSIGNED_BYTE, len(shape), *shape)
    _check_header(path, data[: len(header)], header)
    size = len(header) + math.prod(shape)
    if len(data) != size:
        what = f"the data end at byte {len(data)}" if len(data) < size else f"data go on after byte {size}"
        raise ValueError(f"{path}: {what}, expected {size} bytes in all for shape {list(shape)}; download it again")
    return torch.frombuffer(data, dtype=torch.uint8, offset=len(header)).view(shape)


def _gunzip(path: Path, packed: bytearray) -> bytearray:
    stream = zlib.decompressobj(wbits=_GZIP)
    data = bytearray()
    for start in range(0, len(packed), _CHUNK):
        try:
            data += stream.decompress(packed[start : start + _CHUNK])
        except zlib.error as error:
            raise ValueError(
                f"{path}: damaged gzip stream ({error}), seen at or after byte {start} of {len(packed)}; "
                "download it again"
            ) from error
        if stream.eof:
            end = min(start + _CHUNK, len(packed)) - len(stream.unused_data)
            if end != len(packed):
                raise ValueError(
                    f"{path}: {len(packed) - end} bytes follow the gzip stream, which ends at byte {end}; "
                    "download it again"
                )
            return data
    raise ValueError(f"{path}: the file ends at byte {len(packed)}, inside its gzip stream; download it again")


def _check_header(path: Path, found: bytearray, expected: bytes) -> None:
    fields = [("the two leading bytes", 0, 2), ("the type (8: unsigned byte)", 2, 3), ("the number of axes", 3, 4)]
    fields += [(f"the length of axis {axis}", 4 + 4 * axis, 8 + 4 * axis) for axis in range(expected[3])]
    for what, start, stop in fields:
        if len(found) < stop:
            raise ValueError(f"{path}: the idx header ends at byte {len(found)}, expected {len(expected)} bytes")
        got, want = (int.from_bytes(header[start:stop], "big") for header in (found, expected))
        if got != want:
            raise ValueError(f"{path}: {what} at byte offset {start} is {got}, expected {want}")
