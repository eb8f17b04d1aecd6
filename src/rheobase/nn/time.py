"""Time: stateless layers on sequences, and calls that hand the state in and out."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rheobase.scan.spikes import Spikes
from rheobase.scan.static import is_static, repeat, step_of
from rheobase.scan.temporal import ModelState, Temporal, calling


class PerStep(nn.Module):
    """Any stateless module on a sequence: `[T, B, ...]` is folded to `[T*B, ...]` and back.

    An input that is expanded over time (stride 0) is computed once and its output expanded, in training too: so put
    nothing inside that draws random numbers or gathers statistics over time.

    On the CPU a 2-D convolution gets its input with the channels of a pixel side by side (torch.channels_last): it is
    faster so, most of all where channels are few. Its output has that order too, and all layers keep it. Exception: a
    strided 1x1 convolution of fewer than 16 channels, for whose weight gradient oneDNN then writes past its memory
    (oneDNN issue 6035), gets them apart. A single channel is in both orders, and torch takes it for the other one:
    its strides are set so that it does not.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor | Spikes) -> Tensor:
        """Apply the module to every step of x `[T, B, ...]`.

        Raises:
            ValueError: x has no time and batch axis.
        """
        if isinstance(x, Spikes):
            T, B = x.shape[:2]
            y: Tensor = self.module(x.folded())
            return y.unflatten(0, (T, B))
        if x.dim() < 2:
            raise ValueError(f"PerStep: x has shape {tuple(x.shape)}; expected [T, B, ...]")
        T, B = x.shape[:2]
        if is_static(x):
            return repeat(self.module(self._ordered(step_of(x))), T)
        y = self.module(self._ordered(x.flatten(0, 1)))
        return y.unflatten(0, (T, B))

    def _ordered(self, x: Tensor) -> Tensor:
        first = self.module[0] if isinstance(self.module, nn.Sequential) and len(self.module) else self.module
        fast = x.device.type == "cpu" and x.dtype in _FAST
        if isinstance(first, nn.Conv2d) and x.dim() == 4 and fast:
            if _overruns(first):
                return x.contiguous()
            x = x.contiguous(memory_format=torch.channels_last)
            return x[:, 0, ..., None].permute(0, 3, 1, 2) if x.shape[1] == 1 else x
        return x


def _overruns(layer: nn.Conv2d) -> bool:
    """Whether oneDNN writes past its memory for the weight gradient, given channels side by side."""
    few = layer.in_channels // layer.groups < 16
    return few and max(layer.kernel_size) == 1 and max(layer.stride) > 1


_FAST = (torch.float32, torch.bfloat16, torch.float16) if torch.backends.mkldnn.is_available() else ()
"""Formats in which oneDNN convolves on the CPU."""


def call(model: nn.Module, x: Any, state: ModelState | None = None, *others: Any) -> tuple[Any, ModelState]:
    """Run a model from a given state: two halves of a sequence give what the whole gives.

    Args:
        model: any module; the `Temporal` modules in it take and give state.
        x: the model's input, time first.
        state: what an earlier call returned; None or an empty dict starts from rest.
        others: what the model takes besides x, such as the links of a graph.

    Returns:
        the model's output, and the state `{qualified name#call number: tensors}` after it.

    Raises:
        ValueError: a module that cannot be streamed (named), or a state of another model.
    """
    with calling(model, state or {}) as active:
        y = model(x, *others)
    return y, active.after


class Stream:
    """A model with its state, called chunk by chunk; made by `rb.stream`."""

    def __init__(self, model: nn.Module, state: ModelState | None = None, exact: bool = False) -> None:
        self.model, self.state, self.exact = model, dict(state or {}), exact

    def __call__(self, chunk: Tensor, *others: Any) -> Any:
        """Run the next chunk `[T, B, ...]` and keep the state after it; `others` is what the model takes besides.

        Raises:
            ValueError: a chunk of no steps.
        """
        if not len(chunk):
            raise ValueError(f"stream: the chunk has shape {tuple(chunk.shape)}; expected [T, B, ...] with T >= 1")
        if not self.exact:
            y, self.state = call(self.model, chunk, self.state, *others)
            return y
        outputs = []
        for t in range(chunk.shape[0]):
            y, self.state = call(self.model, chunk[t : t + 1], self.state, *others)
            outputs.append(y)
        return torch.cat(outputs)

    def detach(self) -> None:
        """Cut the graph at the present state: truncated back-propagation through time."""
        self.state = {key: tuple(s.detach() for s in state) for key, state in self.state.items()}

    def to(self, device: torch.device | str) -> "Stream":
        """Move the state to a device, along with `model.to(device)`; returns the stream.

        Its formats follow the input of the next chunk by themselves.
        """
        self.state = {key: tuple(s.to(device) for s in state) for key, state in self.state.items()}
        return self


@contextmanager
def stream(model: nn.Module, state: ModelState | None = None, exact: bool = False) -> Iterator[Stream]:
    """Stream a sequence through a model: `with rb.stream(model) as run: y = run(chunk)`.

    Args:
        model: any module.
        state: where to start; None is rest.
        exact: run every layer one step at a time, so that any chunking gives equal bits. Plain chunking is equal for
            each temporal module, but matrix products of other sizes round differently.
    """
    yield Stream(model, state, exact)


def begin_epoch(model: nn.Module, epoch: int, epochs: int) -> None:
    """Tell every `Temporal` module of the model that an epoch of training begins.

    Those that follow a schedule set it: masked PSNs made with `ramp=True` their mask (`rheobase.neurons.masking`),
    layers with delays the width of their taps (`delay_sigma`). `rheobase.recipes.train` calls it before every epoch.
    What is set lies in buffers: a checkpoint is measured with what it was trained with.

    Args:
        model: any module.
        epoch: from 0.
        epochs: how many there are.

    Raises:
        ValueError: no such epoch.
    """
    for module in model.modules():
        if isinstance(module, Temporal):
            module.begin_epoch(epoch, epochs)


def flatten_state(state: ModelState) -> dict[str, Tensor]:
    """A state as a flat dict of tensors `{qualified name#call number.index}`, as safetensors wants it.

    torch.save takes a state as it is.
    """
    return {f"{key}.{k}": s.detach().contiguous() for key, found in state.items() for k, s in enumerate(found)}


def unflatten_state(flat: Mapping[str, Tensor]) -> ModelState:
    """The state that `flatten_state` made flat, in any order.

    Raises:
        ValueError: a name that is not of a state, or tensors of a module that are missing.
    """
    found: dict[str, dict[int, Tensor]] = {}
    for name, s in flat.items():
        key, _, index = name.rpartition(".")
        if "#" not in key or not index.isdecimal():
            raise ValueError(f"unflatten_state: {name!r} is not a name of `flatten_state`; expected 'layer#0.0'")
        found.setdefault(key, {})[int(index)] = s
    for key, parts in found.items():
        if missing := sorted(set(range(max(parts) + 1)) - parts.keys()):
            raise ValueError(f"unflatten_state: {key!r} lacks {key}.{missing[0]}; load the whole file")
    return {key: tuple(parts[k] for k in range(len(parts))) for key, parts in found.items()}
