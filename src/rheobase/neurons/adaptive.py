"""Neurons that tire: by a threshold that rises with every spike, or by a current that opposes the membrane."""

import math
from typing import Any

import torch
from torch import Tensor

from rheobase.neurons.neuron import Neuron, Reset, check_positive, fired, response
from rheobase.neurons.registry import register
from rheobase.neurons.surrogate import Atan, Surrogate, Triangle
from rheobase.scan import step


@step(state={"v": 0.0, "a": 0.0})
def adaptive_threshold_lif(
    x: Tensor,
    v: Tensor,
    a: Tensor,
    *,
    tau: Any,
    tau_a: Any,
    beta: Any,
    threshold: Any,
    spike: Any,
    reset: Any,
    detach_reset: Any,
    strict: Any,
) -> Any:
    """$h = e^{-1/\\tau}v + x$, $s = H(h - \\vartheta - \\beta a)$, reset; $a' = e^{-1/\\tau_a}a + s$."""
    h = torch.exp(-1 / tau) * v + x
    s = spike(h - (threshold + beta * a), strict=strict)
    return s, (fired(h, s, threshold, reset, detach_reset), torch.exp(-1 / tau_a) * a + s)


@register("alif")
class ALIF(Neuron):
    r"""LIF with adaptive threshold: $h_t = e^{-1/\tau} v_{t-1} + x_t$, $s_t = H(h_t - \vartheta - \beta a_{t-1})$.

    Every spike raises the threshold, which decays again: $a_t = e^{-1/\tau_a} a_{t-1} + s_t$; reset of $h_t$ by the
    constant part $\vartheta$.

    ODE: $\tau\,dv/dt = -v$, $\tau_a\,da/dt = -a$, solved exactly over a step; input and spikes are impulses.
    Units: dimensionless, times in steps.

    Args:
        tau: membrane time constant $\tau$ in steps.
        tau_a: time constant $\tau_a$ of the adaptation, much larger.
        beta: by how much a spike raises the threshold.
        threshold: $\vartheta$ at rest.
        surrogate: stands in for the derivative of the spike.
        reset: "subtract" (the paper), "zero" or "none".
        detach_reset: no gradient through the reset.
        strict: fire above the threshold only, not at it.

    Raises:
        ValueError: tau, tau_a or threshold not positive, an unknown reset.

    Source: Bellec et al. 2020, doi:10.1038/s41467-020-17236-y, Methods, network models; first in Bellec et al. 2018,
    arXiv:1803.09574.

    Departures: no refractory period. The surrogate has area one; there it is a triangle times 0.3.
    """

    def __init__(
        self,
        tau: float | Tensor = 20.0,
        tau_a: float | Tensor = 200.0,
        beta: float | Tensor = 0.2,
        threshold: float | Tensor = 1.0,
        surrogate: Surrogate = Triangle(),  # noqa: B008
        reset: Reset = "subtract",
        detach_reset: bool = True,
        strict: bool = False,
    ) -> None:
        check_positive("ALIF", tau=tau, tau_a=tau_a, threshold=threshold)
        super().__init__(
            adaptive_threshold_lif,
            tau=tau,
            tau_a=tau_a,
            beta=beta,
            threshold=threshold,
            spike=surrogate,
            reset=reset,
            detach_reset=detach_reset,
            strict=strict,
        )

    def membrane(self, x: float, t: int) -> float:
        r"""$x(1 - d^t)/(1 - d)$ with $d = e^{-1/\tau}$."""
        d = math.exp(-1 / self.number("tau"))
        return x * (1 - d**t) / (1 - d)


@step(state={"u": 0.0, "w": 0.0})
def adaptive_lif(
    x: Tensor,
    u: Tensor,
    w: Tensor,
    *,
    tau: Any,
    tau_w: Any,
    a: Any,
    b: Any,
    threshold: Any,
    spike: Any,
    reset: Any,
    detach_reset: Any,
    strict: Any,
) -> Any:
    """$h = \\alpha u + (1-\\alpha)(x - w)$, spike, reset, $w' = \\beta w + (1-\\beta)(a u' + b s)$."""
    alpha, beta = torch.exp(-1 / tau), torch.exp(-1 / tau_w)
    h = alpha * u + (1 - alpha) * (x - w)
    s = spike(h - threshold, strict=strict)
    u = fired(h, s, threshold, reset, detach_reset)
    return s, (u, beta * w + (1 - beta) * (a * u + b * s))


@register("adlif")
class AdLIF(Neuron):
    r"""Adaptive LIF, symplectic: $h_t = \alpha u_{t-1} + (1-\alpha)(x_t - w_{t-1})$, $s_t = H(h_t - \vartheta)$.

    After the reset of $h_t$ to $u_t$ the adaptation current follows from the new membrane,
    $w_t = \beta w_{t-1} + (1-\beta)(a u_t + b s_t)$, with $\alpha = e^{-1/\tau}$ and $\beta = e^{-1/\tau_w}$. Reading
    $u_t$ instead of $u_{t-1}$ makes the update symplectic, which keeps fast oscillations from growing.

    ODE: $\tau\,du/dt = -u + x - w$, $\tau_w\,dw/dt = -w + a u + b s$, symplectic Euler on exact decays.
    Units: dimensionless, times in steps.

    Args:
        tau: membrane time constant $\tau$ in steps.
        tau_w: time constant $\tau_w$ of the adaptation.
        a: how strongly the membrane drives the adaptation; the paper's a times 120.
        b: how strongly a spike drives it; the paper's b times 120.
        threshold: $\vartheta$.
        surrogate: stands in for the derivative of the spike.
        reset: "zero" (the paper), "subtract" or "none".
        detach_reset: no gradient through the reset.
        strict: fire at $h > \vartheta$ instead of $h \ge \vartheta$.

    Raises:
        ValueError: tau, tau_w or threshold not positive, an unknown reset.

    Source: Baronig et al. 2024, arXiv:2408.07517 (SE-adLIF).

    Departures: time constants, a and b are plain parameters; there each is learned within fixed bounds.
    """

    def __init__(
        self,
        tau: float | Tensor = 5.0,
        tau_w: float | Tensor = 60.0,
        a: float | Tensor = 60.0,
        b: float | Tensor = 120.0,
        threshold: float | Tensor = 1.0,
        surrogate: Surrogate = Atan(),  # noqa: B008
        reset: Reset = "zero",
        detach_reset: bool = True,
        strict: bool = False,
    ) -> None:
        check_positive("AdLIF", tau=tau, tau_w=tau_w, threshold=threshold)
        super().__init__(
            adaptive_lif,
            tau=tau,
            tau_w=tau_w,
            a=a,
            b=b,
            threshold=threshold,
            spike=surrogate,
            reset=reset,
            detach_reset=detach_reset,
            strict=strict,
        )

    def membrane(self, x: float, t: int) -> float:
        r"""First component of the linear recurrence of $(u, w)$, without spikes."""
        alpha, beta = math.exp(-1 / self.number("tau")), math.exp(-1 / self.number("tau_w"))
        k = (1 - beta) * self.number("a")
        u = [alpha, alpha - 1]
        drive = (1 - alpha) * x
        return response([u, [k * u[0], beta + k * u[1]]], [drive, k * drive], t)[0]
