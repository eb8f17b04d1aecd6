"""AEDAT 3.1 of cAER (`.aedat`): DVS128 Gesture's official files.

Lines of text that begin with `#`, the first `#!AER-DAT3.1`, the last `#!END-HEADER`. Then packets, little-endian: 28
bytes of header (int16 type and source; int32 size of an event, offset of its time, overflows of the time, capacity,
number of events, number of valid ones), then `capacity` events. Type 1 are polarity events of 8 bytes: 32 bits with
bit 0 valid, bit 1 polarity (1: ON), bits 2-16 y and 17-31 x, (0, 0) the upper left corner; then the time in
microseconds, int32, to which every overflow adds 2^31. Other packets and invalid events are passed over.

The size is that of the chip that the line `#Source` names; else `sensor`, else the smallest of 128 x 128, 240 x 180,
346 x 260 and 640 x 480 that holds all events.

Source: iniVation, "AEDAT 3.1",
https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-3.1.html.
"""

import struct
from dataclasses import dataclass
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
)
from rheobase.data.formats.chips import chip_size

STANDARD = ((128, 128), (240, 180), (346, 260), (640, 480))
_PACKET = struct.Struct("<2h6i")
_EVENT = np.dtype([("data", "<u4"), ("t", "<i4")])
_POLARITY = 1
_END = "!END-HEADER"


def read_aedat3(path: Path, *, sensor: Sensor | None = None, sort: bool = False) -> Events:
    """Read a file of AEDAT 3.1; times in us.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another version, a header or a packet that ends early, sizes or counts that no packet has, an
            address outside the sensor, another sensor than was given, times that fall (without `sort`).
    """
    data = read_bytes(path)
    lines, position = text_header(path, data, b"#", last=_END)
    if not lines or lines[0] != "!AER-DAT3.1":
        raise damaged(path, f"bytes {data[:14]!r}", 0, "#!AER-DAT3.1")
    if lines[-1] != _END:
        raise damaged(path, "the text header ends", position, f"its last line, #{_END}")
    starts, packets, overflows = [], [], []
    while position < len(data):
        packet = _packet(path, data, position)
        position += _PACKET.size
        if packet.kind == _POLARITY and packet.number:
            starts.append(position)
            packets.append(records(path, data, position, _EVENT, packet.number))
            overflows.append(packet.overflow)
        position += packet.length
    lengths = np.array([len(packet) for packet in packets], np.int64)
    events = np.concatenate(packets) if packets else np.empty(0, _EVENT)
    first = np.concatenate([[0], np.cumsum(lengths)])

    def at(k: int) -> int:
        packet = int(np.searchsorted(first, k, "right")) - 1
        return int(starts[packet] + (k - first[packet]) * _EVENT.itemsize)

    if events.size and events["t"].min() < 0:
        k = int(events["t"].argmin())
        raise damaged(path, f"event {k} has time {events['t'][k]}", at(k), "31 bits without a sign")
    valid = np.flatnonzero(events["data"] & 1)
    word = events["data"][valid]
    t = (events["t"] + (np.repeat(np.array(overflows, np.int64), lengths) << 31))[valid]
    x, y, p = word >> 17, (word >> 2) & 0x7FFF, (word >> 1) & 1
    known = agreed_sensor(path, sensor, _source_size(lines))
    size = known or smallest_sensor(x, y, STANDARD)
    return as_events(path, (t, x, y, p), size, "us", sort=sort, at=lambda k: at(int(valid[k])))


@dataclass(frozen=True)
class _Packet:
    kind: int
    number: int
    overflow: int
    length: int


def _packet(path: Path, data: bytes, position: int) -> _Packet:
    if len(data) - position < _PACKET.size:
        raise damaged(path, f"the file ends at byte {len(data)}, inside a packet's header", position, "28 bytes")
    kind, _, size, time_at, overflow, capacity, number, _ = _PACKET.unpack_from(data, position)
    length = capacity * size
    if min(size, overflow, capacity, number) < 0 or number > capacity:
        raise damaged(
            path,
            f"a packet of {number} events of {size} bytes, capacity {capacity}, overflow {overflow}",
            position,
            "no negative number, and no more events than the capacity",
        )
    if length > len(data) - position - _PACKET.size:
        raise damaged(
            path,
            f"a packet of {length} bytes",
            position,
            f"at most the {len(data) - position - _PACKET.size} that follow",
        )
    if kind == _POLARITY and (size, time_at) != (_EVENT.itemsize, 4):
        raise damaged(
            path, f"polarity events of {size} bytes with the time at {time_at}", position, "8 bytes with the time at 4"
        )
    return _Packet(kind, number, overflow, length)


def _source_size(lines: list[str]) -> Sensor | None:
    for line in lines:
        if line.startswith("Source ") and ":" in line:
            return chip_size(line.split(":", 1)[1])
    return None
