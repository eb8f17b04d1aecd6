"""Prophesee's DAT files of change-detection events (`.dat`), versions 1 and 2: N-CARS, Gen1.

Lines of text that begin with `% ` (keyword, value); a byte for the type of event (0: Event2d, 12: EventCD) and one for
its size, 8; then events of two words, uint32, little-endian: the time in microseconds, and the address. In version 2 x
is bits 0-13, y bits 14-27, the polarity bit 28; in version 1 (and 0) x is bits 0-8, y bits 9-16, the polarity bit 17.
The 32 bits of time are unwrapped.

Where the header has no `Width` and `Height`, and without `sensor`, the size is the smallest of 120 x 100 (N-CARS),
304 x 240, 640 x 480 and 1280 x 720 that holds all events.

Source: Prophesee, "DAT File Format", https://docs.prophesee.ai/stable/data/file_formats/dat.html; of version 1 the
reader `load_atis_data.m` of Prophesee's toolbox.
"""

from pathlib import Path

import numpy as np

from rheobase.data.events import Events
from rheobase.data.formats.checks import (
    Sensor,
    agreed_sensor,
    as_events,
    damaged,
    read_bytes,
    records,
    smallest_sensor,
    text_header,
    unwrap,
)

STANDARD = ((120, 100), (304, 240), (640, 480), (1280, 720))
_EVENT = np.dtype([("t", "<u4"), ("address", "<u4")])
_FIELDS = {1: (0x1FF, 9, 0xFF, 17), 2: (0x3FFF, 14, 0x3FFF, 28)}
_TYPES = {0: "Event2d", 12: "EventCD"}


def read_dat(path: Path, *, sensor: Sensor | None = None, sort: bool = False) -> Events:
    """Read a DAT file; times in us.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another version, type or size of event, an end inside an event, an address outside the sensor,
            another sensor than was given, times that fall (without `sort`).
    """
    data = read_bytes(path)
    lines, start = text_header(path, data, b"% ")
    if not lines:
        raise damaged(path, f"bytes {data[:2]!r}", 0, "a header of lines that begin with '% '")
    version = _number(path, lines, "version")
    version = 1 if version in (None, 0) else version
    if version not in _FIELDS:
        raise damaged(path, f"version {version} in the header that begins", 0, "version 1 or 2")
    if len(data) < start + 2:
        raise damaged(path, "the file ends", len(data), f"{start + 2} bytes or more")
    if data[start] not in _TYPES or data[start + 1] != _EVENT.itemsize:
        raise damaged(
            path, f"events of type {data[start]} and {data[start + 1]} bytes", start, "type 0 or 12 (CD) and 8 bytes"
        )
    raw = records(path, data, start + 2, _EVENT)
    x_mask, y_shift, y_mask, p_shift = _FIELDS[version]
    address = raw["address"]
    x, y = (address & x_mask).astype(np.uint16), ((address >> y_shift) & y_mask).astype(np.uint16)
    width, height = (_number(path, lines, side) for side in ("width", "height"))
    stated = None if width is None or height is None else (width, height)
    size = agreed_sensor(path, sensor, stated) or smallest_sensor(x, y, STANDARD)
    columns = (unwrap(raw["t"], 32), x, y, (address >> p_shift) & 1)
    return as_events(path, columns, size, "us", sort=sort, at=lambda k: start + 2 + k * _EVENT.itemsize)


def _number(path: Path, lines: list[str], key: str) -> int | None:
    """The number after a keyword of the header."""
    for line in lines:
        word, _, value = line.partition(" ")
        if word.lower() == key:
            if not (value.isascii() and value.isdigit() and len(value) < 10):
                raise damaged(path, f"{key} {value!r} in the header that begins", 0, "a number")
            return int(value)
    return None
