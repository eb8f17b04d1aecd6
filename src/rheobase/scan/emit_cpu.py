"""From a `Program` to the source of a numba kernel: one loop over time, lanes in tiles that stay in the cache.

A kernel is a C function of one pointer to slots (see `rheobase.scan.native`): counters, sizes, addresses, numbers.
Steps are taken in chunks that are written out one after the other, with the state in registers; between chunks the
states of a tile are in a scratch buffer. The backward kernel is given the inputs and the initial state alone: it runs
the recurrence again for its tile, keeping the state before each chunk in the cache, then walks back chunk by chunk.
No product and sum are contracted and nothing is reassociated, so that every engine decides the same spikes.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rheobase.scan.functions import lower
from rheobase.scan.ir import INFIX, Node, Program, live

EMITTER = 7
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
        if inner == 1 and done >= size:  # whole turns are there: repeat them
            m = min(n - done, done // size * size)
            row, target = lanes[0:m], lanes[done:done + m]
            for i in range(m):
                target[i] = row[i]
        elif inner == 1:
            first = run % size
            m = min(n - done, min(size - first, size - done))
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
    while inner == 1 and n > size:
        half = (n + 2 * size - 1) // (2 * size) * size  # whole turns
        low, high = lanes[0:n - half], lanes[half:n]
        for i in range(n - half):
            low[i] += high[i]
        n = half
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
def pack(words, spikes, n):
    """The first n spikes, a multiple of 64, as bits."""
    for w in range(n // 64):
        words[w] = nonzero64(spikes, 64 * w)


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
    **INFIX,
    "div": "{0} / {1}",
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
        chunk: steps written out one after the other, with the state in registers.
        rest: whether chunks leave steps over.
    """

    io: str
    scalars: frozenset[str]
    inverted: frozenset[str]
    tile: int
    grads_outputs: tuple[bool, ...] = ()
    inputs: tuple[bool, ...] = ()
    states: tuple[bool, ...] = ()
    params: tuple[tuple[str, str], ...] = ()
    chunk: int = 1
    rest: bool = True

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
        room: floats of scratch that each thread needs, apart from `history` floats for each of `rows(T, chunk)`.
        history, chunk: see above.
    """

    text: str
    slots: str
    room: int
    history: int
    chunk: int


def rows(T: int, chunk: int) -> int:
    """States that the backward kernel keeps: those before each chunk, and before each step of what is left over."""
    return T // chunk + T % chunk


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
        self.places: dict[str, int] = {}

    def integer(self, name: str) -> None:
        self.unpacked.append(f"{name} = slots[{len(self.slots)}]")
        self.slots += "q"

    def number(self, name: str) -> None:
        self.unpacked.append(f"{name} = F(number(slots, {len(self.slots)}))")
        self.slots += "d"

    def array(self, name: str, format_: str) -> None:
        self.unpacked.append(f"{name} = carray({_SCALAR[format_]}_at(slots[{len(self.slots)}]), ALL)")
        self.slots += "q"

    def words(self, name: str) -> None:
        """An array of words of bits."""
        self.unpacked.append(f"{name} = carray(uint64_at(slots[{len(self.slots)}]), ALL)")
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

    def get(self, array: str) -> str:
        """A value of an array; those that nobody writes to in the loop share place 0."""
        return f"get({array}, i, {self.places.get(array, 0)})"

    def put(self, array: str, value: str) -> str:
        return f"put({array}, i, {value}, {self.places[array]})"

    def written(self, arrays: Iterable[str]) -> None:
        """Declare what the next loop writes to."""
        self.places = {array: k for k, array in enumerate(arrays, 1)}

    def load_parameters(self, depth: int, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.layout.scalars:
                self.add(depth, f"{name} = {self.get(f'{name}_lanes')}")

    def step_rows(self, depth: int, names: Iterable[str], j: int) -> None:
        """Step t + j of sequences that are read."""
        for name in names:
            self.add(depth, f"base = (t + {j}) * {name}_step + a", f"{name}_row{j} = {name}_all[base:base + n]")

    def new_rows(self, depth: int, names: Iterable[str], j: int) -> None:
        """Step t + j of sequences that are written."""
        for name in names:
            self.add(depth, f"base = (t + {j}) * N + a", f"{name}_row{j} = {name}_all[base:base + n]")

    def load_rows(self, depth: int, names: Iterable[str], j: int) -> None:
        for name in names:
            self.add(depth, f"{name} = {_LOAD[self.layout.io].format(self.get(f'{name}_row{j}'))}")

    def load_lanes(self, depth: int, names: Iterable[str]) -> None:
        for name in names:
            self.add(depth, f"{name} = {self.get(f'{name}_lanes')}")

    def advance(self, depth: int, names: Sequence[str], values: Sequence[str]) -> None:
        """Let several names have their next values at once."""
        if names:
            self.add(depth, f"{', '.join(names)} = {', '.join(values)}")

    @property
    def left(self) -> str:
        """The first step that is left over."""
        return f"T // {self.layout.chunk} * {self.layout.chunk}" if self.layout.chunk > 1 else "0"

    def through_time(self, depth: int, steps: Callable[[int], None]) -> None:
        """All steps, in chunks while there are enough, then one by one; `steps(count)` writes those from t on."""
        U = self.layout.chunk
        if U > 1:
            self.add(depth, f"for c in range(T // {U}):", f"    t = c * {U}")
            steps(U)
        if self.layout.rest:
            self.add(depth, f"for t in range({self.left}, T):")
            steps(1)

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
            views.append(
                f"history = scratch[{room}:{room} + (T // {self.layout.chunk} + T % {self.layout.chunk}) * {history}]"
            )
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
        return Source("\n".join(rows) + "\n", self.slots, room, history, self.layout.chunk)


def _header(program: Program, layout: Layout) -> str:
    return (
        f'"""Written by rheobase for the step {program.name!r}: {layout.io}, tiles of {layout.tile} lanes."""\n\n'
        "import math\n\nimport numpy as np\nfrom numba import carray, cfunc, njit\n\n"
        "from rheobase.scan.native import (\n    float32_at, float64_at, get, nonzero64, number, put, take, uint16_at, "
        "uint64_at\n)\n\n"
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
    """Kernel `forward`; its slots: the fixed ones, inputs, states, params, outputs, final states.

    Packed outputs need a number of lanes, and of lanes in a tile, that words of 64 bits divide.
    """
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
    outputs = [f"out{j}" for j in range(len(program.outputs))]
    packed = [out for out, bits in zip(outputs, program.packed, strict=False) if bits]
    for out in outputs:
        if out in packed:
            k.words(f"{out}_all")
            k.scratch += [f"{out}_row{j}" for j in range(layout.chunk)]
        else:
            k.array(f"{out}_all", layout.io)
    for s in program.states:
        k.array(f"{s}_last", m)

    k.add(2, f"for a in range(b * block, end, {layout.tile}):")
    k.add(3, f"n = min({layout.tile}, end - a)")
    for s in program.states:
        k.add(3, f"fill({s}_lanes, {s}_first, {s}_first_step, a, n)")
    k.spread(3, params)
    nodes = live(program.nodes, [*program.outputs, *program.next_states])

    def steps(count: int) -> None:
        """So many steps from t on."""
        for j in range(count):
            k.step_rows(4, program.inputs, j)
            k.new_rows(4, [out for out in outputs if out not in packed], j)
        k.written(
            [*(f"{out}_row{j}" for out in outputs for j in range(count)), *(f"{s}_lanes" for s in program.states)]
        )
        k.add(4, "for i in range(n):")
        k.load_lanes(5, program.states)
        k.load_parameters(5, params)
        for j in range(count):
            k.load_rows(5, program.inputs, j)
            k.body(5, nodes)
            for out, name in zip(outputs, program.outputs, strict=True):
                k.add(5, k.put(f"{out}_row{j}", name if out in packed else _STORE[layout.io].format(name)))
            k.advance(5, program.states, program.next_states)
        for s in program.states:
            k.add(5, k.put(f"{s}_lanes", s))
        for out in packed:
            for j in range(count):
                k.add(4, f"base = ((t + {j}) * N + a) // 64", f"pack({out}_all[base:base + n // 64], {out}_row{j}, n)")

    k.through_time(3, steps)
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
    recurrence = live(program.nodes, program.next_states)
    of_recurrence = _read_by(program, recurrence, program.next_states)
    U = layout.chunk

    def history(depth: int, name: str, s: str, row: str) -> None:
        """The states before a step, in the row of the history."""
        j = program.states.index(s)
        k.add(depth, f"base = (({row}) * {S} + {j}) * {L}", f"{name} = history[base:base + n]")

    def recur(count: int) -> None:
        """So many steps from t on, whose states are in row `at`."""
        for j in range(count):
            k.step_rows(4, program.inputs, j)
        for s in program.states:
            history(4, f"{s}_lanes", s, "at")
            history(4, f"{s}_next", s, "at + 1")
        k.written(f"{s}_next" for s in program.states)
        k.add(4, "for i in range(n):")
        k.load_lanes(5, program.states)
        k.load_parameters(5, of_recurrence)
        for j in range(count):
            k.load_rows(5, program.inputs, j)
            k.body(5, recurrence)
            k.advance(5, program.states, program.next_states)
        for s in program.states:
            k.add(5, k.put(f"{s}_next", s))

    if S:
        if U > 1:
            k.add(3, f"for at in range(T // {U} - (T % {U} == 0)):", f"    t = at * {U}")
            recur(U)
        if layout.rest:
            k.add(3, f"for t in range({k.left}, T - 1):", f"    at = t - T // {U} * {U - 1}")
            recur(1)
    for g in program.grads_next:
        k.add(3, f"fill({g}_lanes, {g}_last, {g}_last_step, a, n)")
    for p, _ in layout.params:
        if p not in whole:
            k.add(3, f"to_{p}_lanes[:] = ZERO")
    wanted = _gradients(program, layout)
    nodes = live(program.nodes, wanted)
    of_input = dict(zip(program.inputs, program.grads_inputs, strict=True))
    of_param = dict(zip(program.params, program.grads_params, strict=True))
    targets, sums = [f"to_{x}" for x in wanted_inputs], [f"to_{p}" for p, _ in layout.params]

    def back(count: int) -> None:
        """So many steps from t on, the last first; the states before them are in row `at`."""
        for j in range(count):
            k.step_rows(4, [*program.inputs, *cotangents], j)
            k.new_rows(4, targets, j)
        for s in program.states:
            history(4, f"{s}_lanes", s, "at")
        k.written(
            [
                *(f"{to}_row{j}" for to in targets for j in range(count)),
                *(f"{g}_lanes" for g in program.grads_next),
                *(f"{to}_lanes" for to in sums),
            ]
        )
        k.add(4, "for i in range(n):")
        k.load_lanes(5, [*program.states, *program.grads_next, *sums])
        k.load_parameters(5, params)
        for g in program.grads_outputs:
            if g not in cotangents:
                k.add(5, f"{g} = ZERO")
        for j in range(count):
            k.add(5, *(f"{s}_at{j} = {s}" for s in program.states))
            k.load_rows(5, program.inputs, j)
            k.add(5, *(f"{x}_at{j} = {x}" for x in program.inputs))
            if j < count - 1:
                k.body(5, recurrence)
                k.advance(5, program.states, program.next_states)
        for j in reversed(range(count)):
            k.add(5, *(f"{name} = {name}_at{j}" for name in (*program.states, *program.inputs)))
            k.load_rows(5, cotangents, j)
            k.body(5, nodes)
            for x in wanted_inputs:
                k.add(5, k.put(f"to_{x}_row{j}", _STORE[layout.io].format(of_input[x])))
            k.add(5, *(f"to_{p} += {of_param[p]}" for p, _ in layout.params))
            k.advance(5, program.grads_next, program.grads_states)
        for name in (*program.grads_next, *sums):
            k.add(5, k.put(f"{name}_lanes", name))

    if layout.rest:
        k.add(3, f"for t in range(T - 1, {k.left} - 1, -1):", f"    at = t - T // {U} * {U - 1}")
        back(1)
    if U > 1:
        k.add(3, f"for at in range(T // {U} - 1, -1, -1):", f"    t = at * {U}")
        back(U)
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
