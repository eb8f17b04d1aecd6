import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rheobase.data import Graph, both_ways, full_supervised, random_split


def triangle(**changed):
    parts = {
        "name": "toy",
        "x": torch.eye(4),
        "edge_index": both_ways(torch.tensor([[0, 1, 2], [1, 2, 0]]), 4),
        "y": torch.tensor([0, 1, 0, -1]),
        "train": torch.tensor([0]),
        "val": torch.tensor([1]),
        "test": torch.tensor([2]),
        "classes": ("a", "b"),
        "source": "",
        "licence": "",
        "citation": "",
    }
    return Graph(**{**parts, **changed})


def test_both_ways_has_each_link_once_sorted_and_no_loops():
    edges = torch.tensor([[2, 0, 0, 1, 3, 0], [0, 2, 1, 0, 3, 1]])
    assert both_ways(edges, 4).tolist() == [[0, 0, 1, 2], [1, 2, 0, 0]]
    assert both_ways(torch.empty(2, 0, dtype=torch.int64), 4).shape == (2, 0)


def test_graph_says_what_it_is():
    assert repr(triangle()) == "Graph('toy', 4 nodes, 4 features, 6 edges)"
    assert len(triangle()) == 4
    shuffled = triangle().edge_index[:, torch.tensor([5, 0, 3, 1, 4, 2])]
    assert torch.equal(triangle(edge_index=shuffled).edge_index, shuffled)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": torch.eye(4).double()}, "x is torch.float64"),
        ({"x": torch.full((4, 4), torch.nan)}, "x holds NaN"),
        ({"edge_index": torch.tensor([[0], [4]])}, "edges run from 0 to 4"),
        ({"edge_index": torch.tensor([[0], [1]])}, "edges are not each there once"),
        ({"edge_index": torch.tensor([[0], [0]])}, "edges are not each there once"),
        ({"edge_index": torch.tensor([[0, 1, 0, 1], [1, 0, 1, 0]])}, "edges are not each there once"),
        ({"edge_index": torch.zeros(3, 2, dtype=torch.int64)}, "edge_index is torch.int64"),
        ({"y": torch.tensor([0, 1, 0])}, "y is torch.int64"),
        ({"y": torch.tensor([0, 1, 2, 0])}, "labels run from 0 to 2"),
        ({"train": torch.tensor([4])}, "names a node that does not exist"),
        ({"train": torch.tensor([2])}, "share nodes"),
        ({"val": torch.tensor([1, 1])}, "share nodes"),
        ({"test": torch.tensor([3])}, "a node without label"),
    ],
)
def test_wrong_graphs_raise(untyped, changed, message):
    with pytest.raises(ValueError, match=f"Graph toy: .*{message}"):
        triangle(**changed)


def test_no_features_no_links_and_no_sets_are_a_graph():
    none = torch.empty(0, dtype=torch.int64)
    graph = triangle(edge_index=torch.empty(2, 0, dtype=torch.int64), train=none, val=none, test=none)
    assert (graph.links, graph.listed, len(graph.train)) == (0, None, 0)


@pytest.mark.parametrize("edge", [[0, 3], [3, 0], [-1, 0]])
def test_both_ways_does_not_take_a_node_that_is_not_there_for_another(edge):
    with pytest.raises(ValueError, match=r"both_ways: edges run from -?\d to \d; expected nodes 0 to 2"):
        both_ways(torch.tensor([[0, edge[0]], [1, edge[1]]]), 3)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30))
def test_both_ways_is_the_set_of_pairs(pairs):
    edges = both_ways(torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T, 7)
    wanted = {pair for a, b in pairs if a != b for pair in ((a, b), (b, a))}
    assert edges.T.tolist() == [list(pair) for pair in sorted(wanted)]


def test_full_supervised_is_every_other_labelled_node():
    graph = triangle(
        x=torch.eye(6), edge_index=torch.empty(2, 0, dtype=torch.int64), y=torch.tensor([0, 1, 0, -1, 1, 1])
    )
    assert full_supervised(graph).train.tolist() == [0, 4, 5]
    assert full_supervised(graph).val.tolist() == [1]


def test_random_split_draws_from_each_class():
    y = torch.tensor([0, 1, -1, 2] * 50)
    sets = random_split(y, 3, 20, 5)
    train, val, test = (part.numpy() for part in sets)
    assert (np.bincount(y[train]) == 20).all()
    assert (np.bincount(y[val]) == 5).all()
    assert sorted([*train, *val, *test]) == np.flatnonzero(y >= 0).tolist()
    assert all((np.diff(part) > 0).all() for part in (train, val, test))
    assert all(torch.equal(a, b) for a, b in zip(sets, random_split(y, 3, 20, 5), strict=True))
    assert not torch.equal(sets[0], random_split(y, 4, 20, 5)[0])


def test_random_split_of_too_small_a_class_raises():
    with pytest.raises(ValueError, match="class 1 has 3 nodes; expected 2 for training and 2 for validation"):
        random_split(torch.tensor([0] * 9 + [1] * 3), 0, 2, 2)


def test_random_split_of_nothing_is_nothing():
    assert [len(part) for part in random_split(torch.tensor([-1, -1]), 0, 1, 1)] == [0, 0, 0]
