"""What follows the last map of every convolutional network: pooling, perhaps a hidden layer, logits."""

from torch import Tensor, nn

from rheobase.nn.residual import MakeNeuron, neuron_of
from rheobase.nn.time import PerStep


class Average1d(nn.AdaptiveAvgPool1d):
    """`nn.AdaptiveAvgPool1d` that hands its input on where there is nothing to average."""

    def forward(self, x: Tensor) -> Tensor:
        """The means."""
        return x if x.shape[-1] == self.output_size else super().forward(x)


class Average2d(nn.AdaptiveAvgPool2d):
    """`nn.AdaptiveAvgPool2d` that hands its input on where there is nothing to average."""

    def forward(self, x: Tensor) -> Tensor:
        """The means."""
        return x if x.shape[-2:] == (self.output_size, self.output_size) else super().forward(x)


_POOL = {1: Average1d, 2: Average2d}


def head(
    channels: int,
    pooled: int,
    classes: int,
    neuron: MakeNeuron,
    *,
    axes: int = 2,
    hidden: int = 0,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Average pooling and linear layers: maps `[T, B, C, ...]` to logits `[T, B, K]`.

    Args:
        channels: C.
        pooled: side of the map that is left before the linear layers.
        classes: K.
        neuron: makes the neurons of the hidden layer.
        axes: of the map, 1 or 2.
        hidden: neurons of a hidden layer before the last one, without a norm; 0 for none.
        dropout: share of the pooled features that is dropped in training, drawn anew at every step.
    """
    features = channels * pooled**axes
    flatten: list[nn.Module] = [_POOL[axes](pooled), nn.Flatten()]
    layers = nn.Sequential(PerStep(nn.Sequential(*flatten, *([nn.Dropout(dropout)] if dropout else []))))
    if hidden:
        layers.extend([PerStep(nn.Linear(features, hidden)), neuron_of(neuron, hidden)])
        features = hidden
    return layers.append(PerStep(nn.Linear(features, classes)))
