"""From a `Program` to the source of a numba kernel: one loop over time, lanes in tiles that stay in the cache.

A kernel is a C function of one pointer to slots (see `rheobase.scan.native`): counters, sizes, addresses, numbers.
The forward kernel keeps the state of a tile in a scratch buffer. The backward kernel is given the inputs and the
initial state alone: it runs the recurrence again for its tile, keeping the states of all steps in the cache, then walks
back.
No product and sum are contracted and nothing is reassociated, so that every engine decides the same spikes.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rheobase.scan.functions import lower
from rheobase.scan.ir import Node, Program, live

EMITTER = 4
"""Version of what this file writes; part of the key of every cached kernel."""

PRELUDE = '''
@njit(**OPTIONS)
def fill(lanes, source, step, start, n):
    """The state before the first step: one value for all (step 0), or one for each lane."""
    if step == 0:
        for i in range(n):
            lanes[i] = source[0]
    else:
        row = source[start:start + n]
        for i in range(n):
            lanes[i] = row[i]


@njit(**OPTIONS)
def spread(lanes, source, start, n, inner, size):
    """A parameter of `size` values, each repeated over `inner` lanes, laid out along the lanes of a tile."""
    done = 0
    while done < n:
        run = (start + done) // inner
        if inner == 1:
            first = run % size
            m = min(n - done, size - first)
            row, target = source[first:first + m], lanes[done:done + m]
            for i in range(m):
                target[i] = row[i]
        else:
            m = min(n - done, (run + 1) * inner - (start + done))
            value, target = source[run % size], lanes[done:done + m]
            for i in range(m):
                target[i] = value
        done += m


@njit(**OPTIONS)
def total(lanes, n):
    """Sum of the first n lanes, in a fixed order; overwrites them."""
    while n > 1:
        half = n // 2
        low, high = lanes[0:half], lanes[n - half:n]
        for i in range(half):
            low[i] += high[i]
        n -= half
    return lanes[0]


@njit(**OPTIONS)
def gather(sums, lanes, start, n, inner, size):
    """The transpose of `spread`: add the lanes of a tile to the sums of their parameter; overwrites the lanes."""
    done = 0
    while done < n:
        run = (start + done) // inner
        if inner == 1:
            first = run % size
            m = min(n - done, size - first)
            row, source = sums[first:first + m], lanes[done:done + m]
            for i in range(m):
                row[i] += source[i]
        else:
            m = min(n - done, (run + 1) * inner - (start + done))
            sums[run % size] += total(lanes[done:done + m], m)
        done += m


@njit(**OPTIONS)
def load_bf16(u):
    return np.uint32(np.uint32(u) << np.uint32(16)).view(np.float32)


@njit(**OPTIONS)
def store_bf16(f):
    u = np.float32(f).view(np.uint32)
    rounded = np.uint32(u + np.uint32(0x7FFF) + ((u >> np.uint32(16)) & np.uint32(1)))
    rounded = rounded if f == f else np.uint32(0x7FC00000)
    return np.uint16(rounded >> np.uint32(16))


@njit(**OPTIONS)
def load_f16(u):
    bits = np.uint32(u)
    value = np.float32(np.uint32((bits & np.uint32(0x7FFF)) << np.uint32(13)).view(np.float32) * np.float32(2.0**112))
    special = np.uint32(np.float32(value).view(np.uint32) | np.uint32(0x7F800000)).view(np.float32)
    value = special if value >= np.float32(65536.0) else value
    sign = np.uint32((bits & np.uint32(0x8000)) << np.uint32(16))
    return np.uint32(np.float32(value).view(np.uint32) | sign).view(np.float32)


@njit(**OPTIONS)
def store_f16(f):
    bits = np.float32(f).view(np.uint32)
    sign = np.uint32((bits >> np.uint32(16)) & np.uint32(0x8000))
    u = np.uint32(bits & np.uint32(0x7FFFFFFF))
    a = np.uint32(u).view(np.float32)
    small = np.uint32(np.float32(a + np.float32(0.5)).view(np.uint32) - np.uint32(0x3F000000))
    normal = np.uint32(u - np.uint32(0x38000000) + np.uint32(0xFFF) + ((u >> np.uint32(13)) & np.uint32(1)))
    normal = np.uint32(normal >> np.uint32(13))
    half = small if a < np.float32(2.0**-14) else normal
    half = np.uint32(0x7C00) if a >= np.float32(65520.0) else half
    half = half if a == a else np.uint32(0x7E00)
    return np.uint16(sign | half)


@njit(**OPTIONS)
def ldexp(x, n):
    """x times 2**n, for an integral n, where x and the result are normal numbers."""
    shifted = np.float32(n + np.float32(12582912.0)).view(np.uint32) << np.uint32(23)
    return np.uint32(np.float32(x).view(np.uint32) + shifted).view(np.float32)


@njit(**OPTIONS)
def exponent(x):
    """The e for which x times 2**-e lies in [sqrt(1/2), sqrt(2)), for a positive normal x."""
    return np.float32(np.int32(np.float32(x).view(np.int32) - np.int32(0x3F3504F3)) >> np.int32(23))
'''

_EXPRESSION = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "sqrt": "np.sqrt({0})",
    "exp": "np.exp({0})",
    "expm1": "np.expm1({0})",
    "log": "np.log({0})",
    "log1p": "np.log1p({0})",
    "tanh": "np.tanh({0})",
    "sigmoid": "ONE / (ONE + np.exp(-{0}))",
    "sin": "np.sin({0})",
    "cos": "np.cos({0})",
    "atan": "np.arctan({0})",
    "erf": "math.erf({0})",
    "pow": "{0} ** {1}",
    "ldexp": "ldexp({0}, {1})",
    "exponent": "exponent({0})",
    "abs": "np.abs({0})",
    "sign": "ONE if {0} > ZERO else (-ONE if {0} < ZERO else ZERO)",
    "floor": "np.floor({0})",
    "ceil": "np.ceil({0})",
    "trunc": "np.trunc({0})",
    "round": "np.rint({0})",
    "minimum": "{0} if ({0} < {1}) | ({0} != {0}) else {1}",
    "maximum": "{0} if ({0} > {1}) | ({0} != {0}) else {1}",
    "where": "{1} if {0} else {2}",
    "ge": "{0} >= {1}",
    "gt": "{0} > {1}",
    "le": "{0} <= {1}",
    "lt": "{0} < {1}",
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "and": "{0} & {1}",
    "or": "{0} | {1}",
    "not": "not {0}",
    "float": "ONE if {0} else ZERO",
    "spike": "ONE if {0} >= ZERO else ZERO",
    "spike_strict": "ONE if {0} > ZERO else ZERO",
}

_ENDLESS = 1 << 48
"""Length given to arrays whose length the kernel need not know."""
_SCALAR = {"f32": "float32", "f64": "float64", "bf16": "uint16", "f16": "uint16"}
_LOAD = {"f32": "{}", "f64": "{}", "bf16": "load_bf16({})", "f16": "load_f16({})"}
_STORE = {"f32": "{}", "f64": "{}", "bf16": "store_bf16({})", "f16": "store_f16({})"}


@dataclass(frozen=True)
class Layout:
    """What a kernel is specialised for.

    Attributes:
        io: number format of inputs and outputs: f32, f64, bf16, f16.
        scalars: parameters and hoisted values that are one number; the others are spread over the lanes.
        inverted: scalars that are powers of two: a product by their inverse has the bits of the division.
        tile: lanes in a tile.
        grads_outputs: which outputs have a cotangent (backward).
        inputs, states: which gradients are wanted (backward).
        params: wanted parameter gradients: name -> "sum" (per block, over repeats) or "lane" (one a lane) (backward).
    """

    io: str
    scalars: frozenset[str]
    inverted: frozenset[str]
    tile: int
    grads_outputs: tuple[bool, ...] = ()
    inputs: tuple[bool, ...] = ()
    states: tuple[bool, ...] = ()
    params: tuple[tuple[str, str], ...] = ()

    @property
    def membrane(self) -> str:
        """Number format of state and arithmetic."""
        return "f64" if self.io == "f64" else "f32"


def _lowered(program: Program, layout: Layout) -> Program:
    """The step with functions of the C library (fp64) or with arithmetic that vectorises in their place."""
    return lower(program) if layout.membrane == "f32" else program


def is_power_of_two(value: float) -> bool:
    """Whether dividing by `value` and multiplying by its inverse round alike: a power of two far from the limits."""
    mantissa, exponent = math.frexp(value)
    return abs(mantissa) == 0.5 and abs(exponent) < 100


def divisors(program: Program) -> frozenset[str]:
    """Names that some node divides by."""
    return frozenset(n.args[1] for n in program.nodes if n.op == "div" and isinstance(n.args[1], str))


@dataclass(frozen=True)
class Source:
    """A kernel's text and how to call it.

    Attributes:
        text: Python source; the C function has the name of its direction.
        slots: `struct` format of the slots: q an integer or address, d a number.
        room: floats of scratch that each thread needs, apart from `history` floats for each time step.
        history: see above.
    """

    text: str
    slots: str
    room: int
    history: int


_FIXED = ("threads", "taken", "blocks", "scratch_at", "room", "block", "T", "N")


class _Kernel:
    """Collects the pieces of one kernel: slots, scratch, lines."""

    def __init__(self, name: str, layout: Layout) -> None:
        self.name, self.layout = name, layout
        self.slots = "q" * len(_FIXED)
        self.unpacked: list[str] = []
        self.scratch: list[str] = []
        self.inverses: list[str] = []
        self.lines: list[str] = []
        self.constants: dict[float, str] = {}

    def integer(self, name: str) -> None:
        self.unpacked.append(f"{name} = slots[{len(self.slots)}]")
        self.slots += "q"

    def number(self, name: str) -> None:
        self.unpacked.append(f"{name} = F(number(slots, {len(self.slots)}))")
        self.slots += "d"

    def array(self, name: str, format_: str) -> None:
        self.unpacked.append(f"{name} = carray({_SCALAR[format_]}_at(slots[{len(self.slots)}]), ALL)")
        self.slots += "q"

    def sequence(self, name: str) -> None:
        """An array of all time steps and the distance between them."""
        self.array(f"{name}_all", self.layout.io)
        self.integer(f"{name}_step")

    def state(self, name: str) -> None:
        """An array of the lanes' values before or after all steps and their distance: 0 where one serves all."""
        self.array(name, self.layout.membrane)
        self.integer(f"{name}_step")

    def parameters(self, names: Iterable[str]) -> None:
        """Declare the parameters that the body reads; those that vary get lanes of their own."""
        for name in names:
            if name in self.layout.scalars:
                self.number(name)
                if name in self.layout.inverted:
                    self.inverses.append(name)
            else:
                self.array(f"{name}_all", self.layout.membrane)
                self.integer(f"{name}_inner")
                self.integer(f"{name}_size")
                self.scratch.append(f"{name}_lanes")

    def add(self, depth: int, *lines: str) -> None:
        self.lines += ["    " * depth + line for line in lines]

    def spread(self, depth: int, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.layout.scalars:
                self.add(depth, f"spread({name}_lanes, {name}_all, a, n, {name}_inner, {name}_size)")

    def value(self, arg: str | float) -> str:
        if isinstance(arg, str):
            return arg
        return self.constants.setdefault(arg, f"C{len(self.constants)}")

    def load_parameters(self, depth: int, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.layout.scalars:
                self.add(depth, f"{name} = {name}_lanes[i]")

    def body(self, depth: int, nodes: Sequence[Node]) -> None:
        for node in nodes:
            if node.op not in _EXPRESSION:
                raise ValueError(f"the cpu engine has no {node.op!r}; run this step under rb.engine('reference')")
            self.add(depth, f"{node.name} = {self.expression(node)}")

    def expression(self, node: Node) -> str:
        divisor = node.args[1] if node.op == "div" else None
        if divisor in self.layout.inverted:
            return f"{self.value(node.args[0])} * {divisor}_inverse"
        if isinstance(divisor, float) and is_power_of_two(divisor):
            return f"{self.value(node.args[0])} * {self.value(1 / divisor)}"
        return _EXPRESSION[node.op].format(*map(self.value, node.args))

    def source(self, header: str, history: int = 0) -> Source:
        L, width = self.layout.tile, 8 if self.layout.membrane == "f64" else 4
        views = [f"{name} = scratch[{k * L}:{(k + 1) * L}]" for k, name in enumerate(self.scratch)]
        room = len(self.scratch) * L
        if history:
            views.append(f"history = scratch[{room}:{room} + T * {history}]")
        rows = [
            header,
            *(f"{name} = F({number!r})".replace("inf", "1e999") for number, name in self.constants.items()),
            "",
            "",
            '@cfunc("void(CPointer(int64))", cache=CACHE, **OPTIONS)',
            f"def {self.name}(slots):",
            "    blocks, room, block, T, N = slots[2], slots[4], slots[5], slots[6], slots[7]",
            f"    base = slots[3] + take(slots, 0) * room * {width}",
            f"    scratch = carray({_SCALAR[self.layout.membrane]}_at(base), ALL)",
            *(f"    {row}" for row in [*self.unpacked, *views]),
            *(f"    {name}_inverse = ONE / {name}" for name in self.inverses),
            "    b = take(slots, 1)",
            "    while b < blocks:",
            "        end = min(N, (b + 1) * block)",
            *self.lines,
            "        b = take(slots, 1)",
        ]
        return Source("\n".join(rows) + "\n", self.slots, room, history)


def _header(program: Program, layout: Layout) -> str:
    return (
        f'"""Written by rheobase for the step {program.name!r}: {layout.io}, tiles of {layout.tile} lanes."""\n\n'
        "import math\n\nimport numpy as np\nfrom numba import carray, cfunc, njit\n\n"
        "from rheobase.scan.native import float32_at, float64_at, number, take, uint16_at\n\n"
        f"F = np.{_SCALAR[layout.membrane]}\n"
        "ONE, ZERO = F(1.0), F(0.0)\n"
        f"ALL = ({_ENDLESS},)\n"
        'OPTIONS = {"error_model": "numpy", "boundscheck": False, "fastmath": False}\n'
        f"{PRELUDE}\n"
    )


def _read_by(program: Program, nodes: Sequence[Node], outputs: Iterable[str]) -> list[str]:
    """The parameters and hoisted values that the nodes read, in a fixed order."""
    names = {a for node in nodes for a in node.args if isinstance(a, str)} | set(outputs)
    return [p for p in (*program.params, *(h.name for h in program.hoisted)) if p in names]


def forward_parameters(program: Program) -> list[str]:
    """Parameters and hoisted values that the forward kernel takes."""
    wanted = [*program.outputs, *program.next_states]
    return _read_by(program, live(program.nodes, wanted), wanted)


def backward_parameters(program: Program, layout: Layout) -> list[str]:
    """Parameters and hoisted values that the backward kernel takes."""
    wanted = _gradients(program, layout) + list(program.next_states)
    return _read_by(program, live(program.nodes, wanted), wanted)


def _gradients(program: Program, layout: Layout) -> list[str]:
    of_param = dict(zip(program.params, program.grads_params, strict=True))
    return [
        *(g for g, wanted in zip(program.grads_inputs, layout.inputs, strict=True) if wanted),
        *program.grads_states,
        *(of_param[name] for name, _ in layout.params),
    ]


def emit_forward(program: Program, layout: Layout) -> Source:
    """Kernel `forward`; its slots: the fixed ones, inputs, states, params, outputs, final states."""
    program = _lowered(program, layout)
    k = _Kernel("forward", layout)
    m = layout.membrane
    for x in program.inputs:
        k.sequence(x)
    for s in program.states:
        k.state(f"{s}_first")
        k.scratch.append(f"{s}_lanes")
    params = forward_parameters(program)
    k.parameters(params)
    for j in range(len(program.outputs)):
        k.array(f"out{j}_all", layout.io)
    for s in program.states:
        k.array(f"{s}_last", m)

    k.add(2, f"for a in range(b * block, end, {layout.tile}):")
    k.add(3, f"n = min({layout.tile}, end - a)")
    for s in program.states:
        k.add(3, f"fill({s}_lanes, {s}_first, {s}_first_step, a, n)")
    k.spread(3, params)
    k.add(3, "for t in range(T):")
    _rows(k, 4, program.inputs)
    for j in range(len(program.outputs)):
        k.add(4, f"out{j}_row = out{j}_all[t * N + a:t * N + a + n]")
    k.add(4, "for i in range(n):")
    _load(k, 5, program.inputs, program.states)
    k.load_parameters(5, params)
    k.body(5, live(program.nodes, [*program.outputs, *program.next_states]))
    for j, name in enumerate(program.outputs):
        k.add(5, f"out{j}_row[i] = {_STORE[layout.io].format(name)}")
    for s, name in zip(program.states, program.next_states, strict=True):
        k.add(5, f"{s}_lanes[i] = {name}")
    for s in program.states:
        k.add(3, f"{s}_row = {s}_last[a:a + n]", "for i in range(n):")
        k.add(4, f"{s}_row[i] = {s}_lanes[i]")
    return k.source(_header(program, layout))


def emit_backward(program: Program, layout: Layout) -> Source:
    """Kernel `backward`; its slots: the fixed ones, inputs, states, params, cotangents, gradients."""
    program = _lowered(program, layout)
    k = _Kernel("backward", layout)
    m, L, S = layout.membrane, layout.tile, len(program.states)
    for x in program.inputs:
        k.sequence(x)
    for s in program.states:
        k.state(f"{s}_first")
    params = backward_parameters(program, layout)
    k.parameters(params)
    cotangents = [g for g, given in zip(program.grads_outputs, layout.grads_outputs, strict=True) if given]
    for g in cotangents:
        k.sequence(g)
    for g in program.grads_next:
        k.state(f"{g}_last")
        k.scratch.append(f"{g}_lanes")
    wanted_inputs = [x for x, wanted in zip(program.inputs, layout.inputs, strict=True) if wanted]
    for x in wanted_inputs:
        k.array(f"to_{x}_all", layout.io)
    wanted_states = [s for s, wanted in zip(program.states, layout.states, strict=True) if wanted]
    for s in wanted_states:
        k.array(f"to_{s}_first", m)
    for p, how in layout.params:
        k.scratch.append(f"to_{p}_lanes")
        if how == "lane":
            k.array(f"to_{p}_all", m)
        else:
            k.array(f"to_{p}_sums", "f64")
            k.integer(f"to_{p}_inner")
            k.integer(f"to_{p}_size")

    whole = [p for p, how in layout.params if how == "sum" and p in layout.scalars]
    for p in whole:
        k.add(2, f"to_{p}_lanes[:] = ZERO")
    k.add(2, f"for a in range(b * block, end, {L}):")
    k.add(3, f"n = min({L}, end - a)")
    for j, s in enumerate(program.states):
        k.add(3, f"fill(history[{j * L}:{(j + 1) * L}], {s}_first, {s}_first_step, a, n)")
    k.spread(3, params)
    if S:
        recurrence = live(program.nodes, program.next_states)
        k.add(3, "for t in range(T - 1):")
        _rows(k, 4, program.inputs)
        for j, s in enumerate(program.states):
            k.add(4, f"base = (t * {S} + {j}) * {L}", f"{s}_lanes = history[base:base + n]")
            k.add(4, f"base = (t * {S} + {S + j}) * {L}", f"{s}_next = history[base:base + n]")
        k.add(4, "for i in range(n):")
        _load(k, 5, program.inputs, program.states)
        k.load_parameters(5, _read_by(program, recurrence, program.next_states))
        k.body(5, recurrence)
        for s, name in zip(program.states, program.next_states, strict=True):
            k.add(5, f"{s}_next[i] = {name}")
    for g in program.grads_next:
        k.add(3, f"fill({g}_lanes, {g}_last, {g}_last_step, a, n)")
    for p, _ in layout.params:
        if p not in whole:
            k.add(3, f"to_{p}_lanes[:] = ZERO")
    k.add(3, "for t in range(T - 1, -1, -1):")
    _rows(k, 4, [*program.inputs, *cotangents])
    for x in wanted_inputs:
        k.add(4, f"to_{x}_row = to_{x}_all[t * N + a:t * N + a + n]")
    for j, s in enumerate(program.states):
        k.add(4, f"base = (t * {S} + {j}) * {L}", f"{s}_lanes = history[base:base + n]")
    k.add(4, "for i in range(n):")
    _load(k, 5, [*program.inputs, *cotangents], [*program.states, *program.grads_next])
    for g, given in zip(program.grads_outputs, layout.grads_outputs, strict=True):
        if not given:
            k.add(5, f"{g} = ZERO")
    wanted = _gradients(program, layout)
    k.load_parameters(5, params)
    k.body(5, live(program.nodes, wanted))
    of_input = dict(zip(program.inputs, program.grads_inputs, strict=True))
    of_param = dict(zip(program.params, program.grads_params, strict=True))
    for x in wanted_inputs:
        k.add(5, f"to_{x}_row[i] = {_STORE[layout.io].format(of_input[x])}")
    for p, _ in layout.params:
        k.add(5, f"to_{p}_lanes[i] += {of_param[p]}")
    for g, name in zip(program.grads_next, program.grads_states, strict=True):
        k.add(5, f"{g}_lanes[i] = {name}")
    for s, g in zip(program.states, program.grads_next, strict=True):
        if s in wanted_states:
            k.add(3, f"to_{s}_row = to_{s}_first[a:a + n]", "for i in range(n):")
            k.add(4, f"to_{s}_row[i] = {g}_lanes[i]")
    for p, how in layout.params:
        if how == "lane":
            k.add(3, f"to_{p}_row = to_{p}_all[a:a + n]", "for i in range(n):", f"    to_{p}_row[i] = to_{p}_lanes[i]")
        elif p not in whole:
            k.add(3, f"to_{p}_row = to_{p}_sums[b * to_{p}_size:(b + 1) * to_{p}_size]")
            k.add(3, f"gather(to_{p}_row, to_{p}_lanes, a, n, to_{p}_inner, to_{p}_size)")
    for p in whole:
        k.add(2, f"to_{p}_sums[b] = total(to_{p}_lanes, {L})")
    return k.source(_header(program, layout), max(1, S) * L)


def _rows(kernel: _Kernel, depth: int, names: Iterable[str]) -> None:
    for name in names:
        kernel.add(depth, f"{name}_row = {name}_all[t * {name}_step + a:t * {name}_step + a + n]")


def _load(kernel: _Kernel, depth: int, sequences: Iterable[str], lanes: Iterable[str]) -> None:
    load = _LOAD[kernel.layout.io]
    for name in sequences:
        kernel.add(depth, f"{name} = {load.format(f'{name}_row[i]')}")
    for name in lanes:
        kernel.add(depth, f"{name} = {name}_lanes[i]")
