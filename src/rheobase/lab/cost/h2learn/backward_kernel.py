"""numba loop of the backward engine: outputs that are needed, each from the non-zero inputs of its receptive field.

Kept and compiled as the generated kernels are, see `rheobase.scan.kernels`.
"""

import numpy as np
from numba import njit

CACHE: bool
"""Whether to keep the machine code beside this file; set by who runs it."""
OPTIONS = {"error_model": "numpy", "boundscheck": False, "fastmath": False, "nogil": True}


@njit(cache=CACHE, **OPTIONS)
def transposed(gradient, weight, needed, settings, out, work):  # type: ignore[no-untyped-def]
    """Set out and work where needed: the sum of weight * gradient over non-zero gradients, and how many they were.

    gradient `[S, H', W', Cout]`, weight `[rows, columns, Cin, Cout]`, needed, out and work `[S, Cin, H, W]`; settings
    are stride, padding and dilation, rows then columns. A sum runs over (kernel row, kernel column, Cout), the last
    fastest.
    """
    samples, high, wide, channels = gradient.shape
    rows, columns, inputs, _ = weight.shape
    _, _, height, width = needed.shape
    stride_y, stride_x, pad_y, pad_x, step_y, step_x = settings
    values = np.empty((high, wide, channels), gradient.dtype)
    places = np.empty((high, wide, channels), np.int32)
    counts = np.empty((high, wide), np.int32)
    for s in range(samples):
        for y in range(high):
            for x in range(wide):
                n = 0
                for c in range(channels):
                    value = gradient[s, y, x, c]
                    if value != 0:
                        values[y, x, n] = value
                        places[y, x, n] = c
                        n += 1
                counts[y, x] = n
        for i in range(inputs):
            for y in range(height):
                for x in range(width):
                    if not needed[s, i, y, x]:
                        continue
                    total = gradient.dtype.type(0)
                    done = 0
                    for r in range(rows):
                        at_y = y + pad_y - r * step_y
                        if at_y < 0 or at_y % stride_y or at_y // stride_y >= high:
                            continue
                        for q in range(columns):
                            at_x = x + pad_x - q * step_x
                            if at_x < 0 or at_x % stride_x or at_x // stride_x >= wide:
                                continue
                            n = counts[at_y // stride_y, at_x // stride_x]
                            value = values[at_y // stride_y, at_x // stride_x]
                            place = places[at_y // stride_y, at_x // stride_x]
                            row = weight[r, q, i]
                            for k in range(n):
                                total += row[place[k]] * value[k]
                            done += n
                    out[s, i, y, x] = total
                    work[s, i, y, x] = done
