r"""Layers that read spikes and keep them for backward as bits: one thirty-second of fp32.

The weight gradient of a convolution or linear layer is all that needs its input. A layer with `binary_input=True` packs
the input while it checks that it holds 0 and 1 alone, or is handed bits by the neuron before it (`rheobase.nn.fuse`).
Products are computed from the bits where that pays (`rheobase.nn.products`); else they are those of torch's own layers
on the input unpacked into the same place in memory, and gradients are equal bit for bit.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional

from rheobase.nn.products import Csr, How, Kept, Kind, Product, Settings, find, find_loops
from rheobase.nn.time import PerStep
from rheobase.nn.values import Values, emits
from rheobase.scan.bits import dense_stride, pack, try_pack, unpack
from rheobase.scan.spikes import Spikes, ones

Model = TypeVar("Model", bound=nn.Module)
Operands = tuple[Sequence[int], Sequence[int], torch.dtype, Tensor, Settings]
"""Size, stride and format of an input, weights, settings: arguments of `find`."""

_kept: WeakKeyDictionary[nn.Module, Kept] = WeakKeyDictionary()

_on = True  # a plain global: torch.compile guards on it


@contextmanager
def packing(on: bool) -> Iterator[None]:
    """Inside, layers with `binary_input=True` keep their input as bits (True, the default) or as it is (False).

    A setting of the process, to compare, and to take second derivatives. Gradients are equal bit for bit, or up to
    rounding where products are computed from bits.
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


@dataclass(frozen=True)
class _Reading:
    """How a layer reads its spikes.

    Attributes:
        like: size, stride and format of the spikes as numbers.
        hollow: they are there as bits alone; see `rheobase.scan.spikes.Spikes`.
        product: by which they may be read as bits, if there is one.
        density: of the spikes, where there is a product.
        needed: the share of spikes whose gradient is needed.
        csr: the weights so, where they may be read so: forward, without gradients.
        kept: where to keep the weights in the kernels' order, without gradients.
    """

    like: tuple[torch.Size, tuple[int, ...], torch.dtype]
    hollow: bool = False
    product: Product | None = None
    density: float = 0.0
    needed: float = 1.0
    csr: Csr | None = None
    kept: Kept | None = None

    def dense(self, x: Tensor, bits: Tensor) -> Tensor:
        """The spikes as numbers."""
        return unpack(bits, *self.like) if self.hollow else x

    def chosen(self, kind: Kind) -> How:
        """How to carry out a product."""
        density = self.needed if kind == "input_gradient" else self.density
        return "dense" if self.product is None else self.product.choose(kind, density, self.csr)

    def forward(self, how: How, bits: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The product from bits."""
        assert self.product is not None
        if how == "csr":
            assert self.csr is not None
            return self.product.sparse(self.csr, bias, bits=bits)
        return self.product.forward(how, bits, weight, bias, self.kept if weight.dtype == torch.float32 else None)


class _Convolve(torch.autograd.Function):
    """A convolution that keeps its input as the bits it is given."""

    @staticmethod
    def forward(
        x: Tensor,
        bits: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        needed: Tensor | None,  # noqa: ARG004
        settings: Settings,
        reading: _Reading,
    ) -> Tensor:
        how = reading.chosen("forward")
        if reading.product is None or how == "dense":
            return _convolution(reading.dense(x, bits), weight, bias, settings)
        return reading.forward(how, bits, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        _, bits, weight, bias, needed, ctx.settings, ctx.reading = inputs
        ctx.bias_sizes = None if bias is None else [bias.shape[0]]
        ctx.save_for_backward(bits, weight, needed)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        _refuse_second_derivative()
        bits, weight, needed = ctx.saved_tensors
        s, reading, product = ctx.settings, ctx.reading, ctx.reading.product
        to_x, _, to_weight, to_bias = ctx.needs_input_grad[:4]
        x = w = None
        if to_x and needed is not None and reading.chosen("input_gradient") != "dense":
            x, to_x = product.input_gradient(needed, grad, weight), False
        if to_weight and (how := reading.chosen("weight_gradient")) != "dense":
            w, to_weight = product.weight_gradient(how, bits, grad, weight), False
        if not (to_x or to_weight or to_bias):
            return x, None, w, *(None,) * 4
        # Only the weight's gradient reads spikes; without it their shape is enough.
        spikes = unpack(bits, *reading.like) if to_weight else _unwritten(*reading.like)
        found = _convolution_backward(grad, spikes, weight, ctx.bias_sizes, s, [to_x, to_weight, to_bias])
        return found[0] if x is None else x, None, found[1] if w is None else w, found[2], None, None, None


class _Multiply(torch.autograd.Function):
    """A linear layer that keeps its input as the bits it is given."""

    @staticmethod
    def forward(
        x: Tensor,
        bits: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        needed: Tensor | None,  # noqa: ARG004
        reading: _Reading,
    ) -> Tensor:
        how = reading.chosen("forward")
        if reading.product is None or how == "dense":
            return functional.linear(reading.dense(x, bits), weight, bias)
        return reading.forward(how, bits, _of_pixel(weight), bias).view(*reading.like[0][:-1], -1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        _, bits, weight, _, needed, ctx.reading = inputs
        ctx.save_for_backward(bits, weight, needed)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        _refuse_second_derivative()
        bits, weight, needed = ctx.saved_tensors
        reading, product = ctx.reading, ctx.reading.product
        to_x, _, to_weight, to_bias = ctx.needs_input_grad[:4]
        rows = grad.reshape(-1, grad.shape[-1])
        x = w = None
        if to_x and needed is not None and reading.chosen("input_gradient") != "dense":
            x = product.input_gradient(needed, _of_pixel(rows), _of_pixel(weight)).view(reading.like[0])
        elif to_x:
            x = (rows @ weight).view(reading.like[0])
        if to_weight and (how := reading.chosen("weight_gradient")) != "dense":
            w = product.weight_gradient(how, bits, _of_pixel(rows), _of_pixel(weight))[..., 0, 0]
        elif to_weight:
            w = rows.t() @ unpack(bits, *reading.like).reshape(-1, weight.shape[1])
        return x, None, w, rows.sum(0) if to_bias else None, None, None


def _unwritten(size: torch.Size, stride: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty_strided(size, stride, dtype=dtype)


def _of_pixel(t: Tensor) -> Tensor:
    """Weights or rows of a linear layer as those of a convolution of one pixel."""
    return t[..., None, None]


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, s: Settings) -> Tensor:
    none = [0] * len(s.stride)
    y: Tensor = torch.ops.aten.convolution(
        *(x, weight, bias, s.stride, s.padding, s.dilation, False, none, s.groups),
    )
    return y


def _convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias_sizes: list[int] | None, s: Settings, wanted: list[bool]
) -> tuple[Tensor | None, ...]:
    none = [0] * len(s.stride)
    found: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
        *(grad, x, weight, bias_sizes, s.stride, s.padding, s.dilation, False, none, s.groups), wanted
    )
    return found


def _refuse_second_derivative() -> None:
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError(
            "the second derivative of a layer with binary_input=True needs its input, which is kept as bits; "
            "run forward and backward inside rb.packing(False)"
        )


def _cast(device: torch.device, *tensors: Tensor | None) -> Any:
    """The tensors as torch's own layers would see them: in autocast's format where it is on."""
    if not _autocasts(device):
        return tensors
    dtype = torch.get_autocast_dtype(device.type)
    return [t if t is None or t.dtype == torch.float64 else t.to(dtype) for t in tensors]


def _format(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The format in which torch's own layers multiply values of a format."""
    cast = dtype != torch.float64 and _autocasts(device)
    return torch.get_autocast_dtype(device.type) if cast else dtype


def _autocasts(device: torch.device) -> bool:
    return device.type != "meta" and torch.is_autocast_enabled(device.type)


class ReadsSpikes(nn.Module):
    """What the layers share: the declaration, and when it makes them keep bits."""

    weight: Tensor
    csr: Csr | None = None

    def __init__(self, *arguments: Any, binary_input: bool = False, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.binary_input = binary_input

    def _keeps_bits(self) -> bool:
        return (
            self.binary_input
            and _on
            and self.training
            and torch.is_grad_enabled()
            and self.weight.requires_grad
            and not torch.compiler.is_exporting()  # an exported program is plain torch
        )

    def _may_read_bits(self) -> bool:
        """Whether nothing is lost if the input is read as bits though nobody asked to keep it so.

        With gradients that is where the layer does not learn: then backward needs the weights alone.
        """
        if not (self.binary_input and _on):
            return False
        learns = torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters(recurse=False))
        return not learns and not torch.compiler.is_exporting()

    def product(self, size: Sequence[int], stride: Sequence[int], dtype: torch.dtype) -> Product | None:
        """The product by which spikes of this size, stride and format may be read as bits."""
        operands = self._operands(size, stride, dtype)
        return None if operands is None else find(*operands)

    def _operands(self, size: Sequence[int], stride: Sequence[int], dtype: torch.dtype) -> Operands | None:
        """The layer's product of an input of this size, stride and format, as `find` is asked for it."""
        raise NotImplementedError

    def takes_bits(self, size: Sequence[int], stride: Sequence[int], dtype: torch.dtype) -> bool:
        """Whether spikes of this size, stride and format may come as `Spikes`, as bits alone."""
        return self.binary_input and _on and self.product(size, stride, dtype) is not None

    def _read(self, x: Tensor | Spikes) -> tuple[Tensor, Tensor, Tensor | None, _Reading] | None:
        """The spikes (or their carrier), their bits, where their gradient is needed, how to read them.

        None: read them as torch does.
        """
        if isinstance(x, Spikes):
            product = self.product(x.shape, x.stride, x.dtype)
            like = (x.shape, x.stride, _format(x.dtype, self.weight.device))
            needed = 1.0 if x.needed is None else ones(x.needed) / max(1, x.carrier.numel())
            return x.carrier, x.bits, x.needed, _Reading(like, True, product, x.density, needed, *self._ready())
        keeps = self._keeps_bits()
        product = self.product(x.shape, x.stride(), x.dtype) if (keeps or self._may_read_bits()) else None
        if not keeps and product is None:
            return None
        bits = pack(x.detach()) if keeps else try_pack(x)
        if bits is None:
            return None
        density = ones(bits) / x.numel() if product else 0.0
        like = (x.shape, dense_stride(x), _format(x.dtype, x.device))
        return x, bits, None, _Reading(like, False, product, density, 1.0, *self._ready())

    def _ready(self) -> tuple[Csr | None, Kept | None]:
        """Forms of the weights that serve for many calls, without gradients; what was kept is let go with them."""
        if torch.is_grad_enabled():
            _kept.pop(self, None)
            return None, None
        return self._sparse(), _kept.setdefault(self, Kept())

    def _sparse(self) -> Csr | None:
        """The weights in CSR, where these serve."""
        there = self.csr is not None and not torch.is_grad_enabled() and self.csr.is_of(self.weight)
        return self.csr if there else None

    def _by_sparse(self, x: Tensor, bias: Tensor | None) -> Tensor | None:
        """The output for x that is no spikes by weights in CSR; None: multiply as torch does."""
        csr = self._sparse()
        operands = None if csr is None else self._operands(x.shape, x.stride(), x.dtype)
        if csr is None or operands is None or x.dtype != torch.float32:
            return None
        product = find(*operands) or find_loops(*operands)
        return product.sparse(csr, bias, x=x) if product is not None and product.is_sparse_faster(csr) else None

    def extra_repr(self) -> str:
        """The layer's settings."""
        return f"{super().extra_repr()}, binary_input={self.binary_input}"


class _Convolution(ReadsSpikes):
    """The forward pass of the three convolutions, which are torch's besides."""

    def _padding(self) -> tuple[list[int], list[int]]:
        """Zeros before and after each axis."""
        around = list(cast(nn.Conv2d, self)._reversed_padding_repeated_twice)  # of each axis, the last axis first
        return around[0::2][::-1], around[1::2][::-1]

    def _settings(self, padding: Sequence[int]) -> Settings:
        layer = cast(nn.Conv2d, self)
        return Settings(tuple(layer.stride), tuple(padding), tuple(layer.dilation), layer.groups)

    def _operands(self, size: Sequence[int], stride: Sequence[int], dtype: torch.dtype) -> Operands | None:
        """See `ReadsSpikes`; of an input that is padded already, where the padding is not one of equal zeros."""
        low, high = self._padding()
        plain = cast(nn.Conv2d, self).padding_mode == "zeros" and low == high
        settings = self._settings(low if plain else [0] * len(low))
        return size, stride, _format(dtype, self.weight.device), self.weight, settings

    def takes_bits(self, size: Sequence[int], stride: Sequence[int], dtype: torch.dtype) -> bool:
        """See `ReadsSpikes`."""
        low, high = self._padding()
        plain = cast(nn.Conv2d, self).padding_mode == "zeros" and low == high
        return plain and super().takes_bits(size, stride, dtype)

    def _conv_forward(self, input: Tensor | Spikes, weight: Tensor, bias: Tensor | None) -> Tensor:
        x, padding = input, self._padding()[0]
        single = isinstance(x, Tensor) and x.dim() < weight.dim()
        if isinstance(x, Tensor) and (self._keeps_bits() or self._may_read_bits()):
            x = x.unsqueeze(0) if single else x
            x, padding = self._padded(x)
        read = self._read(x)
        if read is None:
            assert isinstance(input, Tensor)
            plain = self._padding()[0] == self._padding()[1] and cast(nn.Conv2d, self).padding_mode == "zeros"
            y = self._by_sparse(input, bias) if plain else None
            return cast(Tensor, cast(Any, super())._conv_forward(input, weight, bias)) if y is None else y
        x, bits, needed, reading = read
        if reading.kept is None or reading.chosen("forward") == "dense":  # what is kept is fp32
            weight = _cast(weight.device, weight)[0]
        x, bias = _cast(self.weight.device, x, bias)
        y = cast(Tensor, _Convolve.apply(x, bits, weight, bias, needed, self._settings(padding), reading))
        return y.squeeze(0) if single else y

    def _padded(self, x: Tensor) -> tuple[Tensor, list[int]]:
        """x with all padding that torch's convolutions cannot add themselves, and what is left to them."""
        layer = cast(nn.Conv2d, self)
        low, high = self._padding()
        if layer.padding_mode != "zeros":
            around = list(layer._reversed_padding_repeated_twice)
            return functional.pad(x, around, mode=layer.padding_mode), [0] * len(low)
        if low != high:  # padding="same" and an even kernel: one more zero at the end
            more = zip(low[::-1], high[::-1], strict=True)
            return functional.pad(x, [p for a, b in more for p in (0, b - a)]), low
        return x, low


class Conv1d(_Convolution, nn.Conv1d):
    """`nn.Conv1d` that may read spikes; see `Conv2d`. On the CPU its product is dense."""


class Conv2d(_Convolution, nn.Conv2d):
    """`nn.Conv2d` that may read spikes: same arguments, parameters and state_dict, and `binary_input`.

    Args:
        arguments, options: those of nn.Conv2d.
        binary_input: declares that the input holds 0 and 1 alone. In training, where the weight learns, the input is
            then checked and kept for backward as bits. On the CPU, for maps whose channels lie side by side (as
            `PerStep` gives them), the product and the gradient of the weight are computed from the bits where that is
            faster at the density of the spikes (see `rheobase.nn.products`), and then equal those of nn.Conv2d up to
            rounding (in inference under autocast, without the rounding of the weights); elsewhere bit for bit.
            Exception: a layer that is called several times in one autocast region adds its weight's gradients in fp32,
            torch in bf16.

    Raises:
        ValueError: in training, the input holds another value.
        RuntimeError: a second derivative is asked for; `rb.packing(False)` gives it.
    """


class Conv3d(_Convolution, nn.Conv3d):
    """`nn.Conv3d` that may read spikes; see `Conv2d`. On the CPU its product is dense."""


class Linear(ReadsSpikes, nn.Linear):
    """`nn.Linear` that may read spikes; see `Conv2d`."""

    def _operands(self, size: Sequence[int], stride: Sequence[int], dtype: torch.dtype) -> Operands | None:
        """See `ReadsSpikes`."""
        features = size[-1]
        if not size or features != self.in_features or not _is_contiguous(size, stride):
            return None
        rows = math.prod(size[:-1])
        format = _format(dtype, self.weight.device)
        return (rows, features, 1, 1), (features, 1, 1, 1), format, _of_pixel(self.weight), Settings()

    def forward(self, input: Tensor | Spikes) -> Tensor:
        """Apply the layer to `[..., in_features]`."""
        rows = input
        if isinstance(input, Tensor) and input.dim() != 2 and self.takes_bits(input.shape, input.stride(), input.dtype):
            rows = input.flatten(0, -2)  # bits of several rows may share a word
        read = self._read(rows)
        if read is None:
            assert isinstance(input, Tensor)
            y = self._by_sparse(input, self.bias)
            return super().forward(input) if y is None else y.view(*input.shape[:-1], -1)
        x, bits, needed, reading = read
        x, weight, bias = _cast(self.weight.device, x, self.weight, self.bias)
        y = cast(Tensor, _Multiply.apply(x, bits, weight, bias, needed, reading))
        return y.view(*input.shape[:-1], -1)


def _is_contiguous(size: Sequence[int], stride: Sequence[int]) -> bool:
    step = 1
    for n, s in zip(reversed(size), reversed(stride), strict=True):
        if n != 1 and s != step:
            return False
        step *= n
    return True


_READERS: dict[type[nn.Module], type[ReadsSpikes]] = {
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
        return _as_reader(layer, True)
    return layer


def _as_reader(layer: nn.Module, binary_input: bool) -> ReadsSpikes:
    """A plain layer of torch's as one of ours, with the same parameters, hooks and names."""
    kind = _READERS[type(layer)]
    reader = kind.__new__(kind)
    reader.__dict__.update(layer.__dict__)
    reader.binary_input = binary_input
    return reader


def sparsify(model: Model, least: float = 0.5) -> Model:
    """A copy of a pruned model, in eval mode, whose convolutions and linear layers may pass over zero weights.

    Layers of which at least so many weights are zero keep the others in CSR beside them (12 bytes each). In inference
    on the CPU, in fp32 (and, where they read spikes, bf16), they are used where that should be the fastest: see
    `rheobase.nn.products`; without packages/kernels-cpu in fp32 alone, by loops of numba. Names and state_dict are the
    same. A weight that is changed afterwards is multiplied as it is; call again then. Changes through `.data` are not
    noticed.

    Args:
        model: is not changed.
        least: share of zeros, from 0 to 1.

    Raises:
        ValueError: there is no such share.
    """
    if not 0 <= least <= 1:
        raise ValueError(f"sparsify: least is {least}; expected a share of the weights, from 0 to 1")
    found = copy.deepcopy(model).eval()
    for parent in list(found.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) in (nn.Conv2d, nn.Linear):
                setattr(parent, name, _as_reader(layer, False))
    for layer in found.modules():
        if isinstance(layer, Conv2d | Linear):
            weight = layer.weight if layer.weight.dim() == 4 else _of_pixel(layer.weight)
            if float((weight == 0).float().mean()) >= least:
                layer.csr = Csr.of(weight)
    return found
