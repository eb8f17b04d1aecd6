"""Seeing every matrix product of a running model, whatever module or function computes it.

Operators are watched below autograd (convolution, mm, bmm, attention, ...), so nothing depends on the names or types of
modules. Whether an operand is a weight is followed through the operators: what is computed from parameters, buffers and
constants alone is one, all else is an activation.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from rheobase.lab.cost.report import Kind, NeuronLayer, Operand, Product, Report
from rheobase.nn.time import PerStep, is_static
from rheobase.nn.values import Values, concatenated
from rheobase.scan import Temporal
from rheobase.scan.engine import engine
from rheobase.scan.temporal import active

aten = torch.ops.aten

_HIDDEN = (
    *("attention", "rnn", "lstm", "gru", "linear", "conv", "_mm", "matmul", "transformer", "_trilinear"),
    *("addmm", "addmv", "addbmm", "baddbmm"),
)
"""Parts of names of operators that multiply matrices out of sight, where no case below knows them."""


_Source = Literal["weight", "constant", "input"]
"""Where a tensor comes from: parameters and buffers (and constants), nothing given (zeros, a mask), or the input."""


def _combined(sources: Iterable[_Source]) -> _Source:
    """What is computed from such tensors; from none: memory that somebody will write."""
    found = set(sources)
    if not found or "input" in found:
        return "input"
    return "weight" if "weight" in found else "constant"


def values_of(x: Tensor) -> Values:
    """What a tensor holds: {0, 1}, whole numbers, or anything."""
    if torch.equal(x, x.bool().to(x.dtype)):
        return "binary"
    return "graded" if torch.equal(x, x.round()) else "real"


@dataclass
class _Side:
    """Running sums of one operand."""

    shape: tuple[int, ...]
    weight: bool
    holds: Values | None = None
    nonzero: int = 0
    count: int = 0

    def see(self, x: Tensor) -> None:
        self.count += x.numel()
        if self.weight or x.is_meta:
            return
        if self.holds != "real":
            self.holds = values_of(x) if self.holds is None else concatenated(self.holds, values_of(x))
        self.nonzero += int(x.count_nonzero())

    def operand(self) -> Operand:
        if self.weight or self.holds is None:
            return Operand(self.shape, self.weight)
        return Operand(self.shape, False, self.holds, self.nonzero / self.count)


@dataclass
class _Row:
    """Running sums of one product."""

    name: str
    kind: Kind
    sides: tuple[_Side, _Side]
    declared: Values | None
    stem: bool
    macs: int = 0
    bias_adds: int = 0
    pairs: int = 0
    executed: int = 0
    steps: int = 0

    def product(self, T: int, samples: int, readout: bool) -> Product:
        left, right = self.sides
        known = not any(side.holds is None for side in self.sides if not side.weight)
        return Product(
            self.name,
            self.kind,
            (left.operand(), right.operand()),
            self.macs // self.executed,
            self.bias_adds // self.executed,
            self.pairs / self.executed if known else None,
            self.executed // samples,
            self.steps // samples,
            max(1, self.steps // samples // T),
            self.declared,
            self.stem,
            readout,
        )


@dataclass
class _Layer:
    """Running sums of one layer of neurons."""

    emits: Values
    spikes: float = 0.0
    nonzero: int = 0
    count: int = 0
    known: bool = True


@dataclass
class _Frame:
    """One module that is running: how often its products run for a sample, and whether on one image for all steps."""

    name: str
    module: nn.Module
    runs: int
    static: bool
    matmuls: int = 0


@dataclass
class Tracer:
    """What `tracing` yields: adds up all that the model computes; `report` says it.

    Sums alone are kept, so that memory does not grow with the batches.
    """

    model: nn.Module
    T: int = 0
    samples: int = 0
    _B: int = 0
    _rows: dict[Any, _Row] = field(default_factory=dict)
    _layers: dict[str, _Layer] = field(default_factory=dict)
    _frames: list[_Frame] = field(default_factory=list)
    _top: str | None = None
    _last_is_readout: bool = False
    _began: bool = False
    _watching: ExitStack = field(default_factory=ExitStack)
    _sources: WeakTensorKeyDictionary = field(default_factory=WeakTensorKeyDictionary)

    def __post_init__(self) -> None:
        self._owners: dict[int, tuple[str, nn.Module]] = {}
        for name, module in self.model.named_modules():
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                self._owners.setdefault(tensor.untyped_storage()._cdata, (name, module))

    def report(self) -> Report:
        """The sums so far.

        Raises:
            ValueError: the model has not run inside.
        """
        if not self.samples:
            raise ValueError("tracing: the model has not run yet; call it inside `with tracing(model)`")
        rows = list(self._rows.values())
        products = [row.product(self.T, self.samples, False) for row in rows[:-1]]
        if rows:
            readout = self._last_is_readout and rows[-1].kind != "matmul" and not rows[-1].stem
            products.append(rows[-1].product(self.T, self.samples, readout))
        layers = (
            NeuronLayer(
                name,
                layer.count // self.samples // self.T,
                layer.spikes / self.samples if layer.known else None,
                layer.nonzero / layer.count if layer.known else None,
                layer.emits,
                layer.count // self.samples,
            )
            for name, layer in self._layers.items()
        )
        return Report(tuple(products), tuple(layers), self.T, self.samples)

    def owner(self, t: Tensor) -> tuple[str, nn.Module] | None:
        """The module that a parameter, or a view of it, belongs to."""
        return self._owners.get(t.untyped_storage()._cdata) if t.layout is torch.strided else None

    def enter(self, name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """A module begins; one that runs outside of the model, as when backward runs it again, does not count."""
        if not self._frames and module is not self.model:
            return
        x = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
        static = isinstance(module, PerStep) and x is not None and x.dim() > 0 and is_static(x)
        if isinstance(module, Temporal) and hasattr(module, "emits"):
            self._began = True
        if self._frames:
            above = self._frames[-1]
            runs = above.runs if x is None else self._runs(x, above.runs)
            self._frames.append(_Frame(name, module, runs, static or above.static))
            return
        if active() is not None:
            raise ValueError("tracing: the model runs in a stream, whose chunks are no samples; trace whole sequences")
        self._frames.append(_Frame(name, module, self.T, static))
        if x is None or x.dim() < 2 or 0 in x.shape[:2]:
            got = "missing" if not inputs else type(inputs[0]).__name__ if x is None else f"of shape {tuple(x.shape)}"
            raise ValueError(f"tracing: the model's first input is {got}; expected a tensor [T, B, ...]")
        if self.samples and x.shape[0] != self.T:
            raise ValueError(f"tracing: a batch has {x.shape[0]} steps, one before had {self.T}; trace them apart")
        self.T, self._B = x.shape[:2]
        self._frames[0].runs = self.T
        self.samples += self._B
        self._watching.enter_context(_written_out())
        self._watching.enter_context(_Watch(self))

    def leave(self, name: str, module: nn.Module, inputs: tuple[Any, ...], y: Any) -> None:
        """A module ends, with the output y; None if it raised."""
        if not self._frames:
            return
        self._frames.pop()
        if not self._frames:
            self._watching.close()
        if isinstance(module, Temporal) and hasattr(module, "emits") and isinstance(y, Tensor):
            if taps := getattr(module, "taps", 0):
                self._weighed(name, inputs[0].detach(), taps)
            self._fired(name, module, y.detach())

    def _runs(self, x: Tensor, above: int) -> int:
        """How often a module with input x runs for a sample: at every step, or once."""
        if (x.dim() and x.shape[0] == self.T * self._B) or x.shape[:2] == (self.T, self._B):
            return self.T
        return 1 if x.dim() and x.shape[0] == self._B else above

    def _fired(self, name: str, module: nn.Module, y: Tensor) -> None:
        layer = self._layers.setdefault(name, _Layer(module.emits))  # type: ignore[arg-type]
        layer.count += y.numel()
        self._last_is_readout = False
        if y.is_meta:
            layer.known = False
            return
        layer.spikes += float(y.sum(dtype=torch.float64))
        layer.nonzero += int(y.count_nonzero())

    def _weighed(self, name: str, x: Tensor, taps: int) -> None:
        """A neuron weighed the last `taps` inputs of x `[T, B, ...]` within its step, where no operator shows it."""
        row = self._rows.setdefault(
            (name, "taps"),
            _Row(name, "linear", (_Side(tuple(x.shape[2:]), False), _Side((taps,), True)), None, False),
        )
        row.macs += taps * x.numel()
        row.executed += x.shape[0] * x.shape[1]
        row.steps += x.shape[0] * x.shape[1]
        for side, t in zip(row.sides, (x, x.new_empty(taps)), strict=True):
            side.see(t)
        if not x.is_meta:
            seen = torch.arange(len(x), 0, -1, device=x.device).clamp(max=taps)  # steps that an input takes part in
            row.pairs += int((x.flatten(1).count_nonzero(1) * seen).sum())

    def multiplied(
        self,
        operands: tuple[Tensor, Tensor],
        weights: tuple[bool, bool],
        macs: int,
        pairs: Callable[[], int],
        bias_adds: int,
        convolution: bool,
    ) -> None:
        """A product was computed of two operands, of which one at least is an activation."""
        frame, (left, right) = self._frames[-1], operands
        name, module = frame.name, frame.module
        kind: Kind = "matmul" if not any(weights) else "convolution" if convolution else "linear"
        times = frame.runs * self._B
        key: Any = (frame.matmuls, left.shape[-2:], right.shape[-2:])
        if kind == "matmul":
            frame.matmuls += 1
        else:
            weight, x = (left, right) if weights[0] else (right, left)
            owner = self.owner(weight)
            if owner is not None and owner[1] is not module:
                name, module = owner
            rows = x.shape[0] if convolution else x.numel() // weight.shape[-2 if weights[1] else -1]
            if rows % (self.T * self._B) and not isinstance(module, Temporal):  # of a loop over time, or over samples
                times = rows if rows % self._B else self._B
            if bias_adds == 0 and isinstance(module, nn.Linear) and module.bias is not None:
                bias_adds = macs // module.in_features  # torch adds the bias to some inputs apart
            key = (kind, tuple(weight.shape), weight.storage_offset())
        row = self._rows.get((name, key))
        if row is None:
            if self._top is None:
                self._top = name.partition(".")[0]
            shapes = [_shape(t, w, convolution) for t, w in zip(operands, weights, strict=True)]
            if isinstance(module, Temporal) and weights[0]:  # W X with neurons of all samples side by side in X
                shapes = [s if w else (*s[:-1], s[-1] // self._B) for s, w in zip(shapes, weights, strict=True)]
            row = self._rows[name, key] = _Row(
                name,
                kind,
                (_Side(shapes[0], weights[0]), _Side(shapes[1], weights[1])),
                self._declared(name, module),
                kind != "matmul" and not self._began and name.partition(".")[0] == self._top,
            )
        row.macs += macs
        row.bias_adds += bias_adds
        row.executed += times
        row.steps += (self.T if frame.static else 1) * times
        for side, t in zip(row.sides, operands, strict=True):
            side.see(t)
        if not left.is_meta:
            row.pairs += pairs()
        self._last_is_readout = True

    def _declared(self, name: str, module: nn.Module) -> Values | None:
        if getattr(module, "binary_input", False):
            return "binary"
        parent = self.model.get_submodule(name.rpartition(".")[0]) if name else None
        reader = parent if isinstance(parent, PerStep) else module
        found: Values | None = getattr(reader, "reads", None)
        return found


def _written_out() -> AbstractContextManager[None]:
    """Inside, torch's attention is two products and a softmax."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.MATH)


def _shape(t: Tensor, weight: bool, convolution: bool) -> tuple[int, ...]:
    """The shape of an operand without time and batch."""
    if weight:
        return tuple(t.shape)
    if convolution:
        return tuple(t.shape[1:])
    return tuple(t.shape[-2:]) if t.dim() > 2 else tuple(t.shape[-1:])


class _Watch(TorchDispatchMode):
    """Sees every operator while the model runs."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self.tracer = tracer
        self.sources = tracer._sources  # kept between calls: autocast keeps its copies of weights

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled() and func.namespace == "aten":  # composites arrive whole there
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        out = func(*args, **kwargs)
        see = _PRODUCTS.get(getattr(aten, func._opname.removesuffix("_"), None)) if func.namespace == "aten" else None
        if see is not None:
            see(self, out, *args)
        elif func.namespace == "aten" and any(part in func._opname for part in _HIDDEN):
            raise ValueError(
                f"tracing: {self.tracer._frames[-1].name or 'the model'} calls {func}, whose matrix products cannot be "
                f"seen; write it with torch.nn.functional.linear, matmul or convolutions"
            )
        sources = {self.source(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        source = _combined(sources) if sources or func._opname.startswith("empty") else "constant"
        for t in tree_leaves(out):
            if isinstance(t, Tensor):
                self.sources[t] = source
        return out

    def source(self, t: Tensor) -> _Source:
        """Where a tensor comes from."""
        return "weight" if self.tracer.owner(t) is not None else self.sources.get(t, "input")

    def weights(self, left: Tensor, right: Tensor) -> tuple[bool, bool] | None:
        """Which operands are weights; None if both are, or nothing depends on the input.

        A constant is a weight to an activation, and an activation to a weight: the zeros that a loop begins with.
        """
        pair = self.source(left), self.source(right)
        if "input" not in pair and set(pair) != {"weight", "constant"}:
            return None
        if "input" in pair:
            return pair[0] != "input", pair[1] != "input"
        return pair[0] == "weight", pair[1] == "weight"

    def product(self, out: Tensor, left: Tensor, right: Tensor, bias: Tensor | None = None) -> None:
        """`left [..., m, k]` times `right [..., k, n]`; a vector is a row on the left, a column on the right."""
        if any(t.layout is not torch.strided for t in (left, right)):
            raise ValueError(
                f"tracing: {self.tracer._frames[-1].name or 'the model'} multiplies sparse tensors; make them dense"
            )
        weights = self.weights(left, right)
        if weights is None:
            return
        added = out.numel() if bias is not None and self.source(bias) == "weight" else 0
        left = left.unsqueeze(0) if left.dim() == 1 else left
        right = right.unsqueeze(-1) if right.dim() == 1 else right
        macs = left.numel() * right.shape[-1]
        self.tracer.multiplied((left, right), weights, macs, lambda: _pairs(left, right), added, False)

    def convolved(self, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> None:
        """A convolution of x `[N, C, ...]`."""
        weights = self.weights(x, weight)
        if weights is None:
            return
        macs = (x if settings[3] else out).numel() * math.prod(weight.shape[1:])
        added = 0 if bias is None else out.numel()
        self.tracer.multiplied((x, weight), weights, macs, lambda: _convolved_pairs(x, weight, *settings), added, True)


_PRODUCTS: dict[Any, Callable[..., None]] = {
    aten.convolution: _Watch.convolved,
    **dict.fromkeys((aten.mm, aten.mv, aten.bmm, aten.dot, aten.vdot), _Watch.product),
    **dict.fromkeys(
        (aten.addmm, aten.addmv, aten.baddbmm),
        lambda watch, out, bias, left, right: watch.product(out, left, right, bias),
    ),
}
"""What an operator multiplies: `(watch, output, *arguments)`. torch writes its other products in these."""


def _pairs(left: Tensor, right: Tensor) -> int:
    """Pairs of two values that meet in a matrix product and are not zero."""
    return int(((left != 0).sum(-2) * (right != 0).sum(-1)).sum())


def _convolved_pairs(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> int:
    """Pairs of a value and a weight that meet in a convolution and are not zero: counts convolved with counts."""
    counts, taps = (x != 0).sum(0, keepdim=True).double(), weight != 0
    taps = taps.sum(1, keepdim=True) if transposed else taps.unflatten(0, (groups, -1)).sum(1)
    settings = (stride, padding, dilation, transposed, output_padding, groups)
    return int(aten.convolution(counts, taps.double(), None, *settings).sum().round())


@contextmanager
def tracing(model: nn.Module) -> Iterator[Tracer]:
    """Inside, every call of the model is traced; the yielded tracer's `report` says what it computed.

    The model runs as it is: in evaluation or training mode, with its results unchanged. Forward passes alone count.

    Args:
        model: any module that takes a tensor `[T, B, ...]` first.

    Raises:
        ValueError: another input, batches of different T, or an operator whose products cannot be seen.
    """
    tracer = Tracer(model)
    handles = []
    for name, module in model.named_modules():
        handles += [
            module.register_forward_pre_hook(partial(_enter, tracer, name)),
            module.register_forward_hook(partial(_leave, tracer, name), always_call=True),
        ]
    try:
        yield tracer
    finally:
        for handle in handles:
            handle.remove()


def _enter(tracer: Tracer, name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
    tracer.enter(name, module, inputs)


def _leave(tracer: Tracer, name: str, module: nn.Module, inputs: tuple[Any, ...], y: Any) -> None:
    tracer.leave(name, module, inputs, y)


def trace(model: nn.Module, x: Tensor | Iterable[Tensor]) -> Report:
    """Run a model in evaluation mode without gradients, and say what it computed.

    On the meta device shapes alone are run, fast: MACs are exact, what operands hold is unknown.

    Args:
        model: any module; training modes are put back.
        x: one batch `[T, B, ...]`, or several of equal T.

    Raises:
        ValueError: see `tracing`; no batch.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), tracing(model) as tracer:
            for batch in [x] if isinstance(x, Tensor) else x:
                with engine("reference") if batch.is_meta else nullcontext():
                    model(batch)
    finally:
        for module, mode in modes:
            module.training = mode
    return tracer.report()


def spike_driven(model: nn.Module, x: Tensor | Iterable[Tensor]) -> Report:
    """Say layer by layer whether every matrix product of a model sees only {0, 1}.

    A product is spike-driven if at least one operand is an activation in {0, 1}: then every multiplication selects and
    adds. `Product.strict` asks it of all operands that are activations; so K^T V of spikes is strict, and Q (K^T V) is
    spike-driven alone. The verdict is about the values of these batches: a silent layer holds {0, 1} too, see the
    density. A layer that reads other values than it declares is a `mismatch`. Element-wise products are not looked at,
    the products within parallel neurons (PSN) are; those of a sliding PSN too, whatever its form.

    Args:
        model: any module; runs in evaluation mode without gradients.
        x: one batch `[T, B, ...]`, or several of equal T, which are summed up.

    Raises:
        ValueError: see `trace`; the model runs on the meta device, where values are unknown.
    """
    report = trace(model, x)
    for product in report.products:
        _ = product.spike_driven
    return report
