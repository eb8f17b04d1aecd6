"""Whether two contestants computed the same: seen to before anything is timed."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TOLERANCE = 1e-5
"""Largest difference of gradients, relative to the largest gradient."""


@dataclass(frozen=True)
class Agreement:
    """Whether two runs computed the same, and in words what was seen."""

    holds: bool
    text: str


def agree(found: Sequence[Tensor], expected: Sequence[Tensor], share: float = 1e-7) -> Agreement:
    """Compare (spikes `[T, ...]`, gradients...).

    One spike, or `share` of them, may differ (a membrane within rounding of the threshold). Gradients must agree to
    `TOLERANCE` of the largest, one of the spikes' shape in all lanes whose spikes are equal.
    """
    shapes = [[tuple(value.shape) for value in values] for values in (found, expected)]
    if shapes[0] != shapes[1]:
        return Agreement(False, f"shapes {shapes[0]} and {shapes[1]}")
    other = found[0] != expected[0]
    count, lanes, errors = int(other.sum()), other.any(0), []
    for gradient, gradient_ in zip(found[1:], expected[1:], strict=True):
        error = (gradient - gradient_).abs_()
        if error.shape == other.shape:
            error.masked_fill_(lanes, 0.0)
        errors.append(float(error.max() / gradient_.abs().max()))
    worst = _worst(errors)
    holds = count <= 1 + other.numel() * share and worst <= TOLERANCE
    return Agreement(holds, f"{_words(count, other.numel())}, gradient {worst:.1e}")


@dataclass(frozen=True)
class Seen:
    """What a network did in one training step: spikes of every layer, output, gradients by name."""

    spikes: Sequence[Tensor]
    output: Tensor
    gradients: Mapping[str, Tensor]


def agree_nets(found: Seen, expected: Seen, share: float) -> Agreement:
    """Compare two networks with equal weights on the same batch.

    At most `share` of the spikes may differ. A layer's gradient differs by the norm of the difference over that of the
    gradient, and the text tells the worst layer's. It must be within 1e-4; where spikes differ, within three times the
    root of what share of the smallest layer they would be: each moves the gradients of all layers below, and one in
    the last layer is one of few.
    """
    shapes = [[tuple(layer.shape) for layer in seen.spikes] for seen in (found, expected)]
    if shapes[0] != shapes[1]:
        return Agreement(False, f"layers of spikes {shapes[0]} and {shapes[1]}"[:120])
    if found.gradients.keys() != expected.gradients.keys():
        return Agreement(False, f"gradients of {sorted(found.gradients.keys() ^ expected.gradients.keys())}"[:120])
    pairs = list(zip(found.spikes, expected.spikes, strict=True))
    count, total = sum(int((a != b).sum()) for a, b in pairs), sum(a.numel() for a, _ in pairs)
    output = _distance(found.output, expected.output)
    gradient = _worst(_distance(g, expected.gradients[name]) for name, g in found.gradients.items())
    differ = count / total
    within = max(1e-4, 3 * (count / min(a.numel() for a, _ in pairs)) ** 0.5) if count else 1e-4
    holds = differ <= share and _worst((output, gradient)) <= within
    return Agreement(holds, f"{_words(count, total)}, output {output:.1e}, gradient {gradient:.1e}")


def attempt(check: Callable[[], Agreement]) -> Agreement:
    """The agreement, or none with the words of the error: whatever a peer raises, the others go on."""
    try:
        return check()
    except Exception as error:
        return Agreement(False, reason(error))


def reason(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:120]


def _worst(errors: Iterable[float]) -> float:
    """The largest; NaN is larger than all."""
    return max(errors, key=lambda error: (math.isnan(error), error), default=0.0)


def _words(count: int, total: int) -> str:
    return "spikes equal" if count == 0 else f"{count} of {total} spikes differ"


def _distance(a: Tensor, b: Tensor) -> float:
    size = torch.linalg.vector_norm(b)
    return float(torch.linalg.vector_norm(a - b) / size) if size > 0 else float((a != b).any())
