"""Two compartments: a dendrite that keeps, and a soma that fires."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from rheobase.neurons.neuron import Neuron, check_positive, response
from rheobase.neurons.registry import register
from rheobase.neurons.surrogate import Atan, Surrogate
from rheobase.scan import step


@step(state={"dendrite": 0.0, "soma": 0.0})
def two_compartment_lif(
    x: Tensor,
    dendrite: Tensor,
    soma: Tensor,
    *,
    w_dendrite: Any,
    w_soma: Any,
    gamma: Any,
    threshold: Any,
    spike: Any,
    detach_reset: Any,
    strict: Any,
) -> Any:
    """$d' = d - \\sigma(w_d)\\,m + x$, $h = m + \\sigma(w_m)\\,d'$; a spike takes $\\gamma$ and $\\vartheta$ away."""
    dendrite = dendrite - torch.sigmoid(w_dendrite) * soma + x
    h = soma + torch.sigmoid(w_soma) * dendrite
    s = spike(h - threshold, strict=strict)
    z = s.detach() if detach_reset else s
    return s, (dendrite - gamma * z, h - threshold * z)


@register("tc_lif")
class TCLIF(Neuron):
    r"""Two-compartment LIF: $d_t = d_{t-1} - \beta_1 m_{t-1} + x_t$, $h_t = m_{t-1} + \beta_2 d_t$.

    $s_t = H(h_t - \vartheta)$; a spike lowers both: $d_t \leftarrow d_t - \gamma s_t$ and $m_t = h_t - \vartheta s_t$.
    The couplings $\beta_1 = \sigma(w_d)$ and $\beta_2 = \sigma(w_m)$ are learned.

    ODE: $dd/dt = -\beta_1 m + x$, $dm/dt = \beta_2 d$; Euler with a step of one, the soma reading the new dendrite.
    Units: dimensionless, rates per step.

    Args:
        beta_dendrite: $\beta_1$ at the start, in (0, 1).
        beta_soma: $\beta_2$ at the start, in (0, 1).
        gamma: $\gamma$, what a spike takes from the dendrite.
        threshold: $\vartheta$.
        surrogate: stands in for the derivative of the spike.
        detach_reset: no gradient through the reset.
        strict: fire at $h > \vartheta$ instead of $h \ge \vartheta$.
        shape: shape of the couplings: `()` one a layer (the paper), `(C, 1, 1)` one a channel, full: one a neuron.

    Raises:
        ValueError: a coupling outside (0, 1), threshold not positive.

    Source: Zhang et al. 2024, arXiv:2308.13250.

    Departures: the sign of $\beta_1$ is written out; there it is negative.
    """

    def __init__(
        self,
        beta_dendrite: float = 0.5,
        beta_soma: float = 0.5,
        gamma: float | Tensor = 0.5,
        threshold: float | Tensor = 1.0,
        surrogate: Surrogate = Atan(),  # noqa: B008
        detach_reset: bool = True,
        strict: bool = False,
        shape: tuple[int, ...] = (),
    ) -> None:
        for name, beta in (("beta_dendrite", beta_dendrite), ("beta_soma", beta_soma)):
            if not 0 < beta < 1:
                raise ValueError(f"TCLIF: {name} is {beta}; expected a number between 0 and 1, itself excluded")
        check_positive("TCLIF", threshold=threshold)
        super().__init__(
            two_compartment_lif,
            w_dendrite=nn.Parameter(torch.full(shape, math.log(beta_dendrite / (1 - beta_dendrite)))),
            w_soma=nn.Parameter(torch.full(shape, math.log(beta_soma / (1 - beta_soma)))),
            gamma=gamma,
            threshold=threshold,
            spike=surrogate,
            detach_reset=detach_reset,
            strict=strict,
        )

    def membrane(self, x: float, t: int) -> float:
        """Second component of the linear recurrence of dendrite and soma, without spikes."""
        p, q = (torch.sigmoid(self.get_parameter(name)).item() for name in ("w_dendrite", "w_soma"))
        return response([[1.0, -p], [q, 1 - p * q]], [x, q * x], t)[1]
