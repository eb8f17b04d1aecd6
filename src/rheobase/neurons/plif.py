"""Parametric leaky integrate-and-fire: the time constant is learned."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from rheobase.neurons.neuron import Neuron, Reset, check_positive, fired
from rheobase.neurons.registry import register
from rheobase.neurons.surrogate import Atan, Surrogate
from rheobase.scan import step


@step(state={"v": 0.0})
def parametric_lif(
    x: Tensor, v: Tensor, *, w: Any, threshold: Any, spike: Any, reset: Any, detach_reset: Any, strict: Any
) -> Any:
    """$h = v + (x - v)\\,\\sigma(w)$, $s = H(h - \\vartheta)$, then reset."""
    h = v + (x - v) * torch.sigmoid(w)
    s = spike(h - threshold, strict=strict)
    return s, (fired(h, s, threshold, reset, detach_reset),)


@register("plif")
class PLIF(Neuron):
    r"""Parametric LIF: $h_t = v_{t-1} + (x_t - v_{t-1})\,\sigma(w)$ with w learned, so that $\tau = 1/\sigma(w) > 1$.

    ODE: $\tau\,dv/dt = -v + x$, explicit Euler with a step of one. Units: dimensionless, times in steps.

    Args:
        tau: time constant at the start, in steps, above one.
        threshold: $\vartheta$.
        surrogate: stands in for the derivative of the spike.
        reset: "zero", "subtract" or "none".
        detach_reset: no gradient through the reset.
        strict: fire at $h > \vartheta$ instead of $h \ge \vartheta$.
        shape: shape of w: `()` one a layer (the paper), `(C, 1, 1)` one a channel, full: one a neuron.

    Raises:
        ValueError: tau not above one, threshold not positive, an unknown reset.

    Source: Fang et al. 2021, arXiv:2007.05785, eq. 12.

    Departures: rest and reset potential are zero.
    """

    def __init__(
        self,
        tau: float = 2.0,
        threshold: float | Tensor = 1.0,
        surrogate: Surrogate = Atan(),  # noqa: B008
        reset: Reset = "zero",
        detach_reset: bool = True,
        strict: bool = False,
        shape: tuple[int, ...] = (),
    ) -> None:
        if not tau > 1:
            raise ValueError(f"PLIF: tau is {tau}; expected above 1, since tau = 1/sigmoid(w)")
        check_positive("PLIF", threshold=threshold)
        super().__init__(
            parametric_lif,
            w=nn.Parameter(torch.full(shape, -math.log(tau - 1))),
            threshold=threshold,
            spike=surrogate,
            reset=reset,
            detach_reset=detach_reset,
            strict=strict,
        )

    @property
    def tau(self) -> Tensor:
        r"""The time constant $1/\sigma(w)$ in steps."""
        return 1 / torch.sigmoid(self.get_parameter("w"))

    def membrane(self, x: float, t: int) -> float:
        r"""Membrane after t steps of constant input x without a spike: $x(1 - (1 - 1/\tau)^t)$."""
        return x * (1 - (1 - 1 / self.tau.item()) ** t)
