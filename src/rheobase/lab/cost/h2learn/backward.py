r"""The backward engine: the gradient for a layer's input, where it is needed and from what is not zero.

The spatial product $W^\top * \delta u$ at neuron i is multiplied by the surrogate's derivative $h_i$; where the window
is closed it need not be computed, and nothing is lost (output sparsity). What enters is left out where it is zero
(input sparsity). Of N multiply-accumulates of the dense product about $N d_{out} d_{in}$ remain.

Source: the dual sparsity of arXiv:2107.11746, of which the abstract alone could be read: these definitions are what the
equations of iterative LIF allow without loss.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor
from torch.nn.grad import conv2d_input

from rheobase.lab.cost.h2learn.geometry import Geometry, Pair, as_maps, kernel_of
from rheobase.lab.cost.h2learn.trace import LayerTrace
from rheobase.scan.kernels import kernels_of


@dataclass(frozen=True)
class Backward:
    """What the backward engine computed and what that took.

    Attributes:
        gradient: for the layer's input; zero where it was not needed.
        work: multiply-accumulates done for each element of it.
        dense: multiply-accumulates of the dense product, T * B * H' * W' * Cout * (Cin / groups) * rows * columns; a
            zero-padded border counts as the inside.
    """

    gradient: Float[Tensor, "..."]
    work: Int32[Tensor, "..."]
    dense: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates done."""
        return int(self.work.sum())

    @property
    def skipped(self) -> int:
        """Multiply-accumulates of the dense product that were left out."""
        return self.dense - self.macs


@torch.no_grad()
def backward_engine(
    gradient: Float[Tensor, "..."],
    weight: Float[Tensor, "..."],
    needed: Bool[Tensor, "..."],
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Backward:
    r"""$W^\top * \delta u$ at the needed elements alone, from non-zero gradients alone; computed on the CPU.

    A sum runs over (kernel row, kernel column, output channel), the last fastest, in fp32, or fp64 if the
    gradient or the weight is.

    Args:
        gradient: of the layer's output, as it enters the transposed product: `[..., N]` or `[..., Cout, H', W']`.
        weight: `[N, K]`, or `[Cout, Cin / groups, rows, columns]`.
        needed: of the layer's input, `[..., K]` or `[..., Cin, H, W]`: where the surrogate's window is open.
        stride, padding, dilation, groups: of the convolution.

    Raises:
        ValueError: shapes that do not fit.
    """
    geometry = Geometry.of(stride, padding, dilation, groups)
    geometry.check_gradient(gradient.shape, needed.shape, weight.shape)
    dims = weight.dim()
    kind = torch.float64 if torch.float64 in (gradient.dtype, weight.dtype) else torch.float32
    du, w = as_maps(gradient, dims).to(kind), (weight if dims == 4 else weight[..., None, None]).to(kind)
    settings = (*geometry.stride, *geometry.padding, *geometry.dilation)
    transposed = kernels_of(Path(__file__).with_name("backward_kernel.py")).transposed
    found, done = [], []
    each = (du.chunk(groups, 1), w.chunk(groups), as_maps(needed, dims).chunk(groups, 1))
    for part, of_group, mask in zip(*each, strict=True):
        found.append(torch.zeros(mask.shape, dtype=kind))
        done.append(torch.zeros(mask.shape, dtype=torch.int32))
        laid = (part.permute(0, 2, 3, 1), of_group.permute(2, 3, 1, 0), mask)
        arrays = (t.contiguous().numpy(force=True) for t in laid)
        transposed(*arrays, settings, found[-1].numpy(), done[-1].numpy())
    dense = gradient.numel() * math.prod(weight.shape[1:])
    out, work = (torch.cat(parts, 1).view(needed.shape).to(needed.device) for parts in (found, done))
    return Backward(out, work, dense)


@torch.no_grad()
def operands(
    nonzero: Bool[Tensor, "..."],
    needed: Bool[Tensor, "..."],
    shape: Sequence[int],
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Int32[Tensor, "..."]:
    """How many non-zero gradients the receptive field of each needed element holds; 0 where it is not needed.

    What `backward_engine` does, counted from masks alone: a transposed convolution of the number of non-zero channels.

    Args:
        nonzero: where the gradient of the layer's output is not zero.
        needed, stride, padding, dilation, groups: as of `backward_engine`.
        shape: the weight's.

    Raises:
        ValueError: shapes that do not fit.
    """
    geometry = Geometry.of(stride, padding, dilation, groups)
    geometry.check_gradient(nonzero.shape, needed.shape, shape)
    maps, mask = (as_maps(t, len(shape)) for t in (nonzero, needed))
    channels = maps.unflatten(1, (groups, -1)).sum(2).double()  # sums of ones, exact in whatever order
    ones = channels.new_ones(groups, 1, *kernel_of(shape))
    size = (len(mask), groups, *mask.shape[2:])
    counts = conv2d_input(size, ones, channels, geometry.stride, geometry.padding, geometry.dilation, groups)
    each = counts.repeat_interleave(mask.shape[1] // groups, 1).to(torch.int32)
    return (each * mask).view(needed.shape)


def work(layer: LayerTrace) -> Int32[Tensor, "..."]:
    """`operands` of a traced layer, of its input's shape: the multiply-accumulates that `backward_engine` does for each
    element. All zero where no gradient for the input is wanted, as in a first layer."""
    if layer.needed is None:
        return torch.zeros_like(layer.input, dtype=torch.int32)
    return operands(
        layer.nonzero,
        layer.needed,
        layer.weight.shape,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
    )
