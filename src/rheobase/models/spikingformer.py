r"""Spikingformer, whose convolutions read spikes alone, and its baseline Spikformer, which adds spikes to spikes.

    Spikingformer    x <- x + N(W SN'(s Q K^T V)),  Q, K, V = SN(N(W SN(x)))          real sums, layers read {0, 1}
    Spikformer       x <- x + SN(N(W SN'(s Q K^T V))),  Q, K, V = SN(N(W x))          integers up to 2L + 2

SN is a LIF neuron, SN' one of half its threshold, N a batch norm over time too, s = 0.125.
"""

from functools import partial

from rheobase.models.registry import image_of, register
from rheobase.models.transformer import (
    CIFAR_POOLS,
    IMAGENET_POOLS,
    LAST_POOL,
    SpikingTransformer,
    classifier,
    convolutions,
    eighths,
    event_lif,
    tiny_lif,
    transformer_block,
    transformer_lif,
)
from rheobase.nn.attention import Order, SelfAttention
from rheobase.nn.memory import Blocks
from rheobase.nn.norm import TdBN
from rheobase.nn.residual import Conv, MakeNeuron, around, maker_of
from rheobase.nn.values import Values, emits

SOURCES = {
    "ms": "arXiv:2304.11954 (Spikingformer) and its official code; no stochastic depth, which that code makes and does "
    "not call",
    "sew": "arXiv:2209.15425 (Spikformer) and its official code; no stochastic depth, which that code makes and does "
    "not call, and no biases of Q, K and V before their norms, which its code for CIFAR has",
}
FAMILIES = {"ms": "spikingformer", "sew": "spikformer"}


def _transformer(
    order: str,
    depth: int,
    width: int,
    heads: int,
    pools: tuple[bool, bool, bool, bool],
    in_channels: int,
    classes: int,
    neuron: str | MakeNeuron,
    scale: float,
    product: Order | None,
    unused_norms: bool,
) -> SpikingTransformer:
    if depth < 1 or width < 8 or width % 8:
        raise ValueError(
            f"{FAMILIES[order]}: depth is {depth} and width {width}; expected at least one block and a multiple of 8"
        )
    make = maker_of(neuron)
    tokenizer = convolutions(in_channels, eighths(width), pools, make)
    spikes = emits(tokenizer)
    last = {"conv": Conv(width, width, 3, spikes), "norm": TdBN(width)}
    if order == "ms":
        tokenizer.extend(last.values())
    else:
        tokenizer.append(around("sew", lambda _: last, make, spikes))
    attention = partial(SelfAttention, width, heads, make, scale=scale, order=product)
    reads: Values = emits(tokenizer)
    body = Blocks(reads=reads)
    for _ in range(depth):
        block = transformer_block(order, attention, width, make, reads, unused_norms=unused_norms)
        body.append(block)
        reads = block.emits
    return SpikingTransformer(tokenizer, body, classifier(width, classes))


@register(image_of(32), reproduces=SOURCES["ms"])
def spikingformer(
    depth: int = 4,
    width: int = 384,
    heads: int = 12,
    pools: tuple[bool, bool, bool, bool] = CIFAR_POOLS,
    in_channels: int = 3,
    classes: int = 10,
    neuron: str | MakeNeuron = transformer_lif,
    scale: float = 0.125,
    product: Order | None = None,
    unused_norms: bool = False,
) -> SpikingTransformer:
    """Spikingformer L-D: five 3x3 convolutions make tokens, L blocks of width D follow; no position is encoded.

    Args:
        depth: L.
        width: D, a multiple of 8.
        heads: of the attention, divides D. It changes what is computed and not the parameters; official files differ.
        pools: before which of the last four convolutions of the tokenizer spikes are max-pooled.
        in_channels: C, 2 for events.
        classes: K.
        neuron: makes one neuron; a name from `rheobase.neurons.list_neurons()`, or a function without arguments. The
            one behind the product gets half its threshold.
        scale: of the product of Q, K and V.
        product: which product comes first, see `rheobase.nn.attention.attend`; None takes the cheaper.
        unused_norms: hold the two LayerNorms per block that the official code has and does not use, so that parameters
            count as there; they get no gradient.

    Raises:
        ValueError: no block; a width that is not a multiple of 8, or not of the heads; no such neuron.
    """
    return _transformer("ms", depth, width, heads, pools, in_channels, classes, neuron, scale, product, unused_norms)


@register(image_of(32), reproduces=SOURCES["sew"])
def spikformer(
    depth: int = 4,
    width: int = 384,
    heads: int = 12,
    pools: tuple[bool, bool, bool, bool] = CIFAR_POOLS,
    in_channels: int = 3,
    classes: int = 10,
    neuron: str | MakeNeuron = transformer_lif,
    scale: float = 0.125,
    product: Order | None = None,
    unused_norms: bool = False,
) -> SpikingTransformer:
    """Spikformer L-D: as `spikingformer`, with each neuron behind its norm; `pools` act behind the neurons.

    The tokenizer ends in a 3x3 convolution whose spikes are added to those it reads, in the place of a position.
    Convolutions read integers: 0 to 2L + 1 in the last block.

    Raises:
        ValueError: as `spikingformer`.
    """
    return _transformer("sew", depth, width, heads, pools, in_channels, classes, neuron, scale, product, unused_norms)


for _order, _make in (("ms", spikingformer), ("sew", spikformer)):
    _name, _source = FAMILIES[_order], SOURCES[_order]
    _traits = {"tiny": f"test_{_name}"}
    for _depth, _width in ((8, 384), (8, 512), (8, 768)):
        register(
            image_of(224), name=f"imagenet_{_name}_{_depth}_{_width}", reproduces=f"{_source}; 8 heads", **_traits
        )(partial(_make, _depth, _width, heads=8, pools=IMAGENET_POOLS, classes=1000))
    _heads_of_32 = f"{_source}; 32 channels in every head"
    for _depth, _width, _heads in ((4, 256, 8), (2, 384, 12), (4, 384, 12)):
        register(image_of(32), name=f"cifar_{_name}_{_depth}_{_width}", reproduces=_heads_of_32, **_traits)(
            partial(_make, _depth, _width, heads=_heads)
        )
    register(image_of(8, 1), name=f"digits_{_name}_1_64", reproduces=f"{_source}; a small one for 8x8 pixels, 2 heads")(
        partial(_make, 1, 64, heads=2, pools=LAST_POOL, in_channels=1)
    )
    register(image_of(8), name=f"test_{_name}", reproduces="nothing: it is small, for tests")(
        partial(_make, 2, 16, heads=2, pools=LAST_POOL, neuron=tiny_lif)
    )
register(image_of(128, 2), name="dvs_spikingformer_2_256", reproduces=SOURCES["ms"], tiny="test_spikingformer")(
    partial(spikingformer, 2, 256, heads=16, pools=IMAGENET_POOLS, in_channels=2, neuron=event_lif)
)
register(
    image_of(128, 2),
    name="dvs_spikformer_2_256",
    reproduces=f"{SOURCES['sew']}; scale 0.25 and tau 2 as there",
    tiny="test_spikformer",
)(partial(spikformer, 2, 256, heads=16, pools=IMAGENET_POOLS, in_channels=2, scale=0.25))
