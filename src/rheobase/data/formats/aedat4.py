"""AEDAT 4.0 of DV (`.aedat4`): CIFAR10-DVS and recordings of iniVation's cameras.

`#!AER-DAT4.0` CR LF; the IOHeader, a FlatBuffer after its size (uint32): compression (0: none, 1 and 2: LZ4, 3 and 4:
Zstandard), position of the table of data (-1: none), and a text of XML that names the streams. Then packets up to that
table or the end: number of the stream and size (int32), and as many bytes, one frame of the compression. Inside is a
FlatBuffer after its size; a packet of events (`EVTS`) holds one vector of 16-byte events: int64 time in microseconds of
Unix time, int16 x and y, one byte polarity, 3 bytes padding. All is little-endian. Other streams (frames, motion,
triggers) are passed over.

The size is that of the stream (`sizeX`, `sizeY`); else `sensor`, else the smallest of 128 x 128, 240 x 180, 320 x 240,
346 x 260 and 640 x 480 that holds all events.

A FlatBuffer's table begins with the distance back to its vtable (int32), which holds its own size and the table's
(uint16 each) and for each field its place in the table, 0 where it is absent; vectors, texts and tables are pointed at
by distances forward (uint32). Each of these is checked against the bytes that are there. What is unpacked may be at
most 255 times as large as what is packed, the bound of LZ4.

Source: iniVation, "AEDAT 4.0",
https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-4.0.html; FlatBuffers, "FlatBuffer
Internals", https://flatbuffers.dev/internals/; the schemas `ioheader.fbs` and `event.fbs` of dv-processing.
"""

import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rheobase.data.events import Events
from rheobase.data.formats.checks import AGAIN, Sensor, agreed_sensor, as_events, damaged, read_bytes, smallest_sensor

MAGIC = b"#!AER-DAT4.0\r\n"
STANDARD = ((128, 128), (240, 180), (320, 240), (346, 260), (640, 480))
_EVENT = np.dtype(
    {
        "names": ["t", "x", "y", "p"],
        "formats": ["<i8", "<i2", "<i2", "u1"],
        "offsets": [0, 8, 10, 12],
        "itemsize": 16,
    }
)
_LARGEST_RATIO = 255
_STEP = 1 << 16
_WINDOW, _LARGEST_WINDOW = 1 << 23, 1 << 27


def read_aedat4(path: Path, *, sensor: Sensor | None = None, stream: int | None = None, sort: bool = False) -> Events:
    """Read the events of a file of AEDAT 4.0; times in us.

    Args:
        path: the file.
        sensor: width and height, where the file names none.
        stream: number of the stream of events; None takes the first one that the file names.
        sort: put events in the order of their times where they fall.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: the package of the compression is missing: `pip install "rheobase[events]"`.
        ValueError: no such stream, a header or a packet that ends early, a damaged FlatBuffer or compressed frame, an
            address outside the sensor, another sensor than was given, times that fall (without `sort`).
    """
    data = read_bytes(path)
    if not data.startswith(MAGIC):
        raise damaged(path, f"bytes {data[:14]!r}", 0, repr(MAGIC))
    header = _table(path, data, len(MAGIC), "the header", b"IOHE")
    position = header.end
    compression = header.number(0, "<i", 0)
    table_at = header.number(1, "<q", -1)
    if compression not in _UNPACKERS:
        raise damaged(path, f"compression {compression} in the header", len(MAGIC), "0 .. 4")
    if not (table_at == -1 or position <= table_at <= len(data)):
        raise damaged(
            path, f"a table of data at {table_at} in the header", len(MAGIC), f"-1 or {position} .. {len(data)}"
        )
    streams = _event_streams(path, header.text(2), len(MAGIC))
    wanted = next(iter(streams), None) if stream is None else stream
    if wanted not in streams:
        raise damaged(
            path,
            f"no stream of events{'' if stream is None else f' {stream}'} in the header",
            len(MAGIC),
            f"one of {sorted(streams)}" if streams else "a stream of type EVTS",
            "pass another stream" if streams else AGAIN,
        )
    packets, starts = _packets(path, data, position, table_at if table_at >= 0 else len(data), wanted, compression)
    events = np.concatenate(packets) if packets else np.empty(0, _EVENT)
    first = np.cumsum([len(packet) for packet in packets])
    known = agreed_sensor(path, sensor, streams[wanted], len(MAGIC))
    size = known or smallest_sensor(events["x"], events["y"], STANDARD)
    columns = (events["t"], events["x"], events["y"], events["p"])
    return as_events(
        path, columns, size, "us", sort=sort, at=lambda k: starts[int(np.searchsorted(first, k, side="right"))]
    )


def _packets(
    path: Path, data: bytes, position: int, end: int, stream: int, compression: int
) -> tuple[list[np.ndarray], list[int]]:
    """The events of each packet of the stream, and where it begins."""
    packets, starts = [], []
    while position < end:
        if end - position < 8:
            raise damaged(path, f"the data end at byte {end}, inside a packet's header", position, "8 bytes")
        number, size = struct.unpack_from("<2i", data, position)
        if not 0 <= size <= end - position - 8:
            raise damaged(path, f"a packet of {size} bytes", position, f"0 .. {end - position - 8}")
        if number == stream:
            content = _UNPACKERS[compression](path, data[position + 8 : position + 8 + size], position)
            packets.append(_events(path, content, position))
            starts.append(position)
        position += 8 + size
    return packets, starts


def _events(path: Path, content: bytes, place: int) -> np.ndarray:
    packet = _table(path, content, 0, "a packet of events", b"EVTS", place)
    start, count = packet.vector(0, _EVENT.itemsize)
    return np.frombuffer(content, _EVENT, count, start)


def _event_streams(path: Path, text: bytes, place: int) -> dict[int, Sensor | None]:
    """The sizes of the streams of events by number."""
    streams: dict[int, Sensor | None] = {}
    if b"<!" in text:
        raise damaged(path, "a declaration in the XML of the header", place, "elements only")
    try:
        root = ElementTree.fromstring(text.decode() or "<dv/>")
        for node in root.findall("./node[@name='outInfo']/node"):
            said = {attribute.get("key"): attribute.text or "" for attribute in node.iter("attr")}
            if said.get("typeIdentifier") == "EVTS":
                sides = said.get("sizeX"), said.get("sizeY")
                streams[int(node.get("name", ""))] = (int(sides[0]), int(sides[1])) if sides[0] and sides[1] else None
    except (ElementTree.ParseError, ValueError) as error:
        raise damaged(path, f"damaged XML ({error}) in the header", place, "the streams and their sizes") from error
    return streams


@dataclass(frozen=True)
class _Table:
    """The root table of a FlatBuffer that lies in `data[start:end]`; `place` is where it is in the file."""

    path: Path
    data: bytes
    start: int
    end: int
    root: int
    fields: tuple[int, ...]
    what: str
    place: int

    def _read(self, kind: str, position: int) -> int:
        if not self.start <= position <= self.end - struct.calcsize(kind):
            raise damaged(self.path, f"{self.what} points outside of itself", self.place, "places inside it")
        return int(struct.unpack_from(kind, self.data, position)[0])

    def number(self, field: int, kind: str, default: int) -> int:
        place = self.fields[field] if field < len(self.fields) else 0
        return self._read(kind, self.root + place) if place else default

    def vector(self, field: int, itemsize: int) -> tuple[int, int]:
        """Start and length of a vector; an absent one is empty."""
        place = self.fields[field] if field < len(self.fields) else 0
        if not place:
            return self.start, 0
        at = self.root + place
        at += self._read("<I", at)
        count = self._read("<I", at)
        if count * itemsize > self.end - at - 4:
            raise damaged(
                self.path,
                f"{self.what} says {count} items of {itemsize} bytes",
                self.place,
                "as many as there are bytes",
            )
        return at + 4, count

    def text(self, field: int) -> bytes:
        start, count = self.vector(field, 1)
        return self.data[start : start + count]


def _table(path: Path, data: bytes, position: int, what: str, identifier: bytes, place: int | None = None) -> _Table:
    """The root table of the FlatBuffer that lies at `position` of the data, after its size."""
    place = position if place is None else place
    size = struct.unpack_from("<I", data, position)[0] if len(data) - position >= 4 else 0
    start = position + 4
    if not 8 <= size <= len(data) - start:
        raise damaged(path, f"{what} of {size} bytes", place, f"8 .. {max(8, len(data) - start)} bytes")
    if data[start + 4 : start + 8] != identifier:
        raise damaged(path, f"{what} has the mark {data[start + 4 : start + 8]!r}", place, repr(identifier))
    empty = _Table(path, data, start, start + size, 0, (), what, place)
    root = start + empty._read("<I", start)
    vtable = root - empty._read("<i", root)
    length = empty._read("<H", vtable)
    if length < 4 or length % 2:
        raise damaged(path, f"{what} has a vtable of {length} bytes", place, "an even number, 4 or more")
    fields = tuple(empty._read("<H", at) for at in range(vtable + 4, vtable + length, 2))
    return _Table(path, data, start, start + size, root, fields, what, place)


def _plain(path: Path, packed: bytes, place: int) -> bytes:  # noqa: ARG001
    return packed


def _lz4(path: Path, packed: bytes, place: int) -> bytes:
    try:
        import lz4.frame
    except ImportError as error:
        raise ImportError(f'{path} is packed with LZ4: pip install "rheobase[events]" (package lz4)') from error
    unpacker = lz4.frame.LZ4FrameDecompressor()
    parts, source = [], packed
    size, limit = 0, _LARGEST_RATIO * len(packed)
    try:
        while not unpacker.eof and size <= limit:
            part = unpacker.decompress(source, max_length=_STEP)
            if not part and not unpacker.eof:
                break
            parts.append(part)
            size, source = size + len(part), b""
    except (RuntimeError, ValueError) as error:
        raise damaged(path, f"a damaged LZ4 frame ({error}) in the packet", place, "a whole frame") from error
    if not unpacker.eof or unpacker.unused_data:
        raise damaged(path, "an LZ4 frame of another length than the packet", place, "one whole frame")
    return b"".join(parts)


def _zstandard(path: Path, packed: bytes, place: int) -> bytes:
    try:
        import zstandard
    except ImportError as error:
        raise ImportError(
            f'{path} is packed with Zstandard: pip install "rheobase[events]" (package zstandard)'
        ) from error
    limit = _LARGEST_RATIO * len(packed)
    parts, size = [], 0
    try:
        unpacker = zstandard.ZstdDecompressor(max_window_size=max(_WINDOW, min(limit, _LARGEST_WINDOW)))
        with unpacker.stream_reader(packed, read_size=_STEP) as reader:
            while size <= limit and (part := reader.read(_STEP)):
                parts.append(part)
                size += len(part)
    except zstandard.ZstdError as error:
        raise damaged(path, f"a damaged Zstandard frame ({error}) in the packet", place, "a whole frame") from error
    if size > limit:
        raise damaged(path, f"a frame of over {limit} bytes in the packet", place, f"{_LARGEST_RATIO} times the packed")
    return b"".join(parts)


_UNPACKERS: dict[int, Callable[[Path, bytes, int], bytes]] = {0: _plain, 1: _lz4, 2: _lz4, 3: _zstandard, 4: _zstandard}
