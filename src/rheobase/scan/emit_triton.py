"""From a `Program` to the source of a Triton kernel: each program runs tiles of lanes through all time steps.

Steps are taken in chunks that are written out one after the other, so that loads of several steps are on their way at
once. The backward kernel is given the inputs and the initial state alone. It runs the recurrence again and keeps, in a
buffer of its program, the state before each chunk but the first; then it walks back chunk by chunk, with the states of
one chunk in registers. A sequence that fits one chunk needs no buffer.

All operations are rounded one by one, to nearest: division and square root are the precise ones, the launch forbids
fused multiply-adds, and 16-bit brain floats are read and written by integer arithmetic, because Triton's interpreter
truncates them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rheobase.scan.emit_cpu import Layout, backward_parameters, forward_parameters, is_power_of_two
from rheobase.scan.ir import INFIX, Arg, Node, Program, live, used

EMITTER = 1
"""Version of what this file writes; part of the name of every cached kernel."""

_PRELUDE = '''
@triton.jit
def load_bf16(value):
    bits = value.to(tl.uint16, bitcast=True).to(tl.uint32)
    return (bits << 16).to(tl.float32, bitcast=True)


@triton.jit
def store_bf16(value):
    bits = value.to(tl.uint32, bitcast=True)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    rounded = tl.where(value == value, rounded, 0x7FC00000)
    return (rounded >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)


@triton.jit
def signed(magnitude, value):
    """`magnitude`, which is not negative, with the sign of `value`."""
    sign = value.to(tl.uint32, bitcast=True) & 0x80000000
    return (magnitude.to(tl.uint32, bitcast=True) | sign).to(tl.float32, bitcast=True)


@triton.jit
def ldexp(value, power):
    """value times 2**power, for an integral power, where the value and the result are normal numbers."""
    shifted = (power + 12582912.0).to(tl.uint32, bitcast=True) << 23
    return (value.to(tl.uint32, bitcast=True) + shifted).to(tl.float32, bitcast=True)


@triton.jit
def exponent(value):
    """The e for which value times 2**-e lies in [sqrt(1/2), sqrt(2)), for a positive normal value."""
    return ((value.to(tl.int32, bitcast=True) - 0x3F3504F3) >> 23).to(tl.float32)


@triton.jit
def trunc(value):
    return signed(tl.floor(tl.abs(value)), value)


@triton.jit
def rint(value):
    """To the nearest integer, ties to even: from 2^23 on, floats are integers."""
    size = tl.abs(value)
    return signed(tl.where(size < 8388608.0, (size + 8388608.0) - 8388608.0, size), value)
'''

_EXPRESSION = {
    **INFIX,
    "div": "tl.div_rn({0}, {1})",
    "sqrt": "tl.sqrt_rn({0})",
    "abs": "tl.abs({0})",
    "sign": "tl.where({0} > 0.0, 1.0, tl.where({0} < 0.0, -1.0, 0.0))",
    "floor": "tl.floor({0})",
    "ceil": "tl.ceil({0})",
    "trunc": "trunc({0})",
    "round": "rint({0})",
    "ldexp": "ldexp({0}, {1})",
    "exponent": "exponent({0})",
    "minimum": "tl.where(({0} < {1}) | ({0} != {0}), {0}, {1})",
    "maximum": "tl.where(({0} > {1}) | ({0} != {0}), {0}, {1})",
    "where": "tl.where({0}, {1}, {2})",
    "not": "~{0}",
    "float": "tl.where({0}, 1.0, 0.0)",
    "spike": "tl.where({0} >= 0.0, 1.0, 0.0)",
    "spike_strict": "tl.where({0} > 0.0, 1.0, 0.0)",
}
"""Every operation whose result is rounded as IEEE 754 says, so that all engines agree on its bits."""

_LOAD = {"f32": "{}", "f16": "{}.to(tl.float32)", "bf16": "load_bf16({})"}
_STORE = {"f32": "{}", "f16": "{}.to(tl.float16)", "bf16": "store_bf16({})"}
_SMALLEST, _LARGEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127


@dataclass(frozen=True)
class TritonLayout(Layout):
    """What a kernel is specialised for, beyond `Layout`, whose `tile` is the number of lanes of a tile.

    Attributes:
        numbers: scalars and resting states that are passed by value; `inverted` are some of these.
        static: inputs and given cotangents of outputs whose steps are all the same memory.
        resting: states that are one value for all lanes.
        grads_next: which final states have a cotangent (backward).
        head, chunk: steps of the first and of every later chunk.
        looped, kept: whether there are later chunks, and more than one, so that states are kept in a buffer.
        order: how programs share the lanes: "flat"; "runs": each has one value of a parameter that is repeated over
            runs of lanes; "columns": each has some values of a parameter that differs from lane to lane.
        columns: how many.
        wide: 64-bit lane numbers.
    """

    numbers: frozenset[str] = frozenset()
    static: frozenset[str] = frozenset()
    resting: frozenset[str] = frozenset()
    grads_next: tuple[bool, ...] = ()
    head: int = 1
    chunk: int = 1
    looped: bool = False
    kept: bool = False
    order: str = "flat"
    columns: int = 1
    wide: bool = False


def within(program: Program) -> Program:
    """The program with its hoisted arithmetic moved into the kernel, where it costs no launch.

    Only functions of parameters stay hoisted: their bits are torch's.
    """
    functions = tuple(node for node in program.hoisted if node.op not in _EXPRESSION)
    arithmetic = tuple(node for node in program.hoisted if node.op in _EXPRESSION)
    return replace(program, hoisted=functions, nodes=(*arithmetic, *program.nodes))


class _Kernel:
    """Collects the pieces of one kernel: arguments, lines, and the functions of a step that it calls."""

    def __init__(self, name: str, program: Program, layout: TritonLayout, params: Sequence[str]) -> None:
        self.name, self.program, self.layout, self.params = name, program, layout, params
        self.arguments = ["N"]
        self.lines: list[str] = []
        self.functions: list[str] = []
        self.uniform = layout.scalars.intersection(params)
        for node in program.nodes:
            if self.uniform.issuperset(a for a in node.args if isinstance(a, str)):
                self.uniform |= {node.name}

    def argument(self, *names: str) -> None:
        self.arguments += names

    def parameters(self) -> None:
        for name in self.params:
            self.argument(f"{name}_all")
            if name not in self.layout.scalars:
                self.argument(f"{name}_inner", f"{name}_size")

    def add(self, depth: int, *lines: str) -> None:
        self.lines += ["    " * depth + line for line in lines]

    def function(self, name: str, wanted: Sequence[str]) -> list[str]:
        """Write a function that returns the `wanted` values, each a whole tile; returns the names of its arguments."""
        if not wanted:
            return []
        program, nodes = self.program, live(self.program.nodes, wanted)
        read = used(nodes, wanted)
        named = (*program.inputs, *program.states, *self.params, *program.grads_outputs, *program.grads_next)
        arguments = [a for a in named if a in read]
        results = [self.whole(w) if w in self.uniform else w for w in wanted]
        self.functions += [
            "",
            "",
            "@triton.jit",
            f"def {name}({', '.join(arguments)}):",
            *(f"    {node.name} = {expression(node, self.layout.inverted)}" for node in nodes),
            f"    return {', '.join(results)}",
        ]
        return arguments

    def whole(self, value: str) -> str:
        """One value, for every lane of a tile."""
        return f"tl.broadcast_to({value}, ({self.layout.tile},))"

    def call(self, depth: int, function: str, targets: Sequence[str], arguments: Sequence[str], j: int) -> None:
        """Call a function of step j of a chunk."""
        if targets:
            self.add(depth, f"{', '.join(targets)} = {function}({', '.join(self.at(arguments, j))})")

    def at(self, names: Iterable[str], j: int) -> list[str]:
        """The names that values of step j of a chunk have."""
        kept = (*self.program.inputs, *self.program.states)
        return [f"{name}_{j}" if name in kept and name not in self.layout.static else name for name in names]

    def load(self, depth: int, name: str, offset: str, target: str) -> None:
        """Load one step of a sequence."""
        load = f"tl.load({name}_all + {offset}lane, mask=inside, other=0.0)"
        self.add(depth, f"{target} = {_LOAD[self.layout.io].format(load)}")

    def sequences(self, depth: int, names: Iterable[str], j: int) -> None:
        """Load step j of a chunk of those inputs that change from step to step."""
        for name in names:
            if name not in self.layout.static:
                self.load(depth, name, f"(past + {j} * stride) + ", f"{name}_{j}")

    def store(self, depth: int, name: str, j: int, value: str) -> None:
        """Store step j of a chunk of a sequence."""
        value = _STORE[self.layout.io].format(value)
        self.add(depth, f"tl.store({name}_all + (past + {j} * stride) + lane, {value}, mask=inside)")

    def tile(self, depth: int, static: Iterable[str]) -> None:
        """The lanes of a tile: their numbers, which of them there are, parameters, and sequences without time."""
        tile, columns = self.layout.tile, self.layout.columns
        self.add(depth, "at = tl.full((), tile, tl.int64)" if self.layout.wide else "at = tile")
        if self.layout.order == "flat":
            self.add(depth, f"lane = at * {tile} + index", "inside = lane < N")
        elif self.layout.order == "runs":
            self.add(depth, f"position = at * {tile} + index", "inside = position < count")
            self.add(depth, "lane = (position // inner * size + group) * inner + position % inner")
        else:
            self.add(depth, f"row = at * {tile // columns} + index // {columns}")
            self.add(depth, f"column = group * {columns} + index % {columns}")
            self.add(depth, "lane = row * size + column", "inside = (row < count) & (column < size)")
        for name in self.params:
            if name in self.layout.numbers:
                self.add(depth, f"{name} = tl.full((), {name}_all, tl.float32)")
            elif name in self.layout.scalars:
                self.add(depth, f"{name} = tl.load({name}_all)")
            else:
                index = f"lane // {name}_inner % {name}_size"
                self.add(depth, f"{name} = tl.load({name}_all + {index}, mask=inside, other=0.0)")
        for name in static:
            self.load(depth, name, "", name)

    def first(self, depth: int, names: Iterable[str]) -> None:
        """Load the state before the first step."""
        for name in names:
            value = f"tl.load({name}_first + lane, mask=inside, other=0.0)"
            if name in self.layout.numbers:
                value = f"tl.full(({self.layout.tile},), {name}_first, tl.float32)"
            elif name in self.layout.resting:
                value = self.whole(f"tl.load({name}_first)")
            self.add(depth, f"{name} = {value}")

    def source(self) -> str:
        rows = [
            f'"""Written by rheobase for the step {self.program.name!r}: {self.layout.io}."""',
            "",
            "import triton",
            "import triton.language as tl",
            "",
            _PRELUDE.rstrip(),
            *self.functions,
            "",
            "",
            "@triton.jit",
            f"def {self.name}({', '.join(self.arguments)}):",
            *self.lines,
        ]
        return "\n".join(rows) + "\n"


def expression(node: Node, inverted: frozenset[str] = frozenset()) -> str:
    """One node as Triton writes it; `inverted` are divisors that are powers of two.

    Raises:
        ValueError: an operation that the engine does not have.
    """
    form = _EXPRESSION.get(node.op)
    if form is None:
        raise ValueError(f"the triton engine has no {node.op!r}; run this step under rb.engine('reference')")
    divisor = node.args[1] if node.op == "div" else None
    if isinstance(divisor, float) and is_power_of_two(divisor):
        return f"{_number(node.args[0])} * {_number(1 / divisor)}"
    if divisor in inverted:
        return f"{_number(node.args[0])} * tl.div_rn(tl.full((), 1.0, tl.float32), {divisor})"
    number = _number if node.op not in ("div", "ldexp") and any(isinstance(a, str) for a in node.args) else _tensor
    return form.format(*map(number, node.args))


def _number(arg: Arg) -> str:
    """A literal; those that Triton would read as 64-bit are said to be 32-bit."""
    if isinstance(arg, float) and (arg == 0 or _SMALLEST <= abs(arg) <= _LARGEST):
        return repr(arg) if arg >= 0 else f"({arg!r})"
    return _tensor(arg)


def _tensor(arg: Arg) -> str:
    if isinstance(arg, str):
        return arg
    return f"tl.full((), {arg!r}, tl.float32)" if math.isfinite(arg) else f'tl.full((), float("{arg}"), tl.float32)'


def emit_forward(program: Program, layout: TritonLayout) -> str:
    """Source of `forward(N, inputs, states, params, outputs, final states, chunks)`: one tile a program."""
    k = _Kernel("forward", program, layout, forward_parameters(program))
    outputs = [f"out{j}" for j in range(len(program.outputs))]
    arguments = k.function("respond", [*program.outputs, *program.next_states])
    k.argument(*(f"{x}_all" for x in program.inputs), *(f"{s}_first" for s in program.states))
    k.parameters()
    k.argument(*(f"{out}_all" for out in outputs), *(f"{s}_last" for s in program.states))
    if layout.looped:
        k.argument("chunks")

    def steps(depth: int, count: int) -> None:
        for j in range(count):
            k.sequences(depth, program.inputs, j)
        for s in program.states:
            k.add(depth, f"{s}_0 = {s}")
        for j in range(count):
            k.call(depth, "respond", [*outputs, *(f"{s}_{j + 1}" for s in program.states)], arguments, j)
            for out in outputs:
                k.store(depth, out, j, out)
        for s in program.states:
            k.add(depth, f"{s} = {s}_{count}")

    k.add(1, f"index = tl.arange(0, {layout.tile})", "tile = tl.program_id(0)")
    k.tile(1, [x for x in program.inputs if x in layout.static])
    k.first(1, program.states)
    k.add(1, "stride = tl.full((), N, tl.int64)", "past = tl.full((), 0, tl.int64)")
    steps(1, layout.head)
    if layout.looped:
        k.add(1, f"past += {layout.head} * stride", "for _ in range(chunks):")
        steps(2, layout.chunk)
        k.add(2, f"past += {layout.chunk} * stride")
    for s in program.states:
        k.add(1, f"tl.store({s}_last + lane, {s}, mask=inside)")
    return k.source()


def emit_backward(program: Program, layout: TritonLayout) -> str:
    """Source of `backward(N, inputs, states, params, cotangents, gradients, tiling, history, chunks)`.

    A program takes every `splits`-th of the `tiles` of its group.
    """
    k = _Kernel("backward", program, layout, backward_parameters(program, layout))
    tile, size = layout.tile, len(program.states)
    keeps = layout.kept and size > 0
    cotangents = [g for g, given in zip(program.grads_outputs, layout.grads_outputs, strict=True) if given]
    of_input = [x for x, wanted in zip(program.inputs, layout.inputs, strict=True) if wanted]
    of_param = [name for name, _ in layout.params]
    whole = [p for p, how in layout.params if how == "sum"]
    k.argument(*(f"{x}_all" for x in program.inputs), *(f"{s}_first" for s in program.states))
    k.parameters()
    k.argument(*(f"{g}_all" for g in cotangents))
    k.argument(*(f"{g}_last" for g, given in zip(program.grads_next, layout.grads_next, strict=True) if given))
    k.argument(*(f"to_{x}_all" for x in of_input))
    k.argument(*(f"to_{s}_first" for s, wanted in zip(program.states, layout.states, strict=True) if wanted))
    k.argument(*(f"to_{p}_{'sums' if p in whole else 'all'}" for p in of_param))
    k.argument("tiles", "splits", "groups", "count", "inner", "size")
    if keeps:
        k.argument("history")
    if layout.looped:
        k.argument("chunks")

    found = dict(zip((*program.inputs, *program.params), (*program.grads_inputs, *program.grads_params), strict=True))
    onward = k.function("advance", program.next_states)
    targets = [*(f"to_{x}" for x in of_input), *program.grads_next, *(f"to_{p}" for p in of_param)]
    back = k.function(
        "pull_back", [*(found[x] for x in of_input), *program.grads_states, *(found[p] for p in of_param)]
    )

    def advance(depth: int, count: int) -> None:
        """Load some steps of the inputs and take them."""
        for j in range(count):
            k.sequences(depth, program.inputs, j)
        for j in range(count):
            k.call(depth, "advance", [f"{s}_{j + 1}" for s in program.states], onward, j)

    def walk_back(depth: int, count: int) -> None:
        """From the state before a chunk through it and back."""
        advance(depth, count - 1)
        k.sequences(depth, program.inputs, count - 1)
        for j in reversed(range(count)):
            for g in cotangents:
                if g not in layout.static:
                    k.load(depth, g, f"(past + {j} * stride) + ", g)
            k.call(depth, "pull_back", targets, back, j)
            for x in of_input:
                k.store(depth, f"to_{x}", j, f"to_{x}")
            for p in of_param:
                k.add(depth, f"to_{p}_lanes += tl.where(inside, to_{p}, 0.0)")

    def rename(depth: int, old: str, new: str) -> None:
        for s in program.states:
            k.add(depth, f"{s}{new} = {s}{old}")

    k.add(1, f"index = tl.arange(0, {tile})", "program = tl.program_id(0)")
    k.add(1, "group = program % groups", "stride = tl.full((), N, tl.int64)")
    if keeps:
        k.add(1, f"history += tl.full((), program, tl.int64) * chunks * {size * tile} + index")
    zeros = f"tl.full(({tile},), 0.0, tl.float32)"
    for g, given in zip(program.grads_outputs, layout.grads_outputs, strict=True):
        if not given and g in back:
            k.add(1, f"{g} = {zeros}")
    for p in whole:
        k.add(1, f"to_{p}_lanes = {zeros}")
    k.add(1, "for tile in range(program // groups, tiles, splits):")
    k.tile(2, [*(x for x in program.inputs if x in layout.static), *(g for g in cotangents if g in layout.static)])
    for p in of_param:
        if p not in whole:
            k.add(2, f"to_{p}_lanes = {zeros}")
    k.first(2, program.states)
    k.add(2, "past = tl.full((), 0, tl.int64)")
    if layout.looped:
        rename(2, "", "_0")
        advance(2, layout.head)
        rename(2, f"_{layout.head}", "")
        k.add(2, f"past += {layout.head} * stride")
    if layout.kept:
        k.add(2, "for chunk in range(chunks - 1):")
        for j, s in enumerate(program.states):
            k.add(3, f"tl.store(history + (chunk * {size} + {j}) * {tile}, {s})")
        rename(3, "", "_0")
        advance(3, layout.chunk)
        rename(3, f"_{layout.chunk}", "")
        k.add(3, f"past += {layout.chunk} * stride")
        if keeps:
            k.add(2, "tl.debug_barrier()")  # whoever stored a lane's state need not be who loads it
    for g, given in zip(program.grads_next, layout.grads_next, strict=True):
        value = f"tl.load({g}_last + lane, mask=inside, other=0.0)" if given else zeros
        k.add(2, f"{g} = {value}")
    if layout.looped:
        k.add(2, "for chunk in range(chunks):")
        rename(3, "", "_0")
        walk_back(3, layout.chunk)
        k.add(3, f"past -= {layout.chunk} * stride")
        if keeps:
            k.add(3, "before = tl.maximum(chunks - 2 - chunk, 0)")  # after the first of them, nobody reads it
            for j, s in enumerate(program.states):
                k.add(3, f"{s} = tl.load(history + (before * {size} + {j}) * {tile})")
        k.add(2, "past = tl.full((), 0, tl.int64)")
        k.first(2, program.states)
        if keeps:
            k.add(2, "tl.debug_barrier()")
    rename(2, "", "_0")
    walk_back(2, layout.head)
    for s, g, wanted in zip(program.states, program.grads_next, layout.states, strict=True):
        if wanted:
            k.add(2, f"tl.store(to_{s}_first + lane, {g}, mask=inside)")
    for p in of_param:
        if p not in whole:
            k.add(2, f"tl.store(to_{p}_all + lane, to_{p}_lanes, mask=inside)")
    for p in whole:
        if p in layout.scalars or layout.order == "runs":
            where = "program" if p in layout.scalars else "program // groups * size + group"
            k.add(1, f"tl.store(to_{p}_sums + {where}, tl.sum(to_{p}_lanes, 0))")
        else:
            columns = layout.columns
            k.add(1, f"column = group * {columns} + tl.arange(0, {columns})")
            total = f"tl.sum(tl.reshape(to_{p}_lanes, ({tile // columns}, {columns})), 0)"
            k.add(1, f"tl.store(to_{p}_sums + program // groups * size + column, {total}, mask=column < size)")
    return k.source()
