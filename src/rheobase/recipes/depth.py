"""Depth alone: equal residual blocks in rising number, with the shortcut where each of three papers puts it."""

from functools import partial, update_wrapper

from rheobase.recipes.classification import Classification
from rheobase.recipes.registry import register
from rheobase.train import TrainConfig

KINDS = {"ms": "membrane shortcut", "vanilla": "neuron on the sum", "sew": "sum of spikes"}
DEPTHS = {8: 3, 38: 18, 110: 54}
"""Layers, and the blocks of two convolutions among them."""


def degradation(block: str, layers: int) -> Classification:
    """Equal blocks of 16 channels on the 8x8 digits, six epochs; nothing but the depth and the block changes."""
    return Classification(
        data="digits",
        model=f"{block}_stack{DEPTHS[layers]}",
        T=2,
        batch_size=50,
        measured="last",
        threads=1,
        train=TrainConfig(epochs=6, optimizer="sgd", lr=0.1),
    )


def _claim(block: str, layers: int) -> str:
    return f"""{layers} layers of residual blocks ({KINDS[block]}) on handwritten digits: the degradation study.

    Blocks: arXiv:2112.08954 (ms), arXiv:2011.05280 (vanilla), arXiv:2102.04159 (sew). Claim: from 8 to 110 layers MS
    loses less than 2 points of test accuracy, vanilla more than 40. Measured, means of three seeds at 8, 38
    and 110 layers: ms 95.9, 97.8, 97.8 %; vanilla 96.8, 29.5, 9.3 %; sew 98.1, 71.6, 37.6 %.
    Command: `rheobase train depth-{block}-{layers}`
    """


for _block in KINDS:
    for _layers in DEPTHS:
        _make = update_wrapper(partial(degradation, _block, _layers), degradation)
        _make.__name__, _make.__doc__ = f"depth_{_block}_{_layers}", _claim(_block, _layers)
        register(_make)


@register
def depth_482() -> Classification:
    """MS-ResNet-482, the deepest network of arXiv:2112.08954, on handwritten digits, kept as bits for backward.

    Claim: it trains at all: the loss falls from its first epoch on. Measured: 97.6 % of the test digits, six epochs
    (one seed), 6 minutes on one core beside other work. Command: `rheobase train depth-482`
    """
    return Classification(
        data="digits",
        model="ms_resnet482",
        T=2,
        batch_size=50,
        measured="last",
        threads=1,
        train=TrainConfig(epochs=6, optimizer="sgd", lr=0.1, memory="bits"),
    )
