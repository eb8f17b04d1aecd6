"""numba loops over the words of Prophesee's raw streams, see `rheobase.data.formats.evt`.

Kept and compiled as the generated kernels are, see `kernels`.
"""

import numpy as np
from numba import njit

CACHE: bool
"""Whether to keep the machine code beside this file; set by who runs it."""
FINE, UNKNOWN, OUTSIDE = 0, 1, 2


@njit(cache=CACHE, nogil=True)
def decode_evt2(words, width, height, write, t, x, y, p):  # type: ignore[no-untyped-def]
    """Count the events, and write them if told to: their number, the index of the first bad word, and why it is bad."""
    high = np.int64(0)
    count, known = 0, False
    for k in range(len(words)):
        word = np.int64(words[k])
        kind = word >> 28
        if kind <= 1:
            if known:
                column, row = (word >> 11) & 0x7FF, word & 0x7FF
                if column >= width or row >= height:
                    return count, k, OUTSIDE
                if write:
                    t[count] = (high << 6) | ((word >> 22) & 0x3F)
                    x[count], y[count], p[count] = column, row, kind == 1
                count += 1
        elif kind == 8:
            new = word & 0xFFFFFFF
            high = high + ((new - high + 0x8000000) & 0xFFFFFFF) - 0x8000000 if known else new
            known = True
        elif kind != 10 and kind != 14 and kind != 15:
            return count, k, UNKNOWN
    return count, -1, FINE


@njit(cache=CACHE, nogil=True)
def decode_evt3(words, width, height, write, t, x, y, p):  # type: ignore[no-untyped-def]
    """Count the events, and write them if told to: their number, the index of the first bad word, and why it is bad."""
    high, low, row, base = np.int64(0), np.int64(0), np.int64(-1), np.int64(-1)
    count, known, on = 0, False, False
    for k in range(len(words)):
        word = np.int64(words[k])
        kind, value = word >> 12, word & 0xFFF
        if kind == 0:
            row = value & 0x7FF
        elif kind == 2:
            if known and row >= 0:
                column = value & 0x7FF
                if column >= width or row >= height:
                    return count, k, OUTSIDE
                if write:
                    t[count] = (high << 12) | low
                    x[count], y[count], p[count] = column, row, value >> 11
                count += 1
        elif kind == 3:
            base, on = value & 0x7FF, value >> 11 == 1
        elif kind == 4 or kind == 5:
            length = 12 if kind == 4 else 8
            if known and row >= 0 and base >= 0:
                for bit in range(length):
                    if (value >> bit) & 1:
                        if base + bit >= width or row >= height:
                            return count, k, OUTSIDE
                        if write:
                            t[count] = (high << 12) | low
                            x[count], y[count], p[count] = base + bit, row, on
                        count += 1
            if base >= 0:
                base += length
        elif kind == 6:
            low = value
        elif kind == 8:
            new = high + ((value - high + 0x800) & 0xFFF) - 0x800 if known else value
            if new != high:
                low = np.int64(0)
            high, known = new, True
        elif kind != 7 and kind != 10 and kind != 14 and kind != 15:
            return count, k, UNKNOWN
    return count, -1, FINE
