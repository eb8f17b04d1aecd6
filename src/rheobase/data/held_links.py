"""Links held out of a graph, and pairs that are not linked, for learning which nodes belong together."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from rheobase.data.dataset import random_of
from rheobase.data.graph import Graph, both_ways


@dataclass(frozen=True, eq=False)
class LinkSplit:
    """The links of a graph in three parts; pairs of nodes are int64 `[2, M]`, each pair once.

    Attributes:
        edge_index: the links for training both ways, `[2, E]`: the graph that a network may read.
        train, val, test: linked pairs.
        val_apart, test_apart: as many pairs that are linked nowhere in the whole graph, none in both.
    """

    edge_index: Int64[Tensor, "2 E"]
    train: Int64[Tensor, "2 A"]
    val: Int64[Tensor, "2 B"]
    test: Int64[Tensor, "2 C"]
    val_apart: Int64[Tensor, "2 B"]
    test_apart: Int64[Tensor, "2 C"]


def hold_out_links(graph: Graph, val: float = 0.05, test: float = 0.1, seed: int = 0) -> LinkSplit:
    """Hold out shares of the links, rounded down, drawn by `seed`.

    The shares are those of arXiv:1611.07308.

    Raises:
        ValueError: the shares leave a part without links, or there are too few pairs without a link.
    """
    random = random_of("hold_out_links", seed=seed)
    pairs = graph.edge_index[:, graph.edge_index[0] < graph.edge_index[1]]
    M = pairs.shape[1]
    sizes = [int(val * M), int(test * M)]
    if min(val, test) <= 0 or min(*sizes, M - sum(sizes)) < 1:
        raise ValueError(
            f"hold_out_links: shares {val} and {test} of {M} links; expected ones that leave each part a link"
        )
    order = torch.from_numpy(random.permutation(M))
    a, b, rest = (pairs[:, part.sort().values] for part in order.split([*sizes, M - sum(sizes)]))
    apart = draw_unlinked(graph.edge_index, len(graph), sum(sizes), random)
    first, second = apart.split(sizes, dim=1)
    return LinkSplit(both_ways(rest, len(graph)), rest, a, b, first, second)


def draw_unlinked(
    edge_index: Int64[Tensor, "2 E"], N: int, count: int, random: np.random.RandomState
) -> Int64[Tensor, "2 count"]:
    """So many different pairs i < j of N nodes without a link between them, all such pairs equally likely.

    Args:
        edge_index: links both ways, each once, as `both_ways` makes them.
        N: number of nodes.
        count: how many pairs.
        random: where they are drawn from.

    Raises:
        ValueError: there are fewer.
    """
    there = N * (N - 1) // 2 - edge_index.shape[1] // 2
    if count > there:
        raise ValueError(f"draw_unlinked: {there} pairs of {N} nodes have no link; expected at least {count}")
    linked = np.sort((edge_index[0] * N + edge_index[1]).numpy())
    found = np.empty(0, np.int64)
    while len(found) < count:
        ends = np.sort(random.randint(0, N, (2, count - len(found))), axis=0)
        numbers = ends[0] * N + ends[1]
        fresh = numbers[(ends[0] < ends[1]) & ~np.isin(numbers, linked)]
        together = np.concatenate([found, fresh])
        found = together[np.sort(np.unique(together, return_index=True)[1])]
    return torch.from_numpy(np.stack([found // N, found % N]))
