"""Escape noise: a leaky neuron that fires at random, the more likely the higher its membrane."""

from typing import Any

import torch
from torch import Tensor

from rheobase.neurons.neuron import Neuron, Reset, check_positive, fired
from rheobase.neurons.registry import register
from rheobase.neurons.surrogate import Atan, Surrogate
from rheobase.scan import step


@step(inputs=("x", "noise"), state={"v": 0.0})
def escape_noise_lif(
    x: Tensor,
    noise: Tensor,
    v: Tensor,
    *,
    tau: Any,
    width: Any,
    tau_escape: Any,
    threshold: Any,
    spike: Any,
    reset: Any,
    detach_reset: Any,
) -> Any:
    """$h = v + (x - v)/\\tau$, $s = H(h - \\vartheta - \\Delta(\\xi + \\ln\\tau_0))$, then reset."""
    h = v + (x - v) / tau
    s = spike(h - threshold - width * (noise + torch.log(tau_escape)))
    return s, (fired(h, s, threshold, reset, detach_reset),)


@register("stochastic_lif", closed_form=False, stochastic=True)
class StochasticLIF(Neuron):
    r"""LIF with escape noise: $h_t = v_{t-1} + (x_t - v_{t-1})/\tau$, $P(s_t = 1) = 1 - e^{-\rho(h_t)}$, then reset.

    The rate of escape is $\rho(h) = \frac{1}{\tau_0} e^{(h - \vartheta)/\Delta}$ per step. Drawn as a noisy threshold,
    $s_t = H(h_t - \vartheta - \Delta(\xi_t + \ln\tau_0))$ with $\xi_t$ the logarithm of an exponential variable, which
    has just this probability and needs no exponential in the loop.

    ODE: $\tau\,dv/dt = -v + x$, explicit Euler with a step of one. Units: dimensionless, times in steps.

    The noise is the second input of the step, drawn step by step, so that streaming goes on where it stopped. Pass the
    pair `(x, noise)` to the step yourself to repeat a run: `neuron.sequence((x, noise), None)`.

    Args:
        tau: membrane time constant $\tau$ in steps.
        width: $\Delta$; towards zero the neuron becomes a `LIF`.
        tau_escape: $\tau_0$, the mean time to a spike at threshold, in steps.
        threshold: $\vartheta$.
        surrogate: stands in for the derivative of the spike at the noisy threshold.
        reset: "zero", "subtract" or "none".
        detach_reset: no gradient through the reset.
        generator: where the noise comes from; None is torch's own, set by `torch.manual_seed`. On the device of x.

    Raises:
        ValueError: tau, width, tau_escape or threshold not positive, an unknown reset.

    Source: Gerstner et al. 2014, Neuronal Dynamics, section 9.1 (exponential escape rate); Gerstner and van Hemmen
    1992, doi:10.1088/0954-898X/3/2/004.

    Departures: none; the rate is constant within a step.
    """

    def __init__(
        self,
        tau: float | Tensor = 2.0,
        width: float | Tensor = 0.2,
        tau_escape: float | Tensor = 1.0,
        threshold: float | Tensor = 1.0,
        surrogate: Surrogate = Atan(),  # noqa: B008
        reset: Reset = "zero",
        detach_reset: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        check_positive("StochasticLIF", tau=tau, width=width, tau_escape=tau_escape, threshold=threshold)
        super().__init__(
            escape_noise_lif,
            tau=tau,
            width=width,
            tau_escape=tau_escape,
            threshold=threshold,
            spike=surrogate,
            reset=reset,
            detach_reset=detach_reset,
        )
        self.generator = generator

    def noise(self, x: Tensor) -> tuple[Tensor, ...]:
        r"""$\xi$ for the sequence x, in its shape and dtype."""
        rows = [torch.empty_like(row, dtype=torch.float32).exponential_(generator=self.generator).log_() for row in x]
        return (torch.stack(rows).to(x.dtype),)
