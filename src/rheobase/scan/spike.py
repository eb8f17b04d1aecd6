"""The spike: one where the membrane has reached the threshold, with a surrogate in place of its derivative."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from rheobase.scan.ir import heaviside

_library = torch.library.Library("rheobase", "FRAGMENT")
_library.define("heaviside(Tensor h, bool strict) -> Tensor")
_library.impl("heaviside", heaviside, "CompositeExplicitAutograd")


@runtime_checkable
class Derivative(Protocol):
    """What the spike needs of a surrogate."""

    def derivative(self, x: Tensor) -> Tensor:
        """The derivative that stands in for that of the step at x."""
        ...


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(h: Tensor, surrogate: Derivative, strict: bool) -> Tensor:  # noqa: ARG004
        return torch.ops.rheobase.heaviside(h, strict)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        h, ctx.surrogate, _ = inputs
        ctx.save_for_backward(h)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (h,) = ctx.saved_tensors
        return grad * ctx.surrogate.derivative(h), None, None


def spike(h: Tensor, surrogate: Derivative, strict: bool = False) -> Tensor:
    r"""$s = H(h)$ forward, $\partial s/\partial h$ := `surrogate.derivative(h)` backward.

    Args:
        h: distance of the membrane from the threshold, any shape.
        surrogate: gives the derivative.
        strict: fire at h > 0 instead of h >= 0.

    Returns:
        {0, 1} in h's dtype and shape.
    """
    return _Spike.apply(h, surrogate, strict)  # type: ignore[no-any-return]


def round_ste(x: Tensor) -> Tensor:
    """Nearest whole number (halves to even) forward, the identity backward: straight-through rounding."""
    return x + (x.round() - x).detach()
