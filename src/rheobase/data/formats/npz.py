"""NumPy archives and arrays (`.npz`, `.npy`), read and written.

Rheobase writes `.npz` with the arrays t (int64), x, y (uint16), p (bool), all `[N]`, sensor (int64 `[2]`, width and
height) and unit (text). Read are also: archives of x, y, p and dt, ticks since the event before, the first from t0 (0
if it is absent), where there is one recording (`offsets`, if there, holds two numbers); and one array with fields t, x,
y, p in any order, as `.npy` or in a `.npz`. Every archive may hold sensor and unit; without a unit its times are as in
`ticks`. No file is unpickled.

Where the file states no size, and without `sensor`, it is the largest address + 1 on both axes.

Source: NumPy, "A simple file format for NumPy arrays" (NEP 1).
"""

import io
import math
import warnings
import zipfile
from pathlib import Path
from typing import cast, get_args

import numpy as np

from rheobase.data.events import Events, Unit
from rheobase.data.formats.checks import (
    Sensor,
    agreed_sensor,
    agreed_unit,
    blaming,
    column_events,
    damaged,
    read_bytes,
)
from rheobase.files import write_atomic

_FIELDS = ("t", "x", "y", "p")
_DEFLATE_RATIO = 1032
_LARGEST_HEADER = 10000


def read_npz(path: Path, *, sensor: Sensor | None = None, unit: Unit | None = None, sort: bool = False) -> Events:
    """Read a `.npz` or `.npy` file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a damaged archive or array, arrays of other names, types or lengths, several recordings, another
            sensor or unit than the file states, an address outside the sensor, times that fall (without `sort`).
    """
    data = read_bytes(path)
    if data.startswith(b"\x93NUMPY"):
        return _structured(path, _array(path, data, 0), 0, sensor, unit, sort)
    arrays, places = _members(path, data)
    known = agreed_sensor(path, sensor, _stated_sensor(path, arrays, places), places.get("sensor", 0))
    unit = agreed_unit(path, unit, _stated_unit(path, arrays, places), places.get("unit", 0))
    structured = [name for name, array in arrays.items() if array.dtype.names]
    if len(structured) == 1:
        return _structured(path, arrays[structured[0]], places[structured[0]], known, unit, sort)
    needed = ("x", "y", "p", "t" if "t" in arrays else "dt")
    if not set(needed) <= set(arrays):
        raise damaged(
            path,
            f"arrays {', '.join(sorted(arrays)) or 'none'} in the archive that begins",
            0,
            "t, x, y, p, or dt, x, y, p, or one array with fields t, x, y, p",
        )
    if "t" not in arrays:
        arrays["t"] = _summed(path, arrays, places)
    columns = {name: arrays[name] for name in _FIELDS}
    return column_events(path, columns, known, unit, sort=sort, at=lambda _k: places[needed[3]])


def read_array(path: Path) -> np.ndarray:
    """The array of a `.npy` file, read-only. It is not unpickled.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a damaged file.
    """
    return _array(path, read_bytes(path), 0)


def write_npz(path: Path, events: Events) -> None:
    """Write a recording as `.npz`, compressed: the whole file or, after a failure, nothing."""
    buffer = io.BytesIO()
    t, x, y, p = (np.ascontiguousarray(events.array[name]) for name in _FIELDS)
    sensor, unit = np.array(events.sensor, np.int64), np.array(events.unit)
    np.savez_compressed(buffer, t=t, x=x, y=y, p=p, sensor=sensor, unit=unit)
    write_atomic(path, buffer.getvalue())


def _structured(
    path: Path, array: np.ndarray, place: int, sensor: Sensor | None, unit: Unit | None, sort: bool
) -> Events:
    if not array.dtype.names or not set(_FIELDS) <= set(array.dtype.names) or array.ndim != 1:
        raise damaged(
            path, f"an array {list(array.shape)} of {array.dtype}", place, "one axis, with fields t, x, y and p"
        )
    return column_events(path, {name: array[name] for name in _FIELDS}, sensor, unit, sort=sort, at=lambda _k: place)


def _summed(path: Path, arrays: dict[str, np.ndarray], places: dict[str, int]) -> np.ndarray:
    offsets, first, steps = arrays.get("offsets"), arrays.get("t0"), arrays["dt"]
    if offsets is not None and offsets.size > 2:
        raise damaged(
            path,
            f"{offsets.size - 1} recordings, whose offsets lie",
            places["offsets"],
            "one recording",
            "cut out one with numpy and write_events",
        )
    for name, array in (("dt", steps), ("t0", first)):
        if array is not None and (array.dtype.kind not in "iu" or array.dtype == np.uint64):
            raise damaged(
                path, f"{name} is of {array.dtype}, in data", places[name], "whole numbers of at most 64 bits"
            )
    if first is not None and first.size != 1:
        raise damaged(path, f"t0 is {list(first.shape)}, in data", places["t0"], "one number")
    start = 0 if first is None else int(first.reshape(-1)[0])
    if steps.size and abs(start) + max(abs(int(steps.min())), int(steps.max())) * steps.size >= 2**63:
        raise damaged(path, "times too large for 64 bits, in data", places["dt"], "steps in ticks")
    return start + np.cumsum(steps, dtype=np.int64)


def _stated_sensor(path: Path, arrays: dict[str, np.ndarray], places: dict[str, int]) -> Sensor | None:
    stated = arrays.get("sensor")
    if stated is None:
        return None
    if stated.shape != (2,) or stated.dtype.kind not in "iu":
        raise damaged(path, f"sensor is {list(stated.shape)} of {stated.dtype}", places["sensor"], "two whole numbers")
    return int(stated[0]), int(stated[1])


def _stated_unit(path: Path, arrays: dict[str, np.ndarray], places: dict[str, int]) -> Unit | None:
    stated = arrays.get("unit")
    if stated is None:
        return None
    if stated.dtype.kind != "U" or stated.size != 1 or str(stated.reshape(-1)[0]) not in get_args(Unit):
        raise damaged(path, f"unit is {stated.tolist()!r:.60}", places["unit"], " or ".join(get_args(Unit)))
    return cast(Unit, str(stated.reshape(-1)[0]))


def _members(path: Path, data: bytes) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The arrays of an archive by name, and where each begins."""
    arrays: dict[str, np.ndarray] = {}
    places: dict[str, int] = {}
    with (
        blaming(path, "a damaged archive", 0, f"a zip file of {len(data)} bytes"),
        zipfile.ZipFile(io.BytesIO(data)) as archive,
    ):
        for info in archive.infolist():
            name, place = info.filename.removesuffix(".npy"), info.header_offset
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
                raise damaged(path, f"{name} is packed in another way", place, "stored or deflated members")
            if info.file_size > _DEFLATE_RATIO * min(info.compress_size, len(data)):
                raise damaged(path, f"{name} of {info.file_size} bytes", place, f"as many as {len(data)} can hold")
            with archive.open(info) as file:
                arrays[name], places[name] = _array(path, file.read(info.file_size), place), place
    return arrays, places


def _array(path: Path, data: bytes, place: int) -> np.ndarray:
    """The array of a `.npy` file: a view of its bytes."""
    stream = io.BytesIO(data)
    with blaming(path, "a damaged array", place, "an array as NumPy writes it"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, in_columns, kind = read(stream, max_header_size=_LARGEST_HEADER)
    rest = len(data) - stream.tell()
    if kind.hasobject or kind.itemsize == 0 or min(shape, default=0) < 0 or math.prod(shape) * kind.itemsize != rest:
        raise damaged(
            path, f"an array {list(shape)} of {kind} in {rest} bytes", place, "numbers that fill them exactly"
        )
    return np.frombuffer(data, kind, offset=stream.tell()).reshape(shape, order="F" if in_columns else "C")
