"""Many small graphs with a label each, and a generated set of them."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from rheobase.data.dataset import random_of
from rheobase.data.graph import both_ways, outside


@dataclass(frozen=True, eq=False)
class GraphSet:
    """G graphs side by side, as one graph of all their N nodes.

    Attributes:
        x: features, float32 `[N, F]`.
        edge_index: int64 `[2, E]`, no edge between two graphs.
        graph: which graph a node belongs to, int64 `[N]`, rising.
        y: labels, int64 `[G]`.
        classes: their names.

    Raises:
        ValueError: shapes do not fit, `graph` falls or names no graph, an edge names no node or leaves its graph.
    """

    x: Float32[Tensor, "N F"]
    edge_index: Int64[Tensor, "2 E"]
    graph: Int64[Tensor, " N"]
    y: Int64[Tensor, " G"]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        N, graph = len(self.x), self.graph
        if graph.shape != (N,) or (graph.diff() < 0).any() or ((graph < 0) | (graph >= len(self.y))).any():
            raise ValueError(f"GraphSet: graph must be [{N}], rising, from 0 to {len(self.y) - 1}; one number a node")
        if span := outside(self.edge_index, N):
            raise ValueError(f"GraphSet: edges run from {span[0]} to {span[1]}; expected 0 to {N - 1}")
        if not torch.equal(graph[self.edge_index[0]], graph[self.edge_index[1]]):
            raise ValueError("GraphSet: an edge leads from one graph to another; expected none")

    def __len__(self) -> int:
        return len(self.y)

    def select(self, index: Int64[Tensor, " B"]) -> "GraphSet":
        """The graphs at `index`, in that order, nodes and graphs numbered anew.

        Raises:
            ValueError: a graph comes twice.
        """
        place = torch.full((len(self),), -1)
        place[index] = torch.arange(len(index))
        if (place >= 0).sum() != len(index):
            raise ValueError(f"select: a graph is twice among {len(index)}; expected each once")
        nodes = (place[self.graph] >= 0).nonzero().squeeze(1)
        nodes = nodes[place[self.graph[nodes]].argsort(stable=True)]
        number = torch.full((len(self.x),), -1)
        number[nodes] = torch.arange(len(nodes))
        edges = number[self.edge_index]
        return GraphSet(self.x[nodes], edges[:, edges[0] >= 0], place[self.graph[nodes]], self.y[index], self.classes)


def near_or_rewired(
    graphs: int = 1000, nodes: tuple[int, int] = (30, 60), degrees: int = 16, seed: int = 0
) -> GraphSet:
    """Points in a square that are linked with those near them, or the same after its links were exchanged.

    Each graph has n points, n uniform between the two numbers of `nodes`, uniform in the unit square; the 2n closest
    pairs are linked. Every second graph (class "rewired") then exchanges ends: 20n times two links a-b and c-d are
    drawn and become a-d and c-b, unless that makes a loop or a repeated link. Its degrees stay as they were, so they
    say nothing of the class; who is linked with whom does. The order is drawn.

    A node's features are its degree, one of `degrees` places 1, the last for all degrees from there on.

    Raises:
        ValueError: an option out of range.
    """
    low, high = nodes
    if graphs < 2 or not 6 <= low <= high or degrees < 2:
        raise ValueError(
            f"near_or_rewired: graphs is {graphs}, nodes {nodes}, degrees {degrees}; expected at least 2, "
            "6 <= first <= second, and at least 2"
        )
    random = random_of("near_or_rewired", seed=seed)
    y = random.permutation(np.arange(graphs) % 2)
    sizes = random.randint(low, high + 1, graphs)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    links = []
    for start, n, label in zip(starts.tolist(), sizes.tolist(), y.tolist(), strict=False):
        pairs = _closest(random.random_sample((n, 2)), 2 * n)
        links.append(start + (_exchange(random, pairs, 20 * n) if label else pairs))
    N = int(starts[-1])
    edge_index = both_ways(torch.from_numpy(np.concatenate(links).T.copy()), N)
    degree = edge_index[0].bincount(minlength=N).clamp(max=degrees - 1)
    return GraphSet(
        x=torch.nn.functional.one_hot(degree, degrees).float(),
        edge_index=edge_index,
        graph=torch.from_numpy(np.repeat(np.arange(graphs), sizes)),
        y=torch.from_numpy(y.astype(np.int64)),
        classes=("near", "rewired"),
    )


def _closest(points: np.ndarray, count: int) -> np.ndarray:
    """The closest pairs of points, int64 `[count, 2]`."""
    first, second = np.triu_indices(len(points), 1)
    order = np.argsort(((points[first] - points[second]) ** 2).sum(1), kind="stable")[:count]
    return np.stack([first[order], second[order]], axis=1)


def _exchange(random: np.random.RandomState, pairs: np.ndarray, times: int) -> np.ndarray:
    """The pairs after so many attempts to exchange the ends of two, degrees kept, int64 `[M, 2]`."""
    links = [(int(a), int(b)) for a, b in pairs]
    known = {frozenset(link) for link in links}
    chosen, turned = random.randint(0, len(links), (times, 2)), random.randint(0, 2, times)
    for (i, j), turn in zip(chosen.tolist(), turned.tolist(), strict=True):
        (a, b), (c, d) = links[i], links[j][::-1] if turn else links[j]
        new = {frozenset((a, d)), frozenset((c, b))}
        if a == d or c == b or len(new) < 2 or new & known:
            continue
        known = (known - {frozenset((a, b)), frozenset((c, d))}) | new
        links[i], links[j] = (a, d), (c, b)
    return np.array(links, np.int64)
