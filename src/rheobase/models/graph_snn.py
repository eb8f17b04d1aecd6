"""Networks on the nodes of a graph: spiking graph convolution and attention, and those they are measured against.

Source: Xu et al. 2021, arXiv:2107.06865, of which there is no public code; what its text leaves open is said below.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from rheobase.models.registry import register
from rheobase.neurons import LI, IterativeLIF, Rectangle
from rheobase.nn.graph import GraphAttention, GraphConv, Order, SparseInput, once
from rheobase.nn.links import Links
from rheobase.nn.norm import TdBN
from rheobase.nn.residual import MakeNeuron, maker_of, threshold_of
from rheobase.nn.stfn import STFN, Affine
from rheobase.nn.time import PerStep
from rheobase.nn.values import Values, emits

Norm = Literal["stfn", "layer", "batch", "none"]
Head = Literal["linear", "membrane", "rate"]
NORMS = ("stfn", "layer", "batch", "none")
HEADS = ("linear", "membrane", "rate")


def graph_lif(decay: float = 0.2, threshold: float = 0.25, width: float = 1.0) -> IterativeLIF:
    r"""The neuron of arXiv:2107.06865: $v_t = \kappa v_{t-1}(1 - s_{t-1}) + y_t$, fires at $v_t \ge V_{th}$.

    The gradient flows through the reset, and is $1/a$ where $|v - V_{th}| < a/2$.

    Args:
        decay: $\kappa$, chosen here: the text that was read does not give it.
        threshold: $V_{th}$, likewise.
        width: a, likewise.
    """
    return IterativeLIF(decay, threshold, Rectangle(width), detach_reset=False, strict=False)


class GraphLayer(nn.Module):
    """Filter, norm and neuron of one layer; the last layer of a network may lack both norm and neuron.

    What is the same at every step is filtered and normalised once.
    """

    def __init__(self, filter: nn.Module, norm: nn.Module, neuron: nn.Module) -> None:
        super().__init__()
        self.filter, self.norm, self.neuron = filter, norm, neuron

    @property
    def emits(self) -> Values:
        """What comes out."""
        return emits(self.neuron)

    def forward(self, x: Tensor | SparseInput, links: Links) -> Tensor:
        """Run x `[T, N, F]` on the links between the N nodes."""
        sums = self.norm(self.filter(once(x), links))
        y: Tensor = self.neuron(sums.expand(x.shape[0], *sums.shape[1:]))
        return y


class GraphNet(nn.Module):
    r"""Layers of graph filter, norm and neuron: `[T, N, F]` and links to logits `[T, N, K]`.

    Heads: "linear" reads the sums $S_t$ of a last layer without norm and neuron; "membrane" their leaky integral
    $m_t = \kappa m_{t-1} + (1-\kappa) S_t$ with the decay of the neuron (0.5 if it has none); "rate" the spikes of a
    last layer that is like the others, times `logit_scale`. Logits that are rates in [0, 1] keep the cross-entropy of
    K classes above $\ln(1 + (K-1)/e)$.

    Args:
        kind: "conv" or "attention".
        in_channels: F.
        classes: K.
        hidden: features of the layers before the last; with attention, of all heads together.
        depth: layers, the last one among them.
        heads: of attention, side by side in all layers but the last.
        out_heads: of attention in the last layer, averaged.
        neuron: makes one neuron; a name from `rheobase.neurons.list_neurons()`, or a function without arguments.
        norm: "stfn" (see `STFN`), "layer" (each node at each step by itself), "batch" (each feature over nodes and
            steps) or "none". All but STFN know nothing of the threshold.
        head: "linear", "membrane" or "rate".
        dropout: share of each layer's input that is dropped in training, and of attention's weights.
        rho: of STFN.
        affine: of STFN; "node" needs `nodes`.
        nodes: N, with affine="node" alone.
        self_loops: every node reads itself too.
        first: order of weights and links in convolutions, see `GraphConv`.
        logit_scale: of "rate" alone.

    Raises:
        ValueError: an unknown kind, norm, head or neuron; sizes that do not fit.
    """

    def __init__(
        self,
        kind: Literal["conv", "attention"],
        in_channels: int,
        classes: int,
        hidden: int = 64,
        depth: int = 2,
        heads: int = 8,
        out_heads: int = 1,
        neuron: str | MakeNeuron | Callable[[], nn.Module] = graph_lif,
        norm: Norm = "stfn",
        head: Head = "linear",
        dropout: float = 0.0,
        rho: float = 1.0,
        affine: Affine = "feature",
        nodes: int | None = None,
        self_loops: bool = True,
        first: Order = "weights",
        logit_scale: float = 1.0,
    ) -> None:
        super().__init__()
        for name, value, fine, expected in (
            ("kind", kind, kind in ("conv", "attention"), "'conv' or 'attention'"),
            ("norm", norm, norm in NORMS, f"one of {', '.join(NORMS)}"),
            ("head", head, head in HEADS, f"one of {', '.join(HEADS)}"),
            ("in_channels", in_channels, in_channels >= 1, "at least 1"),
            ("classes", classes, classes >= 1, "at least 1"),
            ("depth", depth, depth >= 1, "at least 1"),
            ("heads", heads, heads >= 1, "at least 1"),
            ("hidden", hidden, hidden >= 1 and (kind == "conv" or hidden % heads == 0), "a multiple of heads"),
            ("logit_scale", logit_scale, logit_scale == 1 or head == "rate", "1, for the head is not 'rate'"),
        ):
            if not fine:
                raise ValueError(f"GraphNet: {name} is {value!r}; expected {expected}")
        make = maker_of(neuron)

        def norm_of(channels: int, cell: nn.Module) -> nn.Module:
            made: dict[str, Callable[[], nn.Module]] = {
                "stfn": lambda: STFN(channels, threshold_of(cell), rho, affine, nodes),
                "layer": lambda: PerStep(nn.LayerNorm(channels)),
                "batch": lambda: TdBN(channels),
                "none": nn.Identity,
            }
            return made[norm]()

        def filter_of(c_in: int, c_out: int, last: bool, reads: Values) -> nn.Module:
            if kind == "conv":
                return GraphConv(c_in, c_out, reads, dropout=dropout, first=first)
            if last:
                return GraphAttention(c_in, c_out, out_heads, False, reads, dropout=dropout)
            return GraphAttention(c_in, c_out // heads, heads, True, reads, dropout=dropout)

        self.self_loops, self.logit_scale = self_loops, logit_scale
        self.layers = nn.ModuleList()
        width = in_channels
        reads: Values = "real"
        for k in range(depth):
            last = k == depth - 1
            c_out = classes if last else hidden
            filter = filter_of(width, c_out, last, reads)
            if last and head != "rate":
                cell: nn.Module = nn.Identity() if head == "linear" else LI(1 / (1 - _decay_of(make())))
                layer = GraphLayer(filter, nn.Identity(), cell)
            else:
                cell = make()
                layer = GraphLayer(filter, norm_of(c_out, cell), cell)
            self.layers.append(layer)
            width, reads = c_out, layer.emits

    def links(self, x: Tensor | SparseInput, edge_index: Tensor | Links) -> Links:
        """The links that the layers read: made of an `edge_index`, or as they are if they fit.

        Raises:
            ValueError: x or the links do not fit the network or each other.
        """
        N, features = x.shape[1:] if len(x.shape) == 3 else (0, 0)
        first: Any = self.layers[0]
        expected = first.filter.weight.shape[1]
        if features != expected:
            raise ValueError(f"{type(self).__name__}: x has shape {tuple(x.shape)}; expected [T, N, {expected}]")
        if isinstance(edge_index, Tensor):
            return Links.of_graph(edge_index, N, self.self_loops)
        if edge_index.rows != N or edge_index.columns != N or edge_index.self_loops != self.self_loops:
            raise ValueError(
                f"{type(self).__name__}: got {edge_index} with self_loops={edge_index.self_loops} for {N} nodes; "
                f"make them with Links.of_graph(edge_index, {N}, self_loops={self.self_loops})"
            )
        return edge_index

    def forward(self, x: Tensor | SparseInput, edge_index: Tensor | Links) -> Tensor:
        """Logits of every node at every step, `[T, N, K]`.

        Args:
            x: `[T, N, F]`; an input that is the same at every step is best given expanded over time, or, where most of
                it is zero, as a `SparseInput`.
            edge_index: int64 `[2, E]`, source and target of every link, an undirected one in both directions; or
                `Links`, which are made once.
        """
        links = self.links(x, edge_index)
        for layer in self.layers:
            x = layer(x, links)
        return x * self.logit_scale if self.logit_scale != 1 else x  # type: ignore[operator, return-value]


def _decay_of(neuron: nn.Module) -> float:
    decay = getattr(neuron, "decay", 0.5)
    decay = float(decay.detach().mean() if isinstance(decay, Tensor) else decay)
    return decay if decay < 1 else math.nextafter(1.0, 0.0)


_SOURCE = (
    "arXiv:2107.06865. Depth, widths, T, decay and threshold are chosen here; the head is linear, where the paper "
    "reads rates, unless head='rate'"
)
_GRAPH: dict[str, Any] = {"equivariance": "node-permutation"}
_WHOLE: dict[str, Any] = {**_GRAPH, "causal": False, "streamable": False}


def _features(in_channels: int = 1433, **_: object) -> tuple[int, ...]:
    return (in_channels,)


@register(_features, reproduces=_SOURCE, tiny="test_gc_snn", **_WHOLE)
def gc_snn(
    in_channels: int = 1433,
    classes: int = 7,
    hidden: int = 64,
    depth: int = 2,
    neuron: str | MakeNeuron = graph_lif,
    norm: Norm = "stfn",
    head: Head = "linear",
    dropout: float = 0.0,
    rho: float = 1.0,
    affine: Affine = "feature",
    nodes: int | None = None,
    self_loops: bool = True,
    first: Order = "weights",
    logit_scale: float = 1.0,
) -> GraphNet:
    """GC-SNN: two layers of graph convolution, STFN and LIF, see `GraphNet`; `gc_snn()(x, edge_index)`.

    Raises:
        ValueError: as `GraphNet`.
    """
    return GraphNet(
        "conv", in_channels, classes, hidden, depth, neuron=neuron, norm=norm, head=head, dropout=dropout, rho=rho,
        affine=affine, nodes=nodes, self_loops=self_loops, first=first, logit_scale=logit_scale,
    )  # fmt: skip


@register(_features, reproduces=_SOURCE, tiny="test_ga_snn", **_WHOLE)
def ga_snn(
    in_channels: int = 1433,
    classes: int = 7,
    hidden: int = 64,
    depth: int = 2,
    heads: int = 8,
    out_heads: int = 1,
    neuron: str | MakeNeuron = graph_lif,
    norm: Norm = "stfn",
    head: Head = "linear",
    dropout: float = 0.0,
    rho: float = 1.0,
    affine: Affine = "feature",
    nodes: int | None = None,
    self_loops: bool = True,
    logit_scale: float = 1.0,
) -> GraphNet:
    """GA-SNN: two layers of graph attention, STFN and LIF, 8 heads of 8 features and one of the classes.

    See `GraphNet`; attention is computed anew from the spikes of every step.

    Raises:
        ValueError: as `GraphNet`.
    """
    return GraphNet(
        "attention", in_channels, classes, hidden, depth, heads, out_heads, neuron, norm, head, dropout, rho, affine,
        nodes, self_loops, logit_scale=logit_scale,
    )  # fmt: skip


@register(_features, reproduces="Kipf and Welling 2017, arXiv:1609.02907", tiny="test_gcn", **_GRAPH)
def gcn(
    in_channels: int = 1433,
    classes: int = 7,
    hidden: int = 16,
    depth: int = 2,
    dropout: float = 0.0,
    self_loops: bool = True,
    first: Order = "weights",
) -> GraphNet:
    """GCN, the network that GC-SNN is measured against: graph convolutions and ReLU, every step by itself.

    Raises:
        ValueError: as `GraphNet`.
    """
    return GraphNet(
        "conv", in_channels, classes, hidden, depth, neuron=nn.ReLU, norm="none", dropout=dropout,
        self_loops=self_loops, first=first,
    )  # fmt: skip


@register(_features, reproduces="Velickovic et al. 2018, arXiv:1710.10903", tiny="test_gat", **_GRAPH)
def gat(
    in_channels: int = 1433,
    classes: int = 7,
    hidden: int = 64,
    depth: int = 2,
    heads: int = 8,
    out_heads: int = 1,
    dropout: float = 0.0,
    self_loops: bool = True,
) -> GraphNet:
    """GAT, the network that GA-SNN is measured against: graph attention and ELU, every step by itself.

    Raises:
        ValueError: as `GraphNet`.
    """
    return GraphNet(
        "attention", in_channels, classes, hidden, depth, heads, out_heads, nn.ELU, "none", dropout=dropout,
        self_loops=self_loops,
    )  # fmt: skip


_SMALL: dict[str, Any] = {"reproduces": "nothing: it is small, for tests"}
_few = partial(_features, 12)
register(_few, name="test_gc_snn", **_SMALL, **_WHOLE)(partial(gc_snn, 12, 10, 16))
register(_few, name="test_gc_snn_rate", **_SMALL, **_WHOLE)(partial(gc_snn, 12, 10, 16, head="rate"))
register(_few, name="test_ga_snn", **_SMALL, **_WHOLE)(partial(ga_snn, 12, 10, 16, heads=4, dropout=0.1))
register(_few, name="test_gcn", **_SMALL, **_GRAPH)(partial(gcn, 12, 10, 16))
register(_few, name="test_gat", **_SMALL, **_GRAPH)(partial(gat, 12, 10, 16, heads=4))
