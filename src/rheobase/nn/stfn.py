"""Normalisation of each node over its features and all steps, scaled to the threshold ahead."""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from rheobase.scan import Temporal
from rheobase.scan.static import once

Affine = Literal["feature", "node", "none"]


class STFN(Temporal):
    r"""Spatial-temporal feature norm: each node v of `[T, N, C]` by mean and variance of its C features in T steps.

    $\hat s_t[v,k] = \rho V_{th}\,(s_t[v,k] - \mu_v) / \sqrt{\sigma_v^2 + \epsilon}$ with
    $\mu_v = \frac{1}{CT}\sum_{t,k} s_t[v,k]$ and $\sigma_v^2$ (biased) likewise, then
    $y_t[v,k] = \lambda_k \hat s_t[v,k] + \gamma_k$, from $\lambda = 1$ and $\gamma = 0$.

    Nodes do not see each other, there are no running statistics, and training and evaluation are alike. Every step sees
    all T steps: not causal, so it cannot be streamed. An input that is expanded over time is normalised once.

    Args:
        channels: C, the size of the last axis.
        threshold: $V_{th}$ of the neuron that comes next.
        rho: $\rho$.
        affine: whether $\lambda$ and $\gamma$ are one a "feature", one a feature and "node" (for one graph of `nodes`
            nodes), or "none".
        nodes: N, with "node" alone.
        eps: $\epsilon$.

    Raises:
        ValueError: a setting out of range; an input of another shape, or a state.

    Source: Xu et al. 2021, arXiv:2107.06865; the text makes $\lambda$ and $\gamma$ those of a node ("node"). One a
    feature is the default here, for they serve nodes that were never seen.
    """

    streamable = False

    def __init__(
        self,
        channels: int,
        threshold: float = 1.0,
        rho: float = 1.0,
        affine: Affine = "feature",
        nodes: int | None = None,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        ranges = {
            "channels": (channels, channels >= 1, "at least 1"),
            "threshold": (threshold, 0 < threshold < math.inf, "above 0 and finite"),
            "rho": (rho, 0 < rho < math.inf, "above 0 and finite"),
            "affine": (affine, affine in ("feature", "node", "none"), "'feature', 'node' or 'none'"),
            "nodes": (nodes, (nodes is not None) == (affine == "node"), "given with affine='node' and only then"),
            "eps": (eps, eps > 0, "above 0"),
        }
        for name, (value, fine, expected) in ranges.items():
            if not fine:
                raise ValueError(f"STFN: {name} is {value!r}; expected {expected}")
        self.channels, self.nodes, self.affine, self.eps = channels, nodes, affine, eps
        self.threshold, self.rho = threshold, rho
        if affine != "none":
            shape = (channels,) if nodes is None else (nodes, channels)
            self.weight = nn.Parameter(torch.ones(shape))
            self.bias = nn.Parameter(torch.zeros(shape))

    def sequence(self, x: Any, state: tuple[Tensor, ...] | None) -> tuple[Any, tuple[Tensor, ...]]:
        """Normalise the whole sequence x `[T, N, C]`; there is no state."""
        if state:
            raise ValueError("STFN: got a state, but it needs the whole sequence at once; pass None")
        fits = x.dim() == 3 and x.shape[2] == self.channels and self.nodes in (None, x.shape[1])
        if not fits:
            expected = f"[T, {self.nodes or 'N'}, {self.channels}]"
            raise ValueError(f"STFN: x has shape {tuple(x.shape)}; expected {expected}: steps, nodes, features")
        rows = once(x).transpose(0, 1)
        hat = functional.layer_norm(rows, rows.shape[1:], eps=self.eps).transpose(0, 1)
        factor = self.rho * self.threshold
        if self.affine == "none":
            return (hat * factor).expand(x.shape), ()
        return (hat * (self.weight * factor) + self.bias).expand(x.shape), ()

    def extra_repr(self) -> str:
        """The settings."""
        return f"{self.channels}, threshold={self.threshold:.4g}, rho={self.rho:.4g}, affine={self.affine!r}"
