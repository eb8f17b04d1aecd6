"""What an attack is worth: shares with intervals, curves, random flips of equal number, other models."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rheobase.lab.attack.spikes import Attacked, is_fooled, mean_outputs
from rheobase.lab.attack.threshold import as_victim

Z95 = 1.959963984540054
"""Two-sided 95 % of the normal distribution."""


@dataclass(frozen=True)
class Share:
    """A share of samples with its 95 % interval by Wilson's score.

    Attributes:
        hits: how many.
        count: of how many.
    """

    hits: int
    count: int

    @property
    def value(self) -> float:
        """hits / count; NaN of none."""
        return self.hits / self.count if self.count else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper bound."""
        return wilson(self.hits, self.count)

    @classmethod
    def of(cls, hits: Tensor, among: Tensor) -> "Share":
        """Of the samples `among` which, bool `[B]`, those that are hits."""
        return cls(int((hits & among).sum()), int(among.sum()))


def wilson(hits: int, count: int, z: float = Z95) -> tuple[float, float]:
    r"""The interval of a share $p = $ hits / n by Wilson's score; (0, 1) of none.

    $\left(p + \frac{z^2}{2n} \pm z\sqrt{\frac{p(1-p)}{n} + \frac{z^2}{4n^2}}\right) / \left(1 + \frac{z^2}{n}\right)$.

    Source: E. B. Wilson, Journal of the American Statistical Association 22, 209-212, 1927.

    Raises:
        ValueError: more hits than samples, or fewer than none.
    """
    if not 0 <= hits <= count:
        raise ValueError(f"wilson: {hits} hits of {count}; expected a number from 0 to {count}")
    if not count:
        return 0.0, 1.0
    p, square = hits / count, z * z / count
    middle, half = p + square / 2, z * math.sqrt(p * (1 - p) / count + square / (4 * count))
    return max(0.0, (middle - half) / (1 + square)), min(1.0, (middle + half) / (1 + square))


def success_curve(attacked: Attacked, at: Sequence[float]) -> list[Share]:
    """Share of the attacked samples that were done with at most each of these perturbations."""
    among = attacked.attacked
    return [Share.of(attacked.success & (attacked.perturbation <= most), among) for most in at]


def random_flips(
    x: Float[Tensor, "T B *rest"], counts: Int[Tensor, " B"], generator: torch.Generator | None = None
) -> Float[Tensor, "T B *rest"]:
    """Spikes with so many bits of each sample flipped, drawn without replacement from all bits and steps."""
    flat = x.transpose(0, 1).flatten(1)
    order = torch.rand(flat.shape, generator=generator, device=x.device).argsort(1)
    first = torch.arange(flat.shape[1], device=x.device).expand_as(flat) < counts[:, None]
    turned = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, order, first)
    return torch.where(turned, 1 - flat, flat).view(-1, x.shape[0], *x.shape[2:]).transpose(0, 1)


@torch.no_grad()
def fooled(
    model: nn.Module, x: Float[Tensor, "T B *rest"], y: Int[Tensor, " B"], target: Int[Tensor, " B"] | None = None
) -> Bool[Tensor, " B"]:
    """Where the model's largest mean output is alone and wrong, or, with a target, the target; in eval mode."""
    with as_victim(model):
        return is_fooled(mean_outputs(model, x), y, target)


def fooled_by_chance(
    model: nn.Module,
    x: Float[Tensor, "T B *rest"],
    y: Int[Tensor, " B"],
    attacked: Attacked,
    *,
    target: Int[Tensor, " B"] | None = None,
    tries: int = 1,
    generator: torch.Generator | None = None,
) -> Share:
    """Share of the attacked samples that as many random flips fool, in the best of so many tries.

    Args:
        model, x, y, target, generator: as the attack had them.
        attacked: gives the number of flips of each sample.
        tries: draws; an attack of 25 iterations has 25.
    """
    counts = (attacked.perturbation * (x.numel() // x.shape[1])).round().long()
    hits = torch.zeros_like(attacked.success)
    for _ in range(tries):
        hits |= fooled(model, random_flips(x, counts, generator), y, target)
    return Share.of(hits, attacked.attacked)


def transferred(
    model: nn.Module, clean: Float[Tensor, "T B *rest"], attacked: Float[Tensor, "T B *rest"], y: Int[Tensor, " B"]
) -> Share:
    """Of the samples that another model names rightly, the share that it misnames after an attack it had no part in.

    Args:
        model: the other model.
        clean, attacked: its inputs `[T, B, ...]` before and after.
        y: classes.
    """
    with torch.no_grad(), as_victim(model):
        before, after = (mean_outputs(model, x).argmax(1) for x in (clean, attacked))
    return Share.of(after != y, before == y)
