"""Integer spikes in training, binary ones on the chip: a neuron that fires 0..D at once, and the exact expansion."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rheobase.neurons.neuron import Neuron
from rheobase.neurons.registry import register
from rheobase.scan import round_ste, step


@step(state={"v": 0.0})
def integer_lif(x: Tensor, v: Tensor, *, decay: Any, levels: Any, rounding: Any, detach_reset: Any) -> Any:
    """$h = v + x$, $s = \\mathrm{round}(\\mathrm{clip}(h, 0, D))$, $v' = d(h - s)$."""
    h = v + x
    s = rounding(torch.where(h > levels, levels, torch.clamp(h, min=0)))
    return s, (decay * (h - (s.detach() if detach_reset else s)),)


@register("ilif", closed_form=False)
class IntegerLIF(Neuron):
    r"""Integer LIF: $h_t = v_{t-1} + x_t$, $s_t = \mathrm{round}(\mathrm{clip}(h_t, 0, D))$, $v_t = d\,(h_t - s_t)$.

    Fires a whole number from 0 to D. Backward, the rounding is left out: the derivative is one on [0, D], else zero.
    `expand_integer` turns its output into D binary sub-steps for inference.

    ODE: $\tau\,dv/dt = -v$ with $d = e^{-1/\tau}$, the input as impulses. Units: the threshold is one.

    Args:
        decay: d in (0, 1], the share of the membrane that is left after one step.
        levels: D, the largest output, a whole number.
        detach_reset: no gradient through the reset.
        rounding: what rounds; the identity makes the neuron differentiable, to check its gradient.

    Raises:
        ValueError: decay outside (0, 1], levels below one or not whole.

    Source: Luo et al. 2024, arXiv:2407.20708 (I-LIF of SpikeYOLO).

    Departures: halves are rounded to even, as torch does.
    """

    def __init__(
        self,
        decay: float | Tensor = 0.25,
        levels: int = 4,
        detach_reset: bool = True,
        rounding: Callable[[Tensor], Tensor] = round_ste,
    ) -> None:
        low, high = (decay.min().item(), decay.max().item()) if isinstance(decay, Tensor) else (decay, decay)
        if not (low > 0 and high <= 1):
            raise ValueError(f"IntegerLIF: decay is {low if not low > 0 else high}; expected above 0 and at most 1")
        _check_levels("IntegerLIF", levels)
        super().__init__(integer_lif, decay=decay, levels=levels, rounding=rounding, detach_reset=detach_reset)

    @property
    def emits(self) -> str:
        """Whole numbers: "graded"."""
        return "graded"


def expand_integer(y: Tensor, levels: int) -> Tensor:
    r"""Whole numbers as binary sub-steps: step t becomes steps $Dt$ to $Dt + D - 1$, of which the first $y_t$ fire.

    A linear layer without bias (or with its bias divided by D), applied to every sub-step and summed by
    `sum_substeps`, gives what it gives for y: $W y_t = \sum_k W b_{Dt+k}$.

    Args:
        y: whole numbers from 0 to D, `[T, B, ...]`.
        levels: D.

    Returns:
        {0, 1} in y's dtype, `[T * D, B, ...]`.

    Raises:
        ValueError: levels below one, or a value of y that is not one of 0..D.
    """
    _check_levels("expand_integer", levels)
    wrong = (y != y.round()) | (y < 0) | (y > levels)
    if wrong.any():
        raise ValueError(f"expand_integer: got the value {y[wrong][0].item():.6g}; expected whole numbers 0..{levels}")
    k = torch.arange(levels, dtype=y.dtype, device=y.device).reshape(-1, *(1,) * (y.dim() - 1))
    return (y.unsqueeze(1) > k).to(y.dtype).flatten(0, 1)


def sum_substeps(y: Tensor, levels: int) -> Tensor:
    """Sum every D sub-steps: `[T * D, B, ...]` -> `[T, B, ...]`, what undoes `expand_integer`.

    Raises:
        ValueError: the number of steps is not a multiple of levels.
    """
    _check_levels("sum_substeps", levels)
    if y.shape[0] % levels:
        raise ValueError(f"sum_substeps: got {y.shape[0]} steps; expected a multiple of levels, {levels}")
    return y.unflatten(0, (-1, levels)).sum(1)


def _check_levels(owner: str, levels: int) -> None:
    if levels < 1:
        raise ValueError(f"{owner}: levels is {levels}; expected a whole number of at least one")
