"""The studies of graphs on a made-up graph, and what they count against the formulas."""

import math
from dataclasses import replace

import pytest
import torch

from rheobase.data import Graph
from rheobase.models import ring
from rheobase.recipes import build, nodes, recipe, study
from rheobase.recipes.graph_studies import counted, mean_cosine, report_of

N, WORDS, HIDDEN, CLASSES, T = 30, 20, 8, 3, 4
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def graph(monkeypatch):
    x = (torch.rand(N, WORDS) < 0.2).float()
    y = torch.arange(N) % CLASSES
    found = Graph("ring", x, ring(N), y, *torch.arange(N).split(10), tuple("abc"), "", "", "")
    monkeypatch.setattr(nodes, "load", lambda *_, **__: found)
    return found


def untrained(network):
    """The task of a recipe, small."""
    task = build(replace(recipe(f"cora-{network}")(), hidden=HIDDEN, **({"T": T} if "snn" in network else {})))
    task.model.eval()
    return task


def test_a_spiking_network_computes_what_the_formulas_say(graph):
    """Everything on the whole graph; self loops count among the links."""
    task = untrained("gc-snn")
    layers, spikes = task.model.layers, []
    layers[0].neuron.register_forward_hook(lambda _, __, y: spikes.append(y.sum().item()))
    report = report_of(task)
    assert report.spike_driven
    found = counted(report, sparse=True)
    words, links = graph.x.sum().item(), 3 * N
    assert found.accumulations == words * HIDDEN + spikes[0] * CLASSES
    first, second = N * HIDDEN, T * N * CLASSES
    degrees = 2 * N * 2  # counted, and their inverse roots, of links in and out, in two layers
    leak = T * N * HIDDEN
    norm = 3 * first
    assert found.multiplications == 2 * (first + second) + degrees + norm + leak
    biases, shift, statistics = first + second, first, 3 * first
    neighbours = links * HIDDEN + T * links * CLASSES
    neurons = 2 * leak
    assert found.additions == degrees + biases + shift + statistics + neighbours + neurons


def test_a_gcn_computes_what_the_formulas_say(graph):
    task = untrained("gcn")
    report = report_of(task)
    scaling = 2 * N * (HIDDEN + CLASSES) + 2 * N * 2
    dense, sparse = counted(report, False), counted(report, True)
    assert dense.multiplications == N * WORDS * HIDDEN + N * HIDDEN * CLASSES + scaling
    assert sparse.multiplications == graph.x.sum() * HIDDEN + N * HIDDEN * CLASSES + scaling
    assert dense.accumulations == 0
    assert dense.energy_nJ > sparse.energy_nJ > 0
    spared = (N * WORDS - graph.x.sum().item()) * HIDDEN * 4.6e-3
    assert dense.energy_nJ - sparse.energy_nJ == pytest.approx(spared, rel=1e-6)


def test_the_mean_cosine_is_that_of_all_pairs():
    x = torch.randn(6, 4)
    x[2] = 0
    rows = x[[0, 1, 3, 4, 5]]
    pairs = [torch.cosine_similarity(rows[i], rows[j], 0) for i in range(5) for j in range(i)]
    assert mean_cosine(x) == pytest.approx(torch.stack(pairs).mean().item(), abs=1e-6)
    assert math.isnan(mean_cosine(torch.zeros(3, 4)))


@pytest.mark.parametrize("name", ["graph-depth", "graph-norms", "graph-operations", "graph-steps"])
def test_every_study_runs_and_says_its_command(graph, name, monkeypatch):
    """Two epochs of everything."""
    from rheobase.recipes import graph_studies

    shorten = graph_studies.citations
    monkeypatch.setattr(
        graph_studies,
        "citations",
        lambda *names: replace(short := shorten(*names), train=replace(short.train, epochs=2)),
    )
    monkeypatch.setattr(graph_studies, "DEPTHS", (1, 3))
    monkeypatch.setattr(graph_studies, "THRESHOLDS", (0.25, 2.0))
    rows = list(study(name)(0))
    assert f"rheobase study {name}" in study(name).__doc__
    assert {row.metric for row in rows} >= {"test accuracy"}
    assert all(0 <= row.value <= 1 for row in rows if row.metric == "test accuracy")
