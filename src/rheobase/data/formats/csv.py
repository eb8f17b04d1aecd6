"""Tables of events as text (`.csv`, `.txt`), read and written: the Event Camera Dataset's `events.txt`.

A row per event, its cells apart by comma, semicolon or space. Without a line of names the columns are t x y p; with
one they are in its order: t (time, timestamp, ts), x (column, col), y (row), p (pol, polarity), others are left out.
Lines that begin with `#` are remarks. A first row of two whole numbers is width and height. Rheobase writes
`# sensor 34x34, unit us`, the names, and rows with commas.

Whole times are in `unit` (us if there is none); decimal fractions are in seconds if there is none. The latter are
rounded, to microseconds from s and ms, to nanoseconds from us and ns. Where the file states no size, and without
`sensor`, it is the largest address + 1 on both axes.

Source: E. Mueggler et al., "The event-camera dataset and simulator", International Journal of Robotics Research 36(2),
142-149, 2017, section "Data format".
"""

import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from rheobase.data.events import Events, Unit
from rheobase.data.formats.checks import (
    Sensor,
    agreed_sensor,
    agreed_unit,
    column_events,
    damaged,
    read_bytes,
)
from rheobase.files import write_atomic

_NAMES = {
    "t": "t", "time": "t", "timestamp": "t", "ts": "t",
    "x": "x", "column": "x", "col": "x",
    "y": "y", "row": "y",
    "p": "p", "pol": "p", "polarity": "p",
}  # fmt: skip
_STATED = re.compile(r"# sensor (\d{1,9})x(\d{1,9}), unit (s|ms|us|ns)$")


def read_csv(path: Path, *, sensor: Sensor | None = None, unit: Unit | None = None, sort: bool = False) -> Events:
    """Read a table of events.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a row that is no row of numbers or has more or fewer cells than the first, missing columns, another
            sensor or unit than the file states, an address outside the sensor, times that fall (without `sort`).
    """
    data = read_bytes(path)
    layout = _layout(path, data)
    known = agreed_sensor(path, sensor, layout.sensor)
    unit = agreed_unit(path, unit, layout.unit)
    first = next(_lines(data, layout.start), None)
    if first is None:
        return Events.none(known or (1, 1), unit or "us")
    layout = replace(layout, separator=_separator(first[1]))
    table = _table(path, data, layout)
    columns = {name: table[:, layout.names.index(name)] for name in "txyp"}
    time = first[1].decode(errors="replace").split(layout.separator)[layout.names.index("t")]
    return column_events(
        path,
        columns,
        known,
        unit,
        sort=sort,
        at=lambda k: _row_offset(data, layout.start, k),
        decimal="." in time or None,
    )


def write_csv(path: Path, events: Events) -> None:
    """Write a recording as a table with its sensor and unit: the whole file or, after a failure, nothing."""
    columns = (events.array[name].tolist() for name in "txyp")
    rows = "".join(map("%d,%d,%d,%d\n".__mod__, zip(*columns, strict=True)))
    head = f"# sensor {events.sensor[0]}x{events.sensor[1]}, unit {events.unit}\nt,x,y,p\n"
    write_atomic(path, (head + rows).encode())


@dataclass(frozen=True)
class _Layout:
    names: tuple[str, ...] = ("t", "x", "y", "p")
    separator: str | None = None
    start: int = 0
    sensor: Sensor | None = None
    unit: Unit | None = None


def _lines(data: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    """Offset and content of every line from `start` on that is neither empty nor a remark."""
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        line = data[start:end].strip()
        if line and not line.startswith(b"#"):
            yield start, line
        start = end + 1


def _layout(path: Path, data: bytes) -> _Layout:
    layout = _Layout()
    stated = _STATED.match(data[: data.find(b"\n")].decode(errors="replace").strip())
    if stated:
        layout = replace(layout, sensor=(int(stated[1]), int(stated[2])), unit=cast(Unit, stated[3]))
    for offset, line in _lines(data, 0):
        layout = replace(layout, start=offset)
        cells = [cell.strip() for cell in line.decode(errors="replace").split(_separator(line))]
        after = data.find(b"\n", offset) + 1 or len(data)
        if len(cells) == 2 and all(cell.isascii() and cell.isdigit() and len(cell) < 10 for cell in cells):
            layout = replace(layout, sensor=(int(cells[0]), int(cells[1])), start=after)
        elif not _is_number(cells[0]):
            names = tuple(_NAMES.get(cell.lower().strip('"'), cell) for cell in cells)
            if any(names.count(name) != 1 for name in "txyp"):
                raise damaged(path, f"columns {', '.join(names)!r:.80}", offset, "t, x, y and p, each once")
            return replace(layout, names=names, start=after)
        elif len(cells) != 4:
            raise damaged(path, f"a row of {len(cells)} cells", offset, "t x y p, or a line of names before")
        else:
            break
    return layout


def _separator(line: bytes) -> str | None:
    return next((mark for mark in ",;" if mark.encode() in line), None)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _table(path: Path, data: bytes, layout: _Layout) -> np.ndarray:
    """The rows as int64, or as float64 where there are decimal fractions."""
    try:
        table = _parsed(data, layout, np.int64)
    except (ValueError, OverflowError, DeprecationWarning):
        try:
            table = _parsed(data, layout, np.float64)
        except (ValueError, OverflowError) as error:
            offset, line = _bad_row(data, layout)
            expected = f"{len(layout.names)} numbers, apart by {layout.separator or 'space'!r}"
            raise damaged(path, f"a row {line[:60]!r}", offset, expected) from error
    if table.shape[1] != len(layout.names):
        raise damaged(path, f"rows of {table.shape[1]} cells", layout.start, f"{len(layout.names)} cells")
    return table


def _parsed(data: bytes, layout: _Layout, kind: type) -> np.ndarray:
    stream = io.BytesIO(data)
    stream.seek(layout.start)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # some versions of NumPy read 1.5 as 1 and warn
        return np.loadtxt(stream, kind, delimiter=layout.separator, ndmin=2)


def _bad_row(data: bytes, layout: _Layout) -> tuple[int, bytes]:
    """Where the first row is that is none: looked for only after reading all at once has failed."""
    for offset, line in _lines(data, layout.start):
        cells = line.split(b"#")[0].decode(errors="replace").split(layout.separator)
        if len(cells) != len(layout.names) or not all(map(_is_number, cells)):
            return offset, line
    return layout.start, data[layout.start : layout.start + 60]


def _row_offset(data: bytes, start: int, row: int) -> int:
    for number, (offset, _) in enumerate(_lines(data, start)):
        if number == row:
            return offset
    return start
