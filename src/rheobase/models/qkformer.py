r"""QKFormer: three stages of tokens that grow fewer and wider; masks of tokens in two, self-attention in the last.

    stages 1, 2    x <- x + SN(N(W S)),  S = SN'(sum over a head's channels of Q) * K
    stage 3        x <- x + SN(N(W SN'(s Q K^T V)))
    embedding      x <- SN(F(x)) + SN(N(W x)),  F of one or two 3x3 convolutions, W 1x1

Q, K, V = SN(N(W x)). Spikes are added to spikes, so convolutions read integers: not spike-driven in the strict sense.
"""

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

from torch import nn

from rheobase.models.registry import image_of, register
from rheobase.models.transformer import (
    SpikingTransformer,
    classifier,
    convolutions,
    tiny_lif,
    transformer_block,
    transformer_lif,
)
from rheobase.nn.attention import Attention, SelfAttention, TokenAttention
from rheobase.nn.fuse import Sequential
from rheobase.nn.memory import Blocks
from rheobase.nn.norm import TdBN
from rheobase.nn.residual import Conv, MakeNeuron, Residual, maker_of
from rheobase.nn.values import Values, added, emits

SOURCE = "arXiv:2403.16552 (QKFormer) and its official code; no stochastic depth, which that code does not call"


@dataclass(frozen=True)
class Layout:
    """Where the map is halved, and how many blocks the stages have.

    Args:
        stem: max-pool behind the first convolution's norm.
        embeddings: of the three embeddings, whether each of their 3x3 convolutions is max-pooled.
        token_blocks: blocks of the first two stages; the third has the rest.
    """

    stem: bool
    embeddings: tuple[tuple[bool, ...], tuple[bool, ...], tuple[bool, ...]]
    token_blocks: tuple[int, int]


IMAGENET = Layout(True, ((True, False),) * 3, (1, 2))
CIFAR = Layout(False, ((False,), (False, True), (False, True)), (1, 1))


def _embedding(c_in: int, c_out: int, pools: tuple[bool, ...], neuron: MakeNeuron, reads: Values) -> Residual:
    """3x3 convolutions in a row, and a 1x1 convolution on the shortcut; pooling is before the neurons."""
    branch = convolutions(c_in, (c_out,) * len(pools), pools, neuron, reads, pool_first=True)
    cell = neuron()
    conv = Conv(c_in, c_out, 1, reads, 2 ** sum(pools))
    shortcut = Sequential(OrderedDict[str, nn.Module](conv=conv, norm=TdBN(c_out), neuron=cell))
    return Residual(branch, shortcut, nn.Identity(), added(emits(branch), emits(cell)))


@register(image_of(32), reproduces=SOURCE)
def qkformer(
    depth: int = 4,
    width: int = 384,
    heads: int = 8,
    layout: Layout = CIFAR,
    in_channels: int = 3,
    classes: int = 10,
    neuron: str | MakeNeuron = transformer_lif,
) -> SpikingTransformer:
    """QKFormer HST-L-D: stages of D/4, D/2 and D channels, L blocks in all.

    Args:
        depth: L, more than the blocks of the first two stages.
        width: D, a multiple of 8.
        heads: of all attentions, divides D/4.
        layout: `CIFAR` or `IMAGENET` of this file.
        in_channels: C.
        classes: K.
        neuron: makes one neuron; a name from `rheobase.neurons.list_neurons()`, or a function without arguments. The
            one in each attention gets half its threshold.

    Raises:
        ValueError: no block in the third stage; a width that is not a multiple of 8, or D/4 not of the heads; no such
            neuron.
    """
    last = depth - sum(layout.token_blocks)
    if last < 1 or width < 8 or width % 8:
        raise ValueError(
            f"qkformer: depth is {depth} and width {width}; expected more than {sum(layout.token_blocks)} blocks and a "
            f"multiple of 8"
        )
    make = maker_of(neuron)
    tokenizer = convolutions(in_channels, (width // 8,), (layout.stem,), make, pool_first=True)
    reads = emits(tokenizer)
    body, before = Blocks(reads=reads), width // 8
    stages: tuple[tuple[type[Attention], int, int], ...] = (
        (TokenAttention, width // 4, layout.token_blocks[0]),
        (TokenAttention, width // 2, layout.token_blocks[1]),
        (SelfAttention, width, last),
    )
    for (attention, channels, count), pools in zip(stages, layout.embeddings, strict=True):
        embedding = _embedding(before, channels, pools, make, reads)
        body.append(embedding)
        before, reads = channels, embedding.emits
        for _ in range(count):
            block = transformer_block("sew", partial(attention, channels, heads, make), channels, make, reads)
            body.append(block)
            reads = block.emits
    return SpikingTransformer(tokenizer, body, classifier(width, classes))


for _width, _heads in ((384, 6), (512, 8), (768, 12)):
    register(image_of(224), name=f"imagenet_qkformer_10_{_width}", reproduces=SOURCE)(
        partial(qkformer, 10, _width, heads=_heads, layout=IMAGENET, classes=1000)
    )
register(image_of(32), name="cifar_qkformer_4_384", reproduces=SOURCE)(qkformer)
register(image_of(16), name="test_qkformer", reproduces="nothing: it is small, for tests")(
    partial(qkformer, 3, 16, heads=2, neuron=tiny_lif)
)
