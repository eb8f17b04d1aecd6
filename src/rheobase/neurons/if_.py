"""Integrate-and-fire without leak."""

from typing import Any

from torch import Tensor

from rheobase.neurons.neuron import Neuron, Reset, check_positive, fired
from rheobase.neurons.registry import register
from rheobase.neurons.surrogate import Atan, Surrogate
from rheobase.scan import step


@step(state={"v": 0.0})
def integrate_and_fire(
    x: Tensor, v: Tensor, *, threshold: Any, spike: Any, reset: Any, detach_reset: Any, strict: Any
) -> Any:
    """$h = v + x$, $s = H(h - \\vartheta)$, then reset."""
    h = v + x
    s = spike(h - threshold, strict=strict)
    return s, (fired(h, s, threshold, reset, detach_reset),)


@register("if")
class IF(Neuron):
    r"""Integrate-and-fire: $h_t = v_{t-1} + x_t$, $s_t = H(h_t - \vartheta)$, $v_t$ = reset of $h_t$.

    ODE: $C\,dv/dt = I$, the perfect integrator, with $x = I\,\Delta t / C$. Units: dimensionless.

    Args:
        threshold: $\vartheta$, number or tensor that broadcasts against `x.shape[2:]`; an `nn.Parameter` is learned.
        surrogate: stands in for the derivative of the spike.
        reset: "zero" ($v = 0$), "subtract" ($v = h - \vartheta$) or "none".
        detach_reset: no gradient through the reset.
        strict: fire at $h > \vartheta$ instead of $h \ge \vartheta$.

    Raises:
        ValueError: a threshold that is not positive, an unknown reset.

    Source: Lapicque 1907; discrete form as in Fang et al. 2021, arXiv:2007.05785.

    Departures: rest and reset potential are zero.
    """

    def __init__(
        self,
        threshold: float | Tensor = 1.0,
        surrogate: Surrogate = Atan(),  # noqa: B008
        reset: Reset = "zero",
        detach_reset: bool = True,
        strict: bool = False,
    ) -> None:
        check_positive("IF", threshold=threshold)
        super().__init__(
            integrate_and_fire,
            threshold=threshold,
            spike=surrogate,
            reset=reset,
            detach_reset=detach_reset,
            strict=strict,
        )

    @staticmethod
    def membrane(x: float, t: int) -> float:
        """Membrane after t steps of constant input x without a spike: x t."""
        return x * t
