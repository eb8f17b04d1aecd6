r"""Spike-driven Transformer (v1): attention by mask and addition.

x <- x + N(W S),  S = SN'(sum over tokens of K * V) * Q,  Q, K, V = SN(N(W SN(x)))
x <- x + N(W2 SN(N(W1 SN(x))))
"""

from functools import partial

from torch import nn

from rheobase.models.registry import image_of, register
from rheobase.models.transformer import (
    CIFAR_POOLS,
    IMAGENET_POOLS,
    LAST_POOL,
    SpikingTransformer,
    classifier,
    convolutions,
    eighths,
    tiny_lif,
    transformer_block,
    transformer_lif,
)
from rheobase.nn.attention import SpikeDrivenAttention
from rheobase.nn.memory import Blocks
from rheobase.nn.norm import TdBN
from rheobase.nn.residual import Conv, MakeNeuron, around, maker_of
from rheobase.nn.time import PerStep
from rheobase.nn.values import emits

SOURCE = (
    "arXiv:2307.01694 and its official code; no stochastic depth, which that code does not call, no unused convolution "
    "over heads, and no max-pooling in the attention to events; the linear layer starts as Spikingformer's"
)


@register(image_of(32), reproduces=SOURCE)
def spike_driven_transformer(
    depth: int = 2,
    width: int = 512,
    pools: tuple[bool, bool, bool, bool] = CIFAR_POOLS,
    in_channels: int = 3,
    classes: int = 10,
    neuron: str | MakeNeuron = transformer_lif,
) -> SpikingTransformer:
    """Spike-driven Transformer L-D: four 3x3 convolutions, a fifth on a membrane shortcut, L blocks, a neuron, a layer.

    The fourth convolution is pooled before its neuron, so that the shortcut is real-valued. Heads play no part in its
    attention. Weights of convolutions start at a deviation of 0.02.

    Args:
        depth: L.
        width: D, a multiple of 8.
        pools: which of the first four convolutions are followed by max-pooling.
        in_channels: C.
        classes: K.
        neuron: makes one neuron; a name from `rheobase.neurons.list_neurons()`, or a function without arguments. The
            one on the sum of K * V gets half its threshold.

    Raises:
        ValueError: no block; a width that is not a multiple of 8; no such neuron.
    """
    if len(pools) != 4:
        raise ValueError(f"spike_driven_transformer: pools are {pools}; expected four, one for each narrow convolution")
    if depth < 1 or width < 8 or width % 8:
        raise ValueError(
            f"spike_driven_transformer: depth is {depth} and width {width}; expected at least one block and a multiple "
            f"of 8"
        )
    make = maker_of(neuron)
    *narrow, _ = eighths(width)
    tokenizer = convolutions(in_channels, narrow, pools[:3], make)
    tokenizer.extend([Conv(narrow[-1], width, 3, emits(tokenizer)), TdBN(width)])
    if pools[3]:
        tokenizer.append(PerStep(nn.MaxPool2d(3, 2, 1)))
    tokenizer.append(
        around("ms", lambda reads: {"conv": Conv(width, width, 3, reads), "norm": TdBN(width)}, make, "real")
    )
    attention = partial(SpikeDrivenAttention, width, 1, make)
    body = Blocks(*(transformer_block("ms", attention, width, make, "real") for _ in range(depth)))
    model = SpikingTransformer(tokenizer, body, classifier(width, classes, make()))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


for _depth, _width in ((8, 384), (6, 512), (8, 512), (10, 512), (8, 768)):
    register(image_of(224), name=f"imagenet_spike_driven_transformer_{_depth}_{_width}", reproduces=SOURCE)(
        partial(spike_driven_transformer, _depth, _width, pools=IMAGENET_POOLS, classes=1000)
    )
for _width in (256, 512):
    register(image_of(32), name=f"cifar_spike_driven_transformer_2_{_width}", reproduces=SOURCE)(
        partial(spike_driven_transformer, 2, _width)
    )
register(image_of(8), name="test_spike_driven_transformer", reproduces="nothing: it is small, for tests")(
    partial(spike_driven_transformer, 2, 16, pools=LAST_POOL, neuron=tiny_lif)
)
