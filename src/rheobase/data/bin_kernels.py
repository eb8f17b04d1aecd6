"""numba loops over events: counting them into frames and channels, voxel grids, latest times, and two filters.

Kept and compiled as the generated kernels are, see `kernels`. `events` is an array of dtype `EVENT`, contiguous, its
times never falling; all addresses were checked when the recording was made. A pixel of flat address k is y * width + x.
"""

import numpy as np
from numba import njit

CACHE: bool
"""Whether to keep the machine code beside this file; set by who runs it."""
OPTIONS = {"error_model": "numpy", "boundscheck": False, "fastmath": False, "nogil": True}
NEVER = np.iinfo(np.int64).min


@njit(cache=CACHE, **OPTIONS)
def first_at(events, t, low):  # type: ignore[no-untyped-def]
    """The least index >= low of an event at time t or later, len(events) if there is none."""
    high = len(events)
    while low < high:
        middle = (low + high) // 2
        if events[middle].t < t:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=CACHE, **OPTIONS)
def time_edges(events, start, window, edges):  # type: ignore[no-untyped-def]
    """Set edges[k] to the first event with t - start >= k * window / T, for T + 1 edges.

    In whole numbers: t >= start + ceil(k * window / T), the product split so that it cannot overflow.
    """
    T = len(edges) - 1
    whole, rest = window // T, window % T
    low = 0
    for k in range(T + 1):
        low = first_at(events, start + k * whole + (k * rest + T - 1) // T, low)
        edges[k] = low


@njit(cache=CACHE, **OPTIONS)
def count_pixels(events, edges, width, limit, frames):  # type: ignore[no-untyped-def]
    """Add one to frames[k, 2 pixels] for each event from edges[k] to edges[k + 1], OFF pixels first, up to limit."""
    pixels = np.uint64(frames.shape[1] // 2)
    wide = np.uint64(width)
    for k in range(len(frames)):
        frame = frames[k]
        for i in range(edges[k], edges[k + 1]):
            event = events[i]
            place = np.uint64(event.p) * pixels + np.uint64(event.y) * wide + np.uint64(event.x)
            if frame[place] < limit:
                frame[place] += frame.dtype.type(1)


@njit(cache=CACHE, **OPTIONS)
def count_channels(events, edges, channel, limit, steps):  # type: ignore[no-untyped-def]
    """Add one to steps[k, channel[x]] for each event from edges[k] to edges[k + 1], up to limit."""
    for k in range(len(steps)):
        step = steps[k]
        for i in range(edges[k], edges[k + 1]):
            place = channel[np.uint64(events[i].x)]
            if step[place] < limit:
                step[place] += step.dtype.type(1)


@njit(cache=CACHE, **OPTIONS)
def add_bilinear(events, width, grid):  # type: ignore[no-untyped-def]
    """Share the polarity (+1 or -1) of each event out between the two nearest bins of grid `[bins, pixels]`."""
    start, span = events[0].t, events[-1].t - events[0].t
    scale = np.float64(len(grid) - 1)
    wide = np.uint64(width)
    for i in range(len(events)):
        event = events[i]
        position = min(np.float64(event.t - start) * scale / span, scale) if span else 0.0
        before = np.uint64(position)
        after = np.float32(position - before)
        sign = np.float32(1) if event.p else np.float32(-1)
        place = np.uint64(event.y) * wide + np.uint64(event.x)
        grid[before, place] += sign * (np.float32(1) - after)
        if after > 0:
            grid[before + np.uint64(1), place] += sign * after


@njit(cache=CACHE, **OPTIONS)
def set_latest(events, low, high, width, latest):  # type: ignore[no-untyped-def]
    """Write the times of the events from low to high into latest `[2 pixels]`, OFF pixels first."""
    pixels, wide = np.uint64(len(latest) // 2), np.uint64(width)
    for i in range(low, high):
        event = events[i]
        latest[np.uint64(event.p) * pixels + np.uint64(event.y) * wide + np.uint64(event.x)] = event.t


@njit(cache=CACHE, **OPTIONS)
def since(t, window):  # type: ignore[no-untyped-def]
    """`t - window`, but later than NEVER."""
    return t - window if t > NEVER + window else NEVER + 1


@njit(cache=CACHE, **OPTIONS)
def supported(events, window, diagonal, latest, keep):  # type: ignore[no-untyped-def]
    """Set keep[i] if a neighbour had an event at most `window` ticks before event i.

    latest `[H + 2, W + 2]` holds the time of each pixel's latest event, NEVER at first, inside a border of NEVER.
    """
    for i in range(len(events)):
        event = events[i]
        x, y = np.uint64(event.x) + np.uint64(1), np.uint64(event.y) + np.uint64(1)
        left, right, up, down = x - np.uint64(1), x + np.uint64(1), y - np.uint64(1), y + np.uint64(1)
        newest = max(max(latest[y, left], latest[y, right]), max(latest[up, x], latest[down, x]))
        if diagonal:
            above = max(latest[up, left], latest[up, right])
            newest = max(newest, max(above, max(latest[down, left], latest[down, right])))
        keep[i] = newest >= since(event.t, window)
        latest[y, x] = event.t


@njit(cache=CACHE, **OPTIONS)
def rested(events, window, by_polarity, width, latest, keep):  # type: ignore[no-untyped-def]
    """Set keep[i] if no kept event of its pixel lies less than `window` ticks before event i.

    latest `[2 pixels]` holds the time of the last kept event, NEVER at first; the second half is for ON, by polarity.
    """
    on, wide = np.uint64(len(latest) // 2 if by_polarity else 0), np.uint64(width)
    for i in range(len(events)):
        event = events[i]
        place = np.uint64(event.p) * on + np.uint64(event.y) * wide + np.uint64(event.x)
        rests = latest[place] <= since(event.t, window)
        keep[i] = rests
        latest[place] = event.t if rests else latest[place]
