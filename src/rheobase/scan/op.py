"""`rheobase::scan`: one operator for every neuron.

It takes the step as text, so that an exported program needs no Python function, and it saves for backward what it was
given: inputs, initial states and parameters.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rheobase.scan import lanes, reference, run_cpu, run_triton
from rheobase.scan.bit_layout import rows
from rheobase.scan.engine import resolve
from rheobase.scan.ir import parse
from rheobase.scan.language import UnsupportedOperationError, fall_back
from rheobase.scan.number import number
from rheobase.scan.rewrite import normed_text, packed_text
from rheobase.scan.spikes import Spikes, carrier
from rheobase.scan.trace import State, Step, trace
from rheobase.scan.windows import close, windows_of

if TYPE_CHECKING:
    from rheobase.scan.norm import Normed

_library = torch.library.Library("rheobase", "FRAGMENT")
_library.define("scan(str step, Tensor[] x, Tensor[] state, Tensor[] params, str engine) -> Tensor[]")
_library.define(
    "scan_backward(str step, Tensor[] x, Tensor[] state, Tensor[] params, Tensor?[] grads, bool[] wanted, str engine) "
    "-> Tensor[]"
)


def _membrane(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _scan(step: str, x: list[Tensor], state: list[Tensor], params: list[Tensor], engine: str) -> list[Tensor]:
    outputs, last = (run_triton if engine == "triton" else run_cpu).forward(step, x, state, params)
    return [*outputs, *last]


def _scan_backward(
    step: str,
    x: list[Tensor],
    state: list[Tensor],
    params: list[Tensor],
    grads: list[Tensor | None],
    wanted: list[bool],
    engine: str,
) -> list[Tensor]:
    return (run_triton if engine == "triton" else run_cpu).backward(step, x, state, params, grads, wanted)


def _one(x: Tensor, dtype: torch.dtype) -> Tensor:
    """An empty step of the sequence x in the memory order that the engines give it: batch outermost, or contiguous."""
    one = torch.empty_like(x[0], dtype=dtype)
    if one.shape[0] <= 1 or one.stride(0) * one.shape[0] == one.numel():
        return one
    return torch.empty(one.shape, dtype=dtype, device=one.device)


def _all(x: Tensor) -> Tensor:
    """An empty sequence like x, in the memory order that the engines give it."""
    one = _one(x, x.dtype)
    return one.new_empty_strided(x.shape, (one.numel(), *one.stride()))


def _scan_fake(step: str, x: list[Tensor], state: list[Tensor], params: list[Tensor], engine: str) -> list[Tensor]:  # noqa: ARG001
    program = parse(step)
    last = [_one(x[0], _membrane(x[0].dtype)) for _ in state]
    outputs = [_all(x[0]) for _ in program.outputs]
    for k, bits in enumerate(program.packed):
        if bits:
            count, inner = rows(outputs[k].shape, outputs[k].stride())
            outputs[k] = x[0].new_empty((count, inner // 64), dtype=torch.int64)
    return [*outputs, *last]


def _scan_backward_fake(
    step: str,  # noqa: ARG001
    x: list[Tensor],
    state: list[Tensor],
    params: list[Tensor],
    grads: list[Tensor | None],  # noqa: ARG001
    wanted: list[bool],
    engine: str,  # noqa: ARG001
) -> list[Tensor]:
    found = [
        *(_all(x[0]) for _ in x),
        *(_one(x[0], _membrane(x[0].dtype)) for _ in state),
        *(p.new_empty(p.shape) for p in params),
    ]
    return [f for f, want in zip(found, wanted, strict=True) if want]


for _device in ("CPU", "CUDA"):
    _library.impl("scan", _scan, _device)
    _library.impl("scan_backward", _scan_backward, _device)
torch.library.register_fake("rheobase::scan", _scan_fake, lib=_library)
torch.library.register_fake("rheobase::scan_backward", _scan_backward_fake, lib=_library)


class _Scan(torch.autograd.Function):
    """Autograd of the operator, on flat tensors: `torch.library.register_autograd` takes 60 us a call for lists."""

    @staticmethod
    def forward(
        ctx: Any, step: str, engine: str, sizes: tuple[int, int], packed: str, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.step, ctx.engine, ctx.sizes, ctx.bits = step, engine, sizes, count_bits(packed)
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        x, state, params = grouped(tensors, sizes)
        if not packed:
            return tuple(run_forward(step, x, state, params, engine))
        found = run_packed(packed, x, state, params)
        ctx.mark_non_differentiable(*found[1 : 1 + ctx.bits])
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        wanted = [bool(want) for want in ctx.needs_input_grad[4:]]
        x, state, params = grouped(ctx.saved_tensors, ctx.sizes)
        to_outputs = of_outputs(grads, ctx.bits)
        found = iter(run_backward(ctx.step, x, state, params, to_outputs, wanted, ctx.engine))
        return (None, None, None, None, *(next(found) if want else None for want in wanted))


def run_packed(packed: str, x: list[Tensor], state: list[Tensor], params: list[Tensor]) -> list[Tensor]:
    """A packed step on the CPU engine: the carrier of its first output (see `Spikes`), bits, final states."""
    return [carrier(x[0].shape, x[0].dtype), *_scan(packed, x, state, params, "cpu")]


def count_bits(packed: str) -> int:
    """How many tensors of bits a packed step puts out; none, if there is no such step."""
    return len(parse(packed).outputs) if packed else 0


def of_outputs(grads: Sequence[Tensor | None], bits: int) -> list[Tensor | None]:
    """Gradients of the one output and of final states, without those of bits, which have none."""
    return [grads[0], *grads[1 + bits :]]


def grouped(tensors: Sequence[Tensor], sizes: tuple[int, int]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Inputs, states and parameters out of a flat list that starts with so many inputs and states."""
    a, b = sizes[0], sum(sizes)
    return list(tensors[:a]), list(tensors[a:b]), list(tensors[b:])


def _scan_autograd(
    step: str, x: list[Tensor], state: list[Tensor], params: list[Tensor], engine: str, packed: str = ""
) -> list[Tensor]:
    if torch.is_grad_enabled() and any(t.requires_grad for t in (*x, *state, *params)):
        return list(_Scan.apply(step, engine, (len(x), len(state)), packed, *x, *state, *params))
    if packed:
        return run_packed(packed, x, state, params)
    return run_forward(step, x, state, params, engine)


def run_forward(step: str, x: list[Tensor], state: list[Tensor], params: list[Tensor], engine: str) -> list[Tensor]:
    """`rheobase::scan` without autograd, past the dispatcher where nobody is watching it."""
    if _is_plain(x[0]):
        return _scan(step, x, state, params, engine)
    with torch._C._AutoDispatchBelowAutograd():
        return _op(step, x, state, params, engine)


def run_backward(
    step: str,
    x: list[Tensor],
    state: list[Tensor],
    params: list[Tensor],
    grads: list[Tensor | None],
    wanted: list[bool],
    engine: str,
) -> list[Tensor]:
    """`rheobase::scan_backward`, past the dispatcher where nobody is watching it."""
    direct = is_direct(x[0]) and not torch.is_grad_enabled()
    run = _scan_backward if direct else _op_backward
    return run(step, x, state, params, grads, wanted, engine)  # type: ignore[no-any-return]


def is_direct(x: Tensor) -> bool:
    """Whether operators on x may be called past the dispatcher: nobody compiles, traces or watches."""
    return not torch.compiler.is_compiling() and _is_plain(x)


def _is_plain(x: Tensor) -> bool:
    """Whether nobody wants to see the operator itself: no tracer, no dispatch mode, no functional transform.

    The engine is called directly then, past the dispatcher, which takes some 15 us a call for Python kernels.
    """
    return (
        type(x) in (Tensor, torch.nn.Parameter)
        and x.device.type in ("cpu", "cuda")
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
    )


def _no_double_backward(*_: Any) -> Any:
    raise RuntimeError("the fused scan has no second derivative; run forward and backward under rb.engine('reference')")


_library.impl("scan", _scan_autograd, "Autograd")
torch.library.register_autograd("rheobase::scan_backward", _no_double_backward, lib=_library)
_op, _op_backward = torch.ops.rheobase.scan.default, torch.ops.rheobase.scan_backward.default


class Scan:
    """A step bound to its trace constants, ready to run over time."""

    def __init__(self, step: Step, **constants: Any) -> None:
        """Trace `step` with `constants` for both membrane formats.

        Raises:
            ValueError: a constant is not an argument of the step, or is a number or tensor (pass those to the call).
            UnsupportedOperationError: the step leaves the language of steps and has no fallback.
        """
        unknown = [name for name in constants if name not in step.arguments]
        if unknown:
            raise ValueError(f"step {step.name!r} has no argument {unknown[0]!r}; it has {step.arguments}")
        self.step, self.constants = step, constants
        self.params = tuple(name for name in step.arguments if name not in constants)
        formats = (torch.float32, torch.float64)
        try:
            self._texts = {dtype: _text(step, self.params, constants, dtype) for dtype in formats}
        except UnsupportedOperationError as error:
            fall_back(step, error)
            self._texts = {}

    @property
    def fused(self) -> bool:
        """Whether the step could be traced; one that fell back runs on the reference engine alone."""
        return bool(self._texts)

    def text(self, dtype: torch.dtype = torch.float32) -> str:
        """The canonical text of the traced step for inputs of `dtype`.

        Raises:
            ValueError: the step fell back to the reference engine and has none.
        """
        if not self.fused:
            raise ValueError(f"step {self.step.name!r} runs on the reference engine; it has no traced text")
        return self._texts[_membrane(dtype)]

    def __call__(
        self, x: Tensor | Sequence[Tensor], state: State | None = None, **params: Tensor | float
    ) -> tuple[Any, State]:
        r"""Run the step over the leading axis: $y_t, v_t = f(x_t, v_{t-1}; \theta)$.

        Args:
            x: the input `[T, B, ...]`, or one of equal shape and dtype for each of the step's inputs.
            state: state before the first step, each `[B, ...]` or a number as a 0-d tensor; None starts from rest.
            params: numbers or tensors that broadcast against `x.shape[2:]`.

        Returns:
            output `[T, B, ...]` in x's dtype (a tuple if the step has several), final state `[B, ...]` in float32
            (float64 for float64 input).

        Raises:
            ValueError: shapes, dtypes or names that do not fit.
        """
        inputs = [x] if isinstance(x, Tensor) else list(x)
        engine = resolve(inputs[0].device) if self.fused else "reference"
        membrane = _membrane(inputs[0].dtype)
        values, state = self.prepare(inputs, state, params)
        if engine == "reference":
            outputs, last = reference.run(self.step, inputs, state, values, self.constants)
            return (outputs[0] if len(outputs) == 1 else outputs), last
        run = _scan_autograd if is_direct(inputs[0]) else _op
        found = run(self._texts[membrane], inputs, list(state), [values[name] for name in self.params], engine)
        return _parted(found, len(state))

    def normed(
        self, norm: "Normed", others: Sequence[Tensor] = (), state: State | None = None, **params: Tensor | float
    ) -> tuple[Any, State]:
        """As calling it with `[norm.value(), *others]`, but the normalised input is never written to memory.

        In fp32 and fp64 the outputs have equal bits; half formats are spared one rounding.
        """
        inputs = [norm.x, *others]
        engine, membrane = resolve(norm.x.device), _membrane(norm.x.dtype)
        values, state = self.prepare(inputs, state, params)
        text = normed_text(self._texts[membrane], norm.plus is not None)
        found = norm.run(text, others, state, [values[name] for name in self.params], engine)
        return _parted(found, len(state))

    def can_pack(self, x: Tensor) -> bool:
        """Whether `spikes` takes the sequence x (of a `Normed`: its x)."""
        return (
            self.fused
            and is_direct(x)
            and resolve(x.device) == "cpu"
            and parse(self.text(x.dtype)).binary == (True,)
            and lanes.words(x) is not None
        )

    def spikes(
        self,
        x: "Tensor | Normed",
        others: Sequence[Tensor] = (),
        state: State | None = None,
        **params: Tensor | float,
    ) -> tuple[Spikes, State]:
        """As calling it with `[x, *others]`, or `normed`, but the spikes are written as bits and nowhere as numbers.

        x is one that `can_pack`. With gradients, a step whose surrogates have windows that close tells these too.
        """
        first = x if isinstance(x, Tensor) else x.x
        inputs = [first, *others]
        values, state = self.prepare(inputs, state, params)
        membrane, bound = _membrane(first.dtype), [values[name] for name in self.params]
        text, packed = self._texts[membrane], self._packed(membrane, torch.is_grad_enabled())
        if isinstance(x, Tensor):
            found = _scan_autograd(text, inputs, list(state), bound, "cpu", packed)
        else:
            plus = x.plus is not None
            found = x.run(normed_text(text, plus), others, state, bound, "cpu", packed=normed_text(packed, plus))
        bits = 1 + count_bits(packed)
        return Spikes(found[0], found[1], lanes.stride(first), *found[2:bits]), tuple(found[bits:])

    def _packed(self, membrane: torch.dtype, windows: bool) -> str:
        """The text that writes spikes as bits and, if asked for and there are any that close, windows."""
        if not windows or not close(self.constants):
            return packed_text(self._texts[membrane])
        return packed_text(_text(windows_of(self.step, spikes=True), self.params, self.constants, membrane))

    def prepare(
        self, inputs: Sequence[Tensor], state: State | None, params: Mapping[str, Tensor | float]
    ) -> tuple[dict[str, Tensor], State]:
        """Check the arguments of a call and cast them: parameters and initial state in the membrane's format."""
        self._check(inputs, params)
        membrane, constant = _membrane(inputs[0].dtype), _constants(inputs[0])
        values = {
            name: v.to(membrane) if isinstance(v, Tensor) else constant(v, dtype=membrane)
            for name, v in ((name, params[name]) for name in self.params)
        }
        if state is None:
            return values, self.rest(values, inputs[0].shape[1:], membrane, constant)
        return values, self._given(state, inputs[0].shape[1:], membrane)

    def rest(
        self, params: Mapping[str, Tensor], shape: torch.Size, dtype: torch.dtype, constant: Callable[..., Tensor]
    ) -> State:
        """State before the first step: 0-d where it is one number that needs no gradient, else of the given shape.

        `constant(value, dtype=...)` makes a tensor of a number.
        """
        found = []
        for value in self.step.state.values():
            v = value(**params) if callable(value) else value
            v = v.to(dtype) if isinstance(v, Tensor) else constant(v, dtype=dtype)
            found.append(v if v.dim() == 0 and not v.requires_grad else v.expand(shape))
        return tuple(found)

    def _given(self, state: State, shape: torch.Size, dtype: torch.dtype) -> State:
        names = tuple(self.step.state)
        if len(state) != len(names):
            raise ValueError(f"{self.step.name}: got {len(state)} state tensors, expected {len(names)} {names}")
        for name, s in zip(names, state, strict=True):
            if s.shape not in (shape, torch.Size(())):
                raise ValueError(
                    f"{self.step.name}: state {name!r} has shape {tuple(s.shape)} but a step of x has {tuple(shape)}; "
                    f"pass the state that this call returned for the same batch"
                )
        return tuple(s.to(dtype).expand(shape) if s.requires_grad else s.to(dtype) for s in state)

    def _check(self, inputs: Sequence[Tensor], params: Mapping[str, Any]) -> None:
        name, first = self.step.name, inputs[0]
        if len(inputs) != len(self.step.inputs):
            raise ValueError(f"{name}: got {len(inputs)} inputs, expected {len(self.step.inputs)} {self.step.inputs}")
        if first.dim() < 2 or first.shape[0] == 0:
            raise ValueError(f"{name}: x has shape {tuple(first.shape)}; expected [T, B, ...] with T >= 1")
        if not first.is_floating_point():
            raise ValueError(f"{name}: x is {first.dtype}; expected floating point, convert with x.float()")
        for x in inputs[1:]:
            if x.shape != first.shape or x.dtype != first.dtype:
                raise ValueError(
                    f"{name}: inputs disagree: {tuple(first.shape)} {first.dtype} and {tuple(x.shape)} {x.dtype}; "
                    f"expand and cast them to one shape and dtype"
                )
        if params.keys() != set(self.params):
            raise ValueError(f"{name}: got parameters {sorted(params)}, expected {sorted(self.params)}")
        rest = first.shape[2:]
        for key, p in params.items():
            if isinstance(p, Tensor) and not _broadcasts(p.shape, rest):
                raise ValueError(
                    f"{name}: parameter {key!r} has shape {tuple(p.shape)}, which does not broadcast against "
                    f"{tuple(rest)} (x without time and batch); for one value a channel of [T, B, C, H, W] "
                    f"use shape (C, 1, 1)"
                )


def _constants(x: Tensor) -> Callable[..., Tensor]:
    """What makes a tensor of a number that a call on x takes.

    Fused engines take it from the host by value. Else it is filled on the device: a copy would wait for all work there.
    """
    if is_direct(x) and (x.device.type == "cpu" or resolve(x.device) == "triton"):
        return number
    return partial(torch.full, (), device=x.device)


def _parted(found: Sequence[Tensor], states: int) -> tuple[Any, State]:
    """Output (a tuple if there are several) and final states out of what the operator gave."""
    outputs, last = tuple(found[: len(found) - states]), tuple(found[len(found) - states :])
    return (outputs[0] if len(outputs) == 1 else outputs), last


def _broadcasts(shape: torch.Size, target: torch.Size) -> bool:
    return len(shape) <= len(target) and all(
        a in (1, b) for a, b in zip(reversed(shape), reversed(target), strict=False)
    )


_traced: dict[Any, str] = {}


def _text(step: Step, params: tuple[str, ...], constants: Mapping[str, Any], dtype: torch.dtype) -> str:
    key = (step.fn, params, tuple(sorted(constants.items(), key=lambda item: item[0])), dtype)
    if key not in _traced:
        _traced[key] = str(trace(step.fn, step.name, step.inputs, tuple(step.state), params, constants, dtype))
    return _traced[key]
