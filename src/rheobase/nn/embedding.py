"""What tells one step from another: a learned number for each."""

import torch
from torch import Tensor, nn

from rheobase.scan import Temporal


class TemporalEmbedding(Temporal):
    r"""Adds a learned number to all of a step: $y_t = x_t + e_t$, e `[T, 1, ...]` normal at the start.

    Streamed, it counts: its state is the number of steps it has seen, an int64 tensor.

    Args:
        T: steps it has numbers for; shorter sequences take the first ones.
        std: standard deviation at the start.
        axes: axes of x besides time.

    Raises:
        ValueError: T below one; a step beyond T.

    Source: the ImageNet networks published with arXiv:2304.12760.
    """

    def __init__(self, T: int, std: float = 0.02, axes: int = 4) -> None:
        if T < 1:
            raise ValueError(f"TemporalEmbedding: T is {T}; expected at least 1")
        super().__init__()
        self.T = T
        self.weight = nn.Parameter(torch.randn(T, *(1,) * axes) * std)

    def sequence(self, x: Tensor, state: tuple[Tensor, ...] | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Add to the next steps x `[t, ...]` what they are due."""
        before = int(state[0]) if state else 0
        after = before + len(x)
        if after > self.T:
            raise ValueError(
                f"TemporalEmbedding: got {len(x)} steps after {before}; expected no more than T={self.T} in all"
            )
        return x + self.weight[before:after].to(x.dtype), (torch.tensor(after),)

    def extra_repr(self) -> str:
        """The number of steps."""
        return f"T={self.T}"
