"""AEDAT 1.0 and 2.0 of jAER (`.aedat`, `.dat`), and headerless files of spiking cochleas.

Lines of text that begin with `#`, the first `#!AER-DAT2.0` (`#!AER-DAT1.0`, or no header at all, for version 1), then
events, big-endian: the address, 4 bytes (version 1: 2 bytes), and the time in microseconds, 4 bytes with a sign, which
is unwrapped. The chip, named by the line `# AEChip:`, says what an address means:

- DVS128 (also where no chip is named): bit 15 marks external events, bits 8-14 are y, 1-7 x, bit 0 the polarity.
  As jAER does, x is 127 minus the bits, and the bit of a brighter pixel (ON) is 0; y = 0 is the lowest row. The tables
  of the format's specification show x as it is stored, and 1 for ON.
- DAVIS (240, 346, 640 ..): bit 31 marks samples of frames and of motion sensors, bit 10 external events, bits 22-30 are
  y, 12-21 x, bit 11 the polarity, 1 for ON. As jAER does, x is the width - 1 minus the bits; y = 0 is the lowest row.

Everything but polarity events is passed over. Files may hold times that fall: events are sorted by time, equal times as
in the file.

Source: iniVation, "AEDAT 2.0" and "AEDAT 1.0",
https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-2.0.html; flips and polarity: the classes
`DVS128` and `DavisBaseCamera` of jAER.
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
    text_header,
    unwrap,
)
from rheobase.data.formats.chips import chip_size, list_chips

_EVENT = {
    1: np.dtype([("address", ">u2"), ("t", ">i4")]),
    2: np.dtype([("address", ">u4"), ("t", ">i4")]),
}
_COCHLEA = np.dtype([("address", ">u2"), ("t", ">u4")])


def read_aedat2(path: Path, *, sensor: Sensor | None = None, chip: str | None = None) -> Events:
    """Read a file of AEDAT 1.0 or 2.0; times in us, sorted.

    Args:
        path: the file.
        sensor: width and height; must be those of the chip.
        chip: name of the chip such as DVS128 or DAVIS240, for files that name none or a wrong one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another version, an unknown chip, an end inside an event, an address outside the sensor, another
            sensor than was given.
    """
    data = read_bytes(path)
    lines, start = text_header(path, data, b"#", last="End Of ASCII Header")
    version = _version(path, lines)
    named = next((line.split(":", 1)[1].strip() for line in lines if line.lower().startswith("aechip:")), None)
    name = chip or named or "DVS128"
    size = chip_size(name)
    if size is None:
        raise damaged(
            path, f"the chip {name!r} in the header that begins", 0, " or ".join(list_chips()), "pass chip=..."
        )
    agreed_sensor(path, sensor, size)
    kind = _EVENT[version]
    raw = records(path, data, start, kind)
    address = raw["address"]
    if size == (128, 128) and "davis" not in name.lower():
        if version == 2 and address.size and address.max() > 0xFFFF:
            k = int(address.argmax())
            raise damaged(
                path,
                f"event {k} has address {int(address[k]):#010x}",
                start + k * kind.itemsize,
                f"addresses of {name}, of 16 bits",
                "pass chip=... if another chip wrote the file",
            )
        kept = np.flatnonzero(address < 0x8000)
        address = address[kept]
        x, y, p = 127 - ((address >> 1) & 0x7F).astype(np.int16), (address >> 8) & 0x7F, ~address & 1
    elif version == 1:
        raise damaged(path, f"addresses of 16 bits of a {name} in the data that begin", start, "version 2 for DAVIS")
    else:
        kept = np.flatnonzero(address & 0x80000400 == 0)
        address = address[kept]
        x = size[0] - 1 - ((address >> 12) & 0x3FF).astype(np.int16)
        y, p = (address >> 22) & 0x1FF, (address >> 11) & 1
    t = unwrap(raw["t"], 32)[kept]
    return as_events(path, (t, x, y, p), size, "us", sort=True, at=lambda k: start + int(kept[k]) * kind.itemsize)


def read_cochlea(path: Path, *, channels: int = 32, tick_ns: int = 200) -> Events:
    """Read a headerless file of a monaural spiking cochlea (NAS): 2-byte address, 4-byte time, both big-endian.

    Address 2k is channel k of positive, 2k + 1 of negative half waves, as NAVIS numbers them: x = k, p = even. The
    sensor is `(channels, 1)`, times are in ns, unwrapped and sorted, equal times as in the file.

    Args:
        path: the file.
        channels: of the cochlea.
        tick_ns: length of a tick of its clock in ns.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an end inside an event, an address of a higher channel, tick_ns < 1.
    """
    if tick_ns < 1:
        raise ValueError(f"{path}: tick_ns={tick_ns}; expected 1 or more nanoseconds; NAS has 200")
    raw = records(path, read_bytes(path), 0, _COCHLEA)
    x, p = raw["address"] >> 1, ~raw["address"] & 1
    columns = (unwrap(raw["t"], 32) * tick_ns, x, np.zeros_like(x), p)
    return as_events(path, columns, (channels, 1), "ns", sort=True, at=lambda k: k * _COCHLEA.itemsize)


def _version(path: Path, lines: list[str]) -> int:
    if not lines or not lines[0].startswith("!AER-DAT"):
        return 2 if lines else 1
    version = lines[0].removeprefix("!AER-DAT")
    if version not in ("1.0", "2.0"):
        raise damaged(path, f"version {version!r}", 0, "#!AER-DAT1.0 or #!AER-DAT2.0")
    return int(version[0])
