r"""Attacks whose changes are spikes: the gradient-to-spike converter and the restricted spike flipper.

Source: Liang et al., arXiv:2001.01587, and the code published with it. Departures: the code attacks one image at a
time; here each sample of a batch has its own maximum, its own decision to flip, and leaves when it is done. Attacks on
events and limits on flips are not in the code. One draw of an encoder serves for the test and for the next gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rheobase.lab.attack.threshold import Window, as_victim, firing_at, surrogates
from rheobase.neurons import Surrogate
from rheobase.nn.readout import read_out

Encode = Callable[[Tensor, torch.Generator | None], Tensor]
"""`encode(images [B, ...], generator)`: the input `[T, B, ...]` of a model."""
Loss = Literal["cross_entropy", "mse"]


@dataclass(frozen=True)
class SpikeAttack:
    r"""How spikes are attacked.

    Args:
        iterations: updates at most.
        turnover: $\gamma$, probability that the flipper flips a bit of a sample whose gradient is zero everywhere; 0
            leaves such a sample as it is.
        threshold: $\vartheta_{att}$ of one layer while the gradient is computed; None leaves it.
        layer: its name; None is the last hidden spiking layer.
        window: see `firing_at`.
        surrogate: of all neurons while the gradient is computed; None leaves their own.
        loss: whose gradient is followed, on the mean over time of what the model puts out.
        pull: c, share of the way back to the clean image at every step; of images alone.
        limit: $\epsilon$, largest perturbation: share of flipped bits of events, mean squared difference of images.
            A sample beyond it has failed. None is no limit.
        encodings: of an image whose gradients are averaged: the expectation over a random encoder.
        checks: of an image whose outputs are averaged in the test of success.

    Raises:
        ValueError: a setting out of range.
    """

    iterations: int = 25
    turnover: float = 0.05
    threshold: float | None = None
    layer: str | None = None
    window: Window = "original"
    surrogate: Surrogate | None = None
    loss: Loss = "cross_entropy"
    pull: float = 0.1
    limit: float | None = None
    encodings: int = 1
    checks: int = 1

    def __post_init__(self) -> None:
        for name, fine, expected in (
            ("iterations", self.iterations >= 1, "at least 1"),
            ("turnover", 0 <= self.turnover <= 1, "in [0, 1]"),
            ("threshold", self.threshold is None or self.threshold > 0, "positive, or None"),
            ("window", self.window in ("original", "moved"), "'original' or 'moved'"),
            ("loss", self.loss in ("cross_entropy", "mse"), "'cross_entropy' or 'mse'"),
            ("pull", 0 <= self.pull <= 1, "in [0, 1]"),
            ("limit", self.limit is None or self.limit > 0, "positive, or None"),
            ("encodings", self.encodings >= 1, "at least 1"),
            ("checks", self.checks >= 1, "at least 1"),
        ):
            if not fine:
                raise ValueError(f"SpikeAttack: {name} is {getattr(self, name)!r}; expected {expected}")


@dataclass(frozen=True, eq=False)
class Attacked:
    """What an attack made of a batch.

    Attributes:
        x: the attacked input, events `[T, B, ...]` or images `[B, ...]`; of a failed sample as it was left.
        wrong: samples that were misclassified before; they were not attacked.
        success: samples on which it succeeded.
        iterations: updates of each sample.
        silent: updates of each sample whose gradient was zero everywhere.
        perturbation: share of flipped bits, or mean squared difference of an image.
        length: L2 norm of the change over the number of elements.
    """

    x: Tensor
    wrong: Bool[Tensor, " B"]
    success: Bool[Tensor, " B"]
    iterations: Int[Tensor, " B"]
    silent: Int[Tensor, " B"]
    perturbation: Float[Tensor, " B"]
    length: Float[Tensor, " B"]

    @property
    def attacked(self) -> Bool[Tensor, " B"]:
        """Samples that were classified right before."""
        return ~self.wrong

    @property
    def silent_share(self) -> float:
        """Share of all updates whose gradient was zero everywhere; NaN if there was none."""
        updates = int(self.iterations.sum())
        return int(self.silent.sum()) / updates if updates else float("nan")


def convert(
    gradient: Float[Tensor, "T B *rest"], x: Float[Tensor, "T B *rest"], generator: torch.Generator | None = None
) -> Float[Tensor, "T B *rest"]:
    r"""Gradient-to-spike converter: a change in {-1, 0, 1} that follows the gradient and keeps spikes spikes.

    $p = |g| / \max|g|$ over all elements and steps of a sample; $\delta = \mathrm{sign}(g)\,M$ with
    $M \sim \mathrm{Bernoulli}(p)$; $\delta = 0$ where $x + \delta$ is not in {0, 1}. Zero for a gradient of zeros.

    Args:
        gradient: of what is to grow.
        x: spikes in {0, 1}.
        generator: of the draws, on the device of x.
    """
    peak = _of_sample(gradient.abs().transpose(0, 1).flatten(1).amax(1), x)
    share = torch.where(peak > 0, gradient.abs() / peak, 0.0)
    delta = gradient.sign() * (_draw(x, generator) < share)
    return torch.where((delta > 0) == (x > 0), 0.0, delta).to(x.dtype)


def flip(
    x: Float[Tensor, "T B *rest"], turnover: float = 0.05, generator: torch.Generator | None = None
) -> Float[Tensor, "T B *rest"]:
    r"""Gradient trigger, or restricted spike flipper: each spike turns with probability $\gamma$ = `turnover`.

    $\delta = M (1 - 2 x)$, $M \sim \mathrm{Bernoulli}(\gamma)$: x + $\delta$ is in {0, 1} again.
    """
    return (_draw(x, generator) < turnover).to(x.dtype) * (1 - 2 * x)


def update(
    gradient: Float[Tensor, "T B *rest"],
    x: Float[Tensor, "T B *rest"],
    turnover: float = 0.05,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "T B *rest"]:
    """One change of spikes: `convert` for samples whose gradient is not zero everywhere, `flip` for the others."""
    silent = is_silent(gradient)
    delta = convert(gradient, x, generator)
    if turnover > 0 and bool(silent.any()):
        delta = torch.where(_of_sample(silent, x), flip(x, turnover, generator), delta)
    return delta


def is_silent(gradient: Float[Tensor, "T B *rest"]) -> Bool[Tensor, " B"]:
    """Samples whose gradient is zero everywhere."""
    return ~(gradient != 0).transpose(0, 1).flatten(1).any(1)


def within_budget(
    x: Float[Tensor, "T B *rest"],
    clean: Float[Tensor, "T B *rest"],
    budget: Int[Tensor, " B"],
    gradient: Float[Tensor, "T B *rest"],
    generator: torch.Generator | None = None,
) -> Float[Tensor, "T B *rest"]:
    """x with no more than `budget` bits of each sample flipped: the flips that its gradient likes best stay.

    That is the gradient times the change; equal ones are chosen at random.
    """
    changed, rank = _by_sample(x != clean), _by_sample((x - clean) * gradient)
    if bool((changed.sum(1) <= budget).all()):
        return x
    found = changed.nonzero()
    found = found[torch.randperm(len(found), generator=generator, device=x.device)]  # breaks ties
    found = found[rank[found.unbind(1)].argsort(descending=True, stable=True)]
    sample, bit = found[found[:, 0].argsort(stable=True)].unbind(1)
    per_sample = changed.sum(1)
    place = torch.arange(len(sample), device=x.device) - (per_sample.cumsum(0) - per_sample)[sample]
    worst = place >= budget[sample]
    changed[sample[worst], bit[worst]] = False
    kept = changed.view(-1, x.shape[0], *x.shape[2:]).transpose(0, 1)
    return torch.where(kept, x, clean)


@torch.enable_grad()
def attack_events(
    model: nn.Module,
    x: Float[Tensor, "T B *rest"],
    y: Int[Tensor, " B"],
    how: SpikeAttack = SpikeAttack(),
    *,
    target: Int[Tensor, " B"] | None = None,
    budget: Int[Tensor, " B"] | None = None,
    generator: torch.Generator | None = None,
) -> Attacked:
    """Change spikes until the model is wrong, or, with a target, until it says that.

    A sample is done when, with its own threshold and surrogates, the model's largest mean output is a wrong one (the
    target) and alone. After each iteration x is binary.

    Args:
        model: maps `[T, B, ...]` to `[T, B, K]`; it is run in eval mode, and left as it was.
        x: spikes in {0, 1}.
        y: classes.
        how: see `SpikeAttack`.
        target: classes to be reached; None: any wrong one.
        budget: bits of each sample that may differ from the clean ones at any time; None is no limit.
        generator: of all draws, on the device of x.

    Raises:
        ValueError: x holds other values than 0 and 1, or a target is the sample's own class.
    """
    if not bool(((x == 0) | (x == 1)).all()):
        raise ValueError(
            f"attack_events: x holds values from {float(x.min()):g} to {float(x.max()):g}, not spikes alone; make "
            f"frames of counts binary first: (x > 0).float(), or the encoder 'presence'"
        )
    return _attack(model, _Events(x, budget), y, how, target, generator)


@torch.enable_grad()
def attack_coded(
    model: nn.Module,
    images: Float[Tensor, "B *rest"],
    y: Int[Tensor, " B"],
    encode: Encode,
    how: SpikeAttack = SpikeAttack(),
    *,
    target: Int[Tensor, " B"] | None = None,
    generator: torch.Generator | None = None,
) -> Attacked:
    r"""Change images that an encoder turns into spikes, by what the converter does to those spikes.

    $d = \frac1T \sum_t \delta_t$, $x \leftarrow \mathrm{clip}(x + d - c\,(x - x_0), 0, 1)$, encoded anew.

    Args:
        model, y, how, target, generator: as for `attack_events`.
        images: intensities in [0, 1].
        encode: makes spikes in {0, 1} of them, such as `rheobase.data.poisson` with a number of steps.

    Raises:
        ValueError: images outside [0, 1], an encoder that does not emit spikes (of direct input see
            `rheobase.lab.attack.images`), or a target that is the sample's own class.
    """
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"attack_coded: images lie in {low:g} .. {high:g}; expected intensities in [0, 1]")
    return _attack(model, _Coded(images, encode, how), y, how, target, generator)


def mean_outputs(model: nn.Module, x: Tensor) -> Tensor:
    """What a model puts out for x `[T, B, ...]`, the mean over time `[B, K]`."""
    return read_out(model(x), "mean")


def loss_of(outputs: Tensor, y: Tensor, loss: Loss) -> Tensor:
    """The sum over samples of the cross entropy of outputs `[B, K]`, or of their squared distance to one-hot labels."""
    if loss == "mse":
        return (outputs - F.one_hot(y, outputs.shape[1])).square().sum()
    return F.cross_entropy(outputs, y, reduction="sum")


def is_fooled(outputs: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """Where the largest of outputs `[B, K]` is alone and wrong, or, with a target, the target."""
    first, second = outputs.topk(2, dim=1).values.unbind(1)
    found = outputs.argmax(1)
    return (first > second) & (found != y if target is None else found == target)


class _Events:
    """Spikes under attack, of which `rows` are still attacked."""

    def __init__(self, x: Tensor, budget: Tensor | None) -> None:
        self.clean, self.x, self.budget = x, x.clone(), budget
        self.size = x.shape[1]

    def draws(self, rows: Tensor, generator: torch.Generator | None) -> list[Tensor]:  # noqa: ARG002
        return [self.x[:, rows]]

    def change(
        self, rows: Tensor, inputs: list[Tensor], gradient: Tensor, turnover: float, generator: torch.Generator | None
    ) -> None:
        (x,) = inputs
        x = x + update(gradient, x, turnover, generator)
        if self.budget is not None:
            x = within_budget(x, self.clean[:, rows], self.budget[rows], gradient, generator)
        self.x[:, rows] = x

    def differences(self, rows: Tensor | slice) -> Tensor:
        """The change of each sample, flat `[B, n]`."""
        return _by_sample(self.x[:, rows] - self.clean[:, rows])


class _Coded:
    """Images under attack."""

    def __init__(self, images: Tensor, encode: Encode, how: SpikeAttack) -> None:
        self.clean, self.x, self.encode = images, images.clone(), encode
        self.count, self.pull = max(how.encodings, how.checks), how.pull
        self.size = len(images)

    def draws(self, rows: Tensor, generator: torch.Generator | None) -> list[Tensor]:
        drawn = [self.encode(self.x[rows], generator) for _ in range(self.count)]
        if not bool(((drawn[0] == 0) | (drawn[0] == 1)).all()):
            raise ValueError(
                f"attack_coded: the encoder gave values from {float(drawn[0].min()):g} to {float(drawn[0].max()):g}, "
                f"which are no spikes; attack direct input by rheobase.lab.attack.pgd"
            )
        return drawn

    def change(
        self, rows: Tensor, inputs: list[Tensor], gradient: Tensor, turnover: float, generator: torch.Generator | None
    ) -> None:
        moved = torch.stack([update(gradient, each, turnover, generator).mean(0) for each in inputs]).mean(0)
        now, clean = self.x[rows], self.clean[rows]
        self.x[rows] = (now + moved - self.pull * (now - clean)).clamp(0, 1)

    def differences(self, rows: Tensor | slice) -> Tensor:
        return (self.x[rows] - self.clean[rows]).flatten(1)


def _attack(
    model: nn.Module,
    subject: _Events | _Coded,
    y: Tensor,
    how: SpikeAttack,
    target: Tensor | None,
    generator: torch.Generator | None,
) -> Attacked:
    if target is not None and bool((target == y).any()):
        raise ValueError("attack: a target is the class of its sample; expected another class")
    device, size = y.device, subject.size
    wrong, success = (torch.zeros(size, dtype=torch.bool, device=device) for _ in "ab")
    iterations, silent = (torch.zeros(size, dtype=torch.int64, device=device) for _ in "ab")
    rows = torch.arange(size, device=device)
    of = partial(_gradient, model, how=how)
    apart = how.threshold is not None or how.surrogate is not None
    with as_victim(model):
        for done in range(how.iterations + 1):
            drawn = subject.draws(rows, generator)
            checked, inputs = drawn[: how.checks], drawn[: how.encodings]
            shared = not apart and len(drawn) == 1
            if shared:  # the pass that tests is the pass that is differentiated
                inputs = [drawn[0].detach().requires_grad_()]
                outputs = mean_outputs(model, inputs[0])
            else:
                with torch.no_grad():
                    outputs = torch.stack([mean_outputs(model, each) for each in checked]).mean(0)
            stay = _judge(outputs.detach(), rows, done, subject, y, target, how, wrong, success)
            if done == how.iterations or not bool(stay.any()):
                break
            if shared:
                gradient = _towards(outputs, inputs[0], y[rows], None if target is None else target[rows], how.loss)
                gradient = gradient[:, stay]
            rows = rows[stay]
            inputs = [each.detach()[:, stay] for each in inputs]
            if not shared:
                gradient = of(inputs, y[rows], None if target is None else target[rows])
            iterations[rows] += 1
            silent[rows] += is_silent(gradient)
            subject.change(rows, inputs, gradient, how.turnover, generator)
    changes = subject.differences(slice(None))
    return Attacked(
        subject.x,
        wrong,
        success,
        iterations,
        silent,
        changes.square().mean(1),
        changes.norm(dim=1) / changes.shape[1],
    )


def _judge(
    outputs: Tensor,
    rows: Tensor,
    done: int,
    subject: _Events | _Coded,
    y: Tensor,
    target: Tensor | None,
    how: SpikeAttack,
    wrong: Tensor,
    success: Tensor,
) -> Tensor:
    """Note what is decided, and say which of `rows` go on."""
    if done == 0:
        wrong[rows] = outputs.argmax(1) != y[rows]
        return ~wrong[rows]
    fooled = is_fooled(outputs, y[rows], None if target is None else target[rows])
    if how.limit is None:
        beyond = torch.zeros_like(fooled)
    else:
        beyond = subject.differences(rows).square().mean(1) > how.limit
    success[rows] = fooled & ~beyond
    return ~(fooled | beyond)


def _gradient(model: nn.Module, inputs: list[Tensor], y: Tensor, target: Tensor | None, *, how: SpikeAttack) -> Tensor:
    """The mean gradient of the inputs, with what the attacker changed; `[T, B, ...]`."""
    total = torch.zeros_like(inputs[0])
    with firing_at(model, how.threshold, how.layer, how.window), surrogates(model, how.surrogate):
        for each in inputs:
            x = each.detach().requires_grad_()
            total += _towards(mean_outputs(model, x), x, y, target, how.loss)
    return total / len(inputs)


def _towards(outputs: Tensor, x: Tensor, y: Tensor, target: Tensor | None, loss: Loss) -> Tensor:
    """The gradient of x that leads away from y, or towards the target."""
    error = loss_of(outputs, y, loss) if target is None else -loss_of(outputs, target, loss)
    return torch.autograd.grad(error, x)[0]


def _draw(x: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.rand(x.shape, generator=generator, device=x.device)


def _by_sample(x: Tensor) -> Tensor:
    """`[T, B, ...]` to `[B, n]`."""
    return x.transpose(0, 1).flatten(1)


def _of_sample(values: Tensor, x: Tensor) -> Tensor:
    """A value for each sample `[B]`, to be combined with x `[T, B, ...]`."""
    return values.view(1, -1, *[1] * (x.ndim - 2))
