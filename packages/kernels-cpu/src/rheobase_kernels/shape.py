"""The shape of a product: a convolution, or a linear layer as a convolution of one pixel."""

import ctypes
from ctypes import c_int64

_UNIT = 16
_PART = 9 * 64
_ITEMS, _CHUNK, _PARTIAL_BYTES = 32, 2048, 64 << 20
"""Of a weight gradient: so many items for threads to share, of no fewer positions each, and no more partial sums."""


class Shape(ctypes.Structure):
    """`rk_shape`; made by `convolution` or `linear`."""

    batch: int
    height: int
    width: int
    channels: int
    row_pixels: int
    row_words: int
    out_height: int
    out_width: int
    out_channels: int
    kernel_y: int
    kernel_x: int
    stride_y: int
    stride_x: int
    pad_y: int
    pad_x: int
    dilation_y: int
    dilation_x: int
    groups: int

    _fields_ = [(name, c_int64) for name in __annotations__]

    @property
    def pixels(self) -> int:
        """Of the input, over the batch."""
        return self.batch * self.height * self.width

    @property
    def positions(self) -> int:
        """Pixels of the output, over the batch."""
        return self.batch * self.out_height * self.out_width

    @property
    def rows(self) -> int:
        """Of bits: they are uint64 `[rows, row_words]`."""
        return -(-self.pixels // self.row_pixels)


def convolution(
    batch: int,
    channels: int,
    height: int,
    width: int,
    out_channels: int,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    row_pixels: int | None = None,
) -> Shape:
    """The shape of a convolution of `[batch, height, width, channels]`; pairs are (y, x).

    Args:
        batch, channels, height, width: of the input.
        out_channels: of the output.
        kernel, stride, padding, dilation, groups: as of torch's Conv2d; padding is zeros on both sides.
        row_pixels: how many pixels a row of bits holds. None: one, and where it has fewer than 64 channels as many as
            the next axes give until there are 64 values: all of the width, then of the height, then of the batch.

    Raises:
        ValueError: a size is not positive, groups do not divide the channels, or the kernel is larger than the map.
    """
    sizes = (batch, channels, height, width, out_channels, *kernel, *stride, *dilation, groups)
    if min(sizes) < 1 or min(padding) < 0:
        raise ValueError(
            f"convolution: sizes {sizes}, padding {padding}; expected sizes of 1 or more, padding of 0 or more"
        )
    if channels % groups or out_channels % groups:
        raise ValueError(
            f"convolution: {channels} and {out_channels} channels in {groups} groups; groups must divide both"
        )
    out = [
        (size + 2 * pad - step * (taps - 1) - 1) // jump + 1
        for size, pad, step, taps, jump in zip((height, width), padding, dilation, kernel, stride, strict=True)
    ]
    if min(out) < 1:
        raise ValueError(
            f"convolution: a kernel of {kernel}, dilation {dilation}, does not fit into a map of {(height, width)} "
            f"with padding {padding}; expected an output of one pixel or more"
        )
    if row_pixels is None:
        row_pixels = 1
        for size in (width, height, batch):
            if row_pixels * channels < 64:
                row_pixels *= size
    return Shape(
        *(batch, height, width, channels, row_pixels, -(-row_pixels * channels // 64), *out, out_channels, *kernel),
        *(*stride, *padding, *dilation, groups),
    )


def linear(rows: int, features: int, out_features: int, row_pixels: int | None = None) -> Shape:
    """The shape of a linear layer of `[rows, features]`.

    Args:
        rows, features, out_features: sizes.
        row_pixels: how many rows of the input a row of bits holds, see `convolution`.

    Raises:
        ValueError: a size is not positive.
    """
    return convolution(rows, features, 1, 1, out_features, (1, 1), row_pixels=row_pixels)


def laid_size(shape: Shape) -> int:
    """How many values the laid weights have, and each chunk of a weight gradient's partial sums."""
    outputs = -(-(shape.out_channels // shape.groups) // _UNIT) * _UNIT
    return shape.kernel_y * shape.kernel_x * shape.channels * outputs


def chunks(shape: Shape) -> int:
    """Into how many chunks to split a weight gradient: depends on the shape alone, so that sums do too."""
    columns = shape.kernel_y * shape.kernel_x * shape.channels // shape.groups
    parts = shape.groups * -(-columns // _PART)
    most = max(1, _PARTIAL_BYTES // (4 * laid_size(shape)))
    return max(1, min(-(-_ITEMS // parts), most, shape.positions // _CHUNK))


def tile(kernel: str, shape: Shape, threads: int = 1) -> int:
    """How many positions a tile of a forward kernel should have; results do not depend on it.

    Args:
        kernel: "forward_events", or "forward_table", which builds its tables for every tile anew.
        shape: of the product.
        threads: that will share the tiles.
    """
    most, least, each = (256, 16, 4) if kernel == "forward_events" else (2048, 256, 1)
    return min(most, max(least, -(-shape.positions // (each * threads))))
