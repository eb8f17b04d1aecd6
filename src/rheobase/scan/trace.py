"""From a step function to a `Program`: its own operations and those of its vector-Jacobian product.

The step is traced on lanes of equal shape, so that every operation is element-wise and no parameter's gradient is
summed inside the trace; the engines sum.
"""

import importlib
import inspect
import itertools
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from rheobase.scan.ir import BOOLEAN, SPIKES, Arg, Node, Program, live, parse, used
from rheobase.scan.language import MATRIX, UnsupportedOperationError, fails, lacks

State = tuple[Tensor, ...]
Rest = float | Callable[..., Tensor | float]
"""A state's value before the first step: a number, or a function of the parameters (taken by name)."""


_RENAMED = {
    "add": "add", "sub": "sub", "mul": "mul", "div": "div", "true_divide": "div", "neg": "neg", "sqrt": "sqrt",
    "exp": "exp", "expm1": "expm1", "log": "log", "log1p": "log1p",
    "tanh": "tanh", "sigmoid": "sigmoid", "sin": "sin", "cos": "cos", "atan": "atan",
    "erf": "erf", "abs": "abs", "sign": "sign", "sgn": "sign",
    "floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "round",
    "minimum": "minimum", "maximum": "maximum", "where": "where", "ge": "ge", "gt": "gt", "le": "le", "lt": "lt",
    "eq": "eq", "ne": "ne", "logical_and": "and", "logical_or": "or", "logical_not": "not", "bitwise_and": "and",
    "bitwise_or": "or", "bitwise_not": "not",
}  # fmt: skip
_IDENTITY = {"detach", "alias", "clone", "view", "expand", "lift_fresh_copy", "contiguous", "_unsafe_view"}
_ENDINGS = re.compile(r"_(\d+|(at|row)\d*|all|first|first_step|inner|inverse|lanes|last|next|size|step|sums)")
"""What emitters append to the names of inputs, states and parameters."""
_ARITHMETIC = {"add", "sub", "mul", "div", "neg"}


class _Builder:
    """Turns the nodes of an fx graph into nodes of the language, sharing equal ones."""

    def __init__(self, step: str) -> None:
        self.step = step
        self.nodes: list[Node] = []
        self.seen: dict[tuple[str, tuple[Arg, ...]], str] = {}
        self.boolean: set[str] = set()

    def emit(self, op: str, *args: Arg) -> str:
        key = (op, args)
        if key not in self.seen:
            name = f"n{len(self.nodes)}"
            self.nodes.append(Node(name, op, args))
            self.seen[key] = name
            if op in BOOLEAN:
                self.boolean.add(name)
        return self.seen[key]

    def convert(self, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Arg:
        """One aten operation; arguments are names or numbers already."""
        packet = _packet(target).removesuffix("_")
        if packet == "heaviside" and target.namespace == "rheobase":
            return self.emit("spike_strict" if args[1] else "spike", args[0])
        if packet in ("add", "sub") and kwargs.get("alpha", 1) != 1:
            return self.emit(packet, args[0], self.emit("mul", args[1], float(kwargs["alpha"])))
        if packet == "rsub":
            return self.emit("sub", args[1], args[0])
        if packet == "div" and kwargs.get("rounding_mode"):
            raise self.unsupported(f"div(rounding_mode={kwargs['rounding_mode']!r})")
        if packet == "reciprocal":
            return self.emit("div", 1.0, args[0])
        if packet == "rsqrt":
            return self.emit("div", 1.0, self.emit("sqrt", args[0]))
        if packet == "pow":
            return self.power(args[0], args[1])
        if packet in ("clamp", "clamp_min", "clamp_max"):
            low = args[1] if packet != "clamp_max" else None
            high = args[1] if packet == "clamp_max" else args[2] if len(args) > 2 else kwargs.get("max")
            value = args[0] if low is None else self.emit("maximum", args[0], low)
            return value if high is None else self.emit("minimum", value, high)
        if packet == "relu":
            return self.emit("maximum", args[0], 0.0)
        if packet in ("full_like", "full", "fill"):
            return float(args[1])
        if packet == "scalar_tensor":
            return float(args[0])
        if packet in ("zeros_like", "zeros", "new_zeros", "empty_like", "empty", "empty_permuted"):
            return 0.0
        if packet in ("ones_like", "ones"):
            return 1.0
        if packet == "_to_copy":
            return self.emit("float", args[0]) if args[0] in self.boolean else args[0]
        if packet == "copy":
            return args[1]  # type: ignore[no-any-return]
        if packet == "masked_fill":
            return self.emit("where", args[1], args[2], args[0])
        if packet in _IDENTITY:
            return args[0]  # type: ignore[no-any-return]
        if packet not in _RENAMED:
            raise self.unsupported(packet)
        return self.emit(_RENAMED[packet], *args)

    def power(self, base: Arg, exponent: Any) -> Arg:
        if exponent in (2.0, 3.0):
            square = self.emit("mul", base, base)
            return square if exponent == 2 else self.emit("mul", square, base)
        if exponent in (0.5, -0.5):
            root = self.emit("sqrt", base)
            return root if exponent > 0 else self.emit("div", 1.0, root)
        if exponent == 1.0:
            return base
        if isinstance(exponent, float) and exponent.is_integer() and abs(exponent) <= 16:
            if exponent <= 0:
                return 1.0 if exponent == 0 else self.emit("div", 1.0, self.power(base, -exponent))
            half = self.power(base, exponent // 2)
            square = self.emit("mul", half, half)
            return square if exponent % 2 == 0 else self.emit("mul", square, base)
        if isinstance(base, float):
            if base <= 0:
                raise self.unsupported(f"pow of the number {base}")
            return self.emit("exp", self.emit("mul", exponent, math.log(base)))
        return self.emit("pow", base, exponent)

    def unsupported(self, operation: str) -> UnsupportedOperationError:
        return lacks(self.step, operation)

    def check_spikes(self) -> None:
        """A spike may enter arithmetic only: comparing one would depend on its dtype and hide a threshold."""
        spikes = {node.name for node in self.nodes if node.op in SPIKES}
        for node in self.nodes:
            if node.op not in _ARITHMETIC and spikes.intersection(a for a in node.args if isinstance(a, str)):
                raise UnsupportedOperationError(
                    self.step,
                    f"is not one that can be fused: a spike enters {node.op!r}",
                    "a spike may be added, subtracted, multiplied or divided only; select with arithmetic, for example "
                    "a * s + b * (1 - s)",
                )


@lru_cache(maxsize=1)
def _decompositions() -> Mapping[Any, Callable[..., Any]]:
    """What has no counterpart is decomposed; what would be rounded in another way, or an error must name, is not."""
    from torch._decomp import _core_aten_decompositions_post_autograd

    whole = _RENAMED.keys() | MATRIX
    return {op: rule for op, rule in _core_aten_decompositions_post_autograd().items() if _packet(op) not in whole}


def trace(
    fn: Callable[..., Any],
    name: str,
    inputs: Sequence[str],
    states: Sequence[str],
    params: Sequence[str],
    constants: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> Program:
    """Trace `fn(*inputs, *states, **params, **constants) -> (outputs, next states)` and its VJP.

    Raises:
        UnsupportedOperationError: `fn` uses an operation outside the language, compares a spike, or needs more than
            lanes.
        ValueError: `fn` returns something else than its outputs and a tuple of as many states as it has.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    arity = {"out": 0}
    n_args = len(inputs) + len(states) + len(params)

    def primal(*args: Tensor) -> tuple[Tensor, ...]:
        positional, named = args[: len(inputs) + len(states)], args[len(inputs) + len(states) :]
        outputs, next_states = split(
            fn(*positional, **dict(zip(params, named, strict=True)), **constants), name, states
        )
        arity["out"] = len(outputs)
        return (*outputs, *next_states)

    def joint(*args: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        values, pullback, *_ = torch.func.vjp(primal, *args[:n_args])
        return values, pullback(args[n_args : n_args + len(values)])

    lanes = [torch.full((2,), 0.5, dtype=dtype) for _ in range(n_args)]
    try:
        primal(*lanes)
        cotangents = [torch.full((2,), 0.5, dtype=dtype) for _ in range(arity["out"] + len(states))]
        graph = make_fx(joint, decomposition_table=_decompositions())(*lanes, *cotangents).graph
    except (RuntimeError, IndexError) as error:
        raise fails(name, error) from error

    # Prefixes keep the user's names apart from each other and from those of generated code.
    arguments = {
        "inputs": [f"in_{x}" for x in inputs],
        "states": [f"st_{s}" for s in states],
        "params": [f"p_{p}" for p in params],
        "cotangents": [*(f"grad_out{k}" for k in range(arity["out"])), *(f"grad_st_{s}" for s in states)],
    }
    builder = _Builder(name)
    values: dict[torch.fx.Node, Arg] = {}
    placeholders = itertools.chain.from_iterable(arguments.values())
    results: tuple[Any, Any] = ((), ())
    for node in graph.nodes:
        if node.op == "placeholder":
            values[node] = next(placeholders)
        elif node.op == "call_function":
            args = [_argument(a, values) for a in node.args]
            kwargs = {k: _argument(v, values) for k, v in node.kwargs.items() if k in ("alpha", "rounding_mode", "max")}
            values[node] = builder.convert(node.target, args, kwargs)
            if _packet(node.target).endswith("_"):  # in place: later readers of the argument see the result
                values[node.args[0]] = values[node]
        elif node.op == "get_attr":
            raise UnsupportedOperationError(
                name, "reads a tensor from outside", "pass it as a parameter, so that its gradient is kept"
            )
        elif node.op == "output":
            results = node.args[0]

    def named(result: Any) -> str:
        value = 0.0 if result is None else values[result]
        return value if isinstance(value, str) else builder.emit("add", value, 0.0)

    forward = [named(r) for r in results[0]]
    gradients = [named(r) for r in results[1]]
    builder.check_spikes()
    n_out, n_in, n_state = arity["out"], len(inputs), len(states)
    op_of = {node.name: node.op for node in builder.nodes}
    together = _invert(live(builder.nodes, [*forward, *gradients]), forward, set(arguments["params"]))
    hoisted, nodes = _hoist(together, set(arguments["params"]))
    needed = used(nodes, [*forward, *gradients])
    program = Program(
        name=name,
        inputs=tuple(arguments["inputs"]),
        states=tuple(arguments["states"]),
        params=tuple(arguments["params"]),
        outputs=tuple(forward[:n_out]),
        binary=tuple(op_of.get(o) in SPIKES for o in forward[:n_out]),
        next_states=tuple(forward[n_out:]),
        grads_inputs=tuple(gradients[:n_in]),
        grads_states=tuple(gradients[n_in : n_in + n_state]),
        grads_params=tuple(gradients[n_in + n_state :]),
        hoisted=tuple(live(hoisted, needed)),
        nodes=tuple(nodes),
    )
    return parse(str(program))


def split(result: Any, name: str, states: Sequence[str]) -> tuple[tuple[Tensor, ...], State]:
    """Outputs and next states out of what a step function returned."""
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], tuple)):
        raise ValueError(f"step {name!r} returned {type(result).__name__}; expected (output, (next state, ...))")
    outputs, next_states = result
    if len(next_states) != len(states):
        raise ValueError(
            f"step {name!r} returned {len(next_states)} next states for {len(states)} states {tuple(states)}"
        )
    return (outputs if isinstance(outputs, tuple) else (outputs,)), next_states


def _packet(op: Any) -> str:
    return str(getattr(getattr(op, "overloadpacket", op), "__name__", op))


def _argument(value: Any, values: Mapping[Any, Arg]) -> Any:
    if isinstance(value, torch.fx.Node):
        return values[value]
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _constants(nodes: Sequence[Node], params: set[str]) -> set[str]:
    """Names of the values that depend on parameters and numbers alone, the parameters among them."""
    constant = set(params)
    for node in nodes:
        names = [a for a in node.args if isinstance(a, str)]
        if names and constant.issuperset(names) and node.op not in SPIKES:
            constant.add(node.name)
    return constant


def _invert(nodes: Sequence[Node], forward: Sequence[str], params: set[str]) -> list[Node]:
    """Where only gradients are concerned, replace a division by a parameter with a product by its hoisted inverse.

    Nodes that the forward step needs keep their division: spikes have equal bits in every engine, gradients need not.
    """
    constant, kept = _constants(nodes, params), {node.name for node in live(nodes, forward)}
    result: list[Node] = []
    inverses: dict[str, str] = {}
    for node in nodes:
        divisor = node.args[1] if node.op == "div" else None
        if not isinstance(divisor, str) or divisor not in constant or node.name in constant | kept:
            result.append(node)
            continue
        if divisor not in inverses:
            inverses[divisor] = f"i{len(inverses)}"
            result.append(Node(inverses[divisor], "div", (1.0, divisor)))
        result.append(Node(node.name, "mul", (node.args[0], inverses[divisor])))
    return result


def _hoist(nodes: Sequence[Node], params: set[str]) -> tuple[list[Node], list[Node]]:
    """Split off the nodes that depend on parameters and numbers alone."""
    constant = _constants(nodes, params)
    return [n for n in nodes if n.name in constant], [n for n in nodes if n.name not in constant]


@dataclass(frozen=True, eq=False)
class Step:
    """A neuron's update, written once. Made by `rb.step`; calling it runs the plain function."""

    fn: Callable[..., Any]
    inputs: tuple[str, ...]
    state: Mapping[str, Rest]
    fallback: str | None = None

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.fn.__name__

    @property
    def arguments(self) -> tuple[str, ...]:
        """Names of the keyword-only arguments: parameters and trace constants."""
        kinds = inspect.signature(self.fn).parameters.values()
        return tuple(p.name for p in kinds if p.kind is inspect.Parameter.KEYWORD_ONLY)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One time step, as written."""
        return self.fn(*args, **kwargs)

    def __deepcopy__(self, memo: Any) -> "Step":
        return self

    def __reduce__(self) -> Any:
        return _find_step, (self.fn.__module__, self.fn.__qualname__)


def _find_step(module: str, name: str) -> Step:
    """A pickled step is found again by its name, as functions are."""
    found: Step = operator.attrgetter(name)(importlib.import_module(module))
    return found


def step(
    *, inputs: Sequence[str] = ("x",), state: Mapping[str, Rest], fallback: Literal["reference"] | None = None
) -> Callable[[Callable[..., Any]], Step]:
    """Declare a neuron: one time step in ordinary torch operations.

    `fn(*inputs, *state, *, <parameters and constants>) -> (output, (next state, ...))`, element-wise, without
    randomness (noise is a further input). Tensors and numbers passed by keyword are parameters, known at run time and
    differentiable; strings, booleans, surrogates and functions are constants of the trace.

    Args:
        inputs: names of the leading arguments that carry a sequence.
        state: name -> value at rest, in the order of the arguments that follow the inputs; a function of the parameters
            (taken by name) where rest depends on them; `{}` for a step that remembers nothing.
        fallback: "reference" runs a step that cannot be fused on the reference engine, after one warning; None raises
            when such a step is bound.

    Raises:
        ValueError: the function's positional arguments are not the inputs and then the states, or a name is another's
            with an ending that generated code gives it.
    """

    def declare(fn: Callable[..., Any]) -> Step:
        arguments = inspect.signature(fn).parameters.values()
        positional = tuple(p.name for p in arguments if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD)
        if positional != (*inputs, *state):
            raise ValueError(
                f"step {fn.__name__!r} takes {positional}, expected its inputs and then its states "
                f"{(*inputs, *state)}; put parameters behind '*'"
            )
        params = tuple(p.name for p in arguments if p.kind is inspect.Parameter.KEYWORD_ONLY)
        for kind in (tuple(inputs), tuple(state), params):
            for name, other in itertools.permutations(kind, 2):
                if other.startswith(name) and _ENDINGS.fullmatch(other[len(name) :]):
                    raise ValueError(
                        f"step {fn.__name__!r} has {name!r} and {other!r}, which generated code would mix up; "
                        f"call {other!r} otherwise"
                    )
        return Step(fn, tuple(inputs), dict(state), fallback)

    return declare
