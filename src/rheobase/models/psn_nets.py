"""The networks that parallel spiking neurons were measured in: columns of images, still images, events, ImageNet."""

from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from rheobase.models.conv_snn import ConvSNN, Layer
from rheobase.models.registry import MODELS, image_of, register
from rheobase.models.resnet import IMAGENET_BLOCKS, IMAGENET_WIDTHS, ResNet, Stem, stages
from rheobase.neurons import PSN, SlidingPSN
from rheobase.nn.embedding import TemporalEmbedding
from rheobase.nn.residual import MakeNeuron

Net = TypeVar("Net", bound=nn.Module)
SOURCE = "arXiv:2304.12760 and the code published with it"

sliding_32 = partial(SlidingPSN, 32, exp_init=False)
"""The sliding neuron of the headline numbers on sequential CIFAR."""


@register(lambda in_channels=3, **_: (in_channels, 32), reproduces=SOURCE)
def sequential_cifar_snn(
    in_channels: int = 3,
    classes: int = 10,
    width: int = 128,
    neuron: str | MakeNeuron = sliding_32,
    pooled: int = 8,
) -> ConvSNN:
    """Two stages of three convolutions over the height of a column, a hidden layer: `[T, B, C, H]` to `[T, B, K]`.

    One step is one column of an image, see `rheobase.data.columns`. A stage ends by averaging pairs; the hidden layer
    has twice `width` neurons. 513418 parameters without those of the neurons, for 32 rows and 10 classes. Norms take
    statistics over all steps: a net of causal neurons is causal in eval mode only.

    Args:
        in_channels: C.
        classes: K.
        width: channels of every convolution.
        neuron: makes one neuron.
        pooled: rows that are left before the hidden layer: a quarter of H.

    Raises:
        ValueError: no such neuron.
    """
    return ConvSNN(
        [*[(width, 3, 1)] * 3, "pool"] * 2,
        in_channels,
        classes,
        pooled,
        neuron,
        axes=1,
        gain=1.0,
        hidden=2 * width,
    )


@register(image_of(32), causal=False, any_T=False, streamable=False, reproduces=SOURCE)
def static_cifar_snn(
    T: int = 4,
    in_channels: int = 3,
    classes: int = 10,
    width: int = 256,
    neuron: str | MakeNeuron | None = None,
    pooled: int = 8,
) -> ConvSNN:
    """Two stages of three 3x3 convolutions and a hidden layer of 16 times `width` neurons, for still images.

    70113034 parameters without those of the neurons, for 32x32 images and 10 classes.

    Args:
        T: steps that the PSNs are made for.
        in_channels: C.
        classes: K.
        width: channels of every convolution.
        neuron: makes one neuron; None is a PSN of T steps.
        pooled: side of the map that is left before the hidden layer: a quarter of the image's.

    Raises:
        ValueError: no such neuron.
    """
    return ConvSNN(
        [*[(width, 3, 1)] * 3, "pool"] * 2,
        in_channels,
        classes,
        pooled,
        neuron or partial(PSN, T),
        gain=1.0,
        hidden=16 * width,
    )


@register(
    image_of(48, 2),
    reproduces=f"{SOURCE}: the VGG of arXiv:2202.11946; dropout of single features, as its Dropout2d acts there",
)
def dvs_vgg_snn(
    in_channels: int = 2,
    classes: int = 10,
    width: int = 64,
    neuron: str | MakeNeuron = SlidingPSN,
    pooled: int = 3,
) -> ConvSNN:
    """Eight 3x3 convolutions with biases, of 1, 2, 4, 4 and four times 8 `width` channels, for frames of events.

    Average pooling after the second and every other one; a quarter of the last features is dropped in training. 9271498
    parameters without those of the neurons, for frames of 48x48 and 10 classes. Weights start as He's, by fan-out.

    Args:
        in_channels: C.
        classes: K.
        width: channels of the first convolution.
        neuron: makes one neuron.
        pooled: side of the map that is left before the linear layer: a sixteenth of the frame's.

    Raises:
        ValueError: no such neuron.
    """
    one, two, four, eight = ((times * width, 3, 1) for times in (1, 2, 4, 8))
    plan: list[Layer] = [one, two, "pool", four, four, "pool", eight, eight, "pool", eight, eight, "pool"]
    model = ConvSNN(plan, in_channels, classes, pooled, neuron, bias=True, gain=1.0, dropout=0.25)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


@register(
    image_of(224),
    causal=False,
    any_T=False,
    streamable=False,
    reproduces=f"{SOURCE}; SEW-ResNet (ADD) of arXiv:2102.04159. There the weights start from a trained ReLU "
    "ResNet, or convolutions by Kaiming's rule over outputs",
)
def imagenet_sew_resnet(
    depth: int = 18,
    T: int = 4,
    in_channels: int = 3,
    classes: int = 1000,
    width: int = 64,
    neuron: str | MakeNeuron | None = None,
    embedding: bool = True,
) -> ResNet:
    """SEW-ResNet-18 or 34 (ADD) for 224x224 images; a 7x7 stem of stride 2, and average pooling of its spikes.

    Args:
        depth: 18 or 34.
        T: steps.
        in_channels: C.
        classes: K.
        width: channels of the first stage.
        neuron: makes one neuron; None is a PSN of T steps.
        embedding: adds a learned number for each step to the image.

    Raises:
        ValueError: another depth, or no such neuron.
    """
    if depth not in (18, 34):
        raise ValueError(f"imagenet_sew_resnet: depth is {depth}; expected 18 or 34")
    model = ResNet(
        "sew",
        stages(IMAGENET_BLOCKS[depth], [width * c // IMAGENET_WIDTHS[0] for c in IMAGENET_WIDTHS], first_stride=1),
        in_channels,
        classes,
        1,
        neuron or partial(PSN, T),
        None,
        stem=Stem(((width, 7, 2),), pool="average"),
    )
    if embedding:
        model.stem.insert(0, TemporalEmbedding(T))
    return model


_WHOLE: dict[str, Any] = {"causal": False, "any_T": False, "streamable": False}
_SMALL = "nothing: it is small, for tests"
for _depth in (18, 34):
    register(
        image_of(224),
        name=f"imagenet_sew_resnet{_depth}",
        reproduces=MODELS["imagenet_sew_resnet"].reproduces,
        **_WHOLE,
    )(partial(imagenet_sew_resnet, _depth))


def _lively(model: Net) -> Net:
    """The model with thresholds of a twentieth, so that a small one fires too."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, PSN | SlidingPSN):
                module.bias.mul_(0.05)
    return model


@register(lambda **_: (3, 8), reproduces=_SMALL)
def test_sequential_cifar_snn() -> ConvSNN:
    """`sequential_cifar_snn` for columns of 8 pixels."""
    return _lively(sequential_cifar_snn(width=4, neuron=partial(SlidingPSN, 3), pooled=2))


@register(image_of(8), reproduces=_SMALL, **_WHOLE)
def test_static_cifar_snn(T: int) -> ConvSNN:
    """`static_cifar_snn` for 8x8 images."""
    return _lively(static_cifar_snn(T, width=4, pooled=2))


@register(image_of(16, 2), reproduces=_SMALL)
def test_dvs_vgg_snn() -> ConvSNN:
    """`dvs_vgg_snn` for 16x16 frames."""
    return _lively(dvs_vgg_snn(width=2, pooled=1))


@register(image_of(32), reproduces=_SMALL, **_WHOLE)
def test_imagenet_sew_net(T: int) -> ResNet:
    """`imagenet_sew_resnet` for 32x32 images."""
    return _lively(imagenet_sew_resnet(18, T, classes=10, width=12))
