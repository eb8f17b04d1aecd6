"""Events from still images: an image moves before a sensor whose pixels tell of changes of log intensity.

    import numpy as np
    from rheobase.data.simulate import MovingImageSensor

    sensor = MovingImageSensor()
    events = sensor.record(np.random.default_rng(0).random((28, 28)), seed=0)  # Events, in microseconds
    frames = sensor.frames(np.zeros((5, 28, 28), np.uint8), T=10, seeds=range(5))  # uint8 [5, 10, 2, 34, 34]

So any set of images becomes a set of events. Such a set is generated: name it so, not after a recorded one.

Sources: P. Lichtsteiner, C. Posch, T. Delbruck, "A 128x128 120 dB 15 us latency asynchronous temporal contrast vision
sensor", IEEE JSSC 43(2), 2008 (the pixel); H. Rebecq, D. Gehrig, D. Scaramuzza, "ESIM: an open event camera simulator",
CoRL 2018 (events between rendered steps); G. Orchard, A. Jayawant, G. K. Cohen, N. Thakor, "Converting static image
datasets to spiking neuromorphic datasets using saccades", Frontiers in Neuroscience 9, 437, 2015 (the motion).
"""

import hashlib
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import numpy as np
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from rheobase.data.events import EVENT, Events
from rheobase.data.recordings import Recordings

_SEED_LIMIT = 2**32
_CONTRAST_UNIT = 2**16
_CHUNK = 256


@dataclass(frozen=True)
class Path:
    """The way of an image over the sensor: straight legs through waypoints, each taking `leg_us` microseconds.

    On a leg the speed rises and falls linearly, with twice the mean at the middle, as the eye's does in a saccade;
    `steady` makes it constant.

    Args:
        waypoints: shifts (right, down) of the image from the middle of the sensor, in pixels; two or more.
        leg_us: duration of a leg in microseconds.
        steady: constant speed.

    Raises:
        ValueError: fewer than two waypoints, a shift that is not finite, leg_us < 1.
    """

    waypoints: tuple[tuple[float, float], ...]
    leg_us: int = 100_000
    steady: bool = False

    def __post_init__(self) -> None:
        finite = all(len(point) == 2 and all(map(math.isfinite, point)) for point in self.waypoints)
        if len(self.waypoints) < 2 or not finite or self.leg_us < 1:
            raise ValueError(
                "Path: expected two or more waypoints (right, down) of finite pixels and leg_us >= 1, "
                f"got waypoints={self.waypoints}, leg_us={self.leg_us}"
            )

    @property
    def duration_us(self) -> int:
        """Microseconds from the first waypoint to the last."""
        return self.leg_us * (len(self.waypoints) - 1)

    def positions(self, times_us: Int64[np.ndarray, " S"]) -> Float[np.ndarray, "S 2"]:
        """Shifts (right, down) in pixels at times in [0, duration_us]."""
        points = np.array(self.waypoints, np.float64)
        leg = np.minimum(times_us // self.leg_us, len(points) - 2)
        share = (times_us - leg * self.leg_us) / self.leg_us
        if not self.steady:
            share = np.where(share < 0.5, 2 * share * share, 1 - 2 * (1 - share) * (1 - share))
        return points[leg] + share[:, None] * (points[leg + 1] - points[leg])


def saccades(extent: float = 5.0, leg_us: int = 100_000) -> Path:
    """Three saccades along an isosceles triangle of base and height `extent` pixels, back to its start (N-MNIST)."""
    half = extent / 2
    return Path(((-half, -half), (0.0, half), (half, -half), (-half, -half)), leg_us)


def translate(right: float, down: float, duration_us: int = 100_000) -> Path:
    """One way at constant speed: the image moves by (right, down) pixels, half of it before the middle."""
    return Path(((-right / 2, -down / 2), (right / 2, down / 2)), duration_us, steady=True)


def jitter(extent: float = 2.0, count: int = 12, leg_us: int = 25_000, seed: int = 0) -> Path:
    """`count` microsaccades from the middle to places in a square of `extent` pixels, uniform, drawn from `seed`."""
    drawn = np.random.RandomState(seed).uniform(-extent / 2, extent / 2, (count, 2))
    return Path(((0.0, 0.0), *((float(x), float(y)) for x, y in drawn)), leg_us)


@dataclass(frozen=True)
class MovingImageSensor:
    r"""An event camera before which an image of grey levels moves on a dark ground.

    The intensity I of a pixel is read from the image at the place the pixel sees, by bilinear interpolation. With
    $L = \ln(I + \epsilon)$ the pixel gives an ON (OFF) event whenever L has risen (fallen) by its threshold since its
    last event; its reference then moves by one threshold. L is followed in steps of `step_us` and taken as linear
    between them; an event has the last whole microsecond before the crossing. Events in the `refractory_us` after one
    are lost, the reference moves all the same. Noise comes on top: a Poisson process of `noise_hz` per pixel.

    All is computed in integers (positions in 1/1024 pixel, L in 2**-16), noise by a counter-based hash of the seed of
    the image, so the same bits come out on every machine.

    The defaults were set by MNIST: its first 1000 training images give 4077 events each in 0.3 s (5th to 95th
    percentile 2525 to 5297, 51 % ON); a real N-MNIST sample has 4325 in 0.31 s (50 % ON), among them some 0.6 per
    second and pixel where nothing passed.

    Args:
        sensor: width and height.
        path: the motion.
        theta: mean threshold of contrast, of L.
        eps: dark intensity, of a scale where white is 1.
        mismatch: standard deviation of a pixel's two thresholds over theta; normal, drawn once from `seed`, at least
            a tenth of theta.
        refractory_us: microseconds without events after an event.
        noise_hz: background events per second and pixel, half of them ON.
        step_us: microseconds between two simulated steps.
        seed: of the mismatch.

    Raises:
        ValueError: a size outside [1, 65536], theta, eps, or step_us not positive, theta below 0.001,
            mismatch, refractory_us or noise_hz negative, seed outside [0, 2**32), a path of over 2**30 microseconds.
    """

    sensor: tuple[int, int] = (34, 34)
    path: Path = field(default_factory=saccades)
    theta: float = 0.4
    eps: float = 0.1
    mismatch: float = 0.03
    refractory_us: int = 500
    noise_hz: float = 0.5
    step_us: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        expected = {
            "sensor, width and height in [1, 65536]": all(1 <= size <= 2**16 for size in self.sensor),
            "theta in [0.001, inf)": 0.001 <= self.theta < math.inf,
            "eps in (0, inf)": 0 < self.eps < math.inf,
            "mismatch in [0, inf)": 0 <= self.mismatch < math.inf,
            "refractory_us >= 0": self.refractory_us >= 0,
            "noise_hz in [0, inf)": 0 <= self.noise_hz < math.inf,
            "step_us >= 1": self.step_us >= 1,
            "seed in [0, 2**32)": 0 <= self.seed < _SEED_LIMIT,
            "path, at most 2**30 us long": self.path.duration_us <= 2**30,
        }
        for what, holds in expected.items():
            if not holds:
                name = what.split()[0].rstrip(",")
                raise ValueError(f"MovingImageSensor: expected {what}, got {name}={getattr(self, name)}")

    def record(self, image: Float[np.ndarray, "H W"], seed: int) -> Events:
        """The events of one image of intensities in [0, 1], rounded to 256 grey levels.

        The image lies in the middle of the sensor, half a pixel to the upper left where it cannot; what leaves the
        sensor is not seen. Times are microseconds in [0, path.duration_us), sorted; events of one time stand by row,
        then column, OFF before ON.

        Args:
            image: intensities in [0, 1].
            seed: of the noise, in [0, 2**32).

        Raises:
            ValueError: an image that is not `[H, W]` in [0, 1], a seed outside [0, 2**32).
        """
        if image.ndim != 2 or not image.size or not (image.min() >= 0 and image.max() <= 1):
            raise ValueError(
                f"MovingImageSensor.record: expected an image [H, W] of intensities in [0, 1], got {list(image.shape)} "
                f"of {image.dtype}" + (f" in [{image.min():g}, {image.max():g}]" if image.size else "")
            )
        return self._recorded(np.rint(image * 255).astype(np.uint8), seed)

    def frames(
        self, images: UInt8[np.ndarray, "N H W"], T: int, seeds: Sequence[int] | np.ndarray, threads: int = 1
    ) -> UInt8[np.ndarray, "N T 2 height width"]:
        """The events of N images of bytes, counted in T windows of equal length: OFF, ON on axis 2; 255 at most.

        Equals counting `record(image / 255, seed)`, the event at t in window `t * T // duration_us`, without making
        the recordings: 0.9 ms an image of MNIST by default, 63 s for all 70000, on one core of a server.

        Args:
            images: bytes, 255 is intensity 1.
            T: windows.
            seeds: one per image, in [0, 2**32).
            threads: the images are shared among so many.

        Raises:
            ValueError: images not uint8 `[N, H, W]`, T < 1, a number of seeds other than N or one outside [0, 2**32).
        """
        if images.dtype != np.uint8 or images.ndim != 3 or 0 in images.shape[1:] or T < 1:
            raise ValueError(
                "MovingImageSensor.frames: expected images uint8 [N, H, W] and T >= 1, "
                f"got {images.dtype} {list(images.shape)} and T={T}"
            )
        checked = np.asarray(seeds, np.int64).reshape(-1)
        if len(checked) != len(images) or (len(checked) and not 0 <= checked.min() <= checked.max() < _SEED_LIMIT):
            raise ValueError(
                f"MovingImageSensor.frames: expected {len(images)} seeds in [0, 2**32), one per image, "
                f"got {len(checked)}" + (f" in {checked.min()} .. {checked.max()}" if len(checked) else "")
            )
        from rheobase.data.moving_image import frames_of

        width, height = self.sensor
        out = np.zeros((len(images), T, 2, height * width), np.uint8)
        made = _prepared(self, images.shape[1:])

        def fill(start: int) -> None:
            part = slice(start, start + _CHUNK)
            frames_of(
                images[part], np.empty(made.canvas, np.int64), made.corner, checked[part], *made.arguments, out[part]
            )

        starts = range(0, len(images), _CHUNK)
        if threads > 1:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(fill, starts))
        else:
            for start in starts:
                fill(start)
        return out.reshape(len(images), T, 2, height, width)

    def recordings(self, images: UInt8[np.ndarray, "N H W"], y: Int64[Tensor, " N"], first_seed: int = 0) -> Recordings:
        """A set of images as a set of recordings; image k is recorded with the seed first_seed + k."""
        if len(images) != len(y):
            raise ValueError(f"MovingImageSensor.recordings: got {len(images)} images, but {len(y)} labels")
        digest = hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()
        key = f"{self!r} first_seed={first_seed} images {list(images.shape)} sha256 {digest}"
        return Recordings(partial(_read, self, images, first_seed), y, key)

    def _recorded(self, image: np.ndarray, seed: int) -> Events:
        if not 0 <= seed < _SEED_LIMIT:
            raise ValueError(f"MovingImageSensor.record: seed must lie in [0, 2**32), got {seed}")
        from rheobase.data.moving_image import PIXEL_BITS, TIME_SHIFT, events_of

        made = _prepared(self, image.shape)
        found, count = np.empty(0, np.int64), 1 << 14
        while count > len(found):
            found = np.empty(count, np.int64)
            count = events_of(image, np.empty(made.canvas, np.int64), made.corner, seed, *made.arguments, found)
        numbers = np.sort(found[:count])
        array = np.empty(count, EVENT)
        array["t"] = numbers >> TIME_SHIFT
        array["y"], array["x"] = np.divmod((numbers >> 1) & (2**PIXEL_BITS - 1), self.sensor[0])
        array["p"] = numbers & 1
        return Events(array, self.sensor, "us")


def _read(sensor: MovingImageSensor, images: np.ndarray, first_seed: int, k: int) -> Events:
    return sensor._recorded(images[k], first_seed + k)


@dataclass(frozen=True, eq=False)
class _Prepared:
    """What the kernels read besides images and seeds: sizes of the canvas, place of the image on it, tables."""

    canvas: tuple[int, int]
    corner: np.ndarray
    arguments: tuple[Any, ...]


@lru_cache(maxsize=8)
def _prepared(sensor: MovingImageSensor, shape: tuple[int, int]) -> _Prepared:
    from rheobase.data.moving_image import LEVELS, POSITION_BITS

    width, height = sensor.sensor
    duration = sensor.path.duration_us
    times = np.append(np.arange(0, duration, sensor.step_us), duration)
    # Pixel (x, y) sees the image at (x, y) minus the shift of the image.
    margin = np.array([(width - shape[1]) // 2, (height - shape[0]) // 2])
    places = np.rint(-sensor.path.positions(times) * 2**POSITION_BITS).astype(np.int64)
    cell, fraction = places >> POSITION_BITS, places & (2**POSITION_BITS - 1)
    # The canvas holds the image and all that any pixel sees; its corner lies at column and row `low` of the sensor.
    low = np.minimum(cell.min(axis=0), margin)
    high = np.maximum(cell.max(axis=0) + np.array((width + 1, height + 1)), margin + shape[::-1])
    level = np.log(np.arange(LEVELS + 1) / LEVELS + sensor.eps)
    drawn = np.random.RandomState(sensor.seed).standard_normal((2, height, width))
    thresholds = sensor.theta * np.maximum(1 + sensor.mismatch * drawn, 0.1) * _CONTRAST_UNIT
    rise, fall = np.rint(thresholds).astype(np.int64)
    return _Prepared(
        canvas=(int(high[1] - low[1]), int(high[0] - low[0])),
        corner=(margin - low)[::-1].copy(),
        arguments=(
            np.rint(level * _CONTRAST_UNIT).astype(np.int32),
            cell - low,
            fraction,
            np.append((cell.min(axis=0) - low)[::-1], np.ptp(cell, axis=0)[::-1] + 2),
            times,
            rise,
            fall,
            sensor.refractory_us,
            _poisson_chances(sensor.noise_hz * width * height * duration / 1e6),
        ),
    )


def _poisson_chances(mean: float) -> np.ndarray:
    """`P(K <= k) * 2**32` for k = 0, 1, ... of the Poisson distribution; empty if its mean is 0."""
    if mean == 0:
        return np.empty(0, np.int64)
    from scipy.special import pdtr

    return np.rint(pdtr(np.arange(int(mean + 12 * math.sqrt(mean) + 20)), mean) * 2**32).astype(np.int64)
