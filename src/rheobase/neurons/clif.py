"""Complementary LIF: a second potential remembers firing and deepens the reset."""

from typing import Any

import torch
from torch import Tensor

from rheobase.neurons.neuron import Neuron, check_positive
from rheobase.neurons.registry import register
from rheobase.neurons.surrogate import Rectangle, Surrogate
from rheobase.scan import step


@step(state={"v": 0.0, "m": 0.0})
def complementary_lif(
    x: Tensor, v: Tensor, m: Tensor, *, tau: Any, threshold: Any, spike: Any, detach_reset: Any, strict: Any
) -> Any:
    """$h = (1 - 1/\\tau)v + x$, $m' = m\\,\\sigma(h/\\tau) + s$, $v' = h - s(\\vartheta + \\sigma(m'))$."""
    h = (1 - 1 / tau) * v + x
    s = spike(h - threshold, strict=strict)
    m = m * torch.sigmoid(h / tau) + s
    z = s.detach() if detach_reset else s
    return s, (h - z * (threshold + torch.sigmoid(m)), m)


@register("clif")
class CLIF(Neuron):
    r"""Complementary LIF: $h_t = (1 - 1/\tau)\,v_{t-1} + x_t$, $s_t = H(h_t - \vartheta)$.

    The complementary potential $m_t = m_{t-1}\,\sigma(h_t/\tau) + s_t$ deepens the reset,
    $v_t = h_t - s_t(\vartheta + \sigma(m_t))$, and carries gradients over time.

    ODE: $\tau\,dv/dt = -v$ plus the input, not scaled; explicit Euler with a step of one.
    Units: dimensionless, times in steps.

    Args:
        tau: membrane time constant $\tau$ in steps.
        threshold: $\vartheta$.
        surrogate: stands in for the derivative of the spike.
        detach_reset: no gradient through the spike of the reset. The paper does not detach.
        strict: fire at $h > \vartheta$ instead of $h \ge \vartheta$.

    Raises:
        ValueError: tau or threshold not positive.

    Source: Huang et al. 2024, arXiv:2402.04663.

    Departures: none known.
    """

    def __init__(
        self,
        tau: float | Tensor = 2.0,
        threshold: float | Tensor = 1.0,
        surrogate: Surrogate = Rectangle(),  # noqa: B008
        detach_reset: bool = False,
        strict: bool = False,
    ) -> None:
        check_positive("CLIF", tau=tau, threshold=threshold)
        super().__init__(
            complementary_lif, tau=tau, threshold=threshold, spike=surrogate, detach_reset=detach_reset, strict=strict
        )

    def membrane(self, x: float, t: int) -> float:
        r"""$x\tau(1 - (1 - 1/\tau)^t)$."""
        tau = self.number("tau")
        return x * tau * (1 - (1 - 1 / tau) ** t)
