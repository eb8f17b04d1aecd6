"""Current-based neurons: a synapse filters the input before the membrane; with spikes, and without as a readout."""

from typing import Any

from torch import Tensor

from rheobase.neurons.neuron import Neuron, Reset, check_positive, fired
from rheobase.neurons.registry import register
from rheobase.neurons.surrogate import Atan, Surrogate
from rheobase.scan import step


def _filtered_twice(x: float, t: int, tau: float, tau_syn: float) -> float:
    """Constant x through two leaky integrators in a row, after t steps."""
    a, d = 1 - 1 / tau_syn, 1 - 1 / tau
    mixed = t * a**t if a == d else a * (a**t - d**t) / (a - d)
    return x * (1 - d**t - (1 - d) * mixed)


@step(state={"i": 0.0, "v": 0.0})
def current_based_lif(
    x: Tensor,
    i: Tensor,
    v: Tensor,
    *,
    tau_syn: Any,
    tau: Any,
    threshold: Any,
    spike: Any,
    reset: Any,
    detach_reset: Any,
    strict: Any,
) -> Any:
    """$i' = i + (x - i)/\\tau_s$, $h = v + (i' - v)/\\tau$, $s = H(h - \\vartheta)$, then reset."""
    i = i + (x - i) / tau_syn
    h = v + (i - v) / tau
    s = spike(h - threshold, strict=strict)
    return s, (i, fired(h, s, threshold, reset, detach_reset))


@register("cuba_lif")
class CubaLIF(Neuron):
    r"""Current-based LIF: $i_t = i_{t-1} + (x_t - i_{t-1})/\tau_s$, $h_t = v_{t-1} + (i_t - v_{t-1})/\tau$.

    $s_t = H(h_t - \vartheta)$, then reset of $h_t$. The membrane reads the new current, so an input can fire the neuron
    in its own step.

    ODE: $\tau_s\,di/dt = -i + x$, $\tau\,dv/dt = -v + i$; Euler with a step of one, the synapse first.
    Units: dimensionless, times in steps.

    Args:
        tau_syn: time constant $\tau_s$ of the synapse in steps.
        tau: membrane time constant $\tau$ in steps.
        threshold: $\vartheta$.
        surrogate: stands in for the derivative of the spike.
        reset: "zero", "subtract" or "none".
        detach_reset: no gradient through the reset.
        strict: fire at $h > \vartheta$ instead of $h \ge \vartheta$.

    Raises:
        ValueError: tau_syn, tau or threshold not positive, an unknown reset.

    Source: the ODE is that of CubaLIF in NIR, Pedersen et al. 2024, doi:10.1038/s41467-024-52259-9.

    Departures: resistance and input weight are one and rest is zero; scale x instead.
    """

    def __init__(
        self,
        tau_syn: float | Tensor = 2.0,
        tau: float | Tensor = 2.0,
        threshold: float | Tensor = 1.0,
        surrogate: Surrogate = Atan(),  # noqa: B008
        reset: Reset = "zero",
        detach_reset: bool = True,
        strict: bool = False,
    ) -> None:
        check_positive("CubaLIF", tau_syn=tau_syn, tau=tau, threshold=threshold)
        super().__init__(
            current_based_lif,
            tau_syn=tau_syn,
            tau=tau,
            threshold=threshold,
            spike=surrogate,
            reset=reset,
            detach_reset=detach_reset,
            strict=strict,
        )

    def membrane(self, x: float, t: int) -> float:
        r"""$x\,(1 - d^t - (1 - d)\sum_{k=1}^{t} d^{t-k} a^k)$ with $a = 1 - 1/\tau_s$, $d = 1 - 1/\tau$."""
        return _filtered_twice(x, t, self.number("tau"), self.number("tau_syn"))


@step(state={"v": 0.0})
def leaky_integrator(x: Tensor, v: Tensor, *, tau: Any) -> Any:
    """$v' = v + (x - v)/\\tau$, which is the output too."""
    v = v + (x - v) / tau
    return v, (v,)


@register("li")
class LI(Neuron):
    r"""Leaky integrator, a readout that does not spike: $y_t = v_t = v_{t-1} + (x_t - v_{t-1})/\tau$.

    ODE: $\tau\,dv/dt = -v + x$, explicit Euler with a step of one. Units: dimensionless, times in steps.

    Args:
        tau: time constant $\tau$ in steps.

    Raises:
        ValueError: tau not positive.

    Source: the LI of NIR, Pedersen et al. 2024, doi:10.1038/s41467-024-52259-9.

    Departures: resistance is one and rest is zero.
    """

    def __init__(self, tau: float | Tensor = 2.0) -> None:
        check_positive("LI", tau=tau)
        super().__init__(leaky_integrator, tau=tau)

    def membrane(self, x: float, t: int) -> float:
        r"""$x(1 - (1 - 1/\tau)^t)$."""
        return x * (1 - (1 - 1 / self.number("tau")) ** t)


@step(state={"i": 0.0, "v": 0.0})
def current_based_leaky_integrator(x: Tensor, i: Tensor, v: Tensor, *, tau_syn: Any, tau: Any) -> Any:
    """$i' = i + (x - i)/\\tau_s$, $v' = v + (i' - v)/\\tau$, which is the output too."""
    i = i + (x - i) / tau_syn
    v = v + (i - v) / tau
    return v, (i, v)


@register("cuba_li")
class CubaLI(Neuron):
    r"""Current-based integrator: $i_t = i_{t-1} + (x_t - i_{t-1})/\tau_s$, $v_t = v_{t-1} + (i_t - v_{t-1})/\tau$.

    A readout that does not spike: it gives out $v_t$.

    ODE, discretisation, units: those of `CubaLIF` without threshold.

    Args:
        tau_syn: time constant $\tau_s$ of the synapse in steps.
        tau: time constant $\tau$ of the membrane in steps.

    Raises:
        ValueError: tau_syn or tau not positive.

    Source: the ODE is that of CubaLI in NIR, Pedersen et al. 2024, doi:10.1038/s41467-024-52259-9.

    Departures: resistance and input weight are one and rest is zero; scale x instead.
    """

    def __init__(self, tau_syn: float | Tensor = 2.0, tau: float | Tensor = 2.0) -> None:
        check_positive("CubaLI", tau_syn=tau_syn, tau=tau)
        super().__init__(current_based_leaky_integrator, tau_syn=tau_syn, tau=tau)

    def membrane(self, x: float, t: int) -> float:
        """As that of `CubaLIF`."""
        return _filtered_twice(x, t, self.number("tau"), self.number("tau_syn"))
