"""Node classification: one network on one whole graph, of which some nodes have labels to learn from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rheobase.data import Graph, load
from rheobase.models import MODELS, create_model
from rheobase.nn import Links, SparseInput
from rheobase.recipes.classification import neuron_of
from rheobase.recipes.task import KINDS, Trainable, build, known_fields
from rheobase.train import Batches, TrainConfig

Features = Literal["raw", "binary", "shares"]
DENSE = 0.25
"""Features of which a greater share is not zero are stored dense."""


@dataclass(frozen=True)
class NodeClassification:
    """A network on a graph, and how it is trained. All nodes are read at every step of training, whatever their split.

    Args:
        data: name of the graph, see `rheobase list data`.
        model: name of a model of graphs.
        neuron, neuron_options: as for `Classification`; None leaves the model's own.
        features: of nodes: "raw", "binary" (1 where above zero), or "shares" (each node's divided by their sum).
        T: time steps; all read the same features.
        hidden, depth, heads, out_heads, norm, head, dropout, rho, affine, self_loops, first, logit_scale: of the model;
            None leaves its own. affine="node" is of the nodes of this graph.
        measured: which weights are measured: the "best" on the validation nodes (the first of equals), or the "last".
        threads: CPU threads to use; None leaves torch's choice.
        train: optimiser, schedule, epochs and the rest; an epoch is one step.

    Raises:
        ValueError: a setting that is out of range.
    """

    data: str = "cora"
    model: str = "gc_snn"
    neuron: str | None = None
    neuron_options: tuple[tuple[str, int | float | bool | str], ...] = ()
    features: Features = "binary"
    T: int = 8
    hidden: int | None = None
    depth: int | None = None
    heads: int | None = None
    out_heads: int | None = None
    norm: Literal["stfn", "layer", "batch", "none"] | None = None
    head: Literal["linear", "membrane", "rate"] | None = None
    dropout: float | None = None
    rho: float | None = None
    affine: Literal["feature", "node", "none"] | None = None
    self_loops: bool | None = None
    first: Literal["weights", "links"] | None = None
    logit_scale: float | None = None
    measured: Literal["best", "last"] = "best"
    threads: int | None = 1
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        for name, fine, expected in (
            ("T", self.T >= 1, "at least 1"),
            ("features", self.features in ("raw", "binary", "shares"), '"raw", "binary" or "shares"'),
            ("neuron_options", not self.neuron_options or self.neuron is not None, "none where neuron is None"),
            ("measured", self.measured in ("best", "last"), '"best" or "last"'),
            ("threads", self.threads is None or self.threads >= 1, "at least 1, or None"),
        ):
            if not fine:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected {expected}")

    @property
    def task(self) -> str:
        """The kind of task, as config.json names it."""
        return "nodes"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "NodeClassification":
        """The config that `asdict` wrote.

        Raises:
            ValueError: a field that this version does not have, or a value out of range.
        """
        values = dict(values)
        train = values.pop("train", {})
        known_fields(cls, values)
        known_fields(TrainConfig, train)
        values["neuron_options"] = tuple((name, value) for name, value in values.get("neuron_options", ()))
        return cls(**values, train=TrainConfig(**train))

    def options(self, nodes: int) -> dict[str, Any]:
        """What the model of a graph of so many nodes is made with, as far as the config says it."""
        names = (
            *("hidden", "depth", "heads", "out_heads", "norm", "head", "dropout", "rho", "affine", "self_loops"),
            *("first", "logit_scale"),
        )
        found = {name: getattr(self, name) for name in names} | {"neuron": neuron_of(self)}
        if self.affine == "node":
            found["nodes"] = nodes
        return {name: value for name, value in found.items() if value is not None}


KINDS["nodes"] = NodeClassification.from_dict


@dataclass(frozen=True)
class Nodes:
    """Some nodes of a graph and their labels, int64 `[M]` both."""

    numbers: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True, eq=False)
class NodeTask(Trainable):
    """What a config of nodes builds; the model runs on all `links` and `features`, whatever nodes are asked for."""

    config: NodeClassification
    dataset: Graph
    train: Nodes
    validation: Nodes
    links: Links
    features: SparseInput | Tensor

    @property
    def test(self) -> Nodes:
        """The test nodes."""
        return nodes_of(self.dataset, self.dataset.test)

    def tested(self, samples: int | None) -> Nodes:
        """The test nodes.

        Raises:
            ValueError: a number of samples: a graph runs whole.
        """
        if samples is not None:
            raise ValueError(f"samples is {samples}; a graph runs whole, whatever nodes are measured: leave it out")
        return self.test

    def prepare(self, x: Tensor, generator: torch.Generator | None) -> Tensor:  # noqa: ARG002
        """The nodes as they are: `run` knows their features."""
        return x

    def source(self, split: Nodes, shuffle: bool) -> Batches:  # noqa: ARG002
        """One batch: all nodes of the split."""
        return Batches(lambda _: [(split.numbers, split.y)], 1)

    def run(self, model: nn.Module, x: Tensor) -> Tensor:
        """Logits `[T, M, K]` of the nodes x `[M]`."""
        y: Tensor = model(self.features.to(x.device), self.links.to(x.device))
        return y.index_select(1, x)

    @property
    def traceable(self) -> "NodeTask":
        """The same with dense features."""
        return replace(self, features=_inputs(self.config, self.dataset))


def nodes_of(graph: Graph, numbers: Tensor) -> Nodes:
    """Nodes of a graph with their labels."""
    return Nodes(numbers, graph.y[numbers])


def _inputs(config: NodeClassification, graph: Graph) -> Tensor:
    """The features as the config wants them, expanded over time."""
    x = graph.x
    if config.features == "binary":
        x = (x > 0).to(x.dtype)
    elif config.features == "shares":
        total = x.sum(1, keepdim=True)
        x = torch.where(total > 0, x / total.clamp(min=torch.finfo(x.dtype).tiny), 0.0)
    return x.expand(config.T, *x.shape)


@build.register
def _(config: NodeClassification, *, root: Path | None = None, download: bool = False) -> NodeTask:
    graph = load(config.data, root=root, download=download)
    if not isinstance(graph, Graph):
        raise ValueError(f"data is {config.data!r}, a {type(graph).__name__}; expected a graph")
    for name in ("train", "val", "test"):
        if not len(getattr(graph, name)):
            raise ValueError(f"{config.data} has no {name} nodes; expected some with labels")
    if config.model in MODELS and MODELS[config.model].equivariance != "node-permutation":
        raise ValueError(f"{config.model} reads samples; {config.data} is a graph: choose gc_snn, ga_snn, gcn or gat")
    torch.manual_seed(config.train.seed)
    model = create_model(
        config.model, in_channels=graph.x.shape[1], classes=len(graph.classes), **config.options(len(graph))
    )
    x = _inputs(config, graph)
    dense = (x[0] != 0).float().mean() > DENSE
    return NodeTask(
        config,
        model,
        graph,
        nodes_of(graph, graph.train),
        nodes_of(graph, graph.val),
        Links.of_graph(graph.edge_index, len(graph), config.self_loops is not False),
        x if dense else SparseInput.of(x[0], config.T),
    )
