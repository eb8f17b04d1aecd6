"""Neurons whose membrane runs away by itself once it is high enough: quadratic, exponential, and with adaptation.

All are dimensionless: potentials are counted from rest in units of some reference, currents in that times the leak.
"""

from typing import Any

import torch
from torch import Tensor

from rheobase.neurons.neuron import Neuron, check_positive, reset_to
from rheobase.neurons.registry import register
from rheobase.neurons.surrogate import Atan, Surrogate
from rheobase.scan import step


@step(state={"v": 0.0})
def quadratic_integrate_and_fire(
    x: Tensor,
    v: Tensor,
    *,
    tau: Any,
    curvature: Any,
    critical: Any,
    threshold: Any,
    v_reset: Any,
    spike: Any,
    detach_reset: Any,
    strict: Any,
) -> Any:
    """$h = v + (x + a v(v - v_c))/\\tau$, $s = H(h - \\vartheta)$, reset to $v_r$."""
    h = v + (x + curvature * v * (v - critical)) / tau
    s = spike(h - threshold, strict=strict)
    return s, (reset_to(h, s, v_reset, detach_reset),)


@register("qif", closed_form=False)
class QIF(Neuron):
    r"""Quadratic integrate-and-fire: $h_t = v_{t-1} + (x_t + a\,v_{t-1}(v_{t-1} - v_c))/\tau$.

    $s_t = H(h_t - \vartheta)$; a spike resets the membrane to $v_r$.

    ODE: $\tau\,dv/dt = a\,v(v - v_c) + x$, explicit Euler with a step of one. Units: dimensionless, times in steps.

    Args:
        tau: membrane time constant $\tau$ in steps.
        curvature: a, above zero.
        critical: $v_c$, from where v grows without input.
        threshold: $\vartheta$, where the upstroke is cut off.
        v_reset: $v_r$, below $v_c$.
        surrogate: stands in for the derivative of the spike.
        detach_reset: no gradient through the reset.
        strict: fire at $h > \vartheta$ instead of $h \ge \vartheta$.

    Raises:
        ValueError: tau, curvature or threshold not positive.

    Source: Gerstner et al. 2014, Neuronal Dynamics, section 5.3; Ermentrout and Kopell 1986, doi:10.1137/0146017.

    Departures: rest is at zero. Explicit Euler overshoots below $v \approx -2\tau/a$, where the parabola is steeper
    than a step can follow; input that strong makes it fire.
    """

    def __init__(
        self,
        tau: float | Tensor = 2.0,
        curvature: float | Tensor = 0.5,
        critical: float | Tensor = 0.5,
        threshold: float | Tensor = 1.0,
        v_reset: float | Tensor = 0.0,
        surrogate: Surrogate = Atan(),  # noqa: B008
        detach_reset: bool = True,
        strict: bool = False,
    ) -> None:
        check_positive("QIF", tau=tau, curvature=curvature, threshold=threshold)
        super().__init__(
            quadratic_integrate_and_fire,
            tau=tau,
            curvature=curvature,
            critical=critical,
            threshold=threshold,
            v_reset=v_reset,
            spike=surrogate,
            detach_reset=detach_reset,
            strict=strict,
        )


def _upstroke(v: Tensor, rheobase: Any, sharpness: Any, threshold: Any) -> Tensor:
    """The exponential current, from a membrane that is cut off at the threshold, so that it stays finite."""
    return sharpness * torch.exp((torch.minimum(v, threshold) - rheobase) / sharpness)


@step(state={"v": 0.0})
def exponential_integrate_and_fire(
    x: Tensor,
    v: Tensor,
    *,
    tau: Any,
    rheobase: Any,
    sharpness: Any,
    threshold: Any,
    v_reset: Any,
    spike: Any,
    detach_reset: Any,
    strict: Any,
) -> Any:
    """$h = v + (x - v + \\Delta e^{(v - \\vartheta_r)/\\Delta})/\\tau$, $s = H(h - \\vartheta)$, reset to $v_r$."""
    h = v + (x - v + _upstroke(v, rheobase, sharpness, threshold)) / tau
    s = spike(h - threshold, strict=strict)
    return s, (reset_to(h, s, v_reset, detach_reset),)


@register("eif", closed_form=False)
class EIF(Neuron):
    r"""Exponential integrate-and-fire: $h_t = v_{t-1} + (x_t - v_{t-1} + e_t)/\tau$.

    The upstroke is $e_t = \Delta e^{(v_{t-1} - \vartheta_r)/\Delta}$. $s_t = H(h_t - \vartheta)$; a spike resets
    to $v_r$.

    ODE: $\tau\,dv/dt = -v + \Delta e^{(v - \vartheta_r)/\Delta} + x$, explicit Euler with a step of one.
    Units: dimensionless, times in steps.

    Args:
        tau: membrane time constant $\tau$ in steps.
        rheobase: $\vartheta_r$, from where the upstroke runs by itself.
        sharpness: $\Delta$; towards zero the neuron becomes a leaky one with threshold $\vartheta_r$.
        threshold: $\vartheta$, where the upstroke is cut off.
        v_reset: $v_r$.
        surrogate: stands in for the derivative of the spike.
        detach_reset: no gradient through the reset.
        strict: fire at $h > \vartheta$ instead of $h \ge \vartheta$.

    Raises:
        ValueError: tau, sharpness or threshold not positive.

    Source: Fourcaud-Trocmé et al. 2003, doi:10.1523/JNEUROSCI.23-37-11628.2003.

    Departures: rest is at zero; v in the exponent is cut off at $\vartheta$, as simulators do, to stay finite.
    """

    def __init__(
        self,
        tau: float | Tensor = 2.0,
        rheobase: float | Tensor = 0.8,
        sharpness: float | Tensor = 0.2,
        threshold: float | Tensor = 1.0,
        v_reset: float | Tensor = 0.0,
        surrogate: Surrogate = Atan(),  # noqa: B008
        detach_reset: bool = True,
        strict: bool = False,
    ) -> None:
        check_positive("EIF", tau=tau, sharpness=sharpness, threshold=threshold)
        super().__init__(
            exponential_integrate_and_fire,
            tau=tau,
            rheobase=rheobase,
            sharpness=sharpness,
            threshold=threshold,
            v_reset=v_reset,
            spike=surrogate,
            detach_reset=detach_reset,
            strict=strict,
        )


@step(state={"v": 0.0, "w": 0.0})
def adaptive_exponential(
    x: Tensor,
    v: Tensor,
    w: Tensor,
    *,
    tau: Any,
    tau_w: Any,
    a: Any,
    b: Any,
    rheobase: Any,
    sharpness: Any,
    threshold: Any,
    v_reset: Any,
    spike: Any,
    detach_reset: Any,
    strict: Any,
) -> Any:
    """The step of `EIF` less w, and $w' = w + (a v - w)/\\tau_w + b s$."""
    h = v + (x - v + _upstroke(v, rheobase, sharpness, threshold) - w) / tau
    s = spike(h - threshold, strict=strict)
    return s, (reset_to(h, s, v_reset, detach_reset), w + (a * v - w) / tau_w + b * s)


@register("adex", closed_form=False, drive=8.0)
class AdEx(Neuron):
    r"""Adaptive exponential: $h_t = v_{t-1} + (x_t - v_{t-1} + e_t - w_{t-1})/\tau$.

    The upstroke is $e_t = \Delta e^{(v_{t-1} - \vartheta_r)/\Delta}$. $s_t = H(h_t - \vartheta)$; a spike resets
    to $v_r$.
    Adaptation: $w_t = w_{t-1} + (a\,v_{t-1} - w_{t-1})/\tau_w + b\,s_t$.

    ODE: $\tau\,dv/dt = -v + \Delta e^{(v - \vartheta_r)/\Delta} - w + x$, $\tau_w\,dw/dt = a v - w$; explicit Euler
    with a step of one.
    Units: dimensionless. The defaults are the paper's neuron at steps of 1 ms: potentials $(V - E_L)/(V_T - E_L)$, in
    20.2 mV above -70.6 mV; currents in $g_L(V_T - E_L)$ = 606 pA.

    Args:
        tau: membrane time constant $C/g_L$ in steps.
        tau_w: time constant $\tau_w$ of the adaptation in steps.
        a: coupling of the membrane to the adaptation, $a/g_L$.
        b: what a spike adds to the adaptation.
        rheobase: $\vartheta_r$, $V_T$ in these units.
        sharpness: $\Delta$, the slope factor.
        threshold: $\vartheta$, where the upstroke is cut off (default -40 mV).
        v_reset: $v_r$.
        surrogate: stands in for the derivative of the spike.
        detach_reset: no gradient through the reset.
        strict: fire at $h > \vartheta$ instead of $h \ge \vartheta$.

    Raises:
        ValueError: tau, tau_w, sharpness or threshold not positive.

    Source: Brette and Gerstner 2005, doi:10.1152/jn.00686.2005.

    Departures: the upstroke is cut off at -40 mV instead of 20 mV, and v in the exponent there too, so that Euler steps
    of 1 ms stay finite.
    """

    def __init__(
        self,
        tau: float | Tensor = 9.37,
        tau_w: float | Tensor = 144.0,
        a: float | Tensor = 0.133,
        b: float | Tensor = 0.133,
        rheobase: float | Tensor = 1.0,
        sharpness: float | Tensor = 0.1,
        threshold: float | Tensor = 1.5,
        v_reset: float | Tensor = 0.0,
        surrogate: Surrogate = Atan(),  # noqa: B008
        detach_reset: bool = True,
        strict: bool = False,
    ) -> None:
        check_positive("AdEx", tau=tau, tau_w=tau_w, sharpness=sharpness, threshold=threshold)
        super().__init__(
            adaptive_exponential,
            tau=tau,
            tau_w=tau_w,
            a=a,
            b=b,
            rheobase=rheobase,
            sharpness=sharpness,
            threshold=threshold,
            v_reset=v_reset,
            spike=surrogate,
            detach_reset=detach_reset,
            strict=strict,
        )
