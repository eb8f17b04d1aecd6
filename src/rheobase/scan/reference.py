"""The reference engine: the plain step in a loop, under ordinary autograd. It defines what the others must compute."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rheobase.scan.trace import State, Step, split


def run(
    step: Step,
    inputs: Sequence[Tensor],
    state: State,
    params: Mapping[str, Tensor],
    constants: Mapping[str, Any],
) -> tuple[tuple[Tensor, ...], State]:
    """Run `step` over the leading axis of every input; see `rheobase.scan.op.Scan.__call__` for the arguments."""
    shape, dtype = inputs[0].shape[1:], inputs[0].dtype
    membrane = torch.float64 if dtype == torch.float64 else torch.float32
    state = tuple(s.expand(shape) for s in state)
    rows = []
    for xs in zip(*inputs, strict=True):
        result = step.fn(*(x.to(membrane) for x in xs), *state, **params, **constants)
        outputs, state = (_whole(values, shape) for values in split(result, step.name, tuple(step.state)))
        rows.append(outputs)
    return tuple(torch.stack(row).to(dtype) for row in zip(*rows, strict=True)), state


def _whole(values: Sequence[Tensor], shape: torch.Size) -> tuple[Tensor, ...]:
    """Values of the shape of a step, also those that depend on parameters alone."""
    return tuple(v if v.shape == shape else v.expand(shape) for v in values)
