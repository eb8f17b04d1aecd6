"""numba kernel of products by weights in CSR, for values in fp32, channels side by side.

Compiled, cached and called like the generated kernels, see `rheobase.scan.kernels` and `native`. Images of a tile are
turned into planes, one for each channel and each remainder of their coordinates by the strides, with their padding;
several small images lie in one plane, one behind the other. A weight then reads a run of a plane, shifted by its tap,
for all outputs of its channel at once; what runs over the borders falls on places that are no outputs.

Slots: threads, taken, blocks (as of generated kernels; a block is one tile), addresses of x, of first, column and value
of the weights, of bias and output, images in a tile, then N, C, H, W, outputs, and of each of the following that of y
and of x: size of the output, kernel, stride, padding, dilation; groups; size of a plane, again y and x.
"""

import numpy as np
from numba import carray, cfunc, njit

from rheobase.scan.native import float32_at, take
from rheobase.scan.native import uint32_at as column_at
from rheobase.scan.native import uint64_at as first_at

CACHE: bool
"""Whether to keep the machine code beside this file; set by who runs it."""
OPTIONS = {"error_model": "numpy", "boundscheck": False, "fastmath": False}
ALL = (1 << 48,)
BLOCK = 512
"""Places of a plane that are summed at a time: the sums stay in the first-level cache."""


@njit(**OPTIONS)
def turn(x, planes, first, images, sizes):  # type: ignore[no-untyped-def]
    """Lay images `[H, W, C]` from `first` on as planes `[C, stride_y, stride_x, images, plane_height, plane_width]`."""
    C, H, W = sizes[1], sizes[2], sizes[3]
    stride_y, stride_x, pad_y, pad_x, high, wide = sizes[9], sizes[10], sizes[11], sizes[12], sizes[16], sizes[17]
    length = images * high * wide
    step = stride_y * stride_x * length
    planes[:] = 0.0
    for n in range(images):
        for y in range(H):
            Y = y + pad_y
            for column in range(W):
                X = column + pad_x
                phase = (Y % stride_y) * stride_x + X % stride_x
                place = phase * length + (n * high + Y // stride_y) * wide + X // stride_x
                start = (((first + n) * H + y) * W + column) * C
                pixel = x[start : start + C]
                for c in range(C):
                    planes[place + c * step] = pixel[c]


@njit(**OPTIONS)
def shifts(first, column, images, sizes, found):  # type: ignore[no-untyped-def]
    """Where the run of each entry begins among the planes."""
    C, outputs, kernel_x, groups = sizes[1], sizes[4], sizes[8], sizes[15]
    stride_y, stride_x, high, wide = sizes[9], sizes[10], sizes[16], sizes[17]
    length, each = images * high * wide, C // groups
    for o in range(outputs):
        group = o // (outputs // groups)
        for e in range(np.int64(first[o]), np.int64(first[o + 1])):
            tap, c = np.int64(column[e]) // each, group * each + np.int64(column[e]) % each
            Y, X = tap // kernel_x * sizes[13], tap % kernel_x * sizes[14]
            plane = (c * stride_y + Y % stride_y) * stride_x + X % stride_x
            found[e] = plane * length + Y // stride_y * wide + X // stride_x


@njit(**OPTIONS)
def add_runs(planes, start, value, begin, end, place, total):  # type: ignore[no-untyped-def]
    """Add value[e] times the run of each entry, from `place` on, to the sums."""
    n = len(total)
    e = begin
    while e + 4 <= end:
        v0, v1, v2, v3 = value[e], value[e + 1], value[e + 2], value[e + 3]
        r0 = planes[start[e] + place : start[e] + place + n]
        r1 = planes[start[e + 1] + place : start[e + 1] + place + n]
        r2 = planes[start[e + 2] + place : start[e + 2] + place + n]
        r3 = planes[start[e + 3] + place : start[e + 3] + place + n]
        for i in range(n):
            total[i] = (((total[i] + v0 * r0[i]) + v1 * r1[i]) + v2 * r2[i]) + v3 * r3[i]
        e += 4
    while e < end:
        v, r = value[e], planes[start[e] + place : start[e] + place + n]
        for i in range(n):
            total[i] += v * r[i]
        e += 1


@njit(**OPTIONS)
def multiply_tile(x, first, column, value, bias, out, tile, images, sizes):  # type: ignore[no-untyped-def]
    """All outputs of some images."""
    N, C, outputs, high, wide = sizes[0], sizes[1], sizes[4], sizes[16], sizes[17]
    out_height, out_width = sizes[5], sizes[6]
    begin = tile * images
    images = min(images, N - begin)
    length = images * high * wide
    size = C * sizes[9] * sizes[10] * length
    planes = np.empty(size + length, np.float32)  # the last runs of a tile go beyond its planes
    planes[size:] = 0.0
    turn(x, planes[:size], begin, images, sizes)
    start = np.empty(np.int64(first[outputs]), np.int64)
    shifts(first, column, images, sizes, start)
    sums = np.empty((outputs, length), np.float32)
    for place in range(0, length, BLOCK):
        for o in range(outputs):
            total = sums[o, place : min(length, place + BLOCK)]
            total[:] = bias[o]
            add_runs(planes, start, value, np.int64(first[o]), np.int64(first[o + 1]), place, total)
    for n in range(images):
        for y in range(out_height):
            for column_ in range(out_width):
                place = (n * high + y) * wide + column_
                to = (((begin + n) * out_height + y) * out_width + column_) * outputs
                pixel = out[to : to + outputs]
                for o in range(outputs):
                    pixel[o] = sums[o, place]


@cfunc("void(CPointer(int64))", cache=CACHE, **OPTIONS)
def multiply(slots):  # type: ignore[no-untyped-def]
    """The product."""
    x, out = carray(float32_at(slots[3]), ALL), carray(float32_at(slots[8]), ALL)
    first, column = carray(first_at(slots[4]), ALL), carray(column_at(slots[5]), ALL)
    value, bias = carray(float32_at(slots[6]), ALL), carray(float32_at(slots[7]), ALL)
    sizes = carray(slots, (28,))[10:]
    tile = take(slots, 1)
    while tile < slots[2]:
        multiply_tile(x, first, column, value, bias, out, tile, slots[9], sizes)
        tile = take(slots, 1)
