"""Prophesee's raw streams (`.raw`) in the encodings EVT 2.0 and EVT 3.0.

Lines of text that begin with `% `, of which one names the encoding (`% evt 3.0` or `% format EVT3;height=..;width=..`)
and some the size (`format`, or `% geometry 1280x720`), up to `% end` or the first other byte. Then little-endian words
whose highest 4 bits are their type.

EVT 2.0, 32 bits: 0 and 1 are OFF and ON with bits 22-27 the low 6 bits of the time, 11-21 x, 0-10 y; 8 brings the high
28 bits of the time.

EVT 3.0, 16 bits: 0 sets y (bits 0-10); 2 is an event at x (bits 0-10) with polarity bit 11; 3 sets base x and polarity
of vectors; 4 and 5 are vectors of 12 and 8 pixels from the base on, which they move; 6 and 8 bring the low and the high
12 bits of the time, the low ones starting again at 0 when the high ones change.

Times are in microseconds. Their high bits are unwrapped, so that recordings may last longer than the 4.8 hours or 16.8
seconds of the counter. Events before the first high time (EVT 3.0: and before the first y and base) are left out: where
and when they were is not known. External triggers and vendors' words are passed over. The formats do not promise order:
events are sorted by time, equal times as in the file.

Where the header has no size, and without `sensor`, it is the smallest of 320 x 320 (GenX320), 640 x 480, 1280 x 720
and 2048 x 2048 that holds all events.

Source: Prophesee, "EVT 2.0 Format" and "EVT 3.0 Format", https://docs.prophesee.ai/stable/data/encoding_formats/.
"""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from rheobase.data.events import Events
from rheobase.data.formats.checks import (
    AGAIN,
    Sensor,
    agreed_sensor,
    as_events,
    damaged,
    read_bytes,
    records,
    smallest_sensor,
    text_header,
)

_ADDRESSES = (2048, 2048)
STANDARD = ((320, 320), (640, 480), (1280, 720), _ADDRESSES)
_SIDES = ("width", "height")
_COLUMNS = (np.int64, np.uint16, np.uint16, np.bool_)
_FINE, _UNKNOWN, _OUTSIDE = 0, 1, 2


def read_evt(path: Path, *, sensor: Sensor | None = None) -> Events:
    """Read a raw file of EVT 2.0 or 3.0; times in us, sorted.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a header without encoding or with another one, an end inside a word, a reserved type of word, an
            address outside the sensor, another sensor than was given.
    """
    data = read_bytes(path)
    lines, start = text_header(path, data, b"% ", last="end")
    encoding, stated = _header(path, lines)
    decode, word = _DECODERS[encoding]
    words = records(path, data, start, word)
    known = agreed_sensor(path, sensor, stated)
    width, height = known or _ADDRESSES
    columns = tuple(np.empty(0, kind) for kind in _COLUMNS)
    for write in (False, True):
        count, bad, why = decode(words, width, height, write, *columns)
        if why != _FINE:
            what = f"a word {int(words[bad]):#0{2 * word.itemsize + 2}x}"
            what += " of a reserved type" if why == _UNKNOWN else f" of an event outside {width} x {height}"
            expected = "types of the format" if why == _UNKNOWN else "addresses inside the sensor"
            do = AGAIN if why == _UNKNOWN else f"pass the true sensor size, or {AGAIN}"
            raise damaged(path, what, start + bad * word.itemsize, expected, do)
        if not write:
            columns = tuple(np.empty(count, kind) for kind in _COLUMNS)
    t, x, y, p = columns
    size = known or smallest_sensor(x, y, STANDARD)
    return as_events(path, (t, x, y, p), size, "us", sort=True, at=lambda _k: start)


def _header(path: Path, lines: list[str]) -> tuple[str, Sensor | None]:
    text = "\n".join(lines).lower()
    named = re.search(r"^(?:evt (\d\.\d)|format evt(\d+))", text, re.MULTILINE)
    encoding = "" if named is None else (named[1] or named[2]).replace(".0", "")
    if encoding not in _DECODERS:
        raise damaged(
            path,
            f"encoding {named[0]!r} in the header that begins" if named else "no encoding in the header that begins",
            0,
            "% evt 2.0, % evt 3.0, % format EVT2 or % format EVT3",
            f"convert other encodings with Prophesee's tools, or {AGAIN}",
        )
    if re.search(r"endian\w* big", text):
        raise damaged(path, "big-endian words in the header that begins", 0, "little-endian ones")
    sides = re.search(r"^geometry (\d{1,9})x(\d{1,9})", text, re.MULTILINE)
    if sides:
        return encoding, (int(sides[1]), int(sides[2]))
    width, height = (re.search(rf"^(?:format .*;)?{side}[ =](\d{{1,9}})", text, re.MULTILINE) for side in _SIDES)
    return encoding, (int(width[1]), int(height[1])) if width and height else None


def _decode_evt2(words, width, height, write, t, x, y, p):  # type: ignore[no-untyped-def]
    """Count the events, and write them if told to: their number, the index of the first bad word, and why it is bad."""
    high = np.int64(0)
    count, known = 0, False
    for k in range(len(words)):
        word = np.int64(words[k])
        kind = word >> 28
        if kind <= 1:
            if known:
                column, row = (word >> 11) & 0x7FF, word & 0x7FF
                if column >= width or row >= height:
                    return count, k, _OUTSIDE
                if write:
                    t[count] = (high << 6) | ((word >> 22) & 0x3F)
                    x[count], y[count], p[count] = column, row, kind == 1
                count += 1
        elif kind == 8:
            new = word & 0xFFFFFFF
            high = high + ((new - high + 0x8000000) & 0xFFFFFFF) - 0x8000000 if known else new
            known = True
        elif kind != 10 and kind != 14 and kind != 15:
            return count, k, _UNKNOWN
    return count, -1, _FINE


def _decode_evt3(words, width, height, write, t, x, y, p):  # type: ignore[no-untyped-def]
    """Count the events, and write them if told to: their number, the index of the first bad word, and why it is bad."""
    high, low, row, base = np.int64(0), np.int64(0), np.int64(-1), np.int64(-1)
    count, known, on = 0, False, False
    for k in range(len(words)):
        word = np.int64(words[k])
        kind, value = word >> 12, word & 0xFFF
        if kind == 0:
            row = value & 0x7FF
        elif kind == 2:
            if known and row >= 0:
                column = value & 0x7FF
                if column >= width or row >= height:
                    return count, k, _OUTSIDE
                if write:
                    t[count] = (high << 12) | low
                    x[count], y[count], p[count] = column, row, value >> 11
                count += 1
        elif kind == 3:
            base, on = value & 0x7FF, value >> 11 == 1
        elif kind == 4 or kind == 5:
            length = 12 if kind == 4 else 8
            if known and row >= 0 and base >= 0:
                for bit in range(length):
                    if (value >> bit) & 1:
                        if base + bit >= width or row >= height:
                            return count, k, _OUTSIDE
                        if write:
                            t[count] = (high << 12) | low
                            x[count], y[count], p[count] = base + bit, row, on
                        count += 1
            if base >= 0:
                base += length
        elif kind == 6:
            low = value
        elif kind == 8:
            new = high + ((value - high + 0x800) & 0xFFF) - 0x800 if known else value
            if new != high:
                low = np.int64(0)
            high, known = new, True
        elif kind != 7 and kind != 10 and kind != 14 and kind != 15:
            return count, k, _UNKNOWN
    return count, -1, _FINE


def _compiled(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The kernel as machine code, kept beside this file; without wrappers, such as those of checked types."""
    kernel = inspect.unwrap(kernel)
    try:
        return njit(cache=True)(kernel)
    except RuntimeError:  # no folder to keep it in can be written to: compiled anew by each process
        return njit(kernel)


_DECODERS: dict[str, tuple[Callable[..., Any], np.dtype]] = {
    "2": (_compiled(_decode_evt2), np.dtype("<u4")),
    "3": (_compiled(_decode_evt3), np.dtype("<u2")),
}
