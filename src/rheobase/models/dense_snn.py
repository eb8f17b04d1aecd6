"""Fully connected networks on spike trains, for speech-like data: feed-forward, recurrent, or with learned delays."""

from collections.abc import Sequence
from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from rheobase.models.registry import register
from rheobase.neurons import LIF
from rheobase.nn.delay import DelayedLinear
from rheobase.nn.norm import TdBN
from rheobase.nn.packing import Dense
from rheobase.nn.recurrent import Recurrent
from rheobase.nn.residual import MakeNeuron, maker_of, threshold_of
from rheobase.nn.values import Values, emits
from rheobase.scan import Temporal

KINDS = ("feedforward", "recurrent", "delay")


class DenseSNN(nn.Module):
    """Hidden layers of weights, norm and neuron, then one layer of weights: `[T, B, C]` to logits `[T, B, K]`.

    - "feedforward": what a layer remembers, its neurons remember.
    - "recurrent": each hidden layer feeds its spikes back to itself through a matrix without bias, orthogonal at the
      start; the norm is on the feed-forward current alone.
    - "delay": every synapse, the last layer's too, has a learned delay; in training call `rb.nn.sharpen` every epoch.

    Args:
        kind: one of the three.
        hidden: widths of the hidden layers.
        in_channels: C.
        classes: K.
        neuron: makes one neuron; a name from `rheobase.neurons.list_neurons()`, or a function without arguments.
        max_delay: delays are 0 to max_delay - 1 steps; for "delay" alone.

    Raises:
        ValueError: no such kind or neuron, no hidden layer, a size below one.
    """

    def __init__(
        self,
        kind: str,
        hidden: Sequence[int],
        in_channels: int,
        classes: int,
        neuron: str | MakeNeuron,
        max_delay: int,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"DenseSNN: there is no kind {kind!r}; expected one of {', '.join(KINDS)}")
        if not hidden or min(*hidden, in_channels, classes) < 1:
            raise ValueError(
                f"DenseSNN: hidden is {tuple(hidden)}, in_channels {in_channels}, classes {classes}; "
                f"expected at least one hidden layer and sizes of at least 1"
            )
        make = maker_of(neuron)

        def weights(c_in: int, c_out: int, reads: Values, bias: bool = False) -> nn.Module:
            if kind == "delay":
                return DelayedLinear(c_in, c_out, max_delay, bias=bias)
            return Dense(c_in, c_out, reads, bias)

        layers, width = [], in_channels
        reads: Values = "real"
        for size in hidden:
            cell = make()
            layer = [weights(width, size, reads), TdBN(size, threshold_of(cell)), cell]
            if kind == "recurrent":
                layer[2] = _fed_back(cell, size)
            layers.append(nn.Sequential(*layer))
            width, reads = size, emits(cell)
        self.body = nn.Sequential(*layers)
        self.head = weights(width, classes, reads, bias=True)

    def blocks(self) -> list[nn.Module]:
        """The hidden layers in order."""
        return list(self.body)

    def forward(self, x: Float[Tensor, "T B C"]) -> Float[Tensor, "T B K"]:
        """Logits of every step."""
        logits: Tensor = self.head(self.body(x))
        return logits


def _fed_back(neuron: nn.Module, size: int) -> Recurrent:
    if not isinstance(neuron, Temporal):
        raise ValueError(f"DenseSNN: {type(neuron).__name__} has no steps to feed back; take a neuron of rb.neurons")
    feedback = nn.Linear(size, size, bias=False)
    nn.init.orthogonal_(feedback.weight)
    return Recurrent(neuron, feedback)


def _features(in_channels: int = 700, **_: object) -> tuple[int, ...]:
    return (in_channels,)


_SOURCES = {
    "feedforward": "the baseline of Cramer et al. 2020, arXiv:1910.07407, with a norm and without synaptic filter",
    "recurrent": "recurrent LIF nets of Cramer et al. 2020, arXiv:1910.07407; norm of the feed-forward current as in "
    "Bittar and Garner 2022, doi:10.3389/fnins.2022.865897; a readout without leak",
    "delay": "Hammouamri et al. 2023, arXiv:2306.17670, without dropout; a readout without leak",
}


def dense_snn(
    kind: str = "feedforward",
    in_channels: int = 700,
    classes: int = 20,
    hidden: Sequence[int] = (256, 256),
    neuron: str | MakeNeuron = LIF,
    max_delay: int = 25,
    width: int | None = None,
) -> DenseSNN:
    """Two hidden layers of 256 neurons for the 700 channels and 20 classes of the spoken digits; see `DenseSNN`.

    `width` makes all hidden layers that wide.

    Raises:
        ValueError: as `DenseSNN`.
    """
    hidden = hidden if width is None else (width,) * len(hidden)
    return DenseSNN(kind, hidden, in_channels, classes, neuron, max_delay)


for _kind in KINDS:
    register(_features, name=f"{_kind}_snn", reproduces=_SOURCES[_kind])(partial(dense_snn, _kind))
    register(partial(_features, 12), name=f"test_{_kind}_snn", reproduces="nothing: it is small, for tests")(
        partial(dense_snn, _kind, 12, 10, (10, 8), max_delay=4)
    )
