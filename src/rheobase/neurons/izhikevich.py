"""Izhikevich's neuron: two equations, four numbers, the firing patterns of cortex. In physical units."""

from typing import Any

from torch import Tensor

from rheobase.neurons.neuron import Neuron, reset_to
from rheobase.neurons.registry import register
from rheobase.neurons.surrogate import Atan, Surrogate
from rheobase.scan import step


@step(state={"v": -65.0, "u": lambda b, **_: -65.0 * b})
def izhikevich(
    x: Tensor,
    v: Tensor,
    u: Tensor,
    *,
    a: Any,
    b: Any,
    c: Any,
    d: Any,
    threshold: Any,
    spike: Any,
    detach_reset: Any,
    strict: Any,
) -> Any:
    """v by two half steps, then $u' = u + a(bh - u)$; a spike sets v to c and adds d to u."""
    m = v + 0.5 * (0.04 * v * v + 5 * v + 140 - u + x)
    h = m + 0.5 * (0.04 * m * m + 5 * m + 140 - u + x)
    s = spike(h - threshold, strict=strict)
    return s, (reset_to(h, s, c, detach_reset), u + a * (b * h - u) + d * s)


@register("izhikevich", closed_form=False, drive=40.0)
class Izhikevich(Neuron):
    r"""Izhikevich: $f(v) = 0.04v^2 + 5v + 140 - u_{t-1} + x_t$, $s_t = H(h_t - \vartheta)$ after two half steps.

    $m = v_{t-1} + \frac12 f(v_{t-1})$, $h_t = m + \frac12 f(m)$; a spike sets the membrane to c. Recovery:
    $u_t = u_{t-1} + a(b h_t - u_{t-1}) + d\,s_t$.

    ODE: $dv/dt = 0.04v^2 + 5v + 140 - u + x$, $du/dt = a(bv - u)$; Euler with a step of 1 ms, for v two of 0.5 ms.
    Units: v and u in mV, times in ms, x in the units of the paper (mV/ms: ten makes it fire steadily).

    Args:
        a: rate of recovery, per ms.
        b: sensitivity of recovery to the membrane.
        c: membrane after a spike, mV.
        d: what a spike adds to recovery.
        threshold: $\vartheta$, the peak of the spike, mV.
        surrogate: stands in for the derivative of the spike; its argument is in mV.
        detach_reset: no gradient through the reset of v.
        strict: fire at $h > \vartheta$ instead of $h \ge \vartheta$.

    Source: Izhikevich 2003, doi:10.1109/TNN.2003.820440; defaults are the regular spiking neuron.

    Departures: the reset follows the spike within the step; in the published program it opens the next one, and the
    recovery of a step with a spike is computed from the peak.
    """

    def __init__(
        self,
        a: float | Tensor = 0.02,
        b: float | Tensor = 0.2,
        c: float | Tensor = -65.0,
        d: float | Tensor = 8.0,
        threshold: float | Tensor = 30.0,
        surrogate: Surrogate = Atan(alpha=0.05),  # noqa: B008
        detach_reset: bool = True,
        strict: bool = False,
    ) -> None:
        super().__init__(
            izhikevich,
            a=a,
            b=b,
            c=c,
            d=d,
            threshold=threshold,
            spike=surrogate,
            detach_reset=detach_reset,
            strict=strict,
        )
