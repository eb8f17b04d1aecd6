"""Which events stay: noise filters, dead time, and events dropped at random."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from rheobase.data.events import Events
from rheobase.data.kernels import kernels
from rheobase.data.rows import contiguous, join_rows
from rheobase.data.transforms.transform import Transform, given


def denoise(events: Events, window: int, neighbours: Literal[4, 8] = 8) -> Events:
    """Background-activity filter: keep an event if a neighbour had one at most `window` ticks before.

    Event i stays if some event j < i, kept or not, lies on one of the pixels around its own, and t_i - t_j <= window.
    Polarity does not matter. After Delbruck 2008 (8 neighbours).

    Raises:
        ValueError: window is negative, neighbours is neither 4 nor 8.
    """
    _check_window("denoise", window)
    if neighbours not in (4, 8):
        raise ValueError(f"denoise: neighbours is {neighbours}; expected 4 (edges) or 8 (corners too)")
    loops, (width, height) = kernels(), events.sensor
    latest = np.full((height + 2, width + 2), loops.NEVER)
    keep = np.empty(len(events), bool)
    loops.supported(contiguous(events.array), window, neighbours == 8, latest, keep)
    return events[keep]


def refractory(events: Events, window: int, by_polarity: bool = False) -> Events:
    """Dead time: keep an event if the last kept one of its pixel lies at least `window` ticks before.

    Args:
        events: a recording.
        window: ticks.
        by_polarity: whether ON and OFF events of a pixel ignore each other.

    Raises:
        ValueError: window is negative.
    """
    _check_window("refractory", window)
    loops, (width, height) = kernels(), events.sensor
    latest = np.full(2 * height * width, loops.NEVER)
    keep = np.empty(len(events), bool)
    loops.rested(contiguous(events.array), window, by_polarity, width, latest, keep)
    return events[keep]


def drop(events: Events, probability: int | float, generator: np.random.Generator | None) -> Events:
    """Drop each event on its own with this probability (Gu et al. 2021, at random).

    Raises:
        ValueError: a probability outside [0, 1]; no generator.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"drop: probability must lie in [0, 1], got {probability}")
    return events[given("drop", generator).random(len(events)) >= probability]


def drop_by_time(events: Events, fraction: int | float, generator: np.random.Generator | None) -> Events:
    """Drop all events of one interval, a fraction of the duration long (Gu et al. 2021).

    The interval has `round(fraction * (duration + 1))` ticks and lies inside the recording, all places equally likely.

    Raises:
        ValueError: a fraction outside [0, 1]; no generator.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"drop_by_time: fraction must lie in [0, 1], got {fraction}")
    ticks = round(fraction * (events.duration + 1))
    later = int(given("drop_by_time", generator).integers(events.duration + 1 - ticks, endpoint=True))
    if not len(events):
        return events
    start = int(events.t[0]) + later
    low, high = np.searchsorted(events.t, (start, start + ticks))
    return replace(events, array=join_rows(events.array[:low], events.array[high:]))


def _check_window(caller: str, window: int) -> None:
    if window < 0:
        raise ValueError(f"{caller}: window is in ticks and must not be negative, got {window}")


@dataclass(frozen=True)
class Denoise(Transform):
    """`denoise`."""

    window: int
    neighbours: Literal[4, 8] = 8
    function = staticmethod(denoise)


@dataclass(frozen=True)
class Refractory(Transform):
    """`refractory`."""

    window: int
    by_polarity: bool = False
    function = staticmethod(refractory)


@dataclass(frozen=True)
class Drop(Transform):
    """`drop`."""

    probability: int | float
    function = staticmethod(drop)
    random = True


@dataclass(frozen=True)
class DropByTime(Transform):
    """`drop_by_time`."""

    fraction: int | float
    function = staticmethod(drop_by_time)
    random = True
