"""Losses on per-step logits [T, B, K] and labels: classes [B], or soft targets [B, K] whose rows are probabilities."""

from collections.abc import Callable

from jaxtyping import Float, Float32, Int
from torch import Tensor
from torch.nn import functional as F

from rheobase.nn.readout import read_out

Labels = Int[Tensor, " B"] | Float32[Tensor, "B K"]


def cross_entropy(
    logits: Float[Tensor, "T B K"], y: Labels, label_smoothing: float = 0.0, readout: str = "mean"
) -> Float[Tensor, ""]:
    """Cross entropy of the logits read out over time, by default CE(mean_t o_t, y), averaged over the batch.

    `label_smoothing` of s makes a target (1 - s) y + s / K, of soft ones too.
    """
    return F.cross_entropy(read_out(logits, readout), _matching(y, logits), label_smoothing=label_smoothing)


def tet(
    logits: Float[Tensor, "T B K"], y: Labels, lam: float = 0.05, target: float = 1.0, label_smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """Temporal efficient training: (1 - lam) * mean_t CE(o_t, y) + lam * mean((o - target)^2).

    Every step has to be right on its own; the second term keeps single logits from running away.

    Source: Deng et al. 2022, arXiv:2202.11946; it has hard labels, neither soft nor smoothed.
    """
    every_step = _matching(y, logits).repeat(logits.shape[0], *[1] * (y.ndim - 1))
    per_step = F.cross_entropy(logits.flatten(0, 1), every_step, label_smoothing=label_smoothing)
    return (1 - lam) * per_step + lam * (logits - target).square().mean()


def mse(
    logits: Float[Tensor, "T B K"], y: Labels, label_smoothing: float = 0.0, readout: str = "mean"
) -> Float[Tensor, ""]:
    """Squared distance of what is read out over time, by default the rates, to the one-hot label or the soft target.

    Averaged over classes and the batch; `label_smoothing` as in `cross_entropy`.
    """
    K = logits.shape[2]
    wanted = y.to(logits.dtype) if y.is_floating_point() else F.one_hot(y.long(), K).to(logits.dtype)
    return F.mse_loss(read_out(logits, readout), (1 - label_smoothing) * wanted + label_smoothing / K)


def _matching(y: Labels, logits: Tensor) -> Tensor:
    """Soft targets in the dtype of the logits, classes as they are."""
    return y.to(logits.dtype) if y.is_floating_point() else y


LOSSES: dict[str, Callable[..., Tensor]] = {"cross_entropy": cross_entropy, "mse": mse, "tet": tet}


def loss(name: str) -> Callable[..., Tensor]:
    """The loss function called `name`. Raises ValueError for an unknown name."""
    if name not in LOSSES:
        raise ValueError(f"loss: no loss is called {name!r}; choose one of {', '.join(sorted(LOSSES))}")
    return LOSSES[name]
