"""KLIF: a learned slope scales and rectifies the membrane before it is compared."""

from typing import Any

import torch
from torch import Tensor, nn

from rheobase.neurons.neuron import Neuron, Reset, check_positive, fired
from rheobase.neurons.registry import register
from rheobase.neurons.surrogate import Atan, Surrogate
from rheobase.scan import step


@step(state={"v": 0.0})
def k_based_lif(
    x: Tensor, v: Tensor, *, k: Any, tau: Any, threshold: Any, spike: Any, reset: Any, detach_reset: Any, strict: Any
) -> Any:
    """$h = \\max(0, k(v + (x - v)/\\tau))$, $s = H(h - \\vartheta)$, then reset."""
    h = torch.relu(k * (v + (x - v) / tau))
    s = spike(h - threshold, strict=strict)
    return s, (fired(h, s, threshold, reset, detach_reset),)


@register("klif")
class KLIF(Neuron):
    r"""KLIF: $h_t = \max(0, k\,(v_{t-1} + (x_t - v_{t-1})/\tau))$, $s_t = H(h_t - \vartheta)$, reset of $h_t$.

    The slope k is learned.

    ODE: $\tau\,dv/dt = -v + x$, explicit Euler with a step of one; scaling and rectifying act at every step.
    Units: dimensionless, times in steps.

    Args:
        k: the slope at the start, above zero.
        tau: membrane time constant in steps.
        threshold: $\vartheta$.
        surrogate: stands in for the derivative of the spike.
        reset: "zero", "subtract" or "none".
        detach_reset: no gradient through the reset.
        strict: fire at $h > \vartheta$ instead of $h \ge \vartheta$.
        shape: shape of k: `()` one a layer (the paper), `(C, 1, 1)` one a channel, full: one a neuron.

    Raises:
        ValueError: k, tau or threshold not positive, an unknown reset.

    Source: Jiang and Zhang 2023, arXiv:2302.09238.

    Departures: rest and reset potential are zero.
    """

    def __init__(
        self,
        k: float = 1.0,
        tau: float | Tensor = 2.0,
        threshold: float | Tensor = 1.0,
        surrogate: Surrogate = Atan(),  # noqa: B008
        reset: Reset = "zero",
        detach_reset: bool = True,
        strict: bool = False,
        shape: tuple[int, ...] = (),
    ) -> None:
        check_positive("KLIF", k=k, tau=tau, threshold=threshold)
        super().__init__(
            k_based_lif,
            k=nn.Parameter(torch.full(shape, k)),
            tau=tau,
            threshold=threshold,
            spike=surrogate,
            reset=reset,
            detach_reset=detach_reset,
            strict=strict,
        )

    def membrane(self, x: float, t: int) -> float:
        r"""$b(1 - a^t)/(1 - a)$ with $a = k(1 - 1/\tau)$, $b = kx/\tau$; zero for negative x."""
        k, tau = self.number("k"), self.number("tau")
        a, b = k * (1 - 1 / tau), max(0.0, k * x / tau)
        return b * t if a == 1 else b * (1 - a**t) / (1 - a)
