"""When events happen: a coarser clock, jitter, backwards; and noise spread over the recording."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from rheobase.data.events import Events
from rheobase.data.rows import copy_rows, join_rows, sort_rows
from rheobase.data.transforms.filters import refractory
from rheobase.data.transforms.transform import Transform, given, happens


def downsample_time(events: Events, ticks: int, merge: bool = False) -> Events:
    """A coarser clock: times are rounded down to multiples of `ticks`; the unit stays.

    Args:
        events: a recording.
        ticks: of the coarser clock's step.
        merge: whether events of one pixel and polarity that get the same time become one.

    Raises:
        ValueError: ticks < 1.
    """
    if ticks < 1:
        raise ValueError(f"downsample_time: ticks must be at least 1, got {ticks}")
    array = copy_rows(events.array)
    array["t"] -= array["t"] % ticks
    coarse = replace(events, array=array)
    return refractory(coarse, ticks, by_polarity=True) if merge else coarse


def jitter_time(events: Events, std_ticks: int | float, generator: np.random.Generator | None) -> Events:
    """Move each event in time by a normal number of deviation `std_ticks`, rounded; sorted anew.

    Raises:
        ValueError: std_ticks is negative or not finite; no generator.
    """
    if not 0 <= std_ticks < np.inf:
        raise ValueError(f"jitter_time: std_ticks is a deviation, finite and not negative, got {std_ticks}")
    array = copy_rows(events.array)
    array["t"] += np.rint(given("jitter_time", generator).normal(0, std_ticks, len(array))).astype(np.int64)
    return replace(events, array=sort_rows(array))


def flip_time(
    events: Events,
    polarity: bool = True,
    probability: int | float = 1.0,
    generator: np.random.Generator | None = None,
) -> Events:
    """Play backwards, `t -> t_first + t_last - t`, with a probability; at 1 nothing is drawn.

    Args:
        events: a recording.
        polarity: whether ON and OFF are swapped, as they are when a scene runs backwards.
        probability: in [0, 1].
        generator: source of randomness.

    Raises:
        ValueError: a probability outside [0, 1], or below 1 without a generator.
    """
    if not happens("flip_time", probability, generator) or not len(events):
        return events
    array = copy_rows(events.array[::-1])
    array["t"] = events.t[-1] - (array["t"] - events.t[0])
    if polarity:
        array["p"] = ~array["p"]
    return replace(events, array=array)


def uniform_noise(
    events: Events, rate: int | float, generator: np.random.Generator | None, polarities: Literal[1, 2] = 2
) -> Events:
    """Add events of no cause: a Poisson process of `rate` events per pixel and second, from first to last event.

    Times are drawn evenly from the whole ticks between them; among equal times the noise comes last.

    Args:
        events: a recording.
        rate: in events per pixel and second.
        generator: source of randomness.
        polarities: 2: ON and OFF equally likely; 1: ON always, as sensors without polarity say.

    Raises:
        ValueError: rate is negative or not finite, polarities is neither 1 nor 2; no generator.
    """
    if not 0 <= rate < np.inf:
        raise ValueError(f"uniform_noise: rate must be finite and not negative, got {rate}")
    if polarities not in (1, 2):
        raise ValueError(f"uniform_noise: polarities is {polarities}; expected 1 or 2")
    random, (width, height) = given("uniform_noise", generator), events.sensor
    noise = np.empty(random.poisson(rate * width * height * events.seconds), events.array.dtype)
    if len(noise):
        noise["t"] = random.integers(events.t[0], events.t[-1], len(noise), endpoint=True)
        noise["x"] = random.integers(width, size=len(noise))
        noise["y"] = random.integers(height, size=len(noise))
        noise["p"] = random.integers(2, size=len(noise)) if polarities == 2 else 1
    return replace(events, array=sort_rows(join_rows(events.array, noise)))


@dataclass(frozen=True)
class DownsampleTime(Transform):
    """`downsample_time`."""

    ticks: int
    merge: bool = False
    function = staticmethod(downsample_time)


@dataclass(frozen=True)
class JitterTime(Transform):
    """`jitter_time`."""

    std_ticks: int | float
    function = staticmethod(jitter_time)
    random = True


@dataclass(frozen=True)
class FlipTime(Transform):
    """`flip_time`."""

    polarity: bool = True
    probability: int | float = 1.0
    function = staticmethod(flip_time)
    random = True


@dataclass(frozen=True)
class UniformNoise(Transform):
    """`uniform_noise`."""

    rate: int | float
    polarities: Literal[1, 2] = 2
    function = staticmethod(uniform_noise)
    random = True
