"""MS-ResNet for small images and for ImageNet; for small images also its rivals, vanilla and spike-element-wise."""

from functools import partial

from rheobase.models.registry import MODELS, image_of, register
from rheobase.models.resnet import IMAGENET_BLOCKS, IMAGENET_WIDTHS, ResNet, Stem, stages
from rheobase.neurons import IterativeLIF
from rheobase.nn.residual import BLOCKS, MakeNeuron

SOURCE = (
    "arXiv:2112.08954 (MS-ResNet); widths and stem of the CIFAR nets of arXiv:1512.03385, shortcuts of 1x1 convolutions"
)

_IMAGENET_DEPTHS = (18, 34, 104)


@register(image_of(32, 3), reproduces=SOURCE)
def cifar_resnet(
    depth: int = 20,
    block: str = "ms",
    in_channels: int = 3,
    classes: int = 10,
    width: int = 16,
    neuron: str | MakeNeuron = IterativeLIF,
    last_gamma: float | None = None,
) -> ResNet:
    """Three stages of n blocks, of `width` times 1, 2 and 4 channels and strides 1, 2 and 2: depth 6n+2.

    See `ResNet` for the other arguments.

    Raises:
        ValueError: a depth that is not 6n+2 with n of at least 1; no such block or neuron.
    """
    n = (depth - 2) // 6
    if n < 1 or depth != 6 * n + 2:
        near = " or ".join(str(6 * m + 2) for m in (n, n + 1) if m >= 1) or "8"
        raise ValueError(f"cifar_resnet: depth is {depth}; expected 6n+2, so take {near}")
    plan = stages([n] * 3, [width, 2 * width, 4 * width], first_stride=1)
    return ResNet(block, plan, in_channels, classes, 1, neuron, last_gamma)


@register(image_of(8, 1), reproduces="the degradation study: depth alone changes")
def plain_stack(
    blocks: int = 3,
    block: str = "ms",
    in_channels: int = 1,
    classes: int = 10,
    width: int = 16,
    neuron: str | MakeNeuron = IterativeLIF,
    last_gamma: float | None = None,
) -> ResNet:
    """Equal blocks without down-sampling, pooled to 2x2: 2 * blocks + 2 layers. See `ResNet` for the arguments.

    Raises:
        ValueError: fewer than one block; no such block or neuron.
    """
    if blocks < 1:
        raise ValueError(f"plain_stack: blocks is {blocks}; expected at least 1")
    return ResNet(block, [(width, 1)] * blocks, in_channels, classes, 2, neuron, last_gamma)


@register(image_of(224, 3), reproduces="arXiv:2112.08954; layers of the official code, dropout drawn at every step")
def imagenet_ms_resnet(
    depth: int = 18,
    in_channels: int = 3,
    classes: int = 1000,
    neuron: str | MakeNeuron = IterativeLIF,
    last_gamma: float | None = None,
) -> ResNet:
    """MS-ResNet-18, 34 or 104 for 224x224 images: every stage begins with stride 2, and nothing is max-pooled.

    The stem is one 7x7 convolution of stride 2, for depth 104 three of 3x3 with biases and nothing between them; there
    shortcuts average before their 1x1 convolution, and a fifth of the features is dropped. The readout averages the
    logits over time, which equals logits of averaged features.

    Raises:
        ValueError: another depth, or no such neuron.
    """
    if depth not in _IMAGENET_DEPTHS:
        raise ValueError(f"imagenet_ms_resnet: depth is {depth}; expected 18, 34 or 104")
    deepest = depth == 104
    stem = Stem(((64, 3, 2), (64, 3, 1), (64, 3, 1)), bias=True) if deepest else Stem(((64, 7, 2),))
    return ResNet(
        "ms",
        stages(IMAGENET_BLOCKS[depth], IMAGENET_WIDTHS, first_stride=2),
        in_channels,
        classes,
        1,
        neuron,
        last_gamma,
        stem=stem,
        pool_shortcut=deepest,
        dropout=0.2 if deepest else 0.0,
    )


for _block in BLOCKS:
    for _depth in (8, 20, 32, 44, 56, 110, 482):
        _tiny = f"test_{_block}_resnet" if _depth == 110 else None
        register(image_of(32, 3), name=f"{_block}_resnet{_depth}", reproduces=SOURCE, tiny=_tiny)(
            partial(cifar_resnet, _depth, _block)
        )
    for _blocks in (3, 18, 54):
        register(
            image_of(8, 1), name=f"{_block}_stack{_blocks}", reproduces="the degradation study: depth alone changes"
        )(partial(plain_stack, _blocks, _block))
    register(image_of(8, 3), name=f"test_{_block}_resnet", reproduces="nothing: it is small, for tests")(
        partial(cifar_resnet, 8, _block, width=4)
    )
for _depth in _IMAGENET_DEPTHS:
    register(
        image_of(224, 3),
        name=f"imagenet_ms_resnet{_depth}",
        reproduces=MODELS["imagenet_ms_resnet"].reproduces,
        tiny="test_ms_resnet",
    )(partial(imagenet_ms_resnet, _depth))
