"""What one real training step hands to each layer: spikes, the gradient for its output, and where one is wanted.

A forward and a backward pass run as they are, on any engine; hooks look at convolutions, linear layers and neurons.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from rheobase.lab.cost.count import values_of
from rheobase.lab.cost.h2learn.windows import Windows, noise_of, open_windows, surrogates
from rheobase.neurons.surrogate import Rectangle
from rheobase.nn import Sequential
from rheobase.nn.memory import memory
from rheobase.nn.norm import TdBN
from rheobase.nn.time import PerStep
from rheobase.nn.values import Values, concatenated
from rheobase.scan import Temporal

Pair = tuple[int, int]
Loss = Callable[[Tensor], Tensor]
"""The model's output to a scalar."""


@dataclass(frozen=True, eq=False)
class LayerTrace:
    """One convolution or linear layer of one training step.

    T is 1 where an image that all steps share was computed once, and B the batch. A 1-D convolution has H = 1.

    Attributes:
        name: qualified name; a second call of the same layer adds "#1".
        kind: which of the two.
        weight: `[Cout, Cin / groups, KH, KW]` or `[out, in]`.
        stride, padding, dilation, groups: of a convolution; ones, zeros, ones and 1 of a linear layer.
        holds: what its input held: {0, 1}, whole numbers or anything.
        input: what it read, `[T, B, Cin, H, W]` or `[T, B, ..., features]`; bool if binary, else as it was.
        gradient: the gradient for its output, `[T, B, Cout, H', W']` or `[T, B, ..., features]`: what enters $W^T$,
            behind the backward pass of a norm; None unless values are asked for.
        nonzero: bool, where that gradient is not zero.
        needed: bool, like `input`: where the gradient for the input reaches an open window of a surrogate, through
            max-pooling that of the element it was taken from; None if no gradient for the input is wanted.
    """

    name: str
    kind: Literal["convolution", "linear"]
    weight: Tensor
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    holds: Values
    input: Tensor
    gradient: Tensor | None
    nonzero: Tensor
    needed: Tensor | None


@dataclass(frozen=True)
class Unmapped:
    """A product that the engines cannot take, and why.

    Attributes:
        name: of the layer, or of the innermost module that was seen running.
        reason: why.
        macs: multiply-accumulates of its forward pass, over the whole batch and all steps.
    """

    name: str
    reason: str
    macs: int = 0


@dataclass(frozen=True)
class NeuronTrace:
    """One layer of neurons.

    Attributes:
        name: qualified name.
        units: neurons per sample.
        steps: T.
        rate: share of outputs that are not zero.
        open: share of neurons and steps whose surrogate's window is open; 1 where it is open everywhere or unknown.
        membrane: whether backward needs the membrane itself: the surrogate is no rectangle, or the reset to zero passes
            gradients.
    """

    name: str
    units: int
    steps: int
    rate: float
    open: float
    membrane: bool


@dataclass(frozen=True)
class StepTrace:
    """One training step of a model, in the order of execution.

    Attributes:
        layers: what the engines can take: layers that read spikes, and those that read the model's input.
        unmapped: all other products.
        neurons: the layers of neurons.
        T: time steps.
        batch: samples.
        loss: the value of the loss.
    """

    layers: tuple[LayerTrace, ...]
    unmapped: tuple[Unmapped, ...]
    neurons: tuple[NeuronTrace, ...]
    T: int
    batch: int
    loss: float


def trace_step(model: nn.Module, x: Tensor, loss: Loss, *, values: bool = False) -> StepTrace:
    """Run one step of training and keep what the engines of an accelerator would see. Nothing is learned.

    The model runs in the mode that it is in, so call `model.train()` before: in training a batch norm makes the
    gradient dense, in evaluation it does not. Parameters, buffers, `.grad` and torch's random numbers stay as they
    were.

    Args:
        model: maps `[T, B, ...]` to an output.
        x: one batch `[T, B, ...]`.
        loss: the output to a scalar.
        values: keep the gradients too, and not only where they are not zero.

    Raises:
        ValueError: x is no sequence, the loss no scalar, or nothing in the model wants a gradient.
    """
    if x.dim() < 2 or 0 in x.shape[:2]:
        raise ValueError(f"trace_step: x has shape {tuple(x.shape)}; expected [T, B, ...]")
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("trace_step: no parameter of the model wants a gradient; call requires_grad_() on it")
    step = _Step(x.shape[0], x.shape[1], values)
    devices = [x.device] if x.is_cuda else []
    with (
        torch.random.fork_rng(devices),
        _buffers_kept(model),
        memory("full"),
        torch.enable_grad(),
        step.watching(model),
    ):
        with step.windows:
            found = loss(model(x))
        if found.dim():
            raise ValueError(
                f"trace_step: the loss has shape {tuple(found.shape)}; expected a scalar, such as its mean"
            )
        torch.autograd.grad(found, parameters, allow_unused=True)
    layers = []
    for seen in step.seen:
        layers += seen.layers(step)
    return StepTrace(tuple(layers), tuple(step.unmapped), tuple(step.neurons), step.T, step.B, found.item())


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


@dataclass
class _Call:
    """One call of a layer."""

    input: Tensor
    holds: Values
    needed: Tensor | None
    shape: torch.Size
    gradient: Tensor | None = None
    nonzero: Tensor | None = None

    def receive(self, values: bool, gradient: Tensor) -> None:
        self.nonzero = gradient.bool()
        self.gradient = gradient.detach().clone() if values else None

    def receives(self) -> Tensor:
        """Where the gradient for the output is not zero; nowhere if none came."""
        return self.input.new_zeros(self.shape, dtype=torch.bool) if self.nonzero is None else self.nonzero


@dataclass
class _Layer:
    """A layer and its calls."""

    name: str
    module: nn.Conv1d | nn.Conv2d | nn.Linear
    looped: bool
    calls: list[_Call] = field(default_factory=list)

    def layers(self, step: "_Step") -> list[LayerTrace]:
        """What the calls were, as sequences; the calls of a loop over time are one sequence."""
        if self.looped and len(self.calls) == step.T > 1:
            return [self._layer(self.name, self.calls, step)]
        return [self._layer(f"{self.name}#{k}" if k else self.name, [call], step) for k, call in enumerate(self.calls)]

    def _layer(self, name: str, calls: list[_Call], step: "_Step") -> LayerTrace:
        module = self.module
        conv = not isinstance(module, nn.Linear)
        flat = isinstance(module, nn.Conv1d)

        def whole(parts: list[Tensor | None]) -> Tensor | None:
            if any(part is None for part in parts):
                return None
            steps = [step.sequence(cast(Tensor, part), conv) for part in parts]
            found = steps[0] if len(steps) == 1 else torch.cat(steps)
            return found.unsqueeze(-2) if flat else found

        needed: list[Tensor | None] = [call.needed for call in calls]
        if any(part is not None for part in needed):  # in a loop over time the first call reads what it started with
            needed = [torch.zeros_like(c.input, dtype=torch.bool) if c.needed is None else c.needed for c in calls]
        weight = module.weight.detach()
        return LayerTrace(
            name,
            "convolution" if conv else "linear",
            weight.unsqueeze(2) if flat else weight,
            *_settings(module),
            concatenated(*(call.holds for call in calls)),
            cast(Tensor, whole([call.input for call in calls])),
            whole([call.gradient for call in calls]),
            cast(Tensor, whole([call.receives() for call in calls])),
            whole(needed),
        )


class _Step:
    """What hooks collect while a model runs."""

    def __init__(self, T: int, B: int, values: bool) -> None:
        self.T, self.B, self.values = T, B, values
        self.seen: list[_Layer] = []
        self.unmapped: list[Unmapped] = []
        self.neurons: list[NeuronTrace] = []
        self.windows = Windows(self.multiplied)
        self._running: list[tuple[str, nn.Module]] = []
        self._noise: list[tuple[torch.Generator, Tensor]] = []

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Look at every module but containers and norms, which would run unfused if somebody watched them."""
        handles = []
        for name, module in model.named_modules():
            if not isinstance(module, nn.Sequential | Sequential | PerStep | TdBN):
                handles += [
                    module.register_forward_pre_hook(partial(self.enter, name)),
                    module.register_forward_hook(self.leave, always_call=True),
                ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def enter(self, name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self.windows.paused:
            return
        if _is_neuron(module) and not self._neuron():
            self._noise = noise_of(module, inputs[0])
        self._running.append((name, module))

    def leave(self, module: nn.Module, inputs: tuple[Any, ...], y: Any) -> None:
        if self.windows.paused:
            return
        name, _ = self._running.pop()
        if not isinstance(y, Tensor):
            return
        with self.windows.aside():
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear) and inputs:
                self.layer(name, module, inputs[0], y)
            elif _is_neuron(module) and not self._neuron():
                self.neuron(name, module, inputs[0], y)

    def layer(self, name: str, module: nn.Conv1d | nn.Conv2d | nn.Linear, x: Tensor, y: Tensor) -> None:
        """A layer read x and put out y."""
        holds = values_of(x)
        macs = y.numel() * module.weight[0].numel()
        if reason := self._refusal(module, x, holds):
            self.unmapped.append(Unmapped(name, reason, macs))
            return
        call = _Call(
            x.detach().bool() if holds == "binary" else x.detach(),
            holds,
            self.windows[x] if x.requires_grad else None,
            y.shape,
        )
        if y.requires_grad:
            y.register_hook(partial(call.receive, self.values))
        for seen in self.seen:
            if seen.module is module:
                seen.calls.append(call)
                return
        self.seen.append(_Layer(name, module, self._neuron(), [call]))

    def _refusal(self, module: nn.Module, x: Tensor, holds: Values) -> str:
        """Why the engines cannot take a layer; empty if they can."""
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            if module.padding_mode != "zeros":
                return f"{module.padding_mode} padding"
            if _padding(module) is None:
                return "padding that differs between the two ends"
        if not self._axes(x):
            return f"its input {tuple(x.shape)} is no sequence of {self.T} steps of {self.B} samples"
        if holds == "binary" or not x.requires_grad:
            return ""
        return "reads sums of spikes" if holds == "graded" else "reads real numbers"

    def neuron(self, name: str, module: nn.Module, x: Any, y: Tensor) -> None:
        """A layer of neurons read x and put out y `[T, B, ...]`."""
        windows = open_windows(module, x, y, self._noise) if y.shape[:1] == (self.T,) else None
        binary = getattr(module, "emits", "real") == "binary"
        if windows is not None and binary:
            self.windows[y] = windows
        self.neurons.append(
            NeuronTrace(
                name,
                y[0, 0].numel() if y.dim() > 1 else 1,
                len(y),
                (y.detach() if binary else (y.detach() != 0).float()).mean().item(),
                1.0 if windows is None else windows.count_nonzero().item() / windows.numel(),
                _keeps_membrane(module),
            )
        )

    def multiplied(self, operator: Any, arguments: tuple[Any, ...], out: Any) -> None:
        """Somebody multiplies matrices; unless it is a layer that is looked at, the engines cannot take it."""
        name, module = self._running[-1] if self._running else ("", None)
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            return
        if self._neuron():
            reason = "a product within a neuron"
        elif isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            reason = "a transposed convolution"
        elif isinstance(module, nn.Conv3d):
            reason = "a convolution over three axes"
        elif operator is torch.ops.aten.convolution:
            reason = "a convolution outside of a layer"
        else:
            reason = "a product of two activations, or of computed weights"
        self.unmapped.append(Unmapped(name, reason, _macs(operator, arguments, out)))

    def sequence(self, x: Tensor, conv: bool) -> Tensor:
        """x as `[T, B, ...]`."""
        axes = self._axes(x, conv)
        return x if axes == 2 else x.unflatten(0, (-1, self.B))

    def _axes(self, x: Tensor, conv: bool = False) -> int:
        """How many leading axes of x are time and batch: two, or one that holds both; 0 if neither."""
        if not conv and x.dim() > 2 and x.shape[:2] == (self.T, self.B):
            return 2
        return int(x.dim() > 1 and x.shape[0] in (self.T * self.B, self.B))

    def _neuron(self) -> bool:
        """Whether a neuron is running."""
        return any(_is_neuron(module) for _, module in self._running)


def _is_neuron(module: nn.Module) -> bool:
    return isinstance(module, Temporal) and hasattr(module, "emits")


def _keeps_membrane(neuron: nn.Module) -> bool:
    constants = getattr(getattr(neuron, "scan", None), "constants", {})
    passes = constants.get("reset") == "zero" and not constants.get("detach_reset", True)
    found = surrogates(neuron)
    return passes or not found or not all(isinstance(surrogate, Rectangle) for surrogate in found)


def _settings(module: nn.Conv1d | nn.Conv2d | nn.Linear) -> tuple[Pair, Pair, Pair, int]:
    """Stride, padding, dilation and groups over two axes."""
    if isinstance(module, nn.Linear):
        return (1, 1), (0, 0), (1, 1), 1
    padding = _padding(module)
    assert padding is not None
    stride, dilation = (tuple(value)[-2:] for value in (module.stride, module.dilation))
    if isinstance(module, nn.Conv1d):
        return (1, stride[0]), (0, padding[0]), (1, dilation[0]), module.groups
    return cast(Pair, stride), cast(Pair, padding), cast(Pair, dilation), module.groups


def _padding(module: nn.Conv1d | nn.Conv2d) -> tuple[int, ...] | None:
    """Zeros before and after each axis; None if these differ."""
    around = module._reversed_padding_repeated_twice[::-1]
    low, high = tuple(around[0::2]), tuple(around[1::2])
    return low if low == high else None


def _macs(operator: Any, arguments: tuple[Any, ...], out: Tensor) -> int:
    """Multiply-accumulates of a matrix product."""
    if operator is torch.ops.aten.convolution:
        x, weight, transposed = arguments[0], arguments[1], arguments[6]
        return int((x if transposed else out).numel() * weight[0].numel())
    tensors = [t for t in arguments if isinstance(t, Tensor)]
    if len(tensors) < 2 or not isinstance(out, Tensor):
        return 0
    left, right = tensors[-2:]
    return int(left.numel() * (right.shape[-1] if right.dim() > 1 else 1))
