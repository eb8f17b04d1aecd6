"""What one update of a neuron computes, read from the program that its step was traced to."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import lru_cache

from torch import nn

from rheobase.scan import Scan, Temporal
from rheobase.scan.ir import BOOLEAN, SPIKES, Node, live, parse

_FREE = frozenset({"neg", "float"})
_ADD = frozenset({"add", "sub", "floor", "ceil", "trunc", "round"})
_COMPARE = frozenset({"ge", "gt", "le", "lt", "eq", "ne", "minimum", "maximum", "abs", "sign"}) | SPIKES
_SELECT = frozenset({"where", "and", "or", "not"})


@dataclass(frozen=True)
class Operations:
    """Element-wise operations by what they need.

    Attributes:
        add: additions, subtractions and roundings.
        multiply: products, and quotients by what is constant over time, whose reciprocal is known.
        compare: comparisons, also minimum, maximum and absolute value.
        select: choosing one of two values or zero by a bit, and logic of bits.
        divide: other quotients.
        function: roots, powers, exponentials and the like.
    """

    add: int = 0
    multiply: int = 0
    compare: int = 0
    select: int = 0
    divide: int = 0
    function: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(getattr(self, field.name) for field in fields(self))

    def __sub__(self, other: "Operations") -> "Operations":
        return Operations(
            **{field.name: getattr(self, field.name) - getattr(other, field.name) for field in fields(self)}
        )


def scan_of(module: nn.Module) -> Scan | None:
    """The traced step of a neuron, or of the neuron within a recurrent layer; None if there is none."""
    if not isinstance(module, Temporal):
        return None
    scan = getattr(module, "scan", None) or getattr(getattr(module, "neuron", None), "scan", None)
    return scan if isinstance(scan, Scan) and scan.fused else None


@lru_cache(maxsize=1024)
def operations(text: str) -> Operations:
    """Operations of one forward step of a traced program, on one element.

    What depends on parameters alone is computed once and costs nothing. A product with {0, 1} selects; 1 - s of a bit
    is its complement; the difference that nothing but a spike reads is the spike's comparison; signs are free.

    Args:
        text: what `rheobase.scan.Scan.text` gives.
    """
    program = parse(text)
    results = (*program.outputs, *program.next_states)
    constant = {*program.params, *(node.name for node in program.hoisted)}
    nodes = live(program.nodes, results)
    thresholds = _thresholds(nodes, results)
    bits: set[str] = set()
    counts = dict.fromkeys((field.name for field in fields(Operations)), 0)
    for node in nodes:
        kind = _kind(node, bits, constant)
        if node.op in SPIKES | BOOLEAN or (kind is None and bits.intersection(map(str, node.args))):
            bits.add(node.name)
        if kind is not None and node.name not in thresholds:
            counts[kind] += 1
    return Operations(**counts)


def _kind(node: Node, bits: set[str], constant: set[str]) -> str | None:
    """Which operation a node is; None if it costs nothing."""
    if node.op in _FREE or (node.op == "sub" and node.args[0] == 1.0 and node.args[1] in bits):
        return None
    if node.op == "add" and 0.0 in node.args:  # names a number
        return None
    if node.op == "mul":
        return "select" if bits.intersection(map(str, node.args)) else "multiply"
    if node.op == "div":
        divisor = node.args[1]
        return "multiply" if not isinstance(divisor, str) or divisor in constant else "divide"
    for kind, known in (("add", _ADD), ("compare", _COMPARE), ("select", _SELECT)):
        if node.op in known:
            return kind
    return "function"


def _thresholds(nodes: Iterable[Node], results: Iterable[str]) -> set[str]:
    """Names of the differences that spikes alone read."""
    readers: dict[str, set[str]] = {name: {"result"} for name in results}
    for node in nodes:
        for name in node.args:
            if isinstance(name, str):
                readers.setdefault(name, set()).add(node.op)
    return {node.name for node in nodes if node.op == "sub" and readers.get(node.name, set()) <= SPIKES}
