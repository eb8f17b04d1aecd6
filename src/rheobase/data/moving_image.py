"""numba kernels of the moving-image sensor: integers only, so every machine gives the same events.

An event is one int64, `t << 33 | pixel << 1 | polarity`, pixel = row * width + column: sorting the numbers sorts by
time, then row, then column, OFF before ON. Positions count in 1/1024 pixel, log intensities in 2**-16, times in
microseconds.

Run from a copy in `$RHEOBASE_KERNELS`, where numba keeps the machine code; see `simulate`.
"""

from typing import no_type_check

import numpy as np
from numba import njit

CACHE: bool
"""Whether to keep the machine code beside this file; set by who runs it."""
OPTIONS = {"error_model": "numpy", "boundscheck": False, "fastmath": False, "nogil": True, "cache": CACHE}
PIXEL_BITS, TIME_SHIFT = 32, 33
POSITION_BITS = 10
LEVELS = 255 << 8
"""Greatest intensity after interpolation: a byte with eight more binary digits."""
_ONE = 1 << POSITION_BITS
_INTERPOLATED_SHIFT = 2 * POSITION_BITS - 8
_GOLDEN, _MIX_1, _MIX_2 = (
    np.uint64(0x9E3779B97F4A7C15),
    np.uint64(0xBF58476D1CE4E5B9),
    np.uint64(0x94D049BB133111EB),
)
_S27, _S30, _S31, _S32, _U1 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32), np.uint64(1)
_LOW_31 = np.uint64(0x7FFFFFFF)


@njit(**OPTIONS)
@no_type_check
def _drawn(seed, counter):
    """The 64 random bits number `counter` of a stream: SplitMix64 (Steele, Lea, Flood 2014), read at any place."""
    z = seed + (np.uint64(counter) + _U1) * _GOLDEN
    z = (z ^ (z >> _S30)) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    return z ^ (z >> _S31)


@njit(**OPTIONS)
@no_type_check
def _still(canvas, top, left, height, width):
    """Whether a window of the canvas has one value only."""
    first = canvas[top, left]
    for row in range(top, top + height):
        for column in range(left, left + width):
            if canvas[row, column] != first:
                return False
    return True


@njit(**OPTIONS)
@no_type_check
def _moved(canvas, level, cell, fraction, reach, times, rise, fall, refractory, found):
    """Write the events of all pixels into `found` and return how many there are, also if they are more than fit in."""
    height, width = rise.shape
    steps = len(times) - 1
    count = 0
    for y in range(height):
        for x in range(width):
            if _still(canvas, y + reach[0], x + reach[1], reach[2], reach[3]):
                continue
            up, down = rise[y, x], fall[y, x]
            before, reference, silent_until = np.int64(0), np.int64(0), np.int64(-1)
            for s in range(steps + 1):
                row, column, fx, fy = y + cell[s, 1], x + cell[s, 0], fraction[s, 0], fraction[s, 1]
                upper = (_ONE - fx) * canvas[row, column] + fx * canvas[row, column + 1]
                lower = (_ONE - fx) * canvas[row + 1, column] + fx * canvas[row + 1, column + 1]
                now = np.int64(level[((_ONE - fy) * upper + fy * lower) >> _INTERPOLATED_SHIFT])
                if s == 0:
                    reference = now
                while now - reference >= up or reference - now >= down:
                    p = np.int64(now > reference)
                    reference += up if p else -down
                    t = times[s - 1] + (abs(reference - before) * (times[s] - times[s - 1]) - 1) // abs(now - before)
                    if t >= silent_until:
                        if count < len(found):
                            found[count] = (t << TIME_SHIFT) | ((y * width + x) << 1) | p
                        count += 1
                        silent_until = t + refractory
                before = now
    return count


@njit(**OPTIONS)
@no_type_check
def _background(seed, chances, pixels, duration, found, count):
    """Add the noise of one image: a Poisson number of events, each anywhere, at any time, ON or OFF."""
    drawn, noise = np.int64(_drawn(seed, 0) >> _S32), 0
    while noise < len(chances) and chances[noise] <= drawn:
        noise += 1
    for k in range(noise):
        if count < len(found):
            bits = _drawn(seed, k + 1)
            t = np.int64(((bits >> _S32) * np.uint64(duration)) >> _S32)
            pixel = np.int64((((bits >> _U1) & _LOW_31) * np.uint64(pixels)) >> _S31)
            found[count] = (t << TIME_SHIFT) | (pixel << 1) | np.int64(bits & _U1)
        count += 1
    return count


@njit(**OPTIONS)
@no_type_check
def events_of(image, canvas, corner, seed, level, cell, fraction, reach, times, rise, fall, refractory, chances, found):
    """Put the image on the dark canvas, write its events, unsorted, into `found` and return how many there are.

    `corner` is the row and column of the image on the canvas, `reach` the row, column, height and width of what the
    upper left pixel sees of it. Where more events come than fit in, the first ones are written.
    """
    for row in range(canvas.shape[0]):
        for column in range(canvas.shape[1]):
            canvas[row, column] = 0
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            canvas[row + corner[0], column + corner[1]] = image[row, column]
    count = _moved(canvas, level, cell, fraction, reach, times, rise, fall, refractory, found)
    if len(chances):
        count = _background(_drawn(np.uint64(seed), 0), chances, rise.size, times[-1], found, count)
    return count


@njit(**OPTIONS)
@no_type_check
def frames_of(images, canvas, corner, seeds, level, cell, fraction, reach, times, rise, fall, refractory, chances, out):
    """Count the events of every image `[N, H, W]` into `out`, zeros `[N, T, 2, pixels]`, OFF first; 255 at most."""
    found = np.empty(1 << 14, np.int64)
    T, duration, pixel_mask = out.shape[1], times[-1], (np.int64(1) << PIXEL_BITS) - 1
    for n in range(len(images)):
        while True:
            count = events_of(
                images[n],
                canvas,
                corner,
                seeds[n],
                level,
                cell,
                fraction,
                reach,
                times,
                rise,
                fall,
                refractory,
                chances,
                found,
            )
            if count <= len(found):
                break
            found = np.empty(2 * count, np.int64)
        for k in range(count):
            t, pixel, p = found[k] >> TIME_SHIFT, (found[k] >> 1) & pixel_mask, found[k] & 1
            step = (t * T) // duration
            if out[n, step, p, pixel] < 255:
                out[n, step, p, pixel] += 1
