"""Recurrent spiking layers: what a layer emits is fed back to its own input one step later."""

from typing import Any

import torch
from torch import Tensor, nn

from rheobase.neurons import Neuron
from rheobase.scan import Temporal
from rheobase.scan.engine import resolve
from rheobase.scan.recurrent import recur


class Recurrent(Temporal):
    r"""A neuron with feedback: $s_t, v_t = f(x_t + F(s_{t-1}), v_{t-1})$, with $s_{-1} = 0$ at rest.

    x and s are `[T, B, ...]`; F maps one step `[B, ...]` to the same shape. The state is that of the neuron and, last,
    $s_{t-1}$. Each step is one call of the fused neuron and one of F.

    A plain nn.Linear on the last axis runs as one node of the graph: only the total currents are kept for backward,
    and the matrix gets its gradient as one product over all steps instead of T. Any other feedback, torch.compile,
    torch.export and the reference engine run the loop as written; compiled and exported programs hold it unrolled, so
    they are made for one T and grow with it. The two forms emit equal spikes.

    Args:
        neuron: a neuron of one input and one output that can be streamed.
        feedback: F, without state: nn.Linear(n, n, bias=False), a convolution that keeps the shape, ... A bias in F
            acts from the first step on.

    Raises:
        ValueError: a neuron that needs the whole sequence, a feedback with state or of another shape, or a state of
            another batch.

    Source: Cramer et al. 2020, arXiv:1910.07407 (recurrent LIF nets for spoken digits).
    """

    def __init__(self, neuron: Temporal, feedback: nn.Module) -> None:
        super().__init__()
        if not neuron.streamable:
            raise ValueError(
                f"Recurrent: {type(neuron).__name__} needs the whole sequence, but feedback goes step by step; "
                f"take a neuron that can be streamed"
            )
        if stateful := [type(module).__name__ for module in feedback.modules() if isinstance(module, Temporal)]:
            raise ValueError(
                f"Recurrent: the feedback holds {stateful[0]}, which has state over time; "
                f"take a module without, such as nn.Linear(n, n, bias=False)"
            )
        self.neuron, self.feedback = neuron, feedback

    @property
    def emits(self) -> str:
        """What comes out, as the neuron declares it."""
        return str(getattr(self.neuron, "emits", "real"))

    def sequence(self, x: Any, state: tuple[Tensor, ...] | None) -> tuple[Any, tuple[Tensor, ...]]:
        """Run x `[T, B, ...]` from the neuron's states and the last output, each `[B, ...]` (None: rest)."""
        if x.dim() < 2 or x.shape[0] == 0:
            raise ValueError(f"Recurrent: x has shape {tuple(x.shape)}; expected [T, B, ...] with T >= 1")
        before, last = (None, x.new_zeros(x.shape[1:])) if state is None else (state[:-1], state[-1].to(x.dtype))
        if last.shape != x.shape[1:]:
            raise ValueError(
                f"Recurrent: the last output in the state has shape {tuple(last.shape)} but a step of x has "
                f"{tuple(x.shape[1:])}; pass the state that this layer returned for the same batch"
            )
        matrix = self._matrix(x)
        if matrix is None:
            return self._loop(x, before, last)
        neuron, (weight, bias) = self.neuron, matrix
        assert isinstance(neuron, Neuron)
        params = {name: getattr(neuron, name) for name in neuron.scan.params}
        y, after = recur(neuron.scan, x, last, weight, bias, before, params)
        return y, (*after, y[-1])

    def _loop(self, x: Tensor, state: tuple[Tensor, ...] | None, s: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        rows = []
        for current in x:
            back = self.feedback(s)
            if back.shape != current.shape:
                raise ValueError(
                    f"Recurrent: the feedback maps {tuple(s.shape)} to {tuple(back.shape)}; "
                    f"expected {tuple(current.shape)}, the shape of a step of x"
                )
            y, state = self.neuron.sequence((current + back).to(x.dtype).unsqueeze(0), state)
            rows.append(y)
            s = y[0]
        return torch.cat(rows), (*(state or ()), s)

    def _matrix(self, x: Tensor) -> tuple[Tensor, Tensor | None] | None:
        """Weight and bias, if the feedback is no more than a matrix that the fused loop may apply itself."""
        layer = self.feedback
        plain = (
            type(layer) is nn.Linear
            and layer.in_features == layer.out_features == x.shape[-1]
            and not (layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks)
            and not layer._backward_pre_hooks
            and isinstance(self.neuron, Neuron)
            and type(self.neuron).sequence is Neuron.sequence
            and self.neuron.scan.fused
            and len(self.neuron.scan.step.inputs) == 1
            and not torch.compiler.is_compiling()
            and resolve(x.device) != "reference"
        )
        if not plain:
            return None
        assert isinstance(layer, nn.Linear)
        kind = x.device.type
        product = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else layer.weight.dtype
        if product != x.dtype:
            return None
        return layer.weight.to(product), None if layer.bias is None else layer.bias.to(product)
