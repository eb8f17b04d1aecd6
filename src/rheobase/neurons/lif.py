"""Leaky integrate-and-fire, in the two discretisations that the literature uses."""

from typing import Any

from torch import Tensor

from rheobase.neurons.neuron import Neuron, Reset, check_positive, fired
from rheobase.neurons.registry import register
from rheobase.neurons.surrogate import Atan, Rectangle, Surrogate
from rheobase.scan import step


@step(state={"v": 0.0})
def leaky_integrate_and_fire(
    x: Tensor, v: Tensor, *, tau: Any, threshold: Any, spike: Any, reset: Any, detach_reset: Any, strict: Any
) -> Any:
    """$h = v + (x - v)/\\tau$, $s = H(h - \\vartheta)$, then reset."""
    h = v + (x - v) / tau
    s = spike(h - threshold, strict=strict)
    return s, (fired(h, s, threshold, reset, detach_reset),)


@register("lif")
class LIF(Neuron):
    r"""Leaky integrate-and-fire: $h_t = v_{t-1} + (x_t - v_{t-1})/\tau$, $s_t = H(h_t - \vartheta)$, reset of $h_t$.

    ODE: $\tau\,dv/dt = -v + x$, explicit Euler with a step of one; x is the current times the resistance.
    Units: dimensionless, times in steps.

    Args:
        tau: membrane time constant $\tau$ in steps, above zero; number or tensor, an `nn.Parameter` is learned.
        threshold: $\vartheta$, likewise; tensors broadcast against `x.shape[2:]`.
        surrogate: stands in for the derivative of the spike.
        reset: "zero" ($v = 0$), "subtract" ($v = h - \vartheta$) or "none".
        detach_reset: no gradient through the reset.
        strict: fire at $h > \vartheta$ instead of $h \ge \vartheta$.

    Raises:
        ValueError: tau or threshold not positive, an unknown reset.

    Source: Fang et al. 2021, arXiv:2007.05785, eq. 2.

    Departures: rest and reset potential are zero.
    """

    def __init__(
        self,
        tau: float | Tensor = 2.0,
        threshold: float | Tensor = 1.0,
        surrogate: Surrogate = Atan(),  # noqa: B008
        reset: Reset = "zero",
        detach_reset: bool = True,
        strict: bool = False,
    ) -> None:
        check_positive("LIF", tau=tau, threshold=threshold)
        super().__init__(
            leaky_integrate_and_fire,
            tau=tau,
            threshold=threshold,
            spike=surrogate,
            reset=reset,
            detach_reset=detach_reset,
            strict=strict,
        )

    def membrane(self, x: float, t: int) -> float:
        r"""Membrane after t steps of constant input x without a spike: $x(1 - (1 - 1/\tau)^t)$."""
        return x * (1 - (1 - 1 / self.number("tau")) ** t)


@step(state={"v": 0.0})
def iterative_lif(
    x: Tensor, v: Tensor, *, decay: Any, threshold: Any, spike: Any, reset: Any, detach_reset: Any, strict: Any
) -> Any:
    """$h = d\\,v + x$, $s = H(h - \\vartheta)$, then reset."""
    h = decay * v + x
    s = spike(h - threshold, strict=strict)
    return s, (fired(h, s, threshold, reset, detach_reset),)


@register("iterative_lif")
class IterativeLIF(Neuron):
    r"""Iterative LIF of STBP: $h_t = d\,v_{t-1} + x_t$, $s_t = H(h_t - \vartheta)$, reset of $h_t$; input not scaled.

    ODE: $\tau\,dv/dt = -v$ with $d = 1 - 1/\tau$, the input as impulses. Units: dimensionless.

    Args:
        decay: $d$ in (0, 1], the share of the membrane that is left after one step.
        threshold: $\vartheta$.
        surrogate: stands in for the derivative of the spike.
        reset: "zero", "subtract" or "none".
        detach_reset: no gradient through the reset. MS-ResNet detaches; the STBP papers do not.
        strict: fire at $h > \vartheta$, as the official MS-ResNet code does.

    Raises:
        ValueError: decay or threshold not positive, an unknown reset.

    Source: Wu et al. 2019, arXiv:1809.05793, eq. 4-5; constants of MS-ResNet, arXiv:2112.08954.

    Departures: resets other than to zero, and a reset that is not detached, are offered too.
    """

    def __init__(
        self,
        decay: float | Tensor = 0.25,
        threshold: float | Tensor = 0.5,
        surrogate: Surrogate = Rectangle(),  # noqa: B008
        reset: Reset = "zero",
        detach_reset: bool = True,
        strict: bool = True,
    ) -> None:
        check_positive("IterativeLIF", decay=decay, threshold=threshold)
        super().__init__(
            iterative_lif,
            decay=decay,
            threshold=threshold,
            spike=surrogate,
            reset=reset,
            detach_reset=detach_reset,
            strict=strict,
        )

    def membrane(self, x: float, t: int) -> float:
        r"""Membrane after t steps of constant input x without a spike: $x(1 - d^t)/(1 - d)$."""
        d = self.number("decay")
        return x * t if d == 1 else x * (1 - d**t) / (1 - d)
