from functools import partial

import pytest
import torch
from torch import nn

from rheobase.data import GraphSet, hold_out_links, load, near_or_rewired
from rheobase.models.graph_snn import gc_snn, graph_lif
from rheobase.nn import SparseInput
from rheobase.recipes import graph_tasks
from rheobase.recipes.graph_tasks import (
    adamic_adar,
    area_under_curve,
    best,
    cosine,
    degree_floor,
    graph_accuracy,
    graph_families,
    link_auc,
    link_cora,
    pooled,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def test_best_keeps_the_test_figure_of_the_first_best_validation():
    figures = iter([(0.2, 0.1), (0.5, 0.2), (0.5, 0.9), (0.4, 0.8)])
    model = nn.Linear(1, 1)
    before = model.weight.detach().clone()
    found = best(model, lambda epoch: iter([model(torch.ones(1)).sum()]), lambda: next(figures), epochs=4, lr=0.1)
    assert found == 0.2
    assert not torch.equal(model.weight, before)
    assert next(figures, None) is None


def test_area_under_curve_counts_pairs():
    linked, apart = torch.tensor([3.0, 1.0]), torch.tensor([2.0, 1.0, 0.0])
    assert area_under_curve(linked, apart) == pytest.approx((3 + 1.5) / 6)


def test_floors_by_hand():
    graph = load("stochastic_blocks", nodes=40, train=1, val=1)
    edges = torch.tensor([[0, 0, 1, 1, 2, 2, 2, 3, 3, 4], [1, 2, 0, 2, 0, 1, 3, 2, 4, 3]])
    found = adamic_adar(edges, 5, torch.tensor([[0, 0, 2, 0], [1, 3, 4, 4]]))
    ln2, ln3 = torch.tensor([2.0, 3.0]).log()
    assert torch.allclose(found.float(), torch.stack([1 / ln3, 1 / ln3, 1 / ln2, torch.tensor(0.0)]))
    likeness = cosine(graph, torch.tensor([[0], [1]]))
    assert likeness.item() == pytest.approx(torch.cosine_similarity(graph.x[0], graph.x[1], dim=0).item(), abs=1e-6)


def test_links_are_learned():
    graph = load("stochastic_blocks", nodes=120, p_in=0.3, p_out=0.01, focus=0.5, train=1, val=1)
    split = hold_out_links(graph, 0.1, 0.1)
    model = gc_snn(300, 8, 16, neuron=partial(graph_lif, 0.9))
    assert link_auc(model, SparseInput.of(graph.x, 4), split, seed=0, epochs=30, lr=0.02) > 0.8


def test_pooled_is_the_mean_over_steps_and_nodes():
    graphs = GraphSet(
        torch.zeros(3, 1), torch.empty(2, 0).long(), torch.tensor([0, 0, 2]), torch.zeros(3).long(), ("a",)
    )
    y = torch.arange(12.0).view(2, 3, 2)
    assert pooled(y, graphs).tolist() == [[4, 5], [0, 0], [7, 8]]


def test_graphs_are_told_apart_and_degrees_alone_do_not():
    graphs = near_or_rewired(300, seed=0)
    assert degree_floor(graphs) < 0.7
    torch.manual_seed(0)
    model = gc_snn(16, 2, 16, neuron=partial(graph_lif, 0.9))
    assert graph_accuracy(model, graphs, steps=4, seed=0, epochs=8, lr=0.02) > 0.8


def test_the_studies_yield_floors_and_networks(monkeypatch):
    monkeypatch.setattr(graph_tasks, "EPOCHS", {"link": 1, "graphs": 1})
    monkeypatch.setattr(graph_tasks, "near_or_rewired", lambda count, seed: near_or_rewired(60, seed=seed))
    found = list(graph_families(0))
    assert [each.subject for each in found] == ["degrees alone", "gc_snn", "gcn"]
    small = load("stochastic_blocks", nodes=100, train=1, val=1)
    monkeypatch.setattr(graph_tasks, "load", lambda name: small)
    found += list(link_cora(0))
    assert [each.subject for each in found[3:]] == ["cosine of features", "Adamic-Adar", "gc_snn", "gcn"]
    assert all(0 <= each.value <= 1 for each in found)
    assert [each.tag for each in found] == ["floor", "measured", "measured", "floor", "floor", "measured", "measured"]
