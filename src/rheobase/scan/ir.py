"""The language of a traced step: a straight line of element-wise operations, as data and as canonical text.

A `Program` holds one list of nodes in single-assignment form. The forward step and its vector-Jacobian product share
the list; whoever emits code asks for the names it needs and takes the nodes that reach them (`live`). Nodes that depend
on parameters alone are kept apart (`hoisted`): torch evaluates them once per call (`hoist`), not once per time step.
"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

Arg = str | float
"""A node's argument: the name of a value, or a number."""

HEADER = "rheobase-step 1"


@dataclass(frozen=True)
class Node:
    """`name = op(*args)`."""

    name: str
    op: str
    args: tuple[Arg, ...]

    def __str__(self) -> str:
        # repr(inf) would read as a name; 1e999 is inf as a number
        args = (a if isinstance(a, str) else repr(a).replace("inf", "1e999") for a in self.args)
        return f"{self.name} = {self.op}({', '.join(args)})"


@dataclass(frozen=True)
class Program:
    """A traced step.

    `inputs`, `states` and `params` name the arguments; the cotangents are `grad_<output>` and `grad_<state>`.
    `outputs`, `next_states` and the three `grads_*` name, for each of them, the value that holds it. `packed` outputs
    are written as bits, set where they are not zero (see `rheobase.scan.bit_layout`); empty: none is.
    """

    name: str
    inputs: tuple[str, ...]
    states: tuple[str, ...]
    params: tuple[str, ...]
    outputs: tuple[str, ...]
    binary: tuple[bool, ...]
    next_states: tuple[str, ...]
    grads_inputs: tuple[str, ...]
    grads_states: tuple[str, ...]
    grads_params: tuple[str, ...]
    hoisted: tuple[Node, ...]
    nodes: tuple[Node, ...]
    packed: tuple[bool, ...] = ()

    @property
    def grads_outputs(self) -> tuple[str, ...]:
        """Names of the cotangents of the outputs."""
        return tuple(f"grad_out{k}" for k in range(len(self.outputs)))

    @property
    def grads_next(self) -> tuple[str, ...]:
        """Names of the cotangents of the next states."""
        return tuple(f"grad_{state}" for state in self.states)

    def __str__(self) -> str:
        rows = [HEADER]
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("hoisted", "nodes"):
                rows += [f"{field.name}: {node}" for node in value]
            elif field.name != "packed" or value:
                words = [value] if isinstance(value, str) else [str(v) for v in value]
                rows.append(" ".join([f"{field.name}:", *words]))
        return "\n".join(rows) + "\n"


_NODE = re.compile(r"(\w+) = (\w+)\((.*)\)")


def _parse_node(text: str) -> Node:
    match = _NODE.fullmatch(text)
    if match is None:
        raise ValueError(f"step text: cannot read the node {text!r}; expected 'name = op(arg, ...)'")
    name, op, args = match.groups()
    return Node(name, op, tuple(a if a[0].isalpha() or a[0] == "_" else float(a) for a in args.split(", ") if a))


@lru_cache(maxsize=1024)
def parse(text: str) -> Program:
    """Read the canonical text that `str(program)` writes.

    Raises:
        ValueError: not the text of a step, or of another version of the format.
    """
    header, _, body = text.partition("\n")
    if header != HEADER:
        raise ValueError(f"step text: starts with {header[:40]!r}, expected {HEADER!r}; export the model again")
    found: dict[str, Any] = {"hoisted": [], "nodes": []}
    for row in body.splitlines():
        key, _, rest = row.partition(": ") if ": " in row else (row.rstrip(":"), "", "")
        if key in ("hoisted", "nodes"):
            found[key].append(_parse_node(rest))
        elif key == "name":
            found[key] = rest
        elif key in ("binary", "packed"):
            found[key] = tuple(word == "True" for word in rest.split())
        else:
            found[key] = tuple(rest.split())
    fields_: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
    return Program(**fields_)


def live(nodes: Sequence[Node], wanted: Iterable[str]) -> list[Node]:
    """The nodes that reach one of the `wanted` names, in order."""
    needed = set(wanted)
    kept = []
    for node in reversed(nodes):
        if node.name in needed:
            needed.update(a for a in node.args if isinstance(a, str))
            kept.append(node)
    return kept[::-1]


def used(nodes: Sequence[Node], outputs: Iterable[str]) -> set[str]:
    """All names that the nodes read, and the `outputs` themselves."""
    return {a for node in nodes for a in node.args if isinstance(a, str)} | set(outputs)


def heaviside(h: Tensor, strict: bool) -> Tensor:
    """1 where h >= 0 (or h > 0 if `strict`), else 0, in h's dtype."""
    return ((h > 0) if strict else (h >= 0)).to(h.dtype)


def _where(condition: Any, a: Any, b: Any) -> Any:
    return torch.where(condition, a, b)


TORCH: Mapping[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "neg": operator.neg,
    "sqrt": torch.sqrt,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "log": torch.log,
    "log1p": torch.log1p,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "sin": torch.sin,
    "cos": torch.cos,
    "atan": torch.atan,
    "erf": torch.erf,
    "pow": torch.pow,
    "abs": torch.abs,
    "sign": torch.sign,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "trunc": torch.trunc,
    "round": torch.round,
    "minimum": torch.minimum,
    "maximum": torch.maximum,
    "where": _where,
    "ge": operator.ge,
    "gt": operator.gt,
    "le": operator.le,
    "lt": operator.lt,
    "eq": operator.eq,
    "ne": operator.ne,
    "and": operator.and_,
    "or": operator.or_,
    "not": operator.invert,
    "float": lambda c: c.to(torch.float32),
    "spike": lambda h: heaviside(h, False),
    "spike_strict": lambda h: heaviside(h, True),
}
"""Every operation of the language, as torch computes it."""

BOOLEAN = frozenset({"ge", "gt", "le", "lt", "eq", "ne", "and", "or", "not"})
SPIKES = frozenset({"spike", "spike_strict"})
INFIX = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "neg": "-{0}",
    "ge": "{0} >= {1}",
    "gt": "{0} > {1}",
    "le": "{0} <= {1}",
    "lt": "{0} < {1}",
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "and": "{0} & {1}",
    "or": "{0} | {1}",
}
"""Operations that every emitted language writes alike."""


def hoist(program: Program, params: Sequence[Tensor], nodes: Sequence[Node]) -> dict[str, Tensor]:
    """Evaluate some of the hoisted nodes. Returns every parameter and every value found by name."""
    values: dict[str, Any] = dict(zip(program.params, params, strict=True))
    dtype = params[0].dtype if params else torch.float32
    for node in nodes:
        args = [values[a] if isinstance(a, str) else a for a in node.args]
        if node.op in ("minimum", "maximum", "where"):
            args = [a if isinstance(a, Tensor) else torch.tensor(a, dtype=dtype) for a in args]
        value = TORCH[node.op](*args)
        values[node.name] = value.to(dtype) if node.op == "float" else value
    return values
