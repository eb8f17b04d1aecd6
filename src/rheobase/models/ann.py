"""Networks without spikes on which pruning is compared: plain torch, images `[B, 3, H, W]` to logits `[B, K]`.

They are not registered: registered models map sequences. All weights are those of convolutions without bias, the last
layer's too, so that a method that prunes convolutions prunes all of them; norms are nn.BatchNorm2d.

Source: the networks of arXiv:2302.13019 (LATS) after its code; ResNet-50 of arXiv:1512.03385, MobileNet-V1 of
arXiv:1704.04861. Weights start Kaiming normal, by fan-in. The sheet does not say which convolution of a block strides:
here the 3x3 one does.
"""

from collections import OrderedDict

from torch import Tensor, nn

_RESNET50 = ((64, 3), (128, 4), (256, 6), (512, 3))
"""Inner channels and number of blocks of each stage."""
_MOBILENET = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
"""Channels and stride of each pair of a depthwise and a 1x1 convolution."""


class Bottleneck(nn.Module):
    """`relu(branch(x) + shortcut(x))`, the branch of 1x1, 3x3 (which strides) and 1x1 convolutions, each with a norm.

    Args:
        c_in: input channels.
        inner: channels between; four times as many come out.
        stride: of the block.
    """

    def __init__(self, c_in: int, inner: int, stride: int) -> None:
        super().__init__()
        c_out = 4 * inner
        self.branch = nn.Sequential(
            OrderedDict(
                conv1=_convolution(c_in, inner, 1),
                norm1=nn.BatchNorm2d(inner),
                relu1=nn.ReLU(),
                conv2=_convolution(inner, inner, 3, stride),
                norm2=nn.BatchNorm2d(inner),
                relu2=nn.ReLU(),
                conv3=_convolution(inner, c_out, 1),
                norm3=nn.BatchNorm2d(c_out),
            )
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            layers = OrderedDict(conv=_convolution(c_in, c_out, 1, stride), norm=nn.BatchNorm2d(c_out))
            self.shortcut = nn.Sequential(layers)
        self.after = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Run the block on `[B, C, H, W]`."""
        y: Tensor = self.after(self.branch(x) + self.shortcut(x))
        return y


def resnet50(classes: int = 1000) -> nn.Sequential:
    """ResNet-50: a 7x7 stem of stride 2, max-pooling, 3, 4, 6 and 3 bottlenecks, a 1x1 convolution to `classes`."""
    body, width = nn.Sequential(), 64
    for stage, (inner, blocks) in enumerate(_RESNET50):
        for k in range(blocks):
            body.append(Bottleneck(width, inner, 2 if stage and not k else 1))
            width = 4 * inner
    stem = OrderedDict(
        conv=_convolution(3, 64, 7, 2), norm=nn.BatchNorm2d(64), relu=nn.ReLU(), pool=nn.MaxPool2d(3, 2, 1)
    )
    return nn.Sequential(OrderedDict(stem=nn.Sequential(stem), body=body, head=_head(width, classes)))


def mobilenet_v1(classes: int = 1000) -> nn.Sequential:
    """MobileNet-V1: a 3x3 convolution of stride 2, 13 pairs of a depthwise 3x3 and a 1x1 one, one to `classes`."""
    body, width = nn.Sequential(_layer(3, 32, 3, 2)), 32
    for channels, stride in _MOBILENET:
        body.extend([_layer(width, width, 3, stride, groups=width), _layer(width, channels, 1)])
        width = channels
    return nn.Sequential(OrderedDict(body=body, head=_head(width, classes)))


def _layer(c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = _convolution(c_in, c_out, kernel, stride, groups)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(c_out), relu=nn.ReLU()))


def _head(width: int, classes: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(pool=nn.AdaptiveAvgPool2d(1), fc=_convolution(width, classes, 1), flatten=nn.Flatten())
    )


def _convolution(c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv
