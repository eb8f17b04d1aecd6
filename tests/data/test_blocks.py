import numpy as np
import pytest
import torch

from rheobase.data import load
from rheobase.data.blocks import _draw, _triangle

GRAPH = load("stochastic_blocks")


def test_sizes_and_sets():
    assert (len(GRAPH), GRAPH.x.shape[1], len(GRAPH.classes)) == (500, 300, 4)
    assert GRAPH.y.bincount().tolist() == [125] * 4
    assert [len(part) for part in (GRAPH.train, GRAPH.val, GRAPH.test)] == [80, 80, 340]
    assert GRAPH.links == GRAPH.listed
    assert set(GRAPH.x.unique().tolist()) == {0, 1}
    assert GRAPH.x.sum(1).max() == 15


def test_the_seed_is_all_that_counts():
    again, other = load("stochastic_blocks"), load("stochastic_blocks", seed=1)
    for part in ("x", "edge_index", "y", "train", "val", "test"):
        assert torch.equal(getattr(GRAPH, part), getattr(again, part))
        assert not torch.equal(getattr(GRAPH, part), getattr(other, part))


def test_links_have_their_probabilities():
    """Within five standard deviations, in a graph with 6 million pairs."""
    graph = load("stochastic_blocks", nodes=3500, classes=3, p_in=0.01, p_out=0.002, features=6, words=1, seed=2)
    first, second = graph.edge_index[:, graph.edge_index[0] < graph.edge_index[1]]
    sizes = graph.y.bincount().tolist()
    for a in range(3):
        for b in range(a, 3):
            found = int(
                (
                    ((graph.y[first] == a) & (graph.y[second] == b)) | ((graph.y[first] == b) & (graph.y[second] == a))
                ).sum()
            )
            pairs, p = (sizes[a] * (sizes[a] - 1) // 2, 0.01) if a == b else (sizes[a] * sizes[b], 0.002)
            assert abs(found - pairs * p) < 5 * (pairs * p * (1 - p)) ** 0.5


def test_certain_links():
    whole = load("stochastic_blocks", nodes=12, classes=3, p_in=1.0, p_out=1.0, train=1, val=1, features=3)
    assert whole.links == 66
    apart = load("stochastic_blocks", nodes=12, classes=3, p_in=1.0, p_out=0.0, train=1, val=1, features=3)
    assert apart.links == 18
    assert (apart.y[apart.edge_index[0]] == apart.y[apart.edge_index[1]]).all()
    assert load("stochastic_blocks", nodes=12, classes=3, p_in=0.0, p_out=0.0, train=1, val=1, features=3).links == 0


def test_dense_and_sparse_blocks_count_alike():
    graph = load("stochastic_blocks", nodes=400, classes=1, p_in=0.9, train=1, val=1, features=1)
    assert abs(graph.links - 0.9 * 79800) < 5 * (0.09 * 79800) ** 0.5


def test_words_tell_the_block():
    graph = load("stochastic_blocks", focus=1.0, words=3, features=40)
    word = graph.x.argmax(1)
    assert torch.equal(word // 10, graph.y)


def test_every_pair_has_its_number():
    first, second = _triangle(np.arange(45))
    assert list(zip(second, first, strict=True)) == [(j, i) for i in range(10) for j in range(i)]
    large = np.array([k * (k - 1) // 2 + d for k in (10**6, 3 * 10**6) for d in (-1, 0, 1)])
    first, second = _triangle(large)
    assert (first * (first - 1) // 2 + second == large).all()
    assert ((second >= 0) & (second < first)).all()


def test_every_set_is_drawn_alike():
    """Two of five numbers: ten sets, each about 400 times of 4000; 35: chi squared five deviations too large."""
    random = np.random.RandomState(0)
    counts: dict[tuple, int] = {}
    for _ in range(4000):
        chosen = tuple(_draw(random, 5, 2))
        counts[chosen] = counts.get(chosen, 0) + 1
    assert len(counts) == 10
    assert sum((count - 400) ** 2 / 400 for count in counts.values()) < 35


@pytest.mark.parametrize(
    "options",
    [
        {"nodes": 3},
        {"classes": 0},
        {"p_in": 1.5},
        {"p_out": -0.1},
        {"features": 3},
        {"words": -1},
        {"focus": 2.0},
        {"seed": -1},
        {"train": 200},
    ],
)
def test_options_out_of_range_raise(options):
    with pytest.raises(ValueError, match=r"expected|must lie"):
        load("stochastic_blocks", **options)
