"""STBP-tdBN: residual networks whose neuron sits on the sum, normalised to its threshold over time too."""

from functools import partial

from rheobase.models.registry import image_of, register
from rheobase.models.resnet import IMAGENET_BLOCKS, IMAGENET_WIDTHS, ResNet, Stem, stages
from rheobase.neurons import IterativeLIF
from rheobase.nn.residual import MakeNeuron, vanilla_bottleneck

SOURCE = "arXiv:2011.05280; thresholds of 0.5, at which the norm is close to an isometry"

_IMAGENET_DEPTHS = (18, 34, 50)
_IMAGENET = f"{SOURCE}; the stem of arXiv:1512.03385, its pooling after the neuron"

stbp_lif = partial(IterativeLIF, detach_reset=False)
"""The neuron of the paper: gradients pass through its reset."""


@register(
    image_of(32), reproduces=f"{SOURCE}; a real-valued readout, as most later work has it", tiny="test_tdbn_resnet19"
)
def tdbn_resnet19(
    in_channels: int = 3,
    classes: int = 10,
    width: int = 64,
    stem: int | None = None,
    neuron: str | MakeNeuron = stbp_lif,
) -> ResNet:
    """ResNet-19 for CIFAR and frames of events: 3, 3 and 2 blocks of 2, 4 and 8 times `width`, a hidden layer.

    Args:
        in_channels: C, 2 for events.
        classes: K.
        width: a half of the channels of the first stage; the hidden layer has four times as many neurons.
        stem: channels of the stem, `width` if None; some papers draw it twice as wide.
        neuron: makes one neuron.

    Raises:
        ValueError: no such neuron.
    """
    return ResNet(
        "vanilla",
        stages((3, 3, 2), (2 * width, 4 * width, 8 * width), first_stride=1),
        in_channels,
        classes,
        1,
        neuron,
        None,
        stem=Stem(((stem or width, 3, 1),)),
        hidden=4 * width,
    )


@register(image_of(32), reproduces=f"{SOURCE}; layers of the ResNet-18 that is usual on CIFAR")
def tdbn_resnet18(
    in_channels: int = 3, classes: int = 10, width: int = 64, neuron: str | MakeNeuron = stbp_lif
) -> ResNet:
    """ResNet-18 for CIFAR: a 3x3 stem without stride, two blocks of each of 1, 2, 4 and 8 times `width` channels.

    Raises:
        ValueError: no such neuron.
    """
    plan = stages(IMAGENET_BLOCKS[18], [width * times for times in (1, 2, 4, 8)], first_stride=1)
    return ResNet("vanilla", plan, in_channels, classes, 1, neuron, None)


@register(image_of(224), reproduces=_IMAGENET)
def imagenet_tdbn_resnet(
    depth: int = 34, in_channels: int = 3, classes: int = 1000, width: int = 64, neuron: str | MakeNeuron = stbp_lif
) -> ResNet:
    """ResNet-18, 34 or 50 for 224x224 images; a 7x7 stem of stride 2 and max-pooling of its spikes.

    Blocks of the 50 layers have three convolutions and four times the channels; the 3x3 convolution strides.
    `width` is the channels of the stem. The sources at hand do not say how wide the paper's wide ResNet-34 is.

    Raises:
        ValueError: another depth, or no such neuron.
    """
    if depth not in _IMAGENET_DEPTHS:
        raise ValueError(f"imagenet_tdbn_resnet: depth is {depth}; expected 18, 34 or 50")
    block, times = (vanilla_bottleneck, 4) if depth == 50 else ("vanilla", 1)
    widths = [times * width * channels // IMAGENET_WIDTHS[0] for channels in IMAGENET_WIDTHS]
    plan = stages(IMAGENET_BLOCKS[depth], widths, first_stride=1)
    return ResNet(block, plan, in_channels, classes, 1, neuron, None, stem=Stem(((width, 7, 2),), pool="max"))


for _depth in _IMAGENET_DEPTHS:
    register(image_of(224), name=f"imagenet_tdbn_resnet{_depth}", reproduces=_IMAGENET, tiny="test_vanilla_resnet")(
        partial(imagenet_tdbn_resnet, _depth)
    )
register(image_of(8), name="test_tdbn_resnet19", reproduces="nothing: it is small, for tests")(
    partial(tdbn_resnet19, width=2)
)
register(image_of(8), name="test_tdbn_bottleneck", reproduces="nothing: it is small, for tests")(
    partial(
        ResNet,
        vanilla_bottleneck,
        [(8, 1), (8, 2)],
        in_channels=3,
        classes=10,
        pooled=1,
        neuron=stbp_lif,
        last_gamma=None,
    )
)
