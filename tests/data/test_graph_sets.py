import numpy as np
import pytest
import torch

from rheobase.data import GraphSet, near_or_rewired
from rheobase.data.graph_sets import _closest, _exchange

GRAPHS = near_or_rewired(40, seed=2)
TOY = {
    "x": torch.arange(5.0)[:, None],
    "edge_index": torch.tensor([[0, 1, 3, 4], [1, 0, 4, 3]]),
    "graph": torch.tensor([0, 0, 1, 2, 2]),
    "y": torch.tensor([0, 1, 0]),
    "classes": ("a", "b"),
}


def test_graphs_are_picked_in_the_order_asked_for():
    part = GraphSet(**TOY).select(torch.tensor([2, 0]))
    assert part.x.flatten().tolist() == [3, 4, 0, 1]
    assert part.edge_index.tolist() == [[2, 3, 0, 1], [3, 2, 1, 0]]
    assert (part.graph.tolist(), part.y.tolist(), len(part)) == ([0, 0, 1, 1], [0, 0], 2)
    alone = GraphSet(**TOY).select(torch.tensor([1]))
    assert (alone.x.tolist(), alone.edge_index.shape) == ([[2.0]], (2, 0))
    with pytest.raises(ValueError, match="a graph is twice among 2"):
        GraphSet(**TOY).select(torch.tensor([1, 1]))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"graph": torch.tensor([0, 1, 0, 2, 2])}, "rising"),
        ({"graph": torch.tensor([0, 0, 1, 2, 3])}, "from 0 to 2"),
        ({"edge_index": torch.tensor([[0], [5]])}, "edges run from 0 to 5"),
        ({"edge_index": torch.tensor([[0], [2]])}, "from one graph to another"),
    ],
)
def test_wrong_sets_raise(changed, message):
    with pytest.raises(ValueError, match=f"GraphSet: .*{message}"):
        GraphSet(**{**TOY, **changed})


def test_generated_graphs_have_twice_as_many_links_as_nodes():
    assert GRAPHS.y.bincount().tolist() == [20, 20]
    sizes = GRAPHS.graph.bincount()
    assert ((sizes >= 30) & (sizes <= 60)).all()
    links = GRAPHS.graph[GRAPHS.edge_index[0]].bincount() / 2
    assert torch.equal(links, 2.0 * sizes)
    degree = GRAPHS.edge_index[0].bincount(minlength=len(GRAPHS.x))
    assert torch.equal(GRAPHS.x.argmax(1), degree.clamp(max=15))
    assert (GRAPHS.x.sum(1) == 1).all()


def test_the_seed_is_all_that_counts():
    again, other = near_or_rewired(40, seed=2), near_or_rewired(40, seed=3)
    assert torch.equal(again.edge_index, GRAPHS.edge_index)
    assert not torch.equal(other.y, GRAPHS.y)


def test_exchanging_keeps_degrees_and_makes_no_loop_and_no_repeated_link():
    random = np.random.RandomState(0)
    pairs = _closest(random.random_sample((25, 2)), 50)
    other = _exchange(random, pairs, 500)
    assert (np.bincount(pairs.ravel(), minlength=25) == np.bincount(other.ravel(), minlength=25)).all()
    before, after = ({frozenset(pair) for pair in found.tolist()} for found in (pairs, other))
    assert len(after) == 50
    assert all(len(link) == 2 for link in after)
    assert len(before & after) < 30


def test_closest_pairs():
    points = np.array([[0, 0], [0, 1], [5, 5], [5, 5.5]])
    assert sorted(map(tuple, _closest(points, 2).tolist())) == [(0, 1), (2, 3)]


def test_triangles_tell_the_classes_apart():
    """Neighbours of points nearby are near each other; exchanged ends are not."""
    closed = {0: 0, 1: 0}
    for k in range(len(GRAPHS)):
        part = GRAPHS.select(torch.tensor([k]))
        adjacency = torch.zeros(len(part.x), len(part.x))
        adjacency[part.edge_index[0], part.edge_index[1]] = 1
        closed[int(part.y)] += int(torch.linalg.matrix_power(adjacency, 3).diagonal().sum())
    assert closed[0] > 3 * closed[1]


@pytest.mark.parametrize("options", [{"graphs": 1}, {"nodes": (9, 8)}, {"nodes": (5, 8)}, {"degrees": 1}])
def test_options_out_of_range_raise(options):
    with pytest.raises(ValueError, match=r"near_or_rewired: .* expected at least 2"):
        near_or_rewired(**options)
