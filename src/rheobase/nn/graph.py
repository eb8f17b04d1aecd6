"""Layers on the nodes of a graph: sequences `[T, N, F]` and the links between the N nodes.

Every layer takes `(x, links)`, see `Links`. What is the same at every step is computed once: an input that is expanded
over time (stride 0), and the features of nodes stored sparse (`SparseInput`).
"""

from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from rheobase.nn.dense import Dense
from rheobase.nn.links import Links, add_ends, add_neighbours, softmax_in_rows
from rheobase.nn.values import Values
from rheobase.scan import static

Order = Literal["weights", "links"]


@dataclass(frozen=True, eq=False)
class SparseInput:
    """Features of nodes that are the same at each of T steps, zeros not stored: stands for a tensor `[T, N, F]`.

    Attributes:
        links: which node has which feature.
        values: of the features that are not zero, `[E]`.
        T: steps.
    """

    links: Links
    values: Tensor
    T: int

    @classmethod
    def of(cls, x: Float[Tensor, "N F"], T: int) -> "SparseInput":
        """The features x of N nodes at T steps.

        Raises:
            ValueError: T below one.
        """
        if T < 1:
            raise ValueError(f"SparseInput: T is {T}; expected at least 1")
        row, column = x.nonzero(as_tuple=True)
        return cls(Links.of_matrix(row, column, *x.shape), x[row, column], T)

    @property
    def shape(self) -> tuple[int, int, int]:
        """That of the tensor `[T, N, F]`."""
        return self.T, self.links.rows, self.links.columns

    def times(self, weight: Float[Tensor, "C F"]) -> Float[Tensor, "1 N C"]:
        """X W^T, the same at every step."""
        values = self.values.to(weight.dtype).view(1, -1, 1)
        return add_neighbours(weight.t().reshape(1, self.links.columns, 1, -1), self.links, values).squeeze(2)

    def dropped(self, share: float) -> "SparseInput":
        """Without a random share of the features."""
        kept = torch.empty_like(self.values).bernoulli_(1 - share)
        return SparseInput(self.links, self.values * kept, self.T)

    def to(self, device: torch.device | str) -> "SparseInput":
        """The same on a device."""
        return SparseInput(self.links.to(device), self.values.to(device), self.T)


def once(x: Tensor | SparseInput) -> Tensor | SparseInput:
    """One step of what is the same at every step, `[1, N, F]`; anything else as it is."""
    if isinstance(x, SparseInput):
        return replace(x, T=1)
    return static.once(x)


def propagate(x: Float[Tensor, "T N C"], links: Links) -> Float[Tensor, "T N C"]:
    r"""$y_{t,i} = \sum_{j \in N(i)} x_{t,j} / \sqrt{|N(i)|\,|N(j)|}$: sums over neighbours, normalised symmetrically.

    $|N(i)|$ is the number of links into i, $|N(j)|$ that of links out of j: the same for undirected graphs. Rows are
    scaled before and after, so that the sum itself only adds. A node that no link leads to gets 0.

    Source: Kipf and Welling 2017, arXiv:1609.02907, eq. 2.
    """
    into, out_of = (_inverse_root(degree, x.dtype) for degree in links.degrees())
    return add_neighbours(x * out_of, links) * into


def _inverse_root(degree: Tensor, dtype: torch.dtype) -> Tensor:
    """`[N, 1]`; 0 where there is no link."""
    root = degree.to(dtype).clamp(min=1).rsqrt()
    return (root * (degree > 0)).unsqueeze(1)


def dirichlet_energy(x: Float[Tensor, "N C"], links: Links) -> Float[Tensor, ""]:
    r"""How much linked nodes differ, as a share: $\frac12\sum_{i \leftarrow j} \|\hat x_i - \hat x_j\|^2 / \|x\|^2$.

    $\hat x_i = x_i / \sqrt{|N(i)|}$, links in both directions. 0 where all $\hat x_i$ are equal, which is what graph
    convolutions smooth towards; at most 2; NaN where x is 0.

    Source: Cai and Wang 2020, arXiv:2006.13318, definition 1, over the norm so that the scale of x does not matter.
    """
    into, _ = (_inverse_root(degree, x.dtype) for degree in links.degrees())
    hat = x * into
    apart = (hat[links.row] - hat[links.column]).square().sum(1) * links.kept
    return apart.sum() / 2 / x.square().sum()


class _Filter(nn.Module):
    """What both layers share: weights, a bias that is added last, and dropout of their input."""

    def __init__(self, c_in: int, c_out: int, bias_size: int, reads: Values, bias: bool, dropout: float) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"{type(self).__name__}: dropout is {dropout}; expected 0 or above, and below 1")
        self.dropout = dropout
        self.linear = Dense(c_in, c_out, reads)
        self.bias = nn.Parameter(torch.zeros(bias_size)) if bias else None
        nn.init.xavier_uniform_(self.weight)

    @property
    def weight(self) -> Tensor:
        """W, `[c_out, c_in]`."""
        return cast(Tensor, self.linear.module.weight)

    def forward(self, x: Tensor | SparseInput, links: Links) -> Float[Tensor, "T N C"]:
        """The sums of every node at every step, of x `[T, N, c_in]`; of an expanded x computed once and expanded."""
        y = self.summed(once(x), links)
        return y.expand(x.shape[0], *y.shape[1:])

    def summed(self, x: Tensor | SparseInput, links: Links) -> Tensor:
        """The sums of x."""
        raise NotImplementedError

    def thinned(self, x: Tensor | SparseInput) -> Tensor | SparseInput:
        """The input without what is dropped: one draw for all steps. Spikes stay 0 or 1, `weighed` scales instead."""
        if not self.training or not self.dropout:
            return x
        if isinstance(x, SparseInput):
            return x.dropped(self.dropout)
        return x * torch.empty_like(x[0]).bernoulli_(1 - self.dropout)

    def weighed(self, x: Tensor | SparseInput) -> Tensor:
        """X W, scaled for what was dropped."""
        y: Tensor = x.times(self.weight) if isinstance(x, SparseInput) else self.linear(x)
        return y / (1 - self.dropout) if self.training and self.dropout else y

    def shifted(self, y: Tensor) -> Tensor:
        """With the bias."""
        return y if self.bias is None else y + self.bias


class GraphConv(_Filter):
    r"""Graph convolution: $S_t = \hat A (H_t W) + b$, with $\hat A$ as in `propagate`.

    Args:
        c_in: features of a node.
        c_out: features that come out.
        reads: what the input holds; a "binary" one is checked in training and kept as bits.
        bias: whether there is b.
        dropout: share of the input that is dropped in training, the same at every step.
        first: "weights" multiplies by W before it adds up neighbours, so that spikes are only selected and added;
            "links" after. Equal up to rounding. A `SparseInput` is always multiplied first.

    Raises:
        ValueError: dropout out of range, another order.

    Source: Kipf and Welling 2017, arXiv:1609.02907; on spikes Xu et al. 2021, arXiv:2107.06865.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        reads: Values = "real",
        bias: bool = True,
        dropout: float = 0.0,
        first: Order = "weights",
    ) -> None:
        if first not in ("weights", "links"):
            raise ValueError(f"GraphConv: first is {first!r}; expected 'weights' or 'links'")
        super().__init__(c_in, c_out, c_out, reads if first == "weights" else "real", bias, dropout)
        self.first = first

    def summed(self, x: Tensor | SparseInput, links: Links) -> Tensor:
        """The sums of x."""
        x = self.thinned(x)
        if self.first == "links" and isinstance(x, Tensor):
            return self.shifted(self.weighed(propagate(x, links)))
        return self.shifted(propagate(self.weighed(x), links))


class GraphAttention(_Filter):
    r"""Graph attention: $S_{t,i} = \sum_{j \in N(i)} \alpha_{t,ij}\,h_{t,j} W + b$, the weights anew at each step.

    $\alpha_{t,ij}$ is the softmax over the neighbours j of i of $\mathrm{LeakyReLU}(a_1 h_{t,i}W + a_2 h_{t,j}W)$, in
    each of the heads. An isolated node with a link to itself has weight 1 on itself; without, it gets b alone.

    Args:
        c_in: features of a node.
        c_out: features that come out of each head.
        heads: how many there are.
        concat: put the heads side by side, `[T, N, heads * c_out]`, or average them.
        reads: what the input holds; a "binary" one is checked in training and kept as bits.
        bias: whether there is b.
        dropout: share of the input, and of the weights $\alpha$, that is dropped in training, the same at every step.
        slope: of LeakyReLU below zero.

    Raises:
        ValueError: dropout out of range, no head.

    Source: Velickovic et al. 2018, arXiv:1710.10903; on spikes Xu et al. 2021, arXiv:2107.06865.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        heads: int = 8,
        concat: bool = True,
        reads: Values = "real",
        bias: bool = True,
        dropout: float = 0.0,
        slope: float = 0.2,
    ) -> None:
        if heads < 1:
            raise ValueError(f"GraphAttention: heads is {heads}; expected at least 1")
        super().__init__(c_in, heads * c_out, heads * c_out if concat else c_out, reads, bias, dropout)
        self.heads, self.concat, self.slope = heads, concat, slope
        self.to_target, self.to_source = (nn.Parameter(torch.empty(heads, c_out)) for _ in range(2))
        for vector in (self.to_target, self.to_source):
            nn.init.xavier_uniform_(vector)

    def attention(self, h: Float[Tensor, "T N H C"], links: Links) -> Float[Tensor, "T E H"]:
        """The weight of every link, of h = x W: they sum to 1 over the links into a node."""
        scores = add_ends((h * self.to_target).sum(3), (h * self.to_source).sum(3), links)
        return softmax_in_rows(functional.leaky_relu(scores, self.slope), links)

    def summed(self, x: Tensor | SparseInput, links: Links) -> Tensor:
        """The sums of x."""
        h = self.weighed(self.thinned(x)).unflatten(2, (self.heads, -1))
        weight = self.attention(h, links)
        if self.training and self.dropout:
            weight = weight * functional.dropout(torch.ones_like(weight[0]), self.dropout)
        y = add_neighbours(h, links, weight)
        return self.shifted(y.flatten(2) if self.concat else y.mean(2))


class OnGraph(nn.Module):
    """A network on its graph as a module of x alone: what takes models of `[T, B, ...]`, a tracer say, takes it.

    Args:
        model: takes `(x, edge_index)`.
        edge_index: int64 `[2, E]`, or `Links`.
    """

    def __init__(self, model: nn.Module, edge_index: Tensor | Links) -> None:
        super().__init__()
        self.model, self.edge_index = model, edge_index

    def forward(self, x: Tensor | SparseInput) -> Tensor:
        """The network's output for x `[T, N, F]`."""
        y: Tensor = self.model(x, self.edge_index)
        return y
