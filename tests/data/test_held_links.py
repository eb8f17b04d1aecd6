import numpy as np
import pytest
import torch

from rheobase.data import both_ways, draw_unlinked, hold_out_links, load

GRAPH = load("stochastic_blocks", nodes=60, p_in=0.4, p_out=0.1, train=2, val=2, seed=1)


def pairs(edges):
    return set(map(tuple, edges.T.tolist()))


def test_links_are_parted_and_pairs_apart_have_none():
    split = hold_out_links(GRAPH, 0.1, 0.2, seed=3)
    parts = [pairs(part) for part in (split.train, split.val, split.test)]
    assert [len(part) for part in parts[1:]] == [int(0.1 * GRAPH.links), int(0.2 * GRAPH.links)]
    linked = pairs(GRAPH.edge_index)
    assert set.union(*parts) == {pair for pair in linked if pair[0] < pair[1]}
    assert sum(map(len, parts)) == GRAPH.links
    assert torch.equal(split.edge_index, both_ways(split.train, 60))
    apart = [pairs(part) for part in (split.val_apart, split.test_apart)]
    assert [len(part) for part in apart] == [len(part) for part in parts[1:]]
    assert not (apart[0] | apart[1]) & linked
    assert not apart[0] & apart[1]


def test_the_seed_is_all_that_counts():
    a, b, other = (hold_out_links(GRAPH, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(getattr(a, part), getattr(b, part)) for part in vars(a))
    assert not torch.equal(a.test, other.test)
    assert not torch.equal(a.test_apart, other.test_apart)


def test_every_pair_without_a_link_is_drawn_alike():
    """Eight of the ten pairs of five nodes have no link; three of them, 2000 times: each 750 times on average."""
    edges = both_ways(torch.tensor([[0, 1], [1, 2]]), 5)
    random, counts = np.random.RandomState(0), {}
    for _ in range(2000):
        drawn = draw_unlinked(edges, 5, 3, random)
        assert len(pairs(drawn)) == 3
        for pair in pairs(drawn):
            counts[pair] = counts.get(pair, 0) + 1
    assert set(counts) == {(a, b) for a in range(5) for b in range(a + 1, 5)} - {(0, 1), (1, 2)}
    assert all(abs(count - 750) < 110 for count in counts.values())


def test_all_pairs_without_a_link_can_be_had_and_no_more():
    edges = both_ways(torch.tensor([[0, 1], [1, 2]]), 5)
    assert draw_unlinked(edges, 5, 8, np.random.RandomState(0)).shape == (2, 8)
    with pytest.raises(ValueError, match="8 pairs of 5 nodes have no link; expected at least 9"):
        draw_unlinked(edges, 5, 9, np.random.RandomState(0))


@pytest.mark.parametrize(("val", "test"), [(0.5, 0.6), (0.0, 0.1), (0.1, -0.1), (0.001, 0.1)])
def test_shares_that_leave_nothing_raise(val, test):
    with pytest.raises(ValueError, match=r"hold_out_links: shares .* expected ones that leave each part a link"):
        hold_out_links(GRAPH, val, test)
