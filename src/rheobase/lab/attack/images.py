r"""Attacks on images within a box of half-width $\epsilon$, through any encoder: FGSM, PGD, MI-FGSM, Square.

For input that is no spikes, where the converter does not apply, and for networks that do not spike at all. Gradients
pass an encoder that autograd can differentiate; one that draws or counts spikes is taken as the identity at each step,
and its gradient is the mean over `encodings` draws: the expectation over a random encoder.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rheobase.lab.attack.spikes import Encode, Loss, loss_of, mean_outputs
from rheobase.lab.attack.threshold import as_victim, firing_at, surrogates
from rheobase.neurons import Surrogate

Method = Literal["fgsm", "pgd", "mi_fgsm", "square"]


@dataclass(frozen=True)
class BoxAttack:
    r"""How images are attacked.

    Args:
        epsilon: half-width of the box, in intensities.
        method: one of "fgsm" (Goodfellow et al. 2015, arXiv:1412.6572), "pgd" (Madry et al. 2018, arXiv:1706.06083,
            with a random start), "mi_fgsm" (Dong et al. 2018, arXiv:1710.06081) and "square" (Andriushchenko et al.
            2020, arXiv:1912.00049: no gradients).
        iterations: updates, or queries of "square"; "fgsm" makes one.
        step: of "pgd", share of epsilon; "mi_fgsm" makes steps of epsilon / iterations.
        momentum: of "mi_fgsm".
        squares: of "square", share of the pixels that the first square covers.
        loss: that grows.
        threshold, surrogate: while the gradient is computed, see `SpikeAttack`.
        encodings: draws of a random encoder whose gradients are averaged, and whose outputs decide in "square".

    Raises:
        ValueError: a setting out of range.
    """

    epsilon: float
    method: Method = "pgd"
    iterations: int = 25
    step: float = 0.1
    momentum: float = 1.0
    squares: float = 0.3
    loss: Loss = "cross_entropy"
    threshold: float | None = None
    surrogate: Surrogate | None = None
    encodings: int = 1

    def __post_init__(self) -> None:
        for name, fine, expected in (
            ("epsilon", 0 < self.epsilon <= 1, "in (0, 1]"),
            ("method", self.method in METHODS, f"one of {', '.join(METHODS)}"),
            ("iterations", self.iterations >= 1, "at least 1"),
            ("step", self.step > 0, "positive"),
            ("momentum", self.momentum >= 0, "0 or above"),
            ("squares", 0 < self.squares <= 1, "in (0, 1]"),
            ("loss", self.loss in ("cross_entropy", "mse"), "'cross_entropy' or 'mse'"),
            ("encodings", self.encodings >= 1, "at least 1"),
        ):
            if not fine:
                raise ValueError(f"BoxAttack: {name} is {getattr(self, name)!r}; expected {expected}")


@torch.enable_grad()
def attack_images(
    model: nn.Module,
    images: Float[Tensor, "B *rest"],
    y: Int[Tensor, " B"],
    encode: Encode,
    how: BoxAttack,
    *,
    target: Int[Tensor, " B"] | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "B *rest"]:
    r"""Images that differ from the given ones by at most $\epsilon$ everywhere, lie in [0, 1], and raise the loss.

    Args:
        model: maps `[T, B, ...]` to `[T, B, K]`; it is run in eval mode, and left as it was.
        images: intensities in [0, 1].
        y: classes.
        encode: makes the model's input `[T, B, ...]` of images.
        how: see `BoxAttack`.
        target: classes to be reached; None: any wrong one.
        generator: of all draws, on the device of the images.

    Raises:
        ValueError: images outside [0, 1].
    """
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"attack_images: images lie in {low:g} .. {high:g}; expected intensities in [0, 1]")
    with as_victim(model):
        return METHODS[how.method](_Victim(model, y, target, encode, how, generator), images)


@dataclass(frozen=True, eq=False)
class _Victim:
    """A model with what is held against it."""

    model: nn.Module
    y: Tensor
    target: Tensor | None
    encode: Encode
    how: BoxAttack
    generator: torch.Generator | None

    def gradient(self, images: Tensor) -> Tensor:
        """The mean gradient of what is to grow for the images."""
        total = torch.zeros_like(images)
        with firing_at(self.model, self.how.threshold), surrogates(self.model, self.how.surrogate):
            for _ in range(self.how.encodings):
                total += self._one_gradient(images)
        return total / self.how.encodings

    def _one_gradient(self, images: Tensor) -> Tensor:
        leaf = images.detach().requires_grad_()
        x = self.encode(leaf, self.generator)
        through = x.requires_grad
        x = x if through else x.detach().requires_grad_()
        outputs = mean_outputs(self.model, x)
        if self.target is None:
            error = loss_of(outputs, self.y, self.how.loss)
        else:
            error = -loss_of(outputs, self.target, self.how.loss)
        found = torch.autograd.grad(error, leaf if through else x)[0]
        return found if through else found.sum(0)

    @torch.no_grad()
    def margin(self, images: Tensor) -> Tensor:
        """How far the model still is from what is wanted: below zero it is there."""
        outputs = torch.stack(
            [mean_outputs(self.model, self.encode(images, self.generator)) for _ in range(self.how.encodings)]
        ).mean(0)
        classes = self.y if self.target is None else self.target
        own = outputs.gather(1, classes[:, None])[:, 0]
        others = outputs.scatter(1, classes[:, None], -torch.inf).amax(1)
        return own - others if self.target is None else others - own

    def inside(self, images: Tensor, clean: Tensor) -> Tensor:
        """The nearest images in the box and in [0, 1]."""
        epsilon = self.how.epsilon
        return torch.minimum(torch.maximum(images, clean - epsilon), clean + epsilon).clamp(0, 1)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.y.device)


def _fgsm(victim: _Victim, clean: Tensor) -> Tensor:
    return victim.inside(clean + victim.how.epsilon * victim.gradient(clean).sign(), clean)


def _pgd(victim: _Victim, clean: Tensor) -> Tensor:
    how = victim.how
    x = victim.inside(clean + how.epsilon * (2 * victim.uniform(*clean.shape) - 1), clean)
    for _ in range(how.iterations):
        x = victim.inside(x + how.step * how.epsilon * victim.gradient(x).sign(), clean)
    return x


def _mi_fgsm(victim: _Victim, clean: Tensor) -> Tensor:
    how, x, speed = victim.how, clean, torch.zeros_like(clean)
    for _ in range(how.iterations):
        gradient = victim.gradient(x)
        size = _of_image(gradient.abs().flatten(1).sum(1), clean)
        speed = how.momentum * speed + torch.where(size > 0, gradient / size, 0.0)
        x = victim.inside(x + how.epsilon / how.iterations * speed.sign(), clean)
    return x


def _square(victim: _Victim, clean: Tensor) -> Tensor:
    """Random squares of +-epsilon, kept where the margin falls; images `[B, C, H, W]`."""
    how, (B, C, H, W) = victim.how, clean.shape
    x = victim.inside(clean + how.epsilon * (2.0 * (victim.uniform(B, C, 1, W) < 0.5) - 1), clean)
    best = victim.margin(x)
    rows, columns = torch.arange(H, device=x.device), torch.arange(W, device=x.device)
    for k in range(how.iterations):
        side = max(1, min(H, W, round((_share(k, how.iterations) * how.squares * H * W) ** 0.5)))
        top, left = ((victim.uniform(B, 1) * (size - side + 1)).long().clamp(max=size - side) for size in (H, W))
        inside = ((rows >= top) & (rows < top + side))[:, None, :, None]
        inside = inside & ((columns >= left) & (columns < left + side))[:, None, None, :]
        sign = 2.0 * (victim.uniform(B, C, 1, 1) < 0.5) - 1
        tried = torch.where(inside, victim.inside(clean + how.epsilon * sign, clean), x)
        margin = victim.margin(tried)
        better = margin < best
        x, best = torch.where(_of_image(better, x), tried, x), torch.where(better, margin, best)
    return x


def _share(k: int, iterations: int) -> float:
    """How the squares shrink: the published schedule, for 10000 queries, stretched over the iterations."""
    at = k / iterations * 10000
    return 0.5 ** sum(at > edge for edge in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000))


def _of_image(values: Tensor, images: Tensor) -> Tensor:
    return values.view(-1, *[1] * (images.ndim - 1))


METHODS: dict[str, Callable[[_Victim, Tensor], Tensor]] = {
    "fgsm": _fgsm,
    "pgd": _pgd,
    "mi_fgsm": _mi_fgsm,
    "square": _square,
}
