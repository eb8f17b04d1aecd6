import json
from dataclasses import asdict, replace

import pytest
import torch

from rheobase.data import NeighbourSampler
from rheobase.models.graph_snn import gc_snn
from rheobase.recipes import big_graph
from rheobase.recipes.big_graph import BigGraph, accuracy, apart, logits, measure, train_epoch

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = BigGraph(nodes=2000, links=20_000, features=32, focus=0.3, train=200, tested=400, fan_outs=(5, 3), batch=100)


def test_the_graph_has_the_links_that_were_asked_for():
    graph = SMALL.graph(0)
    assert abs(graph.links - 20_000) < 5 * 20_000**0.5
    within = (graph.y[graph.edge_index[0]] == graph.y[graph.edge_index[1]]).float().mean()
    assert within == pytest.approx(0.75, abs=0.02)
    assert (len(graph.train), len(graph.val)) == (800, 0)


def test_an_epoch_in_parts_learns():
    found = measure(SMALL, seed=0)
    assert found["test accuracy"] > found["test accuracy of features alone"] > 0.25
    assert found["peak MiB"] > 50


def test_parts_with_all_neighbours_are_as_good_as_the_whole_for_their_seeds():
    """Two hops of all neighbours, and one more so that degrees are whole: equal logits, to rounding."""
    graph = replace(SMALL, nodes=300, links=600, train=20).graph(0)
    model = gc_snn(32, 4, 16).eval()
    whole = model(graph.x.expand(4, *graph.x.shape), graph.edge_index).mean(0)
    part = NeighbourSampler(graph.edge_index, 300, (-1, -1, -1, -1))(graph.train[:10])
    close = (logits(model, graph, part, 4) - whole[graph.train[:10]]).abs().amax(1) < 1e-4
    assert close.float().mean() >= 0.9  # a membrane at the threshold may be rounded to either side


def test_no_training_nodes_raise():
    graph = replace(SMALL, nodes=100, links=200, train=2).graph(0)
    empty = replace(graph, train=graph.train[:0])
    model = gc_snn(32, 4, 8)
    sampler, optimizer = NeighbourSampler(graph.edge_index, 100, (2,)), torch.optim.Adam(model.parameters())
    with pytest.raises(ValueError, match="train_epoch: stochastic_blocks has no nodes for training"):
        train_epoch(model, empty, sampler, optimizer, 2, 10)


def test_accuracy_counts_every_node_once(monkeypatch):
    graph = replace(SMALL, nodes=100, links=200, train=2).graph(0)
    sampler = NeighbourSampler(graph.edge_index, 100, (2,))
    right = torch.nn.functional.one_hot(graph.y, 4).float()
    monkeypatch.setattr(big_graph, "logits", lambda model, graph, part, T: right[part.nodes[: part.seeds]])
    model = gc_snn(32, 4, 8)
    assert accuracy(model, graph, sampler, torch.arange(100), 2, 30) == 1
    right = right.roll(1, dims=1)
    assert accuracy(model, graph, sampler, torch.arange(100), 2, 30) == 0


@pytest.mark.slow
def test_a_process_of_its_own_measures_alike():
    tiny = replace(SMALL, nodes=400, links=2000, train=20, tested=50)
    found = apart(tiny, 0)
    assert found["links"] == tiny.graph(0).links
    assert found["peak MiB"] > 50
    with pytest.raises(RuntimeError, match=r"(?s)its process ended with 1: .*ValueError"):
        apart(replace(tiny, nodes=2), 0)


def test_the_study_says_the_load(monkeypatch):
    monkeypatch.setattr(big_graph, "apart", lambda config, seed: {"links": 7.0, "peak MiB": 1.5})
    rows = list(big_graph.big_graph(0))
    assert [row.metric for row in rows] == ["links", "peak MiB", "load of the last minute"]
    assert rows[1].size == 1_000_000
    assert BigGraph(**{**json.loads(json.dumps(asdict(SMALL))), "fan_outs": (5, 3)}) == SMALL
