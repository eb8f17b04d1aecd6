from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch

from rheobase.data import NeighbourSampler, both_ways, load

STAR = torch.tensor([[1, 2, 3, 4, 5, 0], [0, 0, 0, 0, 0, 1]])
"""Five nodes point to node 0, which points to node 1."""


def random_graph(N=60, links=200, seed=0):
    random = torch.Generator().manual_seed(seed)
    return both_ways(torch.randint(0, N, (2, links), generator=random), N)


def neighbours_of(edge_index, node):
    """Read off the list of edges, one after the other."""
    return [a for a, b in edge_index.T.tolist() if b == node]


def check(edge_index, fan_outs, part, seeds):
    """A part of a graph against what its fan-outs promise, by brute force."""
    nodes = part.nodes.tolist()
    assert nodes[: part.seeds] == seeds
    assert len(set(nodes)) == len(nodes)
    drawn = {}
    for a, b in part.edge_index.T.tolist():
        drawn.setdefault(nodes[b], []).append(nodes[a])
    frontier, known = list(seeds), set(seeds)
    for fan in fan_outs:
        new = []
        for node in frontier:
            found, there = drawn.pop(node, []), neighbours_of(edge_index, node)
            assert len(found) == (len(there) if fan < 0 else min(fan, len(there)))
            assert len(set(found)) == len(found)
            assert set(found) <= set(there)
            new += [other for other in found if other not in known]
            known |= set(found)
        frontier = list(dict.fromkeys(new))
    assert not drawn
    assert set(nodes) == known


@pytest.mark.parametrize("fan_outs", [(3,), (2, 3), (-1, 2, 1), (0,), (), (100, -1)])
def test_parts_are_what_the_fan_outs_promise(fan_outs):
    edge_index = random_graph()
    sampler = NeighbourSampler(edge_index, 60, fan_outs)
    for batch in range(5):
        seeds = torch.randperm(60)[:7]
        check(edge_index, fan_outs, sampler(seeds, batch=batch), seeds.tolist())


def test_edges_lead_to_the_node_that_asked():
    part = NeighbourSampler(STAR, 6, (-1,))(torch.tensor([0]))
    assert part.nodes[part.edge_index].tolist() == [[1, 2, 3, 4, 5], [0] * 5]
    assert NeighbourSampler(STAR, 6, (-1,))(torch.tensor([3])).nodes.tolist() == [3]


@pytest.mark.parametrize("fan", [1, 2, 3, 4])
def test_every_set_of_neighbours_is_drawn_alike(fan):
    """Chi squared of the sets against the uniform law, its mean plus five standard deviations as the limit."""
    sampler = NeighbourSampler(STAR, 6, (fan,), seed=1)
    trials, counts = 3000, dict.fromkeys(combinations(range(1, 6), fan), 0)
    for batch in range(trials):
        part = sampler(torch.tensor([0]), batch=batch)
        counts[tuple(sorted(part.nodes[1:].tolist()))] += 1
    expected = trials / len(counts)
    degrees = len(counts) - 1
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < degrees + 5 * (2 * degrees) ** 0.5


def test_nodes_draw_apart():
    """Two nodes with equal neighbours agree as often as chance has it: once in five."""
    edges = torch.cat([STAR[:, :5], torch.stack([STAR[0, :5], torch.full((5,), 6)])], dim=1)
    sampler = NeighbourSampler(edges, 7, (1,))
    parts = [sampler(torch.tensor([0, 6]), batch=batch) for batch in range(1000)]
    same = sum(len(part.nodes) == 3 for part in parts)
    assert 130 < same < 270


def equal(a, b):
    return torch.equal(a.nodes, b.nodes) and torch.equal(a.edge_index, b.edge_index)


def test_draws_depend_on_seed_epoch_and_batch_alone():
    edge_index, seeds = random_graph(), torch.arange(10)
    sampler = NeighbourSampler(edge_index, 60, (2, 2), seed=5)
    parts = [sampler(seeds, batch=k) for k in range(20)]
    other = NeighbourSampler(edge_index, 60, (2, 2), seed=5)
    for k in reversed(range(20)):
        assert equal(parts[k], other(seeds, batch=k))
    with ThreadPoolExecutor(4) as pool:
        assert all(map(equal, parts, pool.map(lambda k: sampler(seeds, batch=k), range(20))))
    assert not any(equal(a, b) for a, b in pairwise(parts))
    assert not equal(parts[3], sampler(seeds, epoch=1, batch=3))
    assert not equal(parts[3], NeighbourSampler(edge_index, 60, (2, 2), seed=6)(seeds, batch=3))


def test_a_node_draws_the_same_whoever_is_beside_it():
    sampler = NeighbourSampler(random_graph(), 60, (2,))

    def drawn(seeds, node):
        part = sampler(torch.tensor(seeds))
        return set(part.nodes[part.edge_index[0, part.nodes[part.edge_index[1]] == node]].tolist())

    assert drawn([7], 7) == drawn([3, 9, 7], 7)


def test_an_epoch_has_every_node_once():
    sampler = NeighbourSampler(random_graph(), 60, (2,))
    nodes = torch.arange(5, 50)
    parts = list(sampler.batches(nodes, 10))
    assert [part.seeds for part in parts] == [10, 10, 10, 10, 5]
    order = torch.cat([part.nodes[: part.seeds] for part in parts])
    assert torch.equal(order.sort().values, nodes)
    assert all(map(equal, parts, sampler.batches(nodes, 10)))
    later = torch.cat([part.nodes[: part.seeds] for part in sampler.batches(nodes, 10, epoch=1)])
    assert not torch.equal(order, later)


def test_repeated_edges_and_isolated_nodes():
    edges = torch.tensor([[1, 1, 2], [0, 0, 0]])
    part = NeighbourSampler(edges, 4, (-1,))(torch.tensor([0, 3]))
    assert part.nodes.tolist() == [0, 3, 1, 2]
    assert part.edge_index.tolist() == [[2, 2, 3], [0, 0, 0]]
    empty = NeighbourSampler(torch.empty(2, 0, dtype=torch.int64), 3, (5,))
    assert empty(torch.tensor([2, 0])).nodes.tolist() == [2, 0]
    assert empty(torch.empty(0, dtype=torch.int64)).seeds == 0


def test_all_neighbours_of_a_real_graph():
    try:
        graph = load("cora")
    except FileNotFoundError:
        pytest.skip("cora is not below RHEOBASE_DATA")
    part = NeighbourSampler(graph.edge_index, len(graph), (-1, -1))(graph.train)
    near = np.zeros(len(graph), bool)
    near[graph.train] = True
    for _ in range(2):
        near[graph.edge_index[0, near[graph.edge_index[1]]]] = True
    assert sorted(part.nodes.tolist()) == np.flatnonzero(near).tolist()


def test_what_does_not_exist_raises():
    with pytest.raises(ValueError, match="edges run from 0 to 5; expected 0 to 4"):
        NeighbourSampler(STAR, 5, (1,))
    with pytest.raises(ValueError, match=r"fan_outs are \(1, -2\)"):
        NeighbourSampler(STAR, 6, (1, -2))
    sampler = NeighbourSampler(STAR, 6, (1,))
    with pytest.raises(ValueError, match="seeds run from 0 to 6; expected 0 to 5"):
        sampler(torch.tensor([0, 6]))
    with pytest.raises(ValueError, match="a node is twice among 3 seeds"):
        sampler(torch.tensor([0, 1, 0]))
    with pytest.raises(ValueError, match="epoch must lie in"):
        sampler(torch.tensor([0]), epoch=-1)
