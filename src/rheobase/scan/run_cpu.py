"""The CPU engine: lays tensors out as lanes, has the emitted kernels compiled, runs them on threads."""

import ctypes
import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from rheobase.scan import emit_cpu
from rheobase.scan.emit_cpu import Layout
from rheobase.scan.functions import lower
from rheobase.scan.ir import Node, Program, hoist, live, parse
from rheobase.scan.kernels import compiling, kernel_module, toolchain
from rheobase.scan.lanes import Lanes, lanes_of, repeats, spread, words
from rheobase.scan.number import is_number, number
from rheobase.scan.pool import kernel_at, run
from rheobase.scan.static import is_static

_TILES = (4096, 2048, 1024, 512, 256)
"""Lanes in a tile, the best first: long rows suit the memory, short ones keep the states of many steps in the cache."""
_NODE_NS = 0.045
"""Nanoseconds that one operation takes a lane and step, roughly, to decide whether a job is worth a second thread."""
_WORTH_US = 40
"""Microseconds of work that are worth a second thread."""
_OPERATIONS = 128
"""Operations written out in one loop: more take longer to compile than they save."""
_MAX_BLOCKS = 64
_MIN_BLOCK = 4096


@lru_cache(maxsize=1)
def _second_level_cache() -> int:
    """Bytes of a core's second-level cache; 1 MiB where the system does not say."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text().strip()
        return int(text[:-1]) * {"K": 1 << 10, "M": 1 << 20}[text[-1]]
    except (OSError, ValueError, KeyError, IndexError):
        return 1 << 20


class _Scratch(threading.local):
    """Memory that kernels work in, kept for each calling thread."""

    memory: Tensor | None = None

    def at_least(self, size: int) -> int:
        """Address of so many bytes."""
        if self.memory is None or self.memory.numel() < size:
            with torch.inference_mode(False):
                self.memory = torch.empty(size, dtype=torch.uint8)
        return self.memory.data_ptr()


_scratch = _Scratch()


class _Kernel:
    """A compiled kernel for one layout of lanes, ready to be called with addresses and numbers."""

    def __init__(self, source: emit_cpu.Source, direction: str, lanes: Lanes, tile: int, nodes: int) -> None:
        with compiling:
            compiled = getattr(kernel_module(source.text, toolchain()), direction)
        self.function, self.address = kernel_at(compiled.address), compiled.address
        self.format = struct.Struct(source.slots)
        self.room = source.room + source.history * emit_cpu.rows(lanes.T, source.chunk)
        self.width = 8 if lanes.io == "f64" else 4
        self.block, self.blocks = _blocks(lanes, tile)
        self.sizes = lanes.T, lanes.count
        us = _NODE_NS * nodes * lanes.T * lanes.count / 1000
        self.threads = self.blocks if us > _WORTH_US else 1

    def __call__(self, arguments: Sequence[int | float]) -> None:
        """Run it on as many threads as torch uses."""
        threads = 1 if self.threads == 1 else min(self.threads, torch.get_num_threads())
        scratch = _scratch.at_least(threads * self.room * self.width)
        slots = ctypes.create_string_buffer(self.format.size)
        self.format.pack_into(slots, 0, 0, 0, self.blocks, scratch, self.room, self.block, *self.sizes, *arguments)
        run(self.function, self.address, ctypes.addressof(slots), threads)


def _sequence(x: Tensor, lanes: Lanes, keep: list[Tensor]) -> tuple[int, int]:
    """Address of a sequence and the distance between steps: 0 where all steps are one."""
    stride = x.stride()
    if stride != lanes.whole:
        if not lanes.fits(x.shape, stride):
            x = lanes.lay(x)
            keep.append(x)
        if is_static(x):
            return x.data_ptr(), 0
    return x.data_ptr(), lanes.count


def _state(s: Tensor, lanes: Lanes, keep: list[Tensor]) -> tuple[int, int]:
    """Address of a state and its distance between lanes: 0 where one value serves all."""
    if s.dim() == 0:
        return s.data_ptr(), 0
    if s.stride() != lanes.whole[1:]:
        s = lanes.lay(s)
        keep.append(s)
    return s.data_ptr(), 1


def _parameter(p: Tensor, lanes: Lanes, keep: list[Tensor]) -> tuple[int, int, int]:
    """Address of the values of `spread`, and their numbers."""
    values, inner, size = spread(p, lanes)
    if values is not p:
        keep.append(values)
    return values.data_ptr(), inner, size


def _blocks(lanes: Lanes, tile: int) -> tuple[int, int]:
    """(lanes in a block, blocks): depends on the size alone, so that sums do not depend on the threads."""
    wanted = max(_MIN_BLOCK, -(-lanes.count // _MAX_BLOCKS))
    block = -(-wanted // tile) * tile
    return block, -(-lanes.count // block)


def _tile(arrays: int, lanes: Lanes) -> int:
    """Lanes in a tile: as many as keep so many values a lane in half of the second-level cache."""
    need = arrays * (8 if lanes.io == "f64" else 4)
    return next((tile for tile in _TILES if tile * need <= _second_level_cache() // 2), _TILES[-1])


def _chunks(program: Program, lanes: Lanes) -> tuple[int, bool]:
    """(steps whose states are kept in registers, whether these leave steps over).

    Few, where a step is long or there is little to gain.
    """
    if lanes.count < _MIN_BLOCK or lanes.T < 4:
        return 1, True
    operations = len(lower(program).nodes)
    chunk = next(chunk for chunk in (4, 2, 1) if chunk == 1 or chunk * operations <= _OPERATIONS)
    return chunk, chunk == 1 or lanes.T % chunk > 0


@lru_cache(maxsize=1024)
def _hoisted(text: str, direction: str) -> Sequence[Node]:
    """The hoisted nodes that a kernel needs."""
    program = parse(text)
    return live(program.hoisted, emit_cpu.forward_parameters(program)) if direction == "forward" else program.hoisted


@lru_cache(maxsize=1024)
def _divisors(text: str) -> frozenset[str]:
    return emit_cpu.divisors(parse(text))


@dataclass(frozen=True, eq=False)
class _Values:
    """Parameters and hoisted values of a call.

    Attributes:
        tensors: all of them.
        numbers: those that are one number.
        scalars: their names.
        inverted: divisors among them that are powers of two.
    """

    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, float]
    scalars: frozenset[str]
    inverted: frozenset[str]


def _evaluate(text: str, direction: str, params: Sequence[Tensor]) -> _Values:
    found = hoist(parse(text), params, _hoisted(text, direction))
    numbers = {name: value.item() for name, value in found.items() if value.numel() == 1}
    inverted = frozenset(n for n in _divisors(text) & numbers.keys() if emit_cpu.is_power_of_two(numbers[n]))
    return _Values(found, numbers, frozenset(numbers), inverted)


@lru_cache(maxsize=4096)
def _evaluate_numbers(text: str, direction: str, params: tuple[Tensor, ...]) -> _Values:
    return _evaluate(text, direction, params)


def _values(text: str, direction: str, params: Sequence[Tensor]) -> _Values:
    """The hoisted values; found once for all where every parameter is a number."""
    if all(map(is_number, params)):
        return _evaluate_numbers(text, direction, tuple(params))
    return _evaluate(text, direction, params)


def _arguments(
    inputs: Sequence[Tensor],
    states: Sequence[Tensor],
    names: Sequence[str],
    values: _Values,
    lanes: Lanes,
    keep: list[Tensor],
) -> list[int | float]:
    """What both kernels are given first: inputs, states, and the named parameters; `keep` holds copies alive."""
    found: list[int | float] = []
    for x in inputs:
        found += _sequence(x, lanes, keep)
    for s in states:
        found += _state(s, lanes, keep)
    for name in names:
        if name in values.numbers:
            found.append(values.numbers[name])
        else:
            found += _parameter(values.tensors[name], lanes, keep)
    return found


@lru_cache(maxsize=4096)
def _forward_kernel(
    text: str, lanes: Lanes, scalars: frozenset[str], inverted: frozenset[str]
) -> tuple[_Kernel, list[str]]:
    """The forward kernel and the parameters and hoisted values that it takes."""
    program = parse(text)
    names = emit_cpu.forward_parameters(program)
    chunk, rest = _chunks(program, lanes)
    tile = _tile(2 * (len(program.states) + len(set(names) - scalars)) + chunk * sum(program.packed), lanes)
    source = emit_cpu.emit_forward(program, Layout(lanes.io, scalars, inverted, tile, chunk=chunk, rest=rest))
    return _Kernel(source, "forward", lanes, tile, len(program.nodes) // 2), names


def _bits(x: Tensor) -> Tensor:
    found = words(x)
    if found is None:
        raise ValueError(
            f"spikes of shape {tuple(x.shape)} cannot be written as bits; 64 must divide the values of a row and a step"
        )
    return torch.empty(found, dtype=torch.int64)


def forward(
    text: str, inputs: Sequence[Tensor], states: Sequence[Tensor], params: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Run the step `text` over the leading axis of `inputs`; returns outputs and final states.

    Packed outputs are int64 `[rows, words]`, see `words`.
    """
    program, lanes = parse(text), lanes_of(inputs[0])
    values = _values(text, "forward", params)
    kernel, names = _forward_kernel(text, lanes, values.scalars, values.inverted)
    dtype = inputs[0].dtype
    outputs = [
        _bits(inputs[0]) if bits else lanes.empty(lanes.T, dtype)
        for bits in program.packed or (False,) * len(program.outputs)
    ]
    last = [lanes.empty(None, states[0].dtype) for _ in program.states]
    if lanes.count:
        keep: list[Tensor] = []
        arguments = _arguments(inputs, states, names, values, lanes, keep)
        arguments += [o.data_ptr() for o in outputs]
        arguments += [s.data_ptr() for s in last]
        kernel(arguments)
    return outputs, last


@dataclass(frozen=True, eq=False)
class _Backward:
    """A backward kernel, the parameters and hoisted values that it takes, and where parameters' gradients go.

    Attributes:
        kinds: wanted parameter -> "sum" (per block) or "lane".
        where: wanted parameter -> (lanes each value is repeated over, how many there are).
    """

    kernel: _Kernel
    names: list[str]
    kinds: tuple[tuple[str, str], ...]
    where: Mapping[str, tuple[int, int]]


@lru_cache(maxsize=4096)
def _backward_kernel(
    text: str,
    lanes: Lanes,
    scalars: frozenset[str],
    inverted: frozenset[str],
    grads: tuple[bool, ...],
    wanted: tuple[bool, ...],
    shapes: tuple[torch.Size, ...],
) -> _Backward:
    program = parse(text)
    n_in, n_state = len(program.inputs), len(program.states)
    chunk, rest = _chunks(program, lanes)
    tile = _tile((emit_cpu.rows(lanes.T, chunk) + 2 * chunk) * max(1, len(program.states)), lanes)
    where: dict[str, tuple[int, int]] = {}
    kinds: list[tuple[str, str]] = []
    for name, want, shape in zip(program.params, wanted[n_in + n_state :], shapes, strict=True):
        if want:
            where[name] = (lanes.count, 1) if shape.numel() == 1 else repeats(shape, lanes)[1:]
            kinds.append((name, "sum" if where[name][1] <= _MIN_BLOCK else "lane"))
    layout = Layout(
        io=lanes.io,
        scalars=scalars,
        inverted=inverted,
        tile=tile,
        grads_outputs=grads,
        inputs=wanted[:n_in],
        states=wanted[n_in : n_in + n_state],
        params=tuple(kinds),
        chunk=chunk,
        rest=rest,
    )
    kernel = _Kernel(emit_cpu.emit_backward(program, layout), "backward", lanes, tile, len(program.nodes))
    return _Backward(kernel, emit_cpu.backward_parameters(program, layout), layout.params, where)


def backward(
    text: str,
    inputs: Sequence[Tensor],
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> list[Tensor]:
    """Gradients of the `wanted` inputs, states and params, given those of outputs and final states (None: zero)."""
    program, lanes = parse(text), lanes_of(inputs[0])
    values = _values(text, "backward", params)
    n_in, n_state, n_out = len(inputs), len(states), len(program.outputs)
    dtype = inputs[0].dtype
    member = torch.float64 if dtype == torch.float64 else torch.float32
    given = tuple(g is not None for g in grads[:n_out])
    shapes = tuple(p.shape for p in params)
    plan = _backward_kernel(text, lanes, values.scalars, values.inverted, given, tuple(wanted), shapes)
    to_inputs = [lanes.empty(lanes.T, dtype) for want in wanted[:n_in] if want]
    to_states = [lanes.empty(None, member) for want in wanted[n_in : n_in + n_state] if want]
    sums = {
        name: torch.zeros(plan.kernel.blocks, plan.where[name][1], dtype=torch.float64)
        if how == "sum"
        else lanes.empty(None, member)
        for name, how in plan.kinds
    }
    if lanes.count:
        keep: list[Tensor] = []
        arguments = _arguments(inputs, states, plan.names, values, lanes, keep)
        for g in grads[:n_out]:
            if g is not None:
                arguments += _sequence(g, lanes, keep)
        for g in grads[n_out:]:
            arguments += _state(number(0.0, member) if g is None else g, lanes, keep)
        arguments += [g.data_ptr() for g in (*to_inputs, *to_states)]
        for name, how in plan.kinds:
            arguments.append(sums[name].data_ptr())
            if how == "sum":
                arguments += plan.where[name]
        plan.kernel(arguments)
    of_param = dict(zip(program.params, params, strict=True))
    to_params = []
    for name, how in plan.kinds:
        p = of_param[name]
        if how == "lane":
            to_params.append(sums[name].sum_to_size(p.shape))
        elif sum(size > 1 for size in p.shape) <= 1:
            to_params.append(sums[name].sum(0).to(member).reshape(p.shape))
        else:
            full = sums[name].sum(0).reshape(lanes.inner).permute([a - 1 for a in lanes.back[1:]])
            to_params.append(full.sum_to_size(p.shape).to(member))
    return [*to_inputs, *to_states, *to_params]
