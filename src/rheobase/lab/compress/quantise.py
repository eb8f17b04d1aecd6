"""Quantised weights: W = alpha Q with Q out of a small symmetric set of levels, and alpha one number per layer."""

from typing import Literal

import torch
from torch import Tensor

Levels = Literal["auto", "power", "uniform"]
MOST_BITS, MOST_POWER_BITS, FLOAT_BITS = 8, 4, 32
ROUNDS = 200
"""Alternations of scale and levels, at most; they end where nothing changes."""


def levels(bits: int, kind: Levels = "auto") -> Tensor:
    """The levels of a number of bits, rising: fp32 `[n]`.

    1 bit: {-1, 1}. "power": {0, +-2^0, ..., +-2^N} with N = 2^(bits - 1) - 2, so that 2 bits are {-1, 0, 1}, 3 bits
    {0, +-1, +-2, +-4}. "uniform": {0, +-1, ..., +-(2^(bits - 1) - 1)}. "auto" is "power" up to 4 bits, "uniform" above.

    Source: Leng et al. 2018 (powers of two), as arXiv:1911.00822 uses them; above 4 bits powers of two would need 2^14
    and more, so uniform levels are used there, which is ours.

    Raises:
        ValueError: bits out of 1 .. 8, or more than 4 bits of powers of two.
    """
    if not 1 <= bits <= MOST_BITS:
        raise ValueError(f"bits is {bits}; expected 1 to {MOST_BITS}")
    if kind == "power" and bits > MOST_POWER_BITS:
        raise ValueError(f"bits is {bits} with levels 'power'; expected at most {MOST_POWER_BITS}, or levels 'uniform'")
    if bits == 1:
        return torch.tensor([-1.0, 1.0])
    count = 2 ** (bits - 1) - 1
    powers = kind == "power" or (kind == "auto" and bits <= MOST_POWER_BITS)
    positive = 2.0 ** torch.arange(count) if powers else torch.arange(1.0, count + 1)
    return torch.cat([-positive.flip(0), torch.zeros(1), positive])


def nearest(v: Tensor, scale: Tensor, table: Tensor) -> Tensor:
    """The level nearest to v / scale, of two equally near ones the larger; shape of v."""
    middles = (table[1:] + table[:-1]) / 2
    return table[torch.bucketize(v / scale, middles, right=True)]


def fit_scale(v: Tensor, table: Tensor, mask: Tensor | None = None) -> Tensor:
    """The scale alpha > 0 with the least |v - alpha Q|^2 that alternating finds.

    alpha = <v, Q> / <Q, Q> and Q = nearest(v / alpha), in turns, until nothing changes. Starts at mean|v|, and once
    more at max|v| over the largest level; the smaller error counts. arXiv:1911.00822's code starts with Q = 1, which
    makes alpha the mean of v, about 0 or negative: a departure. Of weights that are all zero (or none) alpha is 1.

    Args:
        v: what is quantised.
        table: see `levels`.
        mask: which of v count; None is all.

    Returns:
        a scalar; the least-squares optimum of its own levels.
    """
    v = v.detach() if mask is None else v.detach()[mask]
    size = v.abs()
    if v.numel() == 0 or not bool(size.any()):
        return torch.ones((), dtype=v.dtype, device=v.device)
    table = table.to(v)
    starts = size.mean(), size.max() / table.max()
    found = [_alternate(v, start, table) for start in starts]
    return min(found, key=lambda pair: pair[1])[0]


def _alternate(v: Tensor, scale: Tensor, table: Tensor) -> tuple[Tensor, float]:
    for _ in range(ROUNDS):
        q = nearest(v, scale, table)
        power = q.square().sum()
        if power == 0:  # all of v is nearer to 0 than to any level
            scale = scale / 2
            continue
        found = (v * q).sum() / power
        if found == scale or not found > 0:
            break
        scale = found
    return scale, float((v - scale * nearest(v, scale, table)).square().sum())


def quantised(v: Tensor, scale: Tensor, table: Tensor, mask: Tensor | None = None) -> Tensor:
    """alpha Q: the nearest levels times the scale, 0 where the mask is off; shape of v."""
    found = scale * nearest(v, scale, table.to(v))
    found = torch.where(found == 0, 0.0, found)  # no -0
    return found if mask is None else found.masked_fill_(~mask, 0.0)


def bits_of(weight: Tensor) -> int:
    """ceil(log2 n) of the n distinct values of a quantised weight, zero included; at least 1.

    A pruned weight of 1 bit, {-a, 0, a}, has 2. More than 256 values have the 32 of a float.
    """
    count = len(torch.unique(weight))
    return FLOAT_BITS if count > 2**MOST_BITS else max(1, (count - 1).bit_length())
