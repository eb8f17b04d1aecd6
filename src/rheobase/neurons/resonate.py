"""Neurons that ring: a damped oscillator that fires at its peaks and prefers input at its own frequency."""

import cmath
import math
from typing import Any

import torch
from torch import Tensor

from rheobase.neurons.neuron import Neuron, check_positive, reset_to
from rheobase.neurons.registry import register
from rheobase.neurons.surrogate import Atan, Surrogate
from rheobase.scan import step


@step(state={"u": 0.0, "v": 0.0})
def resonate_and_fire(
    x: Tensor,
    u: Tensor,
    v: Tensor,
    *,
    damping: Any,
    omega: Any,
    threshold: Any,
    spike: Any,
    detach_reset: Any,
    strict: Any,
) -> Any:
    """$z' = e^{-b + i\\omega} z + x$ with $z = u + iv$, $s = H(v' - \\vartheta)$, reset to $i\\vartheta$."""
    size = torch.exp(-damping)
    c, d = size * torch.cos(omega), size * torch.sin(omega)
    p = c * u - d * v + x
    h = d * u + c * v
    s = spike(h - threshold, strict=strict)
    return s, (reset_to(p, s, 0.0, detach_reset), reset_to(h, s, threshold, detach_reset))


@register("rf")
class RF(Neuron):
    r"""Resonate-and-fire: $z_t = e^{-b + i\omega} z_{t-1} + x_t$, $s_t = H(\mathrm{Im}\,z_t - \vartheta)$.

    The real part u is like a current, the imaginary part v like a voltage; a spike resets z to $i\vartheta$.

    ODE: $dz/dt = (-b + i\omega)z$, solved exactly over a step of one; the input is an impulse at its end.
    Units: dimensionless; b per step, $\omega$ in radians per step.

    Args:
        damping: b, above zero.
        omega: $\omega$, the frequency it prefers.
        threshold: $\vartheta$.
        surrogate: stands in for the derivative of the spike.
        detach_reset: no gradient through the reset.
        strict: fire above the threshold only, not at it.

    Raises:
        ValueError: damping, omega or threshold not positive.

    Source: Izhikevich 2001, doi:10.1016/S0893-6080(01)00078-8.

    Departures: none; there the threshold is one.
    """

    def __init__(
        self,
        damping: float | Tensor = 0.1,
        omega: float | Tensor = 0.5,
        threshold: float | Tensor = 1.0,
        surrogate: Surrogate = Atan(),  # noqa: B008
        detach_reset: bool = True,
        strict: bool = False,
    ) -> None:
        check_positive("RF", damping=damping, omega=omega, threshold=threshold)
        super().__init__(
            resonate_and_fire,
            damping=damping,
            omega=omega,
            threshold=threshold,
            spike=surrogate,
            detach_reset=detach_reset,
            strict=strict,
        )

    def membrane(self, x: float, t: int) -> float:
        r"""$\mathrm{Im}\,x(1 - \lambda^t)/(1 - \lambda)$ with $\lambda = e^{-b + i\omega}$."""
        turn = cmath.exp(complex(-self.number("damping"), self.number("omega")))
        return (x * (1 - turn**t) / (1 - turn)).imag


@step(state={"u": 0.0, "v": 0.0, "q": 0.0})
def balanced_resonate_and_fire(
    x: Tensor,
    u: Tensor,
    v: Tensor,
    q: Tensor,
    *,
    damping: Any,
    omega: Any,
    dt: Any,
    refractory: Any,
    threshold: Any,
    spike: Any,
    strict: Any,
) -> Any:
    """$z' = z + \\delta((p(\\omega) - b - q + i\\omega)z + x)$, $s = H(u' - \\vartheta - q)$, $q' = \\gamma q + s$."""
    rate = (torch.sqrt(1 - dt * omega * dt * omega) - 1) / dt - damping - q
    h = u + dt * (rate * u - omega * v + x)
    w = v + dt * (omega * u + rate * v)
    s = spike(h - threshold - q, strict=strict)
    return s, (h, w, refractory * q + s)


@register("brf", drive=100.0)
class BRF(Neuron):
    r"""Balanced resonate-and-fire: $z_t = z_{t-1} + \delta\,((b_t + i\omega)\,z_{t-1} + x_t)$.

    $s_t = H(\mathrm{Re}\,z_t - \vartheta - q_{t-1})$. A spike raises the threshold and the damping for a while,
    $q_t = \gamma q_{t-1} + s_t$, $b_t = p(\omega) - b - q_{t-1}$, instead of a reset. At
    $p(\omega) = (\sqrt{1 - (\delta\omega)^2} - 1)/\delta$ the Euler step neither grows nor shrinks.

    ODE: $dz/dt = (b_t + i\omega)z + x$, explicit Euler with a step of $\delta$.
    Units: $\delta$ in seconds, b and $\omega$ per second, the rest dimensionless.

    Args:
        damping: b, above zero; the paper's offset.
        omega: $\omega$, the frequency it prefers, with $\delta\omega < 1$.
        dt: $\delta$.
        refractory: $\gamma$, the share of q that is left after one step.
        threshold: $\vartheta$ at rest.
        surrogate: stands in for the derivative of the spike.
        strict: fire above the threshold only, not at it.

    Raises:
        ValueError: damping, omega, dt or threshold not positive, $\delta\omega$ not below one.

    Source: Higuchi et al. 2024, arXiv:2402.14603.

    Departures: the sign and range of b and omega are the caller's; there their absolute values are learned.
    """

    def __init__(
        self,
        damping: float | Tensor = 1.0,
        omega: float | Tensor = 10.0,
        dt: float = 0.01,
        refractory: float | Tensor = 0.9,
        threshold: float | Tensor = 1.0,
        surrogate: Surrogate = Atan(),  # noqa: B008
        strict: bool = False,
    ) -> None:
        check_positive("BRF", damping=damping, omega=omega, dt=dt, threshold=threshold)
        fastest = dt * (omega.max().item() if isinstance(omega, Tensor) else omega)
        if not fastest < 1:
            raise ValueError(f"BRF: dt * omega is {fastest:.4g}; expected below 1, so take a smaller dt")
        super().__init__(
            balanced_resonate_and_fire,
            damping=damping,
            omega=omega,
            dt=dt,
            refractory=refractory,
            threshold=threshold,
            spike=surrogate,
            strict=strict,
        )

    def membrane(self, x: float, t: int) -> float:
        r"""$\mathrm{Re}\,\delta x(1 - \lambda^t)/(1 - \lambda)$, $\lambda = 1 + \delta(p(\omega) - b + i\omega)$."""
        dt, omega = self.number("dt"), self.number("omega")
        rate = (math.sqrt(1 - (dt * omega) ** 2) - 1) / dt - self.number("damping")
        turn = 1 + dt * complex(rate, omega)
        return (dt * x * (1 - turn**t) / (1 - turn)).real
