r"""The forward and the weight-update engine: matrix products with a binary operand, by look-up tables, to the bit.

g values $v$ that g spikes select are added up beforehand for every pattern $e$ of spikes; a pattern is then one access:

$$ T[0] = +0, \qquad T[e] = \mathrm{fl}(T[e \wedge (e - 1)] + v[\mathrm{ctz}(e)]), \qquad
   y = \mathrm{fl_{acc}}(y + T_G[e_G]), \quad G = 0, 1, ... $$

Bit k of e is the k-th element of the group; the reduction axis is padded with zeros to whole groups. fl rounds to the
table's format and fl_acc to the accumulator's, to nearest even, and subnormals stay. In floating point this order is
part of the result: another order of the same sum has other bits.

Source: the engines of arXiv:2107.11746, of which the abstract alone could be read: the order, the formats and g are
this module's.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int32, Shaped
from torch import Tensor
from torch.nn import functional

from rheobase.lab.cost.h2learn.geometry import Geometry, Pair, as_maps, kernel_of

Mode = Literal["int8", "fp16", "fp16-fp32acc", "fp32"]
"""Formats of values, tables and accumulators: see `FORMATS`."""

Fusion = int | Literal["2x4"]
"""How many spikes a table fuses, or two tables of four: fl_acc(y + fl(T_low + T_high))."""

FORMATS: dict[Mode, tuple[torch.dtype, torch.dtype, torch.dtype]] = {
    "int8": (torch.int8, torch.int16, torch.int32),
    "fp16": (torch.float16, torch.float16, torch.float16),
    "fp16-fp32acc": (torch.float16, torch.float16, torch.float32),
    "fp32": (torch.float32, torch.float32, torch.float32),
}
"""Of each mode the formats of the values, the tables and the accumulator. A table of int8 never overflows: 12 * 128."""

MOST = 12
"""Spikes that a table fuses at most: it has 2^g entries."""

_BITS_AT_ONCE = 1 << 24
_ENTRIES_AT_ONCE = 1 << 22
_OUTPUTS_AT_ONCE = 1 << 16


@torch.no_grad()
def forward_engine(
    spikes: Shaped[Tensor, "..."],
    weight: Shaped[Tensor, "..."],
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    mode: Mode = "fp16-fp32acc",
    g: Fusion = 8,
    planes: int = 1,
) -> Shaped[Tensor, "..."]:
    r"""Currents $W * o$ of a layer that reads spikes: tables of g weights of one output, used again at every position.

    The reduction runs over (input channel, kernel row, kernel column), the last fastest. With several planes the input
    holds whole numbers $\sum_b 2^b o_b$ and $y = \mathrm{fl_{acc}}(y + 2^b\,\mathrm{LUT}(o_b))$ for b = 0, 1, ...; if
    any is negative, they are in two's complement and the last plane counts $-2^b$.

    Args:
        spikes: 0 and 1 (or whole numbers, see `planes`): `[..., K]`, or `[..., Cin, H, W]` of a convolution.
        weight: `[N, K]`, or `[Cout, Cin / groups, rows, columns]`. Rounded to the mode's format of values.
        stride, padding, dilation, groups: of the convolution.
        mode: formats; "int8" takes whole numbers of int8 alone, see `quantise`.
        g: 1 to 12, or "2x4".
        planes: bit-planes of the input, 1 to 16.

    Returns:
        `[..., N]` or `[..., Cout, H', W']` in the accumulator's format. A bias is not part of it.

    Raises:
        ValueError: an input that is not binary or needs more planes, shapes that do not fit, a value that the mode
            cannot hold, a sum that overflows, g, mode or planes out of range.
    """
    geometry, dims = Geometry.of(stride, padding, dilation, groups), weight.dim()
    _check(mode, g, planes)
    shape = geometry.output_shape(spikes.shape, weight.shape)
    x, kernel = as_maps(spikes, dims), kernel_of(weight.shape)
    values = _values(weight.flatten(1), mode, "the weight")
    _refuse_int32_overflow(values, planes)
    positions = math.prod(shape[-2:]) if dims == 4 else 1
    y = torch.zeros(len(x), len(weight), positions, dtype=FORMATS[mode][2], device=x.device)
    at_once = max(1, _BITS_AT_ONCE // max(1, values.shape[1] * positions))
    for plane, factor in _planes(x, planes):
        for part, of_group, out in zip(plane.chunk(groups, 1), values.chunk(groups), y.chunk(groups, 1), strict=True):
            found = [
                _fused(_patches(some, kernel, geometry), g).transpose(0, 1).flatten(1) for some in part.split(at_once)
            ]
            sums = _looked_up(of_group, torch.cat(found, 1), mode, g)
            out += factor * sums.view(len(x), positions, -1).transpose(1, 2)
    _refuse_overflow(y, mode)
    return y.view(shape)


@torch.no_grad()
def weight_update_engine(
    spikes: Shaped[Tensor, "T B ..."],
    gradient: Shaped[Tensor, "T B ..."],
    shape: Sequence[int],
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    mode: Mode = "fp16-fp32acc",
    g: Fusion = 8,
    planes: int = 1,
) -> Shaped[Tensor, "..."]:
    r"""Gradient $\sum_{b,t} \delta u[t] \otimes o[t]$ of a weight: tables of g gradients of one output channel.

    The reduction runs over the positions (sample, step, row, column), the last fastest, and g positions that follow one
    another make a group. Its table is used again for every (input channel, kernel row, kernel column), whose pattern is
    the input's spikes at these positions, shifted by the kernel's row and column.

    Args:
        spikes: what the layer read, time first: `[T, B, ..., K]` or `[T, B, Cin, H, W]`.
        gradient: of its output, `[T, B, ..., N]` or `[T, B, Cout, H', W']`. Rounded to the mode's format of values.
        shape: the weight's.
        stride, padding, dilation, groups, mode, g, planes: as of `forward_engine`.

    Returns:
        The weight's gradient, of the given shape, in the accumulator's format.

    Raises:
        ValueError: as of `forward_engine`.
    """
    geometry, dims = Geometry.of(stride, padding, dilation, groups), len(shape)
    _check(mode, g, planes)
    if spikes.dim() != 5 if dims == 4 else spikes.dim() < 3:
        axes = "[T, B, C, H, W]" if dims == 4 else "[T, B, ..., K]"
        raise ValueError(f"the input has shape {tuple(spikes.shape)}; expected {axes}")
    geometry.check_gradient(gradient.shape, spikes.shape, shape)
    x, du = (as_maps(t.transpose(0, 1), dims) for t in (spikes, gradient))
    kernel = kernel_of(shape)
    values = _values(du.transpose(0, 1).flatten(1), mode, "the gradient")
    _refuse_int32_overflow(values, planes)
    dw = torch.zeros(shape[0], math.prod(shape[1:]), dtype=FORMATS[mode][2], device=x.device)
    places = math.prod(kernel)
    at_once = max(1, _BITS_AT_ONCE // max(1, values.shape[1] * places))
    for plane, factor in _planes(x, planes):
        for part, of_group, out in zip(plane.chunk(groups, 1), values.chunk(groups), dw.chunk(groups), strict=True):
            found = []
            for some in part.split(at_once, 1):
                each = _patches(some.reshape(-1, 1, *x.shape[2:]), kernel, geometry)
                rows = each.view(len(x), -1, *each.shape[1:]).permute(1, 2, 0, 3).flatten(0, 1).flatten(1)
                found.append(_fused(rows, g).t())
            out += factor * _looked_up(of_group, torch.cat(found, 1).contiguous(), mode, g).t()
    _refuse_overflow(dw, mode)
    return dw.view(*shape)


@dataclass(frozen=True)
class Quantised:
    """Whole numbers and what one of them is worth: `scale * values` is near to what was quantised."""

    values: Int32[Tensor, "..."]
    scale: float


@torch.no_grad()
def quantise(x: Shaped[Tensor, "..."], bits: int = 8, *, signed: bool = True) -> Quantised:
    r"""Round to whole numbers of q bits: $\mathrm{round}(x / s)$, half to even, zero stays zero.

    With a sign $s = \max|x| / (2^{q-1} - 1)$, without one $s = \max x / (2^q - 1)$.

    Args:
        x: real numbers.
        bits: q, 2 to 16.
        signed: whether one of the bits is for the sign.

    Raises:
        ValueError: bits out of range, x has a value that is not finite, or a negative one and is not signed.
    """
    if not 2 <= bits <= 16:
        raise ValueError(f"quantise: {bits} bits; expected 2 to 16")
    if not x.isfinite().all():
        raise ValueError("quantise: x has values that are not finite; expected real numbers")
    if not signed and (x < 0).any():
        raise ValueError(f"quantise: x holds {x.min().item():.6g} and is not signed; pass signed=True")
    wide = x.to(torch.float64)
    scale = (float(wide.abs().max()) if x.numel() else 0.0) / (2 ** (bits - signed) - 1) or 1.0
    return Quantised((wide / scale).round().to(torch.int32), scale)


def additions_per_synapse(g: int, reuse: float) -> float:
    r"""Additions that a binary synapse costs: $c(g, R) = ((2^g - g - 1) / R + 1) / g$.

    A table of g values takes $2^g - g - 1$ additions, is used R times, and one more addition takes in its entry. Two
    tables of four cost what g = 4 costs.

    Raises:
        ValueError: g < 1, or no positive reuse.
    """
    if g < 1 or not reuse > 0:
        raise ValueError(f"additions_per_synapse: g is {g} and the reuse {reuse}; expected g >= 1 and a reuse above 0")
    return ((2**g - g - 1) / reuse + 1) / g


def best_fusion(reuse: float) -> int:
    """The g with the fewest `additions_per_synapse`, the least if several.

    Raises:
        ValueError: the reuse is not positive, or infinite: then there is no best g.
    """
    if not 0 < reuse < math.inf:
        raise ValueError(f"best_fusion: the reuse is {reuse}; expected a finite number above 0")
    g = 1
    while additions_per_synapse(g + 1, reuse) < additions_per_synapse(g, reuse):
        g += 1
    return g


def _check(mode: Mode, g: Fusion, planes: int) -> None:
    if mode not in FORMATS:
        raise ValueError(f"there is no mode {mode!r}; expected one of {', '.join(FORMATS)}")
    if g != "2x4" and not (isinstance(g, int) and 1 <= g <= MOST):
        raise ValueError(f"g is {g!r}; expected 1 to {MOST} or '2x4'")
    if not 1 <= planes <= 16:
        raise ValueError(f"{planes} bit-planes; expected 1 to 16")


def _values(values: Tensor, mode: Mode, name: str) -> Tensor:
    """Values in the format of the mode, rounded once."""
    kind = FORMATS[mode][0]
    if not values.isfinite().all():
        raise ValueError(f"{name} has values that are not finite; expected real numbers")
    if kind == torch.int8:
        strange = (values < -128) | (values > 127) | (values != values.to(torch.int64))
        if strange.any():
            raise ValueError(
                f"{name} holds {values[strange][0].item():.6g}; mode int8 takes whole numbers of -128 to 127: pass "
                f"quantise(x, 8).values and multiply the result by its scale"
            )
        return values.to(kind)
    if kind == torch.float16 and values.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        with np.errstate(over="ignore"):  # torch would round to float32 in between
            rounded = torch.from_numpy(values.cpu().numpy().astype(np.float16)).to(values.device)
    else:
        rounded = values.to(kind)
    if not rounded.isfinite().all():
        raise ValueError(
            f"{name} holds {values[~rounded.isfinite()][0].item():.6g}, more than {kind} can hold "
            f"({torch.finfo(kind).max:g}); scale it, or take another mode than {mode}"
        )
    return rounded


def _refuse_int32_overflow(values: Tensor, planes: int) -> None:
    if values.dtype == torch.int8 and values.numel():
        most = int(values.to(torch.int64).abs().sum(1).max()) * (2**planes - 1)
        if most > 2**31 - 1:
            raise ValueError(
                f"the sum of a row's magnitudes times the largest input is {most}, more than an int32 accumulator "
                f"holds ({2**31 - 1}): split the reduction (fewer samples at once), or take mode fp32"
            )


def _refuse_overflow(y: Tensor, mode: Mode) -> None:
    if not y.isfinite().all():
        raise ValueError(
            f"{int((~y.isfinite()).sum())} of {y.numel()} sums left the range of {FORMATS[mode][1]} tables or "
            f"{FORMATS[mode][2]} accumulators: scale the values down, or take mode "
            f"{'fp16-fp32acc or fp32' if mode == 'fp16' else 'fp32'}"
        )


def _planes(x: Tensor, planes: int) -> Iterator[tuple[Tensor, int]]:
    """Bit-planes of whole numbers as bool, each with what its ones count."""
    if planes == 1:
        strange = (x != 0) & (x != 1)
        if strange.any():
            raise ValueError(
                f"the input holds {x[strange][0].item():.6g}, and {int(strange.sum())} of {x.numel()} values are "
                f"neither 0 nor 1; whole numbers need planes > 1, and real ones first quantise()"
            )
        yield x != 0, 1
        return
    low = -(2 ** (planes - 1)) if bool((x < 0).any()) else 0
    high = low + 2**planes - 1
    strange = ~((x >= low) & (x <= high) & (x == x.round()) if x.is_floating_point() else (x >= low) & (x <= high))
    if strange.any():
        raise ValueError(
            f"the input holds {x[strange][0].item():.6g}; {planes} bit-planes hold whole numbers of {low} to {high}: "
            f"take more planes, and quantise() what is real"
        )
    whole = x.to(torch.int32)
    for b in range(planes):
        yield ((whole >> b) & 1).bool(), -(2**b) if low and b == planes - 1 else 2**b


def _patches(x: Tensor, kernel: tuple[int, int], geometry: Geometry) -> Tensor:
    """What the kernel sees at every position: `[samples, channels * rows * columns, positions]`."""
    return functional.unfold(x, kernel, geometry.dilation, geometry.padding, geometry.stride)


def _width(g: Fusion) -> int:
    return 8 if g == "2x4" else g


def _fused(bits: Tensor, g: Fusion) -> Tensor:
    """Each g bits along axis 1 as one int16, the first lowest; the last group is filled up with zeros."""
    width = _width(g)
    groups = -(-bits.shape[1] // width)
    e = torch.zeros(len(bits), groups, *bits.shape[2:], dtype=torch.int16, device=bits.device)
    for k in range(width):
        bit = bits[:, k::width]
        e[:, : bit.shape[1]] |= bit.to(torch.int16) << k
    return e


def _tables(values: Tensor, g: int, kind: torch.dtype) -> Tensor:
    """`[groups, 2^g, N]` of values `[groups, g, N]`; e without its lowest bit is complete before e is made."""
    groups, _, n = values.shape
    tables = torch.zeros(groups, 1 << g, n, dtype=kind, device=values.device)
    for k in reversed(range(g)):
        lowest = 1 << k
        torch.add(tables[:, :: 2 * lowest], values[:, k, None].to(kind), out=tables[:, lowest :: 2 * lowest])
    return tables


def _looked_up(values: Tensor, index: Tensor, mode: Mode, g: Fusion) -> Tensor:
    """Sums `[P, N]` of values `[N, K]` that patterns `[groups, P]` select, group after group."""
    _, kind, accumulator = FORMATS[mode]
    width, (n, k), (groups, positions) = _width(g), values.shape, index.shape
    grouped = functional.pad(values, (0, -k % width)).view(n, groups, width).permute(1, 2, 0)
    sums = torch.zeros(positions, n, dtype=accumulator, device=values.device)
    some, block = max(1, _ENTRIES_AT_ONCE // (n << width)), max(1, _OUTPUTS_AT_ONCE // max(1, n))
    for first in range(0, groups, some):
        part, patterns = grouped[first : first + some], index[first : first + some]
        if g == "2x4":
            low, high = (_tables(half, 4, kind) for half in part.split(4, 1))
        else:
            low = high = _tables(part, width, kind)
        for lo in range(0, positions, block):
            y, e = sums[lo : lo + block], patterns[:, lo : lo + block].int()
            for G in range(len(part)):
                if g == "2x4":
                    y += low[G].index_select(0, e[G] & 15) + high[G].index_select(0, e[G] >> 4)
                else:
                    y += low[G].index_select(0, e[G])
    return sums
