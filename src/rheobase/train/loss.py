"""Losses on per-step logits [T, B, K] and labels [B]."""

from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from rheobase.nn.readout import read_out


def cross_entropy(
    logits: Float[Tensor, "T B K"], y: Int[Tensor, " B"], label_smoothing: float = 0.0, readout: str = "mean"
) -> Float[Tensor, ""]:
    """Cross entropy of the logits read out over time, by default CE(mean_t o_t, y), averaged over the batch."""
    return F.cross_entropy(read_out(logits, readout), y, label_smoothing=label_smoothing)


def tet(
    logits: Float[Tensor, "T B K"], y: Int[Tensor, " B"], lam: float = 0.05, target: float = 1.0
) -> Float[Tensor, ""]:
    """Temporal efficient training: (1 - lam) * mean_t CE(o_t, y) + lam * mean((o - target)^2).

    Every step has to be right on its own; the second term keeps single logits from running away.

    Source: Deng et al. 2022, arXiv:2202.11946.
    """
    per_step = F.cross_entropy(logits.flatten(0, 1), y.repeat(logits.shape[0]))
    return (1 - lam) * per_step + lam * (logits - target).square().mean()


LOSSES: dict[str, Callable[..., Tensor]] = {"cross_entropy": cross_entropy, "tet": tet}


def loss(name: str) -> Callable[..., Tensor]:
    """The loss function called `name`. Raises ValueError for an unknown name."""
    if name not in LOSSES:
        raise ValueError(f"loss: no loss is called {name!r}; choose one of {', '.join(sorted(LOSSES))}")
    return LOSSES[name]
