"""40-bit events of the ATIS: N-MNIST and N-Caltech101 (`.bin`), SLAYER (`.bs2`). No header.

An event is 5 bytes: x, y, then 24 bits, big-endian, of which the highest is the polarity (1: ON) and the rest the time
in microseconds. An event with y = 240 is none: it says that the clock ran over, and all times after it are 2^13 us
later. The 23 bits of time are unwrapped.

The file states no size: without `sensor` it is the smallest of 34 x 34 (N-MNIST), 128 x 128 (DVS128), 240 x 180
(N-Caltech101) and 256 x 256 that holds all events.

Source: G. Orchard et al., "Converting static image datasets to spiking neuromorphic datasets using saccades", Frontiers
in Neuroscience 9:437, 2015, and the scripts that its data sets come with.
"""

from pathlib import Path

import numpy as np

from rheobase.data.events import Events
from rheobase.data.formats.checks import Sensor, as_events, read_bytes, records, smallest_sensor, unwrap

STANDARD = ((34, 34), (128, 128), (240, 180), (256, 256))
_EVENT = np.dtype([("x", np.uint8), ("y", np.uint8), ("high", np.uint8), ("low", ">u2")])
_CLOCK_ROW, _CLOCK_STEP = 240, 1 << 13


def read_atis(path: Path, *, sensor: Sensor | None = None, sort: bool = False) -> Events:
    """Read a file of 40-bit events; times in us.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: bytes that make no whole number of events, an address outside the sensor, times that fall (without
            `sort`).
    """
    raw = records(path, read_bytes(path), 0, _EVENT)
    t = unwrap(((raw["high"] & 0x7F).astype(np.int32) << 16) | raw["low"], 23)
    clock = raw["y"] == _CLOCK_ROW
    place = np.arange(len(raw))
    if clock.any():
        t += np.cumsum(clock) * _CLOCK_STEP
        t, raw, place = t[~clock], raw[~clock], np.flatnonzero(~clock)
    x, y, p = raw["x"], raw["y"], raw["high"] >> 7
    size = sensor or smallest_sensor(x, y, STANDARD)
    return as_events(path, (t, x, y, p), size, "us", sort=sort, at=lambda k: int(place[k]) * _EVENT.itemsize)
