"""Graphs: nodes with features, links between them, labels of some, and three sets of nodes to learn and judge by.

Links have no direction here. `both_ways` makes them so of any list of edges.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from rheobase.data.dataset import random_of


@dataclass(frozen=True, eq=False, repr=False)
class Graph:
    """A graph of N nodes of which some have labels, and which nodes to learn and to judge by.

    Nodes without a link, without a label and without a set are allowed, and so are empty sets.

    Attributes:
        x: features, float32 `[N, F]`.
        edge_index: int64 `[2, E]`, every link in both directions, no node linked with itself, each pair once.
        y: labels, int64 `[N]`, -1 for none.
        train, val, test: nodes, int64; they share none and all have labels.
        listed: how many links the source lists, repeated ones and loops among them; None if that is not known.

    Raises:
        ValueError: a shape or dtype differs, a feature is NaN or infinite, a node does not exist, a link lacks its way
            back or comes twice, a label names no class, a node is in two of the three sets, or has no label there.
    """

    name: str
    x: Float32[Tensor, "N F"]
    edge_index: Int64[Tensor, "2 E"]
    y: Int64[Tensor, " N"]
    train: Int64[Tensor, " A"]
    val: Int64[Tensor, " B"]
    test: Int64[Tensor, " C"]
    classes: tuple[str, ...]
    source: str
    licence: str
    citation: str
    listed: int | None = None

    def __post_init__(self) -> None:
        N = len(self.x)
        if self.x.dtype != torch.float32 or self.x.ndim != 2:
            raise self._wrong(f"x is {self.x.dtype} {list(self.x.shape)}", "float32 [N, F]")
        if not self.x.isfinite().all():
            raise self._wrong("x holds NaN or Inf", "finite features")
        if self.edge_index.dtype != torch.int64 or self.edge_index.ndim != 2 or len(self.edge_index) != 2:
            raise self._wrong(f"edge_index is {self.edge_index.dtype} {list(self.edge_index.shape)}", "int64 [2, E]")
        if self.y.dtype != torch.int64 or self.y.shape != (N,):
            raise self._wrong(f"y is {self.y.dtype} {list(self.y.shape)}", f"int64 [{N}], a label per node")
        if span := outside(self.edge_index, N):
            raise self._wrong(f"edges run from {span[0]} to {span[1]}", f"0 to {N - 1}")
        if not _is_both_ways(self.edge_index, N):
            raise self._wrong(
                "edges are not each there once, both ways, without loops", "edges as both_ways makes them"
            )
        if ((self.y < -1) | (self.y >= len(self.classes))).any():
            raise self._wrong(f"labels run from {self.y.min()} to {self.y.max()}", f"-1 to {len(self.classes) - 1}")
        members = torch.cat([self.train, self.val, self.test])
        if members.dtype != torch.int64 or ((members < 0) | (members >= N)).any():
            raise self._wrong("train, val or test names a node that does not exist", f"int64 nodes 0 to {N - 1}")
        if len(members.unique()) != len(members):
            raise self._wrong("train, val and test share nodes or name one twice", "each node at most once")
        if (self.y[members] < 0).any():
            raise self._wrong("train, val or test holds a node without label", "labelled nodes")

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return f"Graph({self.name!r}, {len(self)} nodes, {self.x.shape[1]} features, {self.edge_index.shape[1]} edges)"

    @property
    def links(self) -> int:
        """How many links there are, each counted once: half of the columns of edge_index."""
        return self.edge_index.shape[1] // 2

    def _wrong(self, found: str, expected: str) -> ValueError:
        return ValueError(f"Graph {self.name}: {found}; expected {expected}")


def both_ways(edge_index: Int64[Tensor, "2 M"], N: int) -> Int64[Tensor, "2 E"]:
    """Every link in both directions, once, without loops, sorted by first node, then second.

    Args:
        edge_index: links in any direction, repeated or not; nodes are 0 to N - 1.
        N: number of nodes.

    Raises:
        ValueError: an edge names a node that does not exist.
    """
    if span := outside(edge_index, N):
        raise ValueError(f"both_ways: edges run from {span[0]} to {span[1]}; expected nodes 0 to {N - 1}")
    first, second = edge_index[:, edge_index[0] != edge_index[1]]
    numbers = _sorted(torch.cat([first * N + second, second * N + first]))
    new = torch.ones(len(numbers), dtype=torch.bool)
    torch.ne(numbers[1:], numbers[:-1], out=new[1:])
    numbers = numbers[new]
    return torch.stack([numbers // N, numbers % N])


def full_supervised(graph: Graph) -> Graph:
    """The same graph, trained on every labelled node that is neither for validation nor for testing.

    The split that papers call full-supervised; arXiv:2107.06865 counts nodes without a label in, here they stay out.
    """
    held = torch.zeros(len(graph), dtype=torch.bool)
    held[graph.val] = held[graph.test] = True
    return replace(graph, train=((graph.y >= 0) & ~held).nonzero().squeeze(1))


def random_split(
    y: Int64[Tensor, " N"], seed: int, train: int, val: int
) -> tuple[Int64[Tensor, " A"], Int64[Tensor, " B"], Int64[Tensor, " C"]]:
    """Nodes for training, `train` of each class, for validation, `val` of each, and for testing, all other labelled
    ones; each sorted. Fixed by `seed`.

    Args:
        y: labels, -1 for none.
        seed: in [0, 2**32).
        train, val: nodes of each class.

    Raises:
        ValueError: a class has too few nodes.
    """
    random = random_of("random_split", seed=seed)
    labels = y.numpy()
    shuffled = random.permutation(len(labels))
    parts: list[list[np.ndarray]] = [[], [], []]
    for label in np.unique(labels[labels >= 0]):
        members = shuffled[labels[shuffled] == label]
        if len(members) < train + val:
            raise ValueError(
                f"random_split: class {label} has {len(members)} nodes; expected {train} for training and {val} for "
                "validation: ask for fewer"
            )
        for part, chosen in zip(parts, np.split(members, [train, train + val]), strict=True):
            part.append(chosen)
    empty = np.empty(0, np.int64)
    a, b, c = (torch.from_numpy(np.sort(np.concatenate([empty, *part]))) for part in parts)
    return a, b, c


def outside(nodes: Tensor, N: int) -> tuple[int, int] | None:
    """The smallest and the largest of these nodes, if one of them is not 0 to N - 1; else None."""
    if not nodes.numel():
        return None
    low, high = (int(end) for end in nodes.aminmax())
    return (low, high) if low < 0 or high >= N else None


def _sorted(numbers: Tensor) -> Tensor:
    """The numbers in order; NumPy sorts whole numbers several times faster than torch."""
    return torch.from_numpy(np.sort(numbers.numpy()))


def _is_both_ways(edge_index: Tensor, N: int) -> bool:
    first, second = edge_index
    forward = _sorted(first * N + second)
    once = bool((forward[1:] > forward[:-1]).all()) and not bool((first == second).any())
    return once and torch.equal(forward, _sorted(second * N + first))
