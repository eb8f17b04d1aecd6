"""Parts of graphs that do not fit: the nodes of a batch, a few neighbours of each, a few of each of these, and on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from rheobase.data.dataset import random_of
from rheobase.data.graph import outside
from rheobase.data.kernels import kernels


@dataclass(frozen=True, eq=False)
class Subgraph:
    """A part of a graph.

    Attributes:
        nodes: the numbers of its n nodes in the whole graph, int64 `[n]`, the seeds first: `graph.x[part.nodes]`.
        edge_index: int64 `[2, e]`, from neighbour to node, by their places in `nodes`.
        seeds: how many seeds there are; what a network says of the other nodes is not to be used.
    """

    nodes: Int64[Tensor, " n"]
    edge_index: Int64[Tensor, "2 e"]
    seeds: int


class NeighbourSampler:
    """Draws neighbours without replacement, each set of them as likely as another: arXiv:1706.02216, algorithm 2.

    From the seeds it goes a hop for each fan-out: of every node that the hop before found new, it draws that many
    neighbours (sources of edges that lead to it), all of them if there are fewer. What is drawn for a node is a
    function of (seed, epoch, batch, hop, node): neither the order of calls nor threads nor the other seeds change it.

    Args:
        edge_index: int64 `[2, E]`, source and target; links without direction stand there both ways, as in a `Graph`.
        N: number of nodes.
        fan_outs: neighbours of a node, a number for each layer of the network, the one next to the output first; -1
            takes all.
        seed: in [0, 2**32).

    Raises:
        ValueError: an edge or, when it is called, a seed names no node; a seed comes twice; a fan-out below -1.
    """

    def __init__(self, edge_index: Int64[Tensor, "2 E"], N: int, fan_outs: Sequence[int], seed: int = 0) -> None:
        if span := outside(edge_index, N):
            raise ValueError(f"NeighbourSampler: edges run from {span[0]} to {span[1]}; expected 0 to {N - 1}")
        if any(fan < -1 for fan in fan_outs):
            raise ValueError(f"NeighbourSampler: fan_outs are {tuple(fan_outs)}; expected numbers of at least -1")
        self.fan_outs = np.array([len(edge_index[0]) if fan < 0 else fan for fan in fan_outs], np.int64)
        self.seed, self.N = seed, N
        self._indptr, self._indices = np.zeros(N + 1, np.int64), np.empty(len(edge_index[0]), np.int32)
        kernels("neighbour_kernel").compress(*edge_index.numpy(), self._indptr, self._indices)

    def __call__(self, seeds: Int64[Tensor, " B"], *, epoch: int = 0, batch: int = 0) -> Subgraph:
        """The seeds with what is drawn around them, for so numbered a batch of so numbered an epoch."""
        if span := outside(seeds, self.N):
            raise ValueError(f"NeighbourSampler: seeds run from {span[0]} to {span[1]}; expected 0 to {self.N - 1}")
        key = random_of("NeighbourSampler", seed=self.seed, epoch=epoch, batch=batch).randint(0, 2**64, dtype=np.uint64)
        nodes, edges = kernels("neighbour_kernel").draw(self._indptr, self._indices, seeds.numpy(), self.fan_outs, key)
        if len(nodes) < len(seeds):
            raise ValueError(f"NeighbourSampler: a node is twice among {len(seeds)} seeds; expected each once")
        return Subgraph(torch.from_numpy(nodes), torch.from_numpy(edges).T.contiguous(), len(seeds))

    def batches(self, nodes: Int64[Tensor, " M"], size: int, epoch: int = 0) -> Iterator[Subgraph]:
        """All nodes once as seeds, so many at a time, in an order drawn by (seed, epoch)."""
        order = nodes[torch.from_numpy(random_of("batches", seed=self.seed, epoch=epoch).permutation(len(nodes)))]
        for batch, seeds in enumerate(order.split(size)):
            yield self(seeds, epoch=epoch, batch=batch)
