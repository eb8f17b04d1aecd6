"""Where events lie: crop, flip, shift, rotate, coarser pixels, and events moved at random."""

from dataclasses import dataclass, replace

import numpy as np

from rheobase.data.events import Events
from rheobase.data.rows import copy_rows, take_rows
from rheobase.data.transforms.filters import refractory
from rheobase.data.transforms.transform import Transform, given, happens


def crop(events: Events, x: int, y: int, width: int, height: int) -> Events:
    """The events of a rectangle, whose corner (x, y) becomes (0, 0); the sensor is the rectangle.

    Raises:
        ValueError: the rectangle is empty or does not lie on the sensor.
    """
    _check_rectangle("crop", events, x, y, width, height)
    array = take_rows(events.array, _inside(events, x, y, width, height))
    array["x"] -= x
    array["y"] -= y
    return replace(events, array=array, sensor=(width, height))


def center_crop(events: Events, width: int, height: int) -> Events:
    """The middle of the sensor; where the margins cannot be equal, the left and upper ones are smaller by a pixel.

    Raises:
        ValueError: as `crop`.
    """
    return crop(events, (events.sensor[0] - width) // 2, (events.sensor[1] - height) // 2, width, height)


def random_crop(events: Events, width: int, height: int, generator: np.random.Generator | None) -> Events:
    """A rectangle anywhere on the sensor, all places equally likely.

    Raises:
        ValueError: as `crop`; no generator.
    """
    x, y = _place("random_crop", events, width, height, generator)
    return crop(events, x, y, width, height)


def cutout(events: Events, x: int, y: int, width: int, height: int) -> Events:
    """Drop the events of a rectangle (DeVries and Taylor 2017; for events Li et al. 2022).

    Raises:
        ValueError: the rectangle is empty or does not lie on the sensor.
    """
    _check_rectangle("cutout", events, x, y, width, height)
    return events[~_inside(events, x, y, width, height)]


def random_cutout(events: Events, width: int, height: int, generator: np.random.Generator | None) -> Events:
    """Drop the events of a rectangle anywhere on the sensor, all places equally likely.

    Raises:
        ValueError: as `cutout`; no generator.
    """
    x, y = _place("random_cutout", events, width, height, generator)
    return cutout(events, x, y, width, height)


def drop_by_area(events: Events, fraction: int | float, generator: np.random.Generator | None) -> Events:
    """Drop the events of one rectangle, whose sides are a fraction of the sensor's (Gu et al. 2021).

    They are `round(fraction * side)`; the rectangle lies on the sensor, all places equally likely.

    Raises:
        ValueError: a fraction outside [0, 1]; no generator.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"drop_by_area: fraction must lie in [0, 1], got {fraction}")
    width, height = (round(fraction * side) for side in events.sensor)
    random = given("drop_by_area", generator)
    return random_cutout(events, width, height, random) if width and height else events


def flip_x(events: Events, probability: int | float = 1.0, generator: np.random.Generator | None = None) -> Events:
    """Mirror left and right, `x -> width - 1 - x`, with a probability; at 1 nothing is drawn.

    Raises:
        ValueError: a probability outside [0, 1], or below 1 without a generator.
    """
    return _mirror(events, "x", events.sensor[0]) if happens("flip_x", probability, generator) else events


def flip_y(events: Events, probability: int | float = 1.0, generator: np.random.Generator | None = None) -> Events:
    """Mirror up and down, `y -> height - 1 - y`, with a probability; at 1 nothing is drawn.

    Raises:
        ValueError: a probability outside [0, 1], or below 1 without a generator.
    """
    return _mirror(events, "y", events.sensor[1]) if happens("flip_y", probability, generator) else events


def flip_polarity(
    events: Events, probability: int | float = 1.0, generator: np.random.Generator | None = None
) -> Events:
    """Swap ON and OFF in the whole recording, with a probability; at 1 nothing is drawn.

    Raises:
        ValueError: a probability outside [0, 1], or below 1 without a generator.
    """
    if not happens("flip_polarity", probability, generator):
        return events
    array = copy_rows(events.array)
    array["p"] = ~array["p"]
    return replace(events, array=array)


def shift(events: Events, dx: int, dy: int, wrap: bool = False) -> Events:
    """Move all events by whole pixels; those that leave the sensor are dropped or, with `wrap`, enter opposite."""
    x, y = events.x.astype(np.int64) + dx, events.y.astype(np.int64) + dy
    if wrap:
        x, y = x % events.sensor[0], y % events.sensor[1]
    return _moved(events, x, y)


def random_shift(events: Events, limit: int, generator: np.random.Generator | None, wrap: bool = False) -> Events:
    """`shift` by two whole numbers drawn from -limit to limit, both ends included (rolling in Li et al. 2022).

    Raises:
        ValueError: limit is negative; no generator.
    """
    if limit < 0:
        raise ValueError(f"random_shift: limit is a number of pixels and must not be negative, got {limit}")
    dx, dy = given("random_shift", generator).integers(-limit, limit, 2, endpoint=True)
    return shift(events, int(dx), int(dy), wrap)


def rotate(events: Events, degrees: int | float) -> Events:
    """Turn about the middle of the sensor, counter-clockwise as displayed (y grows downwards).

    Addresses are rounded, halves to even; events that leave the sensor are dropped. Nothing is interpolated, so some
    pixels receive events of two and some of none.

    Raises:
        ValueError: degrees is not finite.
    """
    if not np.isfinite(degrees):
        raise ValueError(f"rotate: degrees must be finite, got {degrees}")
    angle = np.deg2rad(degrees % 360)
    middle = (events.sensor[0] - 1) / 2, (events.sensor[1] - 1) / 2
    x, y = events.x - middle[0], events.y - middle[1]
    turned = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    return _moved(events, _rounded(turned[0] + middle[0]), _rounded(turned[1] + middle[1]))


def random_rotate(events: Events, limit: int | float, generator: np.random.Generator | None) -> Events:
    """`rotate` by an angle drawn evenly from -limit to limit degrees (Li et al. 2022).

    Raises:
        ValueError: limit is negative or not finite; no generator.
    """
    if not 0 <= limit < np.inf:
        raise ValueError(f"random_rotate: limit is an angle in degrees, finite and not negative, got {limit}")
    return rotate(events, float(given("random_rotate", generator).uniform(-limit, limit)))


def jitter_space(events: Events, std: int | float, generator: np.random.Generator | None) -> Events:
    """Move each event by its own two normal numbers of deviation `std` pixels, rounded; who leaves is dropped.

    Raises:
        ValueError: std is negative or not finite; no generator.
    """
    if not 0 <= std < np.inf:
        raise ValueError(f"jitter_space: std is a deviation in pixels, finite and not negative, got {std}")
    moves = given("jitter_space", generator).normal(0, std, (2, len(events)))
    return _moved(events, events.x + _rounded(moves[0]), events.y + _rounded(moves[1]))


def downsample(
    events: Events, factor: int | float | tuple[int | float, int | float], merge: int | None = None
) -> Events:
    """Coarser pixels: `x -> floor(x / factor)`, and `y` likewise; the sensor keeps the pixels that an old one
    falls into, `floor((size - 1) / factor) + 1`.

    No event is lost unless `merge` is given: then, of each new pixel and polarity, events less than `merge` ticks after
    one that was kept are merged into it (as `refractory(..., by_polarity=True)`).

    Args:
        events: a recording.
        factor: old pixels to a new one, at least 1, whole or not; two of them for x and y.
        merge: ticks.

    Raises:
        ValueError: a factor below 1 or not finite, merge is negative.
    """
    factors = factor if isinstance(factor, tuple) else (factor, factor)
    if not all(1 <= one < np.inf for one in factors):
        raise ValueError(f"downsample: factor is old pixels to a new one, finite and at least 1, got {factor}")
    array = copy_rows(events.array)
    sensor = []
    for axis, size, one in zip(("x", "y"), events.sensor, factors, strict=True):
        new = (np.arange(size) // one).astype(np.uint16)
        array[axis] = new[array[axis]]
        sensor.append(int(new[-1]) + 1)
    coarse = replace(events, array=array, sensor=(sensor[0], sensor[1]))
    return coarse if merge is None else refractory(coarse, merge, by_polarity=True)


def _check_rectangle(caller: str, events: Events, x: int, y: int, width: int, height: int) -> None:
    wide, high = events.sensor
    if not (0 <= x < x + width <= wide and 0 <= y < y + height <= high):
        raise ValueError(
            f"{caller}: the rectangle of {width} x {height} at ({x}, {y}) must hold a pixel and lie on the sensor, "
            f"which is {wide} x {high}"
        )


def _inside(events: Events, x: int, y: int, width: int, height: int) -> np.ndarray:
    return (events.x >= x) & (events.x < x + width) & (events.y >= y) & (events.y < y + height)


def _place(
    caller: str, events: Events, width: int, height: int, generator: np.random.Generator | None
) -> tuple[int, int]:
    """The corner of a rectangle of this size, drawn evenly from all that lie on the sensor."""
    _check_rectangle(caller, events, 0, 0, width, height)
    random = given(caller, generator)
    x, y = (int(random.integers(side - part + 1)) for side, part in zip(events.sensor, (width, height), strict=True))
    return x, y


def _mirror(events: Events, axis: str, size: int) -> Events:
    array = copy_rows(events.array)
    array[axis] = size - 1 - array[axis]
    return replace(events, array=array)


def _rounded(addresses: np.ndarray) -> np.ndarray:
    return np.rint(addresses).astype(np.int64)


def _moved(events: Events, x: np.ndarray, y: np.ndarray) -> Events:
    """The events at new addresses, without those that are not on the sensor."""
    inside = (x >= 0) & (x < events.sensor[0]) & (y >= 0) & (y < events.sensor[1])
    array = take_rows(events.array, inside)
    array["x"], array["y"] = x[inside], y[inside]
    return replace(events, array=array)


@dataclass(frozen=True)
class Crop(Transform):
    """`crop`."""

    x: int
    y: int
    width: int
    height: int
    function = staticmethod(crop)


@dataclass(frozen=True)
class CenterCrop(Transform):
    """`center_crop`."""

    width: int
    height: int
    function = staticmethod(center_crop)


@dataclass(frozen=True)
class RandomCrop(Transform):
    """`random_crop`."""

    width: int
    height: int
    function = staticmethod(random_crop)
    random = True


@dataclass(frozen=True)
class Cutout(Transform):
    """`cutout`."""

    x: int
    y: int
    width: int
    height: int
    function = staticmethod(cutout)


@dataclass(frozen=True)
class RandomCutout(Transform):
    """`random_cutout`."""

    width: int
    height: int
    function = staticmethod(random_cutout)
    random = True


@dataclass(frozen=True)
class DropByArea(Transform):
    """`drop_by_area`."""

    fraction: int | float
    function = staticmethod(drop_by_area)
    random = True


@dataclass(frozen=True)
class FlipX(Transform):
    """`flip_x`."""

    probability: int | float = 1.0
    function = staticmethod(flip_x)
    random = True


@dataclass(frozen=True)
class FlipY(Transform):
    """`flip_y`."""

    probability: int | float = 1.0
    function = staticmethod(flip_y)
    random = True


@dataclass(frozen=True)
class FlipPolarity(Transform):
    """`flip_polarity`."""

    probability: int | float = 1.0
    function = staticmethod(flip_polarity)
    random = True


@dataclass(frozen=True)
class Shift(Transform):
    """`shift`."""

    dx: int
    dy: int
    wrap: bool = False
    function = staticmethod(shift)


@dataclass(frozen=True)
class RandomShift(Transform):
    """`random_shift`."""

    limit: int
    wrap: bool = False
    function = staticmethod(random_shift)
    random = True


@dataclass(frozen=True)
class Rotate(Transform):
    """`rotate`."""

    degrees: int | float
    function = staticmethod(rotate)


@dataclass(frozen=True)
class RandomRotate(Transform):
    """`random_rotate`."""

    limit: int | float
    function = staticmethod(random_rotate)
    random = True


@dataclass(frozen=True)
class JitterSpace(Transform):
    """`jitter_space`."""

    std: int | float
    function = staticmethod(jitter_space)
    random = True


@dataclass(frozen=True)
class Downsample(Transform):
    """`downsample`."""

    factor: int | float | tuple[int | float, int | float]
    merge: int | None = None
    function = staticmethod(downsample)
