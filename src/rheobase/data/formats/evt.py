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

import re
from pathlib import Path

import numpy as np

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
from rheobase.data.kernels import kernels

_ADDRESSES = (2048, 2048)
STANDARD = ((320, 320), (640, 480), (1280, 720), _ADDRESSES)
_SIDES = ("width", "height")
_COLUMNS = (np.int64, np.uint16, np.uint16, np.bool_)
_WORDS: dict[str, np.dtype] = {"2": np.dtype("<u4"), "3": np.dtype("<u2")}


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
    loops, word = kernels("evt_kernel"), _WORDS[encoding]
    decode = loops.decode_evt2 if encoding == "2" else loops.decode_evt3
    words = records(path, data, start, word)
    known = agreed_sensor(path, sensor, stated)
    width, height = known or _ADDRESSES
    columns = tuple(np.empty(0, kind) for kind in _COLUMNS)
    for write in (False, True):
        count, bad, why = decode(words, width, height, write, *columns)
        if why != loops.FINE:
            what = f"a word {int(words[bad]):#0{2 * word.itemsize + 2}x}"
            what += " of a reserved type" if why == loops.UNKNOWN else f" of an event outside {width} x {height}"
            expected = "types of the format" if why == loops.UNKNOWN else "addresses inside the sensor"
            do = AGAIN if why == loops.UNKNOWN else f"pass the true sensor size, or {AGAIN}"
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
    if encoding not in _WORDS:
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
