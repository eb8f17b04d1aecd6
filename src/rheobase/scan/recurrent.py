"""A scan whose output is fed back through a matrix: the whole loop is one node of the graph."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rheobase.scan.engine import resolve
from rheobase.scan.ir import parse
from rheobase.scan.op import Scan, run_backward, run_forward
from rheobase.scan.trace import State


class _Recurrence(torch.autograd.Function):
    """Keeps the total currents alone; backward runs one scan of them again for the states, and walks back.

    The matrix gets its gradient as one product over all steps, the step's parameters theirs in one fused pass, because
    the neuron's own gradient is that of a plain scan of the currents under the total cotangents of its output.
    """

    @staticmethod
    def forward(
        ctx: Any, text: str, engine: str, n_state: int, x: Tensor, last: Tensor, weight: Tensor, bias: Tensor | None,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        state, params = list(tensors[:n_state]), list(tensors[n_state:])
        currents = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        rows, s = [], last
        for t in range(x.shape[0]):
            torch.add(x[t], F.linear(s, weight, bias), out=currents[t])
            y, *state = run_forward(text, [currents[t : t + 1]], state, params, engine)
            rows.append(y)
            s = y[0]
        ctx.text, ctx.engine, ctx.n_state = text, engine, n_state
        ctx.save_for_backward(currents, last, weight, *tensors)
        ctx.set_materialize_grads(False)
        return torch.cat(rows), *state

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor | None, *grad_state: Tensor | None) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the fused recurrence has no second derivative; run forward and backward under rb.engine('reference')"
            )
        currents, last, weight, *tensors = ctx.saved_tensors
        with torch.autocast(currents.device.type, enabled=False):
            return _backward(ctx, currents, last, weight, tensors, grad_y, list(grad_state))


@lru_cache(maxsize=256)
def _with_states(text: str) -> str:
    """The step that also puts out its next states."""
    program = parse(text)
    states = program.next_states
    return str(replace(program, outputs=program.outputs + states, binary=program.binary + (False,) * len(states)))


def _backward(
    ctx: Any,
    currents: Tensor,
    last: Tensor,
    weight: Tensor,
    tensors: list[Tensor],
    grad_y: Tensor | None,
    grad_last: list[Tensor | None],
) -> tuple[Any, ...]:
    text, engine, n_state = ctx.text, ctx.engine, ctx.n_state
    wants_x, wants_last, wants_weight, wants_bias, *wants = ctx.needs_input_grad[3:]
    first, params = [s.expand(currents.shape[1:]) for s in tensors[:n_state]], tensors[n_state:]
    exact = torch.promote_types(currents.dtype, torch.float32)
    outputs = run_forward(_with_states(text), [currents.to(exact)], first, params, engine)
    spikes = torch.cat([last.unsqueeze(0), outputs[0][:-1].to(currents.dtype)])
    after = [s.unbind(0) for s in outputs[1 : 1 + n_state]]
    before = [first, *([s[t] for s in after] for t in range(len(currents) - 1))]

    total = torch.zeros_like(currents) if grad_y is None else grad_y.clone(memory_format=torch.contiguous_format)
    found = torch.empty_like(currents)
    wanted = [True] * (1 + n_state) + [False] * len(params)
    steps, grad_state = currents.split(1), grad_last
    total_rows, found_rows = total.flatten(1, -2), found.flatten(1, -2)
    for t in reversed(range(len(steps))):
        if t + 1 < len(steps):
            total_rows[t].addmm_(found_rows[t + 1], weight)
        cotangents = [total[t : t + 1], *grad_state]
        grad, *earlier = run_backward(text, [steps[t]], before[t], params, cotangents, wanted, engine)
        found[t], grad_state = grad[0], [*earlier]

    rows = found.flatten(0, -2)
    of_params: list[Tensor] = []
    if any(wants[n_state:]):
        of_params = run_backward(
            text, [currents], first, params, [total, *grad_last], [False] * (1 + n_state) + wants[n_state:], engine
        )
    by_param = iter(of_params)
    return (
        None,
        None,
        None,
        found if wants_x else None,
        found[0] @ weight if wants_last else None,
        rows.T @ spikes.flatten(0, -2) if wants_weight else None,
        rows.sum(0) if wants_bias else None,
        *(g if want else None for g, want in zip(grad_state, wants, strict=False)),
        *(next(by_param) if want else None for want in wants[n_state:]),
    )


def recur(
    scan: Scan,
    x: Tensor,
    last: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    state: State | None,
    params: Mapping[str, Tensor | float],
) -> tuple[Tensor, State]:
    r"""Run a step of one input and one output on $x_t + W s_{t-1} + b$, with $s_t$ its output.

    Args:
        scan: the step.
        x: input `[T, B, ..., N]`.
        last: output before the first step, `[B, ..., N]` in x's dtype.
        weight: W `[N, N]` in x's dtype, `weight[i, j]` from j to i.
        bias: b `[N]` or None.
        state: as for `Scan`.
        params: as for `Scan`.

    Returns:
        output `[T, B, ..., N]`, final state.

    Raises:
        ValueError: shapes, dtypes or names that do not fit, or the reference engine, which has autograd of its own.
    """
    engine = resolve(x.device)
    if engine == "reference":
        raise ValueError("recur: the reference engine runs step by step; call the step in a loop under it")
    values, state = scan.prepare([x], state, params)
    text = scan.text(x.dtype)
    y, *state_ = _Recurrence.apply(
        text, engine, len(state), x, last, weight, bias, *state, *(values[name] for name in scan.params)
    )
    return y, tuple(state_)
