"""Events as arrays: frames of counts, voxel grids, time surfaces, and spikes of channels.

    from rheobase.data import ToFrames, to_frames

    frames = to_frames(events, T=16)  # uint8 [16, 2, H, W]: OFF, ON
    frames = ToFrames(16, by="count")(events)  # the same as a value, to compose and to keep

Counts stay at the largest number that their dtype counts to: they never wrap.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float32, Shaped
from numpy.typing import DTypeLike

from rheobase.data.events import Events
from rheobase.data.kernels import kernels
from rheobase.data.rows import contiguous
from rheobase.data.transforms.transform import Transform

Cut = Literal["time", "count"]

LIMITS = {"uint8": 2**8 - 1, "uint16": 2**16 - 1, "int32": 2**31 - 1, "float32": 2**24}
"""The dtypes of counts, and how far each one counts without a gap."""


def to_frames(
    events: Events,
    T: int,
    *,
    by: Cut = "time",
    window: int | None = None,
    start: int | None = None,
    dtype: DTypeLike = np.uint8,
) -> Shaped[np.ndarray, "T 2 H W"]:
    r"""Count events per frame, polarity and pixel, polarity 0 being OFF and 1 ON.

    by="time": frame $k$ of $T$ counts events with $\lfloor (t - t_0) T / w \rfloor = k$, in exact whole numbers. An
    event on an edge belongs to the later frame; those before $t_0$ and from $t_0 + w$ on are left out. Without
    a window, w is the time from the start to the last event, which belongs to the last frame (to the first if w = 0).

    by="count": frame k counts the events $\lfloor kN/T \rfloor$ to $\lfloor (k+1)N/T \rfloor$, so that frames differ by
    at most one event and the remainder is spread evenly.

    Args:
        events: a recording; without events all frames are empty.
        T: frames.
        by: what the frames share equally: time or events.
        window: w, ticks; only by time.
        start: $t_0$, ticks; the first event by default; only by time.
        dtype: uint8, uint16, int32 or float32.

    Raises:
        ValueError: T < 1, no such `by`, window < 1, a window or a start by count, another dtype.
    """
    return frames_of([events], T, by=by, window=window, start=start, dtype=dtype)[0]


def frames_of(
    recordings: Sequence[Events],
    T: int,
    *,
    by: Cut = "time",
    window: int | None = None,
    start: int | None = None,
    dtype: DTypeLike = np.uint8,
) -> Shaped[np.ndarray, "N T 2 H W"]:
    """`to_frames` of several recordings of one sensor, in one array.

    Raises:
        ValueError: as `to_frames`; no recordings, or recordings of different sensors.
    """
    _check_cut(T, by, window, start)
    dtype, limit = _counts(dtype)
    if len({events.sensor for events in recordings}) != 1:
        sensors = sorted({events.sensor for events in recordings})
        raise ValueError(f"frames_of: expected recordings of one sensor, got {sensors or 'none'}; crop or downsample")
    width, height = recordings[0].sensor
    frames = np.zeros((len(recordings), T, 2 * height * width), dtype)
    for events, counts in zip(recordings, frames, strict=True):
        edges = _edges(events, T, by, window, start)
        kernels().count_pixels(contiguous(events.array), edges, width, limit, counts)
    return frames.reshape(len(recordings), T, 2, height, width)


def time_frames(
    events: Events, width_ticks: int, *, start: int | None = None, dtype: DTypeLike = np.uint8
) -> Shaped[np.ndarray, "T 2 H W"]:
    """Count events in frames of `width_ticks` each, as many as reach the last event; none if there are no events.

    Frame k counts events with `start + k * width_ticks <= t < start + (k + 1) * width_ticks`.

    Raises:
        ValueError: width_ticks < 1, a dtype that `to_frames` does not take.
    """
    if width_ticks < 1:
        raise ValueError(f"time_frames: width_ticks must be at least 1, got {width_ticks}")
    first = _start(events, start)
    T = max(0, (int(events.t[-1]) - first) // width_ticks + 1) if len(events) else 0
    if T == 0:
        return np.zeros((0, 2, *events.sensor[::-1]), _counts(dtype)[0])
    return to_frames(events, T, window=T * width_ticks, start=first, dtype=dtype)


def to_voxel_grid(events: Events, bins: int) -> Float32[np.ndarray, "bins H W"]:
    r"""Polarities shared out bilinearly in time between bins (Zhu et al. 2019, eq. 1 and 2).

    $V(b, y, x) = \sum_i p_i \max(0, 1 - |b - t^*_i|)$ over the events of the pixel, $p_i = \pm 1$, and
    $t^*_i = (B - 1)(t_i - t_1) / (t_N - t_1)$, 0 if all times are equal.

    Raises:
        ValueError: bins < 1.
    """
    if bins < 1:
        raise ValueError(f"to_voxel_grid: bins must be at least 1, got {bins}")
    width, height = events.sensor
    grid = np.zeros((bins, height * width), np.float32)
    if len(events):
        kernels().add_bilinear(contiguous(events.array), width, grid)
    return grid.reshape(bins, height, width)


def to_time_surface(
    events: Events, tau: int | float, *, at: Sequence[int] | None = None, T: int | None = None
) -> Float32[np.ndarray, "T 2 H W"]:
    r"""How recently each pixel fired, per polarity: $e^{-(t - t_\mathrm{last}) / \tau}$ (Lagorce et al. 2017, HOTS).

    $t_\mathrm{last}$ is the pixel's latest event at or before t; where there is none, the surface is 0.

    Args:
        events: a recording.
        tau: ticks.
        at: the times t, never falling, in ticks.
        T: in place of `at`: this many surfaces, at the ends of T equal parts of the time from first to last event,
            $t_1 + \lceil kw/T \rceil$. Without both there is one, at the last event.

    Raises:
        ValueError: tau is not positive and finite; both `at` and T; T < 1, or times that fall.
    """
    if not 0 < tau < np.inf:
        raise ValueError(f"to_time_surface: tau is a time constant in ticks, positive and finite, got {tau}")
    if at is not None and T is not None:
        raise ValueError(f"to_time_surface: got at={list(at)} and T={T}; expected one of them")
    if at is None:
        count = 1 if T is None else T
        if count < 1:
            raise ValueError(f"to_time_surface: T must be at least 1, got {count}")
        at = [_start(events, None) - (-k * events.duration // count) for k in range(1, count + 1)]
    if any(later < earlier for earlier, later in pairwise(at)):
        raise ValueError(f"to_time_surface: expected times that never fall, got at={list(at)}")
    loops, array, (width, height) = kernels(), contiguous(events.array), events.sensor
    latest = np.full(2 * height * width, loops.NEVER)
    surfaces = np.zeros((len(at), len(latest)), np.float32)
    done = 0
    for surface, time in zip(surfaces, at, strict=True):
        stop = loops.first_at(array, time + 1, done)
        loops.set_latest(array, done, stop, width, latest)
        done = stop
        fired = latest != loops.NEVER
        surface[fired] = np.exp(((latest[fired] - time) / tau).astype(np.float32))
    return surfaces.reshape(len(at), 2, height, width)


def to_spike_tensor(
    events: Events,
    T: int,
    channels: int | None = None,
    *,
    window: int | None = None,
    start: int | None = None,
    binary: bool = False,
    dtype: DTypeLike = np.uint8,
) -> Shaped[np.ndarray, "T C"]:
    r"""Count the spikes of each channel per step: for sound, with channels along x; polarity does not matter.

    Steps cut the time as `to_frames` does by time. Spoken digits of a cochlea (SHD, 700 channels) are usually taken
    from start=0 with a fixed window, say 1.4 s, in 100 steps, and 5 neighbouring channels as one: `channels=140`.

    Args:
        events: a recording on a sensor of one row.
        T: steps.
        channels: C; channel x goes to $\lfloor x C / \mathrm{width} \rfloor$. The sensor's width by default.
        window: ticks; the recording's own span by default.
        start: ticks; the first event by default.
        binary: whether several spikes of a channel in a step are one.
        dtype: uint8, uint16, int32 or float32.

    Raises:
        ValueError: a sensor of several rows; channels outside [1, width]; as `to_frames`.
    """
    _check_cut(T, "time", window, start)
    dtype, limit = _counts(dtype)
    width, height = events.sensor
    if height != 1:
        raise ValueError(
            f"to_spike_tensor: channels lie along x on a sensor of one row, got {width} x {height}; to_frames has rows"
        )
    C = width if channels is None else channels
    if not 1 <= C <= width:
        raise ValueError(f"to_spike_tensor: channels must lie in [1, {width}], the sensor's width, got {C}")
    steps = np.zeros((T, C), dtype)
    channel = np.arange(width, dtype=np.uint64) * np.uint64(C) // np.uint64(width)
    edges = _edges(events, T, "time", window, start)
    kernels().count_channels(contiguous(events.array), edges, channel, dtype.type(1) if binary else limit, steps)
    return steps


def _counts(dtype: DTypeLike) -> tuple[np.dtype, np.generic]:
    """The dtype, and the largest count in it."""
    dtype = np.dtype(dtype)
    if dtype.name not in LIMITS:
        raise ValueError(f"counts cannot be {dtype}; expected one of {', '.join(LIMITS)}")
    return dtype, dtype.type(LIMITS[dtype.name])


def _check_cut(T: int, by: str, window: int | None, start: int | None) -> None:
    if T < 1:
        raise ValueError(f"frames: T must be at least 1, got {T}")
    if by not in get_args(Cut):
        raise ValueError(f"frames: by is {by!r}; expected one of {', '.join(get_args(Cut))}")
    if window is not None and window < 1:
        raise ValueError(f"frames: window must be at least 1 tick, got {window}")
    if by == "count" and (window is not None or start is not None):
        raise ValueError(
            f"frames: by count the whole recording is cut, got window={window} and start={start}; "
            "take part of it first: events.between(start, stop)"
        )


def _start(events: Events, start: int | None) -> int:
    """The given start, else the first event's time, else 0."""
    return start if start is not None else int(events.t[0]) if len(events) else 0


def _edges(events: Events, T: int, by: Cut, window: int | None, start: int | None) -> np.ndarray:
    """Where the frames begin and end: int64 `[T + 1]`, frame k holding events edges[k] to edges[k + 1]."""
    N = len(events)
    if by == "count":
        return np.arange(T + 1) * N // T
    edges = np.zeros(T + 1, np.int64)
    if N:
        first = _start(events, start)
        span = int(events.t[-1]) - first
        kernels().time_edges(contiguous(events.array), first, max(0, span) if window is None else window, edges)
        if window is None:
            edges[-1] = N
            if span == 0:
                edges[1:] = N
    return edges


@dataclass(frozen=True)
class ToFrames(Transform):
    """`to_frames`; the dtype is kept by its name."""

    T: int
    by: Cut = "time"
    window: int | None = None
    start: int | None = None
    dtype: str = "uint8"
    function = staticmethod(to_frames)


@dataclass(frozen=True)
class TimeFrames(Transform):
    """`time_frames`; the dtype is kept by its name."""

    width_ticks: int
    start: int | None = None
    dtype: str = "uint8"
    function = staticmethod(time_frames)


@dataclass(frozen=True)
class ToVoxelGrid(Transform):
    """`to_voxel_grid`."""

    bins: int
    function = staticmethod(to_voxel_grid)


@dataclass(frozen=True)
class ToTimeSurface(Transform):
    """`to_time_surface`."""

    tau: int | float
    at: tuple[int, ...] | None = None
    T: int | None = None
    function = staticmethod(to_time_surface)


@dataclass(frozen=True)
class ToSpikeTensor(Transform):
    """`to_spike_tensor`; the dtype is kept by its name."""

    T: int
    channels: int | None = None
    window: int | None = None
    start: int | None = None
    binary: bool = False
    dtype: str = "uint8"
    function = staticmethod(to_spike_tensor)
