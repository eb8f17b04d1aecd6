r"""Layers that read spikes and keep them for backward as bits: one thirty-second of fp32.

The weight gradient of a convolution or linear layer is all that needs its input. A layer with `binary_input=True` packs
the input while it checks that it holds 0 and 1 alone, and in backward unpacks it into the same place in memory; the
products are those of torch's own layers, so gradients are equal bit for bit.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rheobase.nn.time import PerStep
from rheobase.nn.values import Values, emits
from rheobase.scan.bits import dense_stride, pack, unpack

_on = True  # a plain global: torch.compile guards on it


@contextmanager
def packing(on: bool) -> Iterator[None]:
    """Inside, layers with `binary_input=True` keep their input as bits (True, the default) or as it is (False).

    A setting of the process, to compare, and to take second derivatives. Gradients are equal bit for bit.
    """
    global _on
    before, _on = _on, on
    try:
        yield
    finally:
        _on = before


def packing_is_on() -> bool:
    """What `packing` is set to."""
    return _on


class _Convolve(torch.autograd.Function):
    """A convolution that keeps its input as the bits it is given."""

    @staticmethod
    def forward(
        x: Tensor,
        bits: Tensor,  # noqa: ARG004
        weight: Tensor,
        bias: Tensor | None,
        settings: tuple[list[int], list[int], list[int], int],
    ) -> Tensor:
        return _convolution(x, weight, bias, settings)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        x, bits, weight, bias, ctx.settings = inputs
        ctx.like = (x.shape, dense_stride(x), x.dtype)
        ctx.bias_sizes = None if bias is None else [bias.shape[0]]
        ctx.save_for_backward(bits, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        _refuse_second_derivative()
        bits, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.settings
        to_x, _, to_weight, to_bias, _ = ctx.needs_input_grad
        # All of x, also where the weight's gradient is not asked for: nothing may read memory that was never written.
        x = unpack(bits, *ctx.like)
        found = torch.ops.aten.convolution_backward(
            *(grad, x, weight, ctx.bias_sizes, stride, padding, dilation, False, [0] * len(stride), groups),
            [to_x, to_weight, to_bias],
        )
        return found[0], None, found[1], found[2], None


class _Multiply(torch.autograd.Function):
    """A linear layer that keeps its input as the bits it is given."""

    @staticmethod
    def forward(x: Tensor, bits: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ARG004
        return functional.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        x, bits, weight, _ = inputs
        ctx.like = (x.shape, dense_stride(x), x.dtype)
        ctx.save_for_backward(bits, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        _refuse_second_derivative()
        bits, weight = ctx.saved_tensors
        to_x, _, to_weight, to_bias = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])
        x = (rows @ weight).view(ctx.like[0]) if to_x else None
        w = rows.t() @ unpack(bits, *ctx.like).reshape(-1, weight.shape[1]) if to_weight else None
        return x, None, w, rows.sum(0) if to_bias else None


def _convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, settings: tuple[list[int], list[int], list[int], int]
) -> Tensor:
    stride, padding, dilation, groups = settings
    y: Tensor = torch.ops.aten.convolution(x, weight, bias, stride, padding, dilation, False, [0] * len(stride), groups)
    return y


def _refuse_second_derivative() -> None:
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError(
            "the second derivative of a layer with binary_input=True needs its input, which is kept as bits; "
            "run forward and backward inside rb.packing(False)"
        )


def _in_autocast(x: Tensor, *others: Tensor | None) -> list[Tensor | None]:
    """The tensors as torch's own layers would see them: in autocast's format where it is on."""
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):
        return [x, *others]
    dtype = torch.get_autocast_dtype(kind)
    return [t if t is None or t.dtype == torch.float64 else t.to(dtype) for t in (x, *others)]


class _ReadsSpikes(nn.Module):
    """What the layers share: the declaration, and when it makes them keep bits."""

    def __init__(self, *arguments: Any, binary_input: bool = False, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.binary_input = binary_input

    def _keeps_bits(self, weight: Tensor) -> bool:
        return (
            self.binary_input
            and _on
            and self.training
            and torch.is_grad_enabled()
            and weight.requires_grad
            and not torch.compiler.is_exporting()  # an exported program is plain torch
        )

    def extra_repr(self) -> str:
        """The layer's settings."""
        return f"{super().extra_repr()}, binary_input={self.binary_input}"


class _Convolution(_ReadsSpikes):
    """The forward pass of the three convolutions, which are torch's besides."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self._keeps_bits(weight):
            return cast(Tensor, cast(Any, super())._conv_forward(input, weight, bias))
        layer = cast(nn.Conv2d, self)
        x = input if input.dim() == weight.dim() else input.unsqueeze(0)
        around = list(layer._reversed_padding_repeated_twice)  # low and high of each axis, the last axis first
        low, high = around[0::2], around[1::2]
        if layer.padding_mode != "zeros":
            x, low = functional.pad(x, around, mode=layer.padding_mode), [0] * len(low)
        elif low != high:  # padding="same" and an even kernel: one more zero at the end
            x = functional.pad(x, [p for a, b in zip(low, high, strict=True) for p in (0, b - a)])
        bits = pack(x.detach())
        x, weight, bias = cast(Any, _in_autocast(x, weight, bias))
        settings = (list(layer.stride), low[::-1], list(layer.dilation), layer.groups)
        y = cast(Tensor, _Convolve.apply(x, bits, weight, bias, settings))
        return y if input.dim() == weight.dim() else y.squeeze(0)


class Conv1d(_Convolution, nn.Conv1d):
    """`nn.Conv1d` that may read spikes; see `Conv2d`."""


class Conv2d(_Convolution, nn.Conv2d):
    """`nn.Conv2d` that may read spikes: same arguments, parameters and state_dict, and `binary_input`.

    Args:
        arguments, options: those of nn.Conv2d.
        binary_input: declares that the input holds 0 and 1 alone. In training, where the weight learns, the input is
            then checked and kept for backward as bits; gradients are those of nn.Conv2d bit for bit. Exception: a layer
            that is called several times in one autocast region adds its weight's gradients in fp32, torch in bf16.

    Raises:
        ValueError: in training, the input holds another value.
        RuntimeError: a second derivative is asked for; `rb.packing(False)` gives it.
    """


class Conv3d(_Convolution, nn.Conv3d):
    """`nn.Conv3d` that may read spikes; see `Conv2d`."""


class Linear(_ReadsSpikes, nn.Linear):
    """`nn.Linear` that may read spikes; see `Conv2d`."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer to `[..., in_features]`."""
        if not self._keeps_bits(self.weight):
            return super().forward(input)
        bits = pack(input.detach())
        x, weight, bias = _in_autocast(input, self.weight, self.bias)
        return cast(Tensor, _Multiply.apply(x, bits, weight, bias))


class Dense(PerStep):
    """A linear layer at every step that declares what it reads.

    Args:
        c_in: values that it reads.
        c_out: values that it puts out.
        reads: what the input holds. In training a "binary" one is checked, and kept for backward as bits.
        bias: whether it has one.
    """

    def __init__(self, c_in: int, c_out: int, reads: Values, bias: bool = False) -> None:
        super().__init__(Linear(c_in, c_out, bias, binary_input=reads == "binary"))
        self.reads: Values = reads

    def extra_repr(self) -> str:
        """What it reads."""
        return f"reads={self.reads!r}"


_READERS: dict[type[nn.Module], type[_ReadsSpikes]] = {
    nn.Conv1d: Conv1d,
    nn.Conv2d: Conv2d,
    nn.Conv3d: Conv3d,
    nn.Linear: Linear,
}


def pair(sequence: nn.Sequential, reads: Values = "real") -> None:
    """Let every plain convolution and linear layer that is fed with spikes keep them as bits; in place.

    A layer counts as fed with spikes if what lies before it in the nn.Sequential (in `PerStep` and nested nn.Sequential
    too) declares to emit them: see `emits`. Its successor has the same parameters, hooks and names.

    Args:
        sequence: is changed; subclasses of torch's layers in it are left as they are.
        reads: what the sequence itself is fed with.
    """
    for name, layer in list(sequence.named_children()):
        sequence.register_module(name, _paired(layer, reads))
        reads = emits(layer, reads)


def _paired(layer: nn.Module, reads: Values) -> nn.Module:
    if isinstance(layer, PerStep):
        layer.module = _paired(layer.module, reads)
    elif isinstance(layer, nn.Sequential):
        pair(layer, reads)
    elif reads == "binary" and type(layer) in _READERS:
        kind = _READERS[type(layer)]
        reader = kind.__new__(kind)
        reader.__dict__.update(layer.__dict__)
        reader.binary_input = True
        return reader
    return layer
