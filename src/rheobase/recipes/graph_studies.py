"""Spiking networks on Cora: norms over thresholds, depth, steps, and what is computed. Each number needs a training."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rheobase.lab.cost import RULES, Report, energy, spike_driven
from rheobase.models.graph_snn import NORMS, Norm
from rheobase.nn import OnGraph, dirichlet_energy
from rheobase.recipes.classification import load_run, train
from rheobase.recipes.graphs import citations
from rheobase.recipes.nodes import NodeClassification, NodeTask
from rheobase.recipes.studies import Measurement, register
from rheobase.recipes.task import build

THRESHOLDS = (0.25, 0.5, 1.0, 2.0)
DEPTHS = (2, 4, 8)
STEPS = (4, 8, 16)


def trained(config: NodeClassification, seed: int) -> tuple[NodeTask, float]:
    """A config's task with the weights of its best epoch, and their test accuracy."""
    config = replace(config, train=replace(config.train, seed=seed, checkpoint_every_epochs=config.train.epochs))
    with tempfile.TemporaryDirectory() as folder:
        run, result = train("study", config, Path(folder))
        task: NodeTask = build(config)
        load_run(task, run, None)
    task.model.eval()
    return task, result["test_accuracy"]


@dataclass(frozen=True)
class Hidden:
    """What the last layer but one puts out, the mean over time `[N, C]`, and what the first one does."""

    last: Tensor
    first: Tensor

    @classmethod
    def of(cls, task: NodeTask) -> "Hidden":
        """Of a task's network as it is."""
        seen: dict[int, Tensor] = {}
        layers: Any = task.model.layers
        handles = [
            layer.register_forward_hook(lambda _, __, y, k=k: seen.update({k: y.float().mean(0)}))
            for k, layer in enumerate(layers)
        ]
        with torch.no_grad():
            task.model(task.features, task.links)
        for handle in handles:
            handle.remove()
        return cls(seen[max(0, len(layers) - 2)], seen[0])


def mean_cosine(x: Tensor) -> float:
    """The mean cosine of the angle between two rows of x that are not zero; NaN if fewer than two are not."""
    rows = x[x.norm(dim=1) > 0]
    n, total = len(rows), torch.nn.functional.normalize(rows.double()).sum(0).square().sum().item()
    return (total - n) / (n * (n - 1)) if n > 1 else float("nan")


@register
def graph_norms(seed: int) -> Iterator[Measurement]:
    """Norms over thresholds: GC-SNN with rates as logits, on Cora, 100 epochs; else as the recipe cora-gc-snn-rate.

    Xu et al. 2021, arXiv:2107.06865. Claim: with STFN the rates at the start are the same at every threshold, else they
    fall as it rises; without a norm nothing is learned from threshold 1 on. LayerNorm learns as well as STFN here.
    Command: `rheobase study graph-norms`
    """
    for norm in NORMS:
        for threshold in THRESHOLDS:
            config = citations("gc_snn_rate", "cora")
            options = (("decay", 0.2), ("threshold", threshold), ("detach_reset", False), ("strict", False))
            config = replace(
                config,
                norm=norm,
                neuron="iterative_lif",
                neuron_options=options,
                train=replace(config.train, epochs=100, seed=seed),
            )
            subject = f"{norm}, threshold {threshold:g}"
            rate = Hidden.of(build(config)).first.mean().item()
            yield Measurement(subject, 2, "spikes a step of the first layer before training", rate)
            yield Measurement(subject, 2, "test accuracy", trained(config, seed)[1])


@register
def graph_depth(seed: int) -> Iterator[Measurement]:
    """Depth: GCN and GC-SNN with and without STFN of 2, 4 and 8 layers on Cora; else as their recipes, 64 features.

    Over-smoothing is measured on the last hidden layer, rates of spikes or ReLUs, of the best epoch: Dirichlet energy
    as a share (Cai and Wang 2020, arXiv:2006.13318), and the mean cosine between nodes. Claim: all lose accuracy with
    depth, for there are no shortcuts. Command: `rheobase study graph-depth`
    """
    cases: tuple[tuple[str, Norm | None], ...] = (("gcn", None), ("gc_snn", "stfn"), ("gc_snn", "none"))
    for network, norm in cases:
        for depth in DEPTHS:
            config = replace(citations(network, "cora"), hidden=64, depth=depth, norm=norm)
            task, accuracy = trained(config, seed)
            hidden = Hidden.of(task).last
            subject = network if norm is None else f"{network}, {norm}"
            yield Measurement(subject, depth, "test accuracy", accuracy)
            yield Measurement(subject, depth, "Dirichlet energy", dirichlet_energy(hidden, task.links).item())
            yield Measurement(subject, depth, "mean cosine", mean_cosine(hidden))
            yield Measurement(subject, depth, "mean of the last hidden layer", hidden.mean().item())


@register
def graph_steps(seed: int) -> Iterator[Measurement]:
    """Steps: GC-SNN on Cora with T of 4, 8 and 16; else as the recipe cora-gc-snn.

    Xu et al. 2021, arXiv:2107.06865, whose T could not be read. Command: `rheobase study graph-steps`
    """
    for T in STEPS:
        task, accuracy = trained(replace(citations("gc_snn", "cora"), T=T), seed)
        yield Measurement("gc_snn", T, "test accuracy", accuracy)
        yield Measurement("gc_snn", T, "spikes a step of the first layer", Hidden.of(task).first.mean().item())


@dataclass(frozen=True)
class Counted:
    """What a network computes on a whole graph, all nodes and steps: norms, scaling by degrees and neurons too.

    Attributes:
        multiplications: those of multiply-accumulates too.
        accumulations: additions of spikes' weights, in products alone.
        additions: all others: of neighbours, biases, norms and neurons.
        energy_nJ: by the rule "exact" of `rheobase.lab.cost`, with all that lies between products.
    """

    multiplications: float
    accumulations: float
    additions: float
    energy_nJ: float  # noqa: N815


def counted(report: Report, sparse: bool) -> Counted:
    """What a report says of a network on a graph.

    Args:
        report: of `spike_driven`.
        sparse: features of nodes are stored sparse, so that their zeros cost nothing, and spikes as ever; if not, they
            cost a network what is not spike-driven all that a dense product does.
    """
    times = report.samples
    macs = accumulations = additions = 0.0  # the first product reads the features
    for k, product in enumerate(report.products):
        pairs = (product.effective or 0.0) * product.executed
        additions += product.bias_adds * product.executed * times
        if product.spike_driven:
            accumulations += pairs * times
        else:
            macs += (pairs if sparse and k == 0 else product.macs * product.executed) * times
    multiplications = macs
    for between in report.elementwise:
        multiplications += (between.multiplied + between.scaled) * times
        additions += (between.added + between.shifted) * times
    for layer in report.neurons:
        if layer.operations is not None:
            multiplications += layer.operations.multiply * layer.updates * times
            additions += (layer.operations.add + layer.operations.compare) * layer.updates * times
    rule = replace(RULES["exact"], between="all")
    spent = energy(report, rule).total_pJ
    for k, product in enumerate(report.products):
        if not product.spike_driven and not (sparse and k == 0):
            spent += rule.mac_pJ * (product.macs - (product.effective or 0.0)) * product.executed
    return Counted(multiplications, accumulations, additions, spent * times / 1e3)


def report_of(task: NodeTask) -> Report:
    """What a task's network computes on its graph, features dense."""
    x = task.traceable.features
    assert isinstance(x, Tensor)
    return spike_driven(OnGraph(task.model, task.links), x)


@register
def graph_operations(seed: int) -> Iterator[Measurement]:
    """Operations on the three graphs of citations: trained GC-SNNs of 16 and 64 features against GCNs of equal width.

    Xu et al. 2021, arXiv:2107.06865, whose table could not be read. Norms, scaling by degrees, leak and neighbours
    count. Claim: GC-SNN needs less than a tenth of GCN's multiplications where GCN's features are stored dense; where
    they are stored sparse the share is printed beside it, and is larger. Command: `rheobase study graph-operations`
    """
    for data in ("cora", "citeseer", "pubmed"):
        for hidden in (16, 64):
            spiking, accuracy = trained(replace(citations("gc_snn", data), hidden=hidden), seed)
            plain = build(replace(citations("gcn", data), hidden=hidden))
            found = {
                "gc_snn": counted(report_of(spiking), True),
                "gcn, dense features": counted(report_of(plain), False),
                "gcn, sparse features": counted(report_of(plain), True),
            }
            for name, each in found.items():
                subject = f"{data}, {name}"
                yield Measurement(subject, hidden, "multiplications", each.multiplications)
                yield Measurement(subject, hidden, "accumulations", each.accumulations)
                yield Measurement(subject, hidden, "other additions", each.additions)
                yield Measurement(subject, hidden, "energy, nJ", each.energy_nJ)
                if name != "gc_snn":
                    share = found["gc_snn"].multiplications / each.multiplications
                    yield Measurement(f"{data}, gc_snn / {name}", hidden, "share of multiplications", share)
                    cost = found["gc_snn"].energy_nJ / each.energy_nJ
                    yield Measurement(f"{data}, gc_snn / {name}", hidden, "share of energy", cost)
            yield Measurement(f"{data}, gc_snn", hidden, "test accuracy", accuracy)
