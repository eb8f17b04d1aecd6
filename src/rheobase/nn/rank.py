"""Rank-order coding: who fires first says most."""

from typing import Any

import torch
from torch import Tensor

from rheobase.scan import Temporal


class RankOrder(Temporal):
    r"""First spikes weighed by their rank: $y_t[j] = r^{k_t} s_t[j]$ where neuron j had not fired before t, else 0.

    $k_t$ counts the neurons of the last axis that had; those that fire in the same step share a rank. Summed over time,
    $W y$ is the membrane $\sum_j r^{\mathrm{order}(j)} w_{ij}$. The gradient takes ranks as constants.

    The state is who has fired, `[B, ..., C]` in x's format.

    Args:
        r: in (0, 1).

    Raises:
        ValueError: r out of range.

    Source: Thorpe and Gautrais 1998, doi:10.1007/978-1-4615-4831-7_19; on graphs Xu et al. 2024, arXiv:2407.20508.
    """

    def __init__(self, r: float = 0.8) -> None:
        super().__init__()
        if not 0 < r < 1:
            raise ValueError(f"RankOrder: r is {r}; expected above 0 and below 1")
        self.r = r

    def sequence(self, x: Any, state: tuple[Tensor, ...] | None) -> tuple[Any, tuple[Tensor, ...]]:
        """Weigh the spikes x `[T, B, ..., C]`."""
        spikes = (x.detach() != 0).to(x.dtype)
        had = torch.zeros_like(spikes[0]) if state is None else state[0]
        until = torch.cummax(torch.cat([had.unsqueeze(0), spikes]), 0).values
        before = until[:-1]
        weight = self.r ** before.sum(-1, keepdim=True) * (1 - before)
        return x * weight, (until[-1],)

    def extra_repr(self) -> str:
        """The base of the weights."""
        return f"r={self.r:.4g}"
