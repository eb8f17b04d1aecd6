r"""How gradients change with depth: their norms along a chain of layers, and the gain of one layer.

A chain is dynamically isometric where $\phi(JJ^\top) = E[\mathrm{tr}(JJ^\top)]/n$ of every layer's Jacobian is close to
1: then gradients are equally long at every depth.

Source: Chen et al. 2020, arXiv:2003.07845, as arXiv:2112.08954 and arXiv:2011.05280 use it.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


def gradient_norms(
    layers: Sequence[nn.Module], x: Float[Tensor, "*shape"], generator: torch.Generator | None = None
) -> tuple[Float[Tensor, " L"], Tensor]:
    r"""Norms of the gradients at the inputs of a chain of layers, and what the last one puts out.

    The loss is $\sum_i r_i y_i$ with one draw of normal r: a linear readout. Parameters get no gradient.

    Args:
        layers: run in order, each on what the one before put out.
        x: input of the first.
        generator: source of r, on x's device; torch's default one if None.

    Returns:
        $|\partial L/\partial x_l|$ for the input $x_l$ of each layer, and y.

    Raises:
        ValueError: no layers.
    """
    if not layers:
        raise ValueError("gradient_norms: there are no layers; expected at least one")
    inputs, y = [], x.detach().requires_grad_()
    for layer in layers:
        inputs.append(y)
        y = layer(y)
    readout = torch.randn(y.shape, generator=generator, dtype=y.dtype, device=y.device)
    gradients = torch.autograd.grad((y * readout).sum(), inputs)
    return torch.stack([gradient.norm() for gradient in gradients]), y.detach()


def gain(
    layer: nn.Module, x: Float[Tensor, "*shape"], probes: int = 1, generator: torch.Generator | None = None
) -> float:
    r"""$\phi(JJ^\top)$ of a layer at x: the mean squared gain of gradients on their way back through it.

    Estimated as $|J^\top v|^2/n$, averaged over draws of signs v for each of the n outputs (Hutchinson): one backward
    pass each. The surrogate stands in for the derivative of a spike.

    Args:
        layer: one layer, a block or a whole network.
        x: its input.
        probes: draws of v.
        generator: source of v, on x's device; torch's default one if None.

    Raises:
        ValueError: fewer than one probe.
    """
    if probes < 1:
        raise ValueError(f"gain: probes is {probes}; expected at least 1")
    x = x.detach().requires_grad_()
    y = layer(x)
    total = 0.0
    for k in range(probes):
        signs = torch.randint(0, 2, y.shape, generator=generator, device=y.device).to(y.dtype) * 2 - 1
        (gradient,) = torch.autograd.grad(y, x, signs, retain_graph=k + 1 < probes)
        total += gradient.double().square().sum().item()
    return total / (probes * y.numel())
