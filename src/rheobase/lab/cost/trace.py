"""Seeing every matrix product of a running model, whatever module or function computes it.

Operators are watched below autograd (convolution, mm, bmm, attention, ...), so nothing depends on the names or types of
modules. Whether an operand is a weight is followed through the operators: what is computed from parameters, buffers and
constants alone is one, all else is an activation.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from rheobase.lab.cost.count import Convolution, Seen, elements, look, pairs, selects
from rheobase.lab.cost.operations import Operations, operations, scan_of
from rheobase.lab.cost.report import Elementwise, Kind, NeuronLayer, Operand, Product, Report
from rheobase.nn.norm import TdBN
from rheobase.nn.time import PerStep
from rheobase.nn.values import Values, concatenated
from rheobase.scan import Temporal
from rheobase.scan.engine import engine
from rheobase.scan.static import is_static
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


@dataclass
class _Side:
    """Running sums of one operand; `size` is that of a weight."""

    shape: tuple[int, ...]
    weight: bool
    size: int = 0
    holds: Values | None = None
    peak: float = 0.0
    nonzero: int = 0
    count: int = 0

    def see(self, seen: Seen) -> None:
        self.count += seen.count
        self.holds = seen.holds if self.holds is None else concatenated(self.holds, seen.holds)
        self.peak = max(self.peak, seen.peak or 0.0)
        self.nonzero += int(seen.nonzero.sum())

    def weigh(self, weight: Tensor) -> None:
        self.count += weight.numel()
        if not weight.is_meta:
            self.nonzero += weight.numel() - int((weight == 0).sum())

    def operand(self, executed: int) -> Operand:
        if self.weight:
            return Operand(self.shape, True, None, self.nonzero / self.count if self.count else None, self.size)
        size = self.size // executed
        if self.holds is None:
            return Operand(self.shape, False, size=size)
        peak = None if self.holds == "real" else self.peak
        return Operand(self.shape, False, self.holds, self.nonzero / self.count, size, peak)


@dataclass
class _Met:
    """Pairs of two non-zero values that met: all, with a graded value k as k of them, and where additions do."""

    pairs: int = 0
    additions: int = 0
    selected: int = 0

    def add(self, other: "_Met") -> None:
        self.pairs += other.pairs
        self.additions += other.additions
        self.selected += other.selected


@dataclass
class _Row:
    """Running sums of one product."""

    name: str
    kind: Kind
    sides: tuple[_Side, _Side]
    declared: Values | None
    stem: bool
    macs: int = 0
    inside: int = 0
    outputs: int = 0
    bias_adds: int = 0
    executed: int = 0
    steps: int = 0
    met: _Met = field(default_factory=_Met)

    def product(self, T: int, samples: int, readout: bool) -> Product:
        left, right = (side.operand(self.executed) for side in self.sides)
        held = [operand.holds for operand in (left, right) if not operand.weight]
        known = None not in held
        adds = known and ("binary" in held or (self.kind != "matmul" and "real" not in held))
        return Product(
            self.name,
            self.kind,
            (left, right),
            self.macs // self.executed,
            self.bias_adds // self.executed,
            self.met.pairs / self.executed if known else None,
            self.executed // samples,
            self.steps // samples,
            max(1, self.steps // samples // T),
            self.declared,
            self.stem,
            readout,
            self.inside // self.executed,
            self.outputs // self.executed,
            self.met.additions / self.executed if adds else None,
            self.met.selected / self.executed if known else None,
        )


@dataclass
class _Layer:
    """Running sums of one layer of neurons."""

    module: nn.Module
    spikes: float = 0.0
    nonzero: int = 0
    count: int = 0
    peak: float = 0.0
    known: bool = True

    def layer(self, name: str, T: int, samples: int) -> NeuronLayer:
        scan, taps = scan_of(self.module), getattr(self.module, "taps", 0)
        weighed = Operations(add=taps, multiply=taps)  # a product of its own
        return NeuronLayer(
            name,
            self.count // samples // T,
            self.spikes / samples if self.known else None,
            self.nonzero / self.count if self.known else None,
            self.module.emits,  # type: ignore[arg-type]
            self.count // samples,
            None if scan is None else operations(scan.text()) - weighed,
            None if scan is None else len(scan.step.state),
            self.peak if self.known and self.module.emits != "real" else None,
        )


@dataclass
class _Between:
    """Running sums of what is computed element by element between products and neurons."""

    scaled: int = 0
    shifted: int = 0
    added: int = 0
    multiplied: int = 0


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
    looking: bool = False
    _B: int = 0
    _rows: dict[Any, _Row] = field(default_factory=dict)
    _layers: dict[str, _Layer] = field(default_factory=dict)
    _between: dict[str, _Between] = field(default_factory=dict)
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
        layers = (layer.layer(name, self.T, self.samples) for name, layer in self._layers.items())
        between = (
            Elementwise(name, *(getattr(sums, each.name) // self.samples for each in fields(sums)))
            for name, sums in self._between.items()
        )
        return Report(tuple(products), tuple(layers), self.T, self.samples, tuple(between))

    def owner(self, t: Tensor) -> tuple[str, nn.Module] | None:
        """The module that a parameter, or a view of it, belongs to."""
        return self._owners.get(t.untyped_storage()._cdata) if t.layout is torch.strided else None

    def enter(self, name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """A module begins; one that runs outside of the model, as when backward runs it again, does not count."""
        if not self._frames and module is not self.model:
            return
        x = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
        static = isinstance(module, PerStep) and x is not None and x.dim() > 0 and (is_static(x) or self._one_step(x))
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
            self.looking = True  # at values: what that computes is not the model's
            try:
                if taps := getattr(module, "taps", 0):
                    self._weighed(name, inputs[0].detach(), taps)
                self._fired(name, module, y.detach())
            finally:
                self.looking = False

    def _runs(self, x: Tensor, above: int) -> int:
        """How often a module with input x runs for a sample: at every step, or once."""
        if self._one_step(x):
            return 1
        if (x.dim() and x.shape[0] == self.T * self._B) or x.shape[:2] == (self.T, self._B):
            return self.T
        return 1 if x.dim() and x.shape[0] == self._B else above

    def _one_step(self, x: Tensor) -> bool:
        """Whether x is one step that stands for all."""
        return self.T > 1 and x.shape[:2] == (1, self._B)

    def _fired(self, name: str, module: nn.Module, y: Tensor) -> None:
        layer = self._layers.setdefault(name, _Layer(module))
        layer.count += y.numel()
        self._last_is_readout = False
        if y.is_meta:
            layer.known = False
            return
        seen = look(y)
        layer.spikes += float(y.sum(dtype=torch.float64) if seen.holds != "binary" else seen.nonzero.sum())
        layer.nonzero += int(seen.nonzero.sum())
        layer.peak = max(layer.peak, seen.peak or 0.0)

    def _weighed(self, name: str, x: Tensor, taps: int) -> None:
        """A neuron weighed the last `taps` inputs of x `[T, B, ...]` within its step, where no operator shows it."""
        row = self._rows.setdefault(
            (name, "taps"),
            _Row(name, "linear", (_Side(tuple(x.shape[2:]), False), _Side((taps,), True, taps)), None, False),
        )
        row.macs += taps * x.numel()
        row.inside += sum(min(taps, len(x) - t) for t in range(len(x))) * x[0].numel()
        row.outputs += x.numel()
        row.executed += x.shape[0] * x.shape[1]
        row.steps += x.shape[0] * x.shape[1]
        row.sides[0].size += x.numel()
        if not x.is_meta:
            seen = look(x)
            row.sides[0].see(seen)
            times = torch.arange(len(x), 0, -1, device=x.device).clamp(max=taps)  # steps that an input takes part in
            met = int((x.flatten(1).bool().sum(1) * times).sum())
            added = 0 if seen.sizes is None else int((x.flatten(1).abs().double().sum(1) * times).sum())
            row.met.add(_Met(met, added, met if selects(x) else 0))

    def multiplied(
        self,
        operands: tuple[Tensor, Tensor],
        weights: tuple[bool, bool],
        out: Tensor,
        macs: int,
        bias_adds: int,
        convolution: Convolution | None,
    ) -> None:
        """A product was computed of two operands, of which one at least is an activation."""
        frame, (left, right) = self._frames[-1], operands
        name, module = frame.name, frame.module
        kind: Kind = "matmul" if not any(weights) else "linear" if convolution is None else "convolution"
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
            key = (kind, tuple(weight.shape), weight.storage_offset())
        row = self._rows.get((name, key))
        if row is None:
            if self._top is None:
                self._top = name.partition(".")[0]
            shapes = [_shape(t, w, convolution) for t, w in zip(operands, weights, strict=True)]
            if isinstance(module, Temporal) and weights[0]:  # W X with neurons of all samples side by side in X
                shapes = [s if w else (*s[:-1], s[-1] // self._B) for s, w in zip(shapes, weights, strict=True)]
            sizes = [t.numel() if w else 0 for t, w in zip(operands, weights, strict=True)]
            left_side, right_side = map(_Side, shapes, weights, sizes)
            row = self._rows[name, key] = _Row(
                name,
                kind,
                (left_side, right_side),
                self._declared(name, module),
                kind != "matmul" and not self._began and name.partition(".")[0] == self._top,
            )
        row.macs += macs
        row.inside += (
            macs if convolution is None else len(left) * convolution.inside(right.shape, left.shape[2:], out.shape[2:])
        )
        row.outputs += out.numel()
        row.bias_adds += bias_adds
        row.executed += times
        row.steps += (self.T if frame.static else 1) * times
        for side, t in zip(row.sides, operands, strict=True):
            if not side.weight:
                side.size += t.numel()
        if not left.is_meta:
            _meet(row, operands, out, convolution, max(1, times // self._B))
        self._last_is_readout = True

    def biased(self, bias: Tensor, out: Tensor) -> bool:
        """Whether a parameter that was added to `out` is the bias of a product that its layer computed."""
        owner = self.owner(bias)
        own = getattr(owner[1], "bias", None) if owner else None
        if owner is None or not isinstance(own, Tensor) or self.owner(own) != owner or own.numel() != bias.numel():
            return False
        row = next((row for (name, _), row in reversed(self._rows.items()) if name == owner[0]), None)
        if row is not None:
            row.bias_adds += out.numel()
        return row is not None

    def computed(self, elementwise: dict[str, int]) -> None:
        """Values were computed element by element, outside of neurons."""
        if not any(elementwise.values()):
            return
        sums = self._between.setdefault(self._frames[-1].name, _Between())
        for name, count in elementwise.items():
            setattr(sums, name, getattr(sums, name) + count)

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


def _meet(row: _Row, operands: tuple[Tensor, Tensor], out: Tensor, convolution: Convolution | None, steps: int) -> None:
    """Look at the operands of a product and count the pairs of two non-zero values that met in it."""
    left, right = operands
    weighted = [side.weight for side in row.sides]
    if not any(weighted) or (left.dim() > 2 and convolution is None) or (right.dim() > 2 and convolution is None):
        seen = [None if weight else look(t) for t, weight in zip(operands, weighted, strict=True)]
        met = added = pairs(left != 0, right != 0)
        if not any(each is not None and each.holds == "binary" for each in seen):
            graded = [each is not None and each.sizes is not None for each in seen]
            sizes = [t.abs() if size else t != 0 for t, size in zip(operands, graded, strict=True)]
            added = pairs(*sizes) if any(graded) and any(weighted) else 0
        selected = any(not weight and selects(t) for t, weight in zip(operands, weighted, strict=True))
        row.met.add(_Met(met, added, met if selected else 0))
        for side, t, each in zip(row.sides, operands, seen, strict=True):
            side.weigh(t) if each is None else side.see(each)
        return
    x, weight = (right.t(), left) if weighted[0] else (left, right)
    if convolution is not None:
        reach = convolution.fanout(weight, x.shape[2:], out.shape[2:])
    else:
        reach = (weight != 0).sum(0 if weighted[0] else 1, dtype=torch.float64)
    seen_x = look(x)
    met = int((seen_x.nonzero * reach).sum().round())
    added = 0 if seen_x.sizes is None else int((seen_x.sizes * reach).sum().round())
    adding = met
    if seen_x.holds != "binary":
        parts = x.unflatten(0, (steps, -1)) if len(x) % steps == 0 and not weighted[0] else x.unsqueeze(0)
        chosen = [part for part in parts if selects(part)]
        adding = sum(int((look(part).nonzero * reach).sum().round()) for part in chosen)
    row.met.add(_Met(met, added, adding))
    for side in row.sides:
        side.weigh(weight) if side.weight else side.see(seen_x)


def _shape(t: Tensor, weight: bool, convolution: Convolution | None) -> tuple[int, ...]:
    """The shape of an operand without time and batch."""
    if weight:
        return tuple(t.shape)
    if convolution:
        return tuple(t.shape[1:])
    return tuple(t.shape[-2:]) if t.dim() > 2 else tuple(t.shape[-1:])


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among arguments, and in lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


class _Watch(TorchDispatchMode):
    """Sees every operator while the model runs."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self.tracer = tracer
        self.sources = tracer._sources  # kept between calls: autocast keeps its copies of weights

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.tracer.looking:
            return func(*args, **kwargs)
        if torch.is_inference_mode_enabled() and func.namespace == "aten":  # composites arrive whole there
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        out = func(*args, **kwargs)
        see = _PRODUCTS.get(getattr(aten, func._opname.removesuffix("_"), None)) if func.namespace == "aten" else None
        if see is not None:
            see(self, out, *args)
        elif func in _ELEMENTWISE or func is _SCAN:
            self.elementwise(func, out, args)
        elif func.namespace == "rheobase" and func._opname in _LINKS:
            self.linked(func._opname, out, args)
        elif getattr(func, "overloadpacket", None) in _NORMS:
            self.normed(func.overloadpacket, args)
        elif func.namespace == "aten" and any(part in func._opname for part in _HIDDEN):
            raise ValueError(
                f"tracing: {self.tracer._frames[-1].name or 'the model'} calls {func}, whose matrix products cannot be "
                f"seen; write it with torch.nn.functional.linear, matmul or convolutions"
            )
        sources = {self.source(t) for t in _tensors((args, tuple(kwargs.values())))}
        source = _combined(sources) if sources or func._opname.startswith("empty") else "constant"
        for t in _tensors((out,)):
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
        self.tracer.multiplied((left, right), weights, out, macs, added, None)

    def convolved(self, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> None:
        """A convolution of x `[N, C, ...]`."""
        weights = self.weights(x, weight)
        if weights is None:
            return
        stride, padding, dilation, transposed, output_padding, groups = settings
        how = Convolution(tuple(stride), tuple(padding), tuple(dilation), transposed, tuple(output_padding), groups)
        macs = (x if how.transposed else out).numel() * elements(weight.shape[1:])
        added = 0 if bias is None else out.numel()
        self.tracer.multiplied((x, weight), weights, out, macs, added, how)

    def elementwise(self, func: Any, out: Any, args: Any) -> None:
        """An operator that computes each element by itself, or a traced step; what a neuron computes is its own."""
        module = self.tracer._frames[-1].module
        if func is _SCAN:
            (text, (x, *_), *_), own = args, scan_of(module)
            found = operations(text)
            if own is not None:
                found = found - operations(own.text())
            scaled, once = max(0, found.multiply), x[0].numel() if is_static(x) else x.numel()
            added = max(0, found.add - scaled) * out[0].numel()
            self.tracer.computed({"scaled": scaled * once, "shifted": scaled * once, "added": added})
            return
        if isinstance(module, Temporal) and hasattr(module, "emits"):
            return
        sources = [self.source(t) for t in args[:2] if isinstance(t, Tensor)]
        kind, n = _ELEMENTWISE[func], out.numel()
        if "input" not in sources:
            return
        if sources != ["input", "input"]:
            weight = next((t for t in args[:2] if isinstance(t, Tensor) and self.source(t) != "input"), None)
            if kind == "added" and weight is not None and self.tracer.biased(weight, out):
                return
            self.tracer.computed({"shifted" if kind == "added" else "scaled": n})
        else:
            self.tracer.computed({kind: n})

    def normed(self, norm: Any, args: Any) -> None:
        """A norm in one operator: with running statistics a product and a sum an element, as it folds after training.

        One that computes its statistics from what it reads does not fold. It adds three times an element (mean,
        difference, variance) and multiplies twice (square, quotient); then come its parameters.
        """
        module = self.tracer._frames[-1].module
        if (isinstance(module, Temporal) and hasattr(module, "emits")) or self.source(args[0]) != "input":
            return
        n, weight = args[0].numel(), args[_NORMS[norm]]
        if norm not in (aten.native_layer_norm, aten.native_group_norm) and args[3] is not None:
            self.tracer.computed({"scaled": n, "shifted": n})
            return
        affine = 0 if weight is None else n
        self.tracer.computed({"added": 3 * n, "multiplied": 2 * n, "scaled": affine, "shifted": affine})

    def linked(self, name: str, out: Tensor, args: Any) -> None:
        """Something was computed along the links of a graph: of neighbours, every value is added, and weighted ones
        are multiplied first; a softmax subtracts the largest, adds up, and divides."""
        values = {"add_neighbours": args[0], "add_ends": args[0], "softmax_in_rows": out}[name]
        links = int(args[{"add_neighbours": 2, "add_ends": 2, "softmax_in_rows": 1}[name]][-1])
        n = links * (values.numel() // values.shape[1])
        added = {"add_neighbours": n, "add_ends": n, "softmax_in_rows": 2 * n}[name]
        weighted = name == "add_neighbours" and args[1] is not None
        self.tracer.computed({"added": added, "multiplied": n * (weighted or name == "softmax_in_rows")})


_LINKS = ("add_neighbours", "add_ends", "softmax_in_rows")
"""Operators along the links of a graph."""

_NORMS: dict[Any, int] = {
    **dict.fromkeys((aten.native_batch_norm, aten.cudnn_batch_norm, aten.miopen_batch_norm, aten.native_group_norm), 1),
    aten.native_layer_norm: 2,
}
"""Operators that norm, and which of their arguments is the weight."""

_SCAN = torch.ops.rheobase.scan.default

_ELEMENTWISE: dict[Any, str] = {
    **dict.fromkeys((aten.add.Tensor, aten.add_.Tensor, aten.sub.Tensor, aten.sub_.Tensor), "added"),
    **dict.fromkeys((aten.mul.Tensor, aten.mul_.Tensor, aten.div.Tensor, aten.div_.Tensor), "multiplied"),
}
"""Operators that add or multiply element by element."""


_PRODUCTS: dict[Any, Callable[..., None]] = {
    aten.convolution: _Watch.convolved,
    **dict.fromkeys((aten.mm, aten.mv, aten.bmm, aten.dot, aten.vdot), _Watch.product),
    **dict.fromkeys(
        (aten.addmm, aten.addmv, aten.baddbmm),
        lambda watch, out, bias, left, right: watch.product(out, left, right, bias),
    ),
}
"""What an operator multiplies: `(watch, output, *arguments)`. torch writes its other products in these."""


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
        if isinstance(module, TdBN):  # a norm that is watched does not wait for the neuron behind it
            continue
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
                    for part in _apart(batch):
                        model(part)
    finally:
        for module, mode in modes:
            module.training = mode
    return tracer.report()


def _apart(batch: Tensor) -> list[Tensor]:
    """The batch in two where it has as many samples as steps, so that a part without time is not taken for one with."""
    if batch.dim() < 2 or batch.shape[0] != batch.shape[1] or batch.shape[0] < 2:
        return [batch]
    return [batch[:, :-1], batch[:, -1:]]


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
