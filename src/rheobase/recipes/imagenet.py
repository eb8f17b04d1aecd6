"""ImageNet: residual networks with the settings of their papers, as far as these are known."""

from rheobase.data import Augment
from rheobase.recipes.classification import Classification
from rheobase.recipes.registry import register
from rheobase.train import TrainConfig


def _ms_resnet(depth: int, T: int) -> Classification:
    return Classification(
        data="imagenet",
        model=f"imagenet_ms_resnet{depth}",
        T=T,
        size=224,
        workers=16,
        batch_size=256,
        validation=0.01,
        augment=Augment(auto="autoaugment-imagenet"),
        train=TrainConfig(
            epochs=125,
            optimizer="sgd",
            lr=0.1,
            weight_decay=1e-5,
            decay_vectors=True,
            label_smoothing=0.1,
            autocast="bf16",
        ),
    )


@register
def imagenet_ms_resnet18() -> Classification:
    """MS-ResNet-18 on ImageNet, six steps: random crops and AutoAugment, no mirroring; 125 epochs of SGD.

    Source: Hu et al. 2024, arXiv:2112.08954, settings of its code. Claim: 63.10 % top-1. Departures: the cosine falls
    at every step, not every epoch; 1 % of the training pictures is held out.
    Not measured here: needs ImageNet and GPUs. Command: `rheobase train imagenet-ms-resnet18`
    """
    return _ms_resnet(18, 6)


@register
def imagenet_ms_resnet34() -> Classification:
    """MS-ResNet-34 on ImageNet, six steps; settings and departures of imagenet-ms-resnet18.

    Source: Hu et al. 2024, arXiv:2112.08954. Claim: 69.42 % top-1. Not measured here: needs ImageNet and GPUs.
    Command: `rheobase train imagenet-ms-resnet34`
    """
    return _ms_resnet(34, 6)


@register
def imagenet_ms_resnet104() -> Classification:
    """MS-ResNet-104 on ImageNet, five steps; settings and departures of imagenet-ms-resnet18.

    Source: Hu et al. 2024, arXiv:2112.08954. Claim: 74.21 % top-1, and 76.02 % with the middle 288 pixels of pictures
    of 320: `--test-size 288 --test-resize 320`. Not measured here: needs ImageNet and GPUs.
    Command: `rheobase train imagenet-ms-resnet104`
    """
    return _ms_resnet(104, 5)


@register
def imagenet_tdbn_resnet34() -> Classification:
    """ResNet-34 with threshold-dependent batch norm on ImageNet, six steps; random crops, mirrored.

    Source: Zheng et al. 2021, arXiv:2011.05280. Claim: 63.72 % top-1. The paper's optimiser, epochs and batch are not
    known here: these are common practice. Not measured here: needs ImageNet and GPUs.
    Command: `rheobase train imagenet-tdbn-resnet34`
    """
    return Classification(
        data="imagenet",
        model="imagenet_tdbn_resnet34",
        T=6,
        size=224,
        workers=16,
        batch_size=256,
        validation=0.01,
        augment=Augment(flip=0.5),
        train=TrainConfig(epochs=100, optimizer="sgd", lr=0.1, weight_decay=1e-4, autocast="bf16"),
    )
