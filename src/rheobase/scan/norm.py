r"""Normalisation and neuron in one kernel: $f(ax + b\,[+ r], v; \theta)$ with statistics and gradients of the norm."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rheobase.scan.collective import sum_over_processes
from rheobase.scan.op import count_bits, grouped, of_outputs, run_backward, run_forward, run_packed
from rheobase.scan.rewrite import COMBINATION, IDENTITY, MOMENTS
from rheobase.scan.static import is_static, once


@dataclass(frozen=True, eq=False)
class Normed:
    r"""A normalisation that waits for the step it enters: $\gamma(x-\mu)/\sqrt{\sigma^2+\epsilon}+\beta\;[+r]$.

    Attributes:
        x: `[T, B, C, ...]`.
        mean, var: $\mu, \sigma^2$ of each channel, `[C]`, without gradient.
        gain, bias: $\gamma, \beta$, `[C]`.
        eps: $\epsilon$.
        batch: mean and var are those of x itself, so that the gradient of x flows through them.
        plus: r, like x, or None.
        share: 1 / n where mean and var are those of n values of all processes, `()`; None where they are of x alone.
    """

    x: Tensor
    mean: Tensor
    var: Tensor
    gain: Tensor
    bias: Tensor
    eps: float
    batch: bool
    plus: Tensor | None = None
    share: Tensor | None = None

    def run(
        self,
        text: str,
        others: Sequence[Tensor],
        state: Sequence[Tensor],
        params: Sequence[Tensor],
        engine: str,
        identity: bool = False,
        packed: str = "",
    ) -> list[Tensor]:
        """Outputs and final states of a step whose first input this is.

        Args:
            text: of a step that `rheobase.scan.rewrite.normed_text` made.
            others: inputs behind the first.
            state, params, engine: as for the operator.
            identity: the step hands its input on.
            packed: the packed step that runs in its place, forward; see `rheobase.scan.op.run_packed`.
        """
        x, steps = once(self.x), self.x.shape[0] if is_static(self.x) else 1
        inputs = [x, *([] if self.plus is None else [self.plus]), *others]
        norm = (self.mean, self.var, self.gain.to(self.mean.dtype), self.bias)
        sizes = (len(inputs), len(state), steps)
        settings = (text, engine, *sizes, self.eps, self.batch, self.plus is not None, identity, packed)
        return list(_NormScan.apply(*settings, self.share, *norm, *inputs, *state, *params))

    def value(self, engine: str) -> Tensor:
        """The normalised x as a tensor."""
        waiting = replace(self, x=once(self.x)) if self.plus is None else self
        (y,) = waiting.run(IDENTITY[self.plus is not None], (), (), (), engine, identity=True)
        return y.expand(self.x.shape)


@torch.no_grad()
def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    r"""Mean and biased variance of each channel of x `[N, C, ...]`, in one pass, in fp32 (fp64 of fp64).

    Sums of $d = x - k$ and $d^2$, with k the channel's mean in the first of the N: $\mu = k + \bar d$,
    $\sigma^2 = \overline{d^2} - \bar d^2$ loses little, since k is near $\mu$.
    """
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    if x.device.type != "cpu":
        var, mean = torch.var_mean(x.to(dtype), [0, *range(2, x.dim())], correction=0)
        return mean, var
    share = x.shape[1] / x.numel()
    shift = _per_channel(x[0].reshape(x.shape[1], -1).mean(1, dtype=dtype), x.unsqueeze(1))
    params = [shift, torch.zeros_like(shift), torch.zeros_like(shift)]
    wanted = [False, False, True, True]
    first, second = run_backward(MOMENTS, [x.detach().unsqueeze(1)], [], params, [None], wanted, "cpu")
    offset = first.flatten() * share
    return shift.flatten() + offset, (second.flatten() * share - offset * offset).clamp_min(0.0)


def _per_channel(value: Tensor, x: Tensor) -> Tensor:
    """A value `[C]` in the shape that broadcasts against `x.shape[2:]`."""
    return value.view(-1, *(1,) * (x.dim() - 3))


class _NormScan(torch.autograd.Function):
    """Pass 1 backward recomputes, gives g and sums it per channel; pass 2 is $dx = ag + bx + c$. Keeps x, not what it
    becomes."""

    @staticmethod
    def forward(
        ctx: Any,
        text: str,
        engine: str,
        n_inputs: int,
        n_states: int,
        steps: int,
        eps: float,
        batch: bool,
        plus: bool,
        identity: bool,
        packed: str,
        share: Tensor | None,
        mean: Tensor,
        var: Tensor,
        gain: Tensor,
        bias: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        x, state, params = grouped(tensors, (n_inputs, n_states))
        scale = gain / torch.sqrt(var + eps)
        norm = [_per_channel(v, x[0]) for v in (scale, bias - mean * scale, mean)]
        ctx.settings = text, engine, n_inputs, n_states, steps, eps, batch, plus, identity, packed, share
        ctx.set_materialize_grads(False)
        kept = [tensors[0], *tensors[2:]] if identity and plus else tensors
        ctx.save_for_backward(mean, var, *norm, *kept)
        if steps > 1:
            x[0] = x[0].expand(steps, *x[0].shape[1:])
        if not packed:
            return tuple(run_forward(text, x, state, [*norm, *params], engine))
        found = run_packed(packed, x, state, [*norm, *params])
        ctx.mark_non_differentiable(*found[1 : 1 + count_bits(packed)])
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Any, ...]:
        text, engine, n_inputs, n_states, steps, eps, batch, plus, identity, packed, together = ctx.settings
        grads = of_outputs(given, count_bits(packed))
        mean, var, *saved = ctx.saved_tensors
        norm, kept = saved[:3], saved[3:]
        if identity and plus:
            kept.insert(1, kept[0])  # stands for the sum, which is not read
        once = kept[0]
        x, state, params = grouped(kept, (n_inputs, n_states))
        if steps > 1:
            x[0] = once.expand(steps, *once.shape[1:])
        needs = ctx.needs_input_grad[15:]
        middle, last = needs[1 + plus : n_inputs + n_states], needs[n_inputs + n_states :]
        hidden = needs[0] or (plus and needs[1])  # the gradient of the normalised value
        sums = any(ctx.needs_input_grad[13:15]) or (needs[0] and batch)
        wanted = [hidden and not identity, *([False] * plus), *middle, sums, sums, False, *last]
        found: Iterator[Tensor | None] = iter([None] * len(wanted))
        if any(wanted) and any(grad is not None for grad in grads):
            found = iter(run_backward(text, x, state, [*norm, *params], grads, wanted, engine))
        g = grads[0] if identity else next(found) if hidden else None
        to_middle = [next(found) if want else None for want in middle]
        by_scale, by_shift = (next(found), next(found)) if sums else (None, None)
        to_last = [next(found) if want else None for want in last]
        to_x = to_gain = to_bias = None
        if by_scale is not None and by_shift is not None:
            to_gain, to_bias = by_scale.flatten() / torch.sqrt(var + eps), by_shift.flatten()
        if needs[0] and g is not None:
            total = torch.sum(g, 0, keepdim=True, out=torch.empty_like(g[:1])) if steps > 1 else g  # in the order of g
            scale = norm[0]
            if batch:
                assert by_scale is not None
                assert by_shift is not None
                share: float | Tensor = len(mean) / once.numel()
                if together is not None:
                    share = together
                    by_scale, by_shift = sum_over_processes(by_scale, by_shift)
                b = -share * scale * by_scale / _per_channel(var + eps, once)
                c = -share * scale * by_shift - b * norm[2]
                (to_x,) = run_forward(COMBINATION, [total, once], [], [scale, b, c], engine)
            else:
                to_x = (total * scale).to(once.dtype)
        return (*(None,) * 13, to_gain, to_bias, to_x, *([g] * plus), *to_middle, *to_last)
