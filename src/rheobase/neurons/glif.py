"""Gated LIF: learned gates mix two kinds of leak, integration and reset."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from rheobase.neurons.neuron import Neuron
from rheobase.neurons.registry import register
from rheobase.neurons.surrogate import Rectangle, Surrogate
from rheobase.scan import step


@step(state={"v": 0.0})
def gated_lif(
    x: Tensor,
    v: Tensor,
    *,
    leak_gate: Any,
    input_gate: Any,
    reset_gate: Any,
    decay: Any,
    leak: Any,
    conductance: Any,
    firing: Any,
    drop: Any,
    spike: Any,
    detach_reset: Any,
    strict: Any,
) -> Any:
    """See `GLIF`; all parameters pass through a sigmoid. v is what is left after decay and reset."""
    a, b, c = torch.sigmoid(leak_gate), torch.sigmoid(input_gate), torch.sigmoid(reset_gate)
    h = v - (1 - a) * torch.sigmoid(leak) + (1 - b * (1 - torch.sigmoid(conductance))) * x
    s = spike(h - torch.sigmoid(firing), strict=strict)
    z = s.detach() if detach_reset else s
    kept = (1 - a * (1 - torch.sigmoid(decay))) * h * (1 - c * z)
    return s, (kept - (1 - c) * torch.sigmoid(drop) * z,)


@register("glif")
class GLIF(Neuron):
    r"""Gated LIF: $h_t = v_{t-1} - (1 - \alpha)\,\ell + (1 - \beta(1 - g))\,x_t$, $s_t = H(h_t - \vartheta)$.

    The state $v_t = (1 - \alpha(1 - d))\,h_t\,(1 - \gamma s_t) - (1 - \gamma)\,r\,s_t$ is what decay and reset leave.
    The gates mix exponential decay d with linear leak $\ell$ ($\alpha$), full input with the conductance g ($\beta$),
    and reset to zero with subtraction of r ($\gamma$). All eight are learned as the sigmoid of a parameter.

    ODE: $dv/dt = -\frac{1 - d}{\Delta t}v$ ($\alpha = 1$) or $-\ell/\Delta t$ ($\alpha = 0$), plus the input.
    Units: dimensionless, rates per step.

    Args:
        leak_gate: $\alpha$ at the start; this and all that follow up to `drop` lie in (0, 1).
        input_gate: $\beta$.
        reset_gate: $\gamma$.
        decay: d, the share of the membrane that is left after one step.
        leak: $\ell$.
        conductance: g.
        threshold: $\vartheta$.
        drop: r.
        surrogate: stands in for the derivative of the spike.
        detach_reset: no gradient through the reset. The paper does not detach.
        strict: fire at $h > \vartheta$ instead of $h \ge \vartheta$.
        shape: shape of every parameter: `()` one a layer, `(C, 1, 1)` one a channel (the paper), full: one a neuron.

    Raises:
        ValueError: a starting value outside (0, 1).

    Source: Yao et al. 2022, arXiv:2210.13768.

    Departures: the conductance is the same at all steps (there one for each), so that any T runs; the gates start at
    given values instead of random ones near one half.
    """

    def __init__(
        self,
        leak_gate: float = 0.5,
        input_gate: float = 0.5,
        reset_gate: float = 0.5,
        decay: float = 0.25,
        leak: float = 0.05,
        conductance: float = 0.5,
        threshold: float = 0.5,
        drop: float = 0.5,
        surrogate: Surrogate = Rectangle(),  # noqa: B008
        detach_reset: bool = False,
        strict: bool = False,
        shape: tuple[int, ...] = (),
    ) -> None:
        def logit(name: str, value: float) -> nn.Parameter:
            if not 0 < value < 1:
                raise ValueError(f"GLIF: {name} is {value}; expected a number between 0 and 1, itself excluded")
            return nn.Parameter(torch.full(shape, math.log(value / (1 - value))))

        super().__init__(
            gated_lif,
            leak_gate=logit("leak_gate", leak_gate),
            input_gate=logit("input_gate", input_gate),
            reset_gate=logit("reset_gate", reset_gate),
            decay=logit("decay", decay),
            leak=logit("leak", leak),
            conductance=logit("conductance", conductance),
            firing=logit("threshold", threshold),
            drop=logit("drop", drop),
            spike=surrogate,
            detach_reset=detach_reset,
            strict=strict,
        )

    @property
    def threshold(self) -> Tensor:
        r"""The threshold $\vartheta$, the sigmoid of the parameter `firing`."""
        return torch.sigmoid(self.get_parameter("firing"))

    @threshold.setter
    def threshold(self, value: Tensor) -> None:
        with torch.no_grad():
            self.get_parameter("firing").copy_(torch.logit(value))

    def membrane(self, x: float, t: int) -> float:
        r"""$b(1 - a^t)/(1 - a)$ with $a = 1 - \alpha(1 - d)$ and b the input less the linear leak."""
        alpha, beta, d, leak, g = (
            torch.sigmoid(self.get_parameter(name)).item()
            for name in ("leak_gate", "input_gate", "decay", "leak", "conductance")
        )
        a, b = 1 - alpha * (1 - d), (1 - beta * (1 - g)) * x - (1 - alpha) * leak
        return b * (1 - a**t) / (1 - a)
