"""The Triton engine: lays tensors out as lanes, compiles the emitted kernels, launches them on the tensors' device.

Nothing here reads a value from the GPU or copies one there, so that a call never waits.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rheobase.scan import emit_triton
from rheobase.scan.emit_cpu import backward_parameters, divisors, forward_parameters, is_power_of_two
from rheobase.scan.emit_triton import TritonLayout
from rheobase.scan.functions import lower
from rheobase.scan.ir import Node, Program, hoist, live, parse
from rheobase.scan.kernels import compiling, kernel_module
from rheobase.scan.lanes import Lanes, lanes_of, repeats, spread
from rheobase.scan.static import is_static

_TILES = (512, 128)
"""Lanes of a tile, where there are many and where there are few: four for each thread."""
_MANY = 1 << 18
_INTERPRETED_TILE = 1024
_PROGRAMS = 1024
"""Programs of a backward launch at most, some for each multiprocessor: each has a buffer and partial sums."""
_HELD = 16
"""Values a lane that the backward kernel may keep in registers: inputs and states of the steps of a chunk."""
_CHUNK = 8
_OPERATIONS = 2000
"""Operations of a chunk written out: bounds the time that the compiler takes."""
_LEAST_RUN = 64
"""Lanes that a value of a parameter serves, below which its gradient is not worth programs of its own."""


@lru_cache(maxsize=1024)
def _program(text: str) -> Program:
    """The program as the kernels run it."""
    return lower(emit_triton.within(parse(text)))


@lru_cache(maxsize=1024)
def _hoisted(text: str, direction: str) -> list[Node]:
    """The nodes that torch evaluates, for values that the kernels of a direction may read."""
    program = _program(text)
    names = forward_parameters(program) if direction == "forward" else [node.name for node in program.hoisted]
    return live(parse(text).hoisted, set(names).intersection(node.name for node in program.hoisted))


@lru_cache(maxsize=4096)
def _kernel(text: str, layout: TritonLayout, direction: str) -> tuple[Any, list[str]]:
    """The kernel, and the parameters and hoisted values that it takes."""
    program = _program(text)
    if direction == "forward":
        source, names = emit_triton.emit_forward(program, layout), forward_parameters(program)
    else:
        source, names = emit_triton.emit_backward(program, layout), backward_parameters(program, layout)
    with compiling:
        module = kernel_module(source, f"triton {emit_triton.EMITTER} {version('triton')}")
    return getattr(module, direction), names


def _launch(kernel: Any, programs: int, layout: TritonLayout, device: torch.device, arguments: Sequence[Any]) -> None:
    here: AbstractContextManager[Any]
    if device.type == "cpu":  # the interpreter is NumPy, which warns where a GPU does not
        here = np.errstate(all="ignore")
    else:
        here = nullcontext() if device.index == torch.cuda.current_device() else torch.cuda.device(device)
    with here:
        kernel[(programs,)](*arguments, num_warps=layout.tile // 128, enable_fp_fusion=False)


def _format(x: Tensor) -> Lanes:
    if x.dtype == torch.float64:
        raise ValueError(
            "engine 'triton' got float64; convert the model and its input with .float(), or use rb.engine('reference')"
        )
    return lanes_of(x)


def _tile(lanes: Lanes, device: torch.device) -> int:
    if device.type == "cpu":
        return _INTERPRETED_TILE
    return _TILES[0] if lanes.count >= _MANY else _TILES[1]


def _sequence(x: Tensor, lanes: Lanes) -> tuple[Tensor, bool]:
    """A sequence as the kernels read it, and whether all its steps are the same memory."""
    x = lanes.lay(x.detach())
    return x, is_static(x)


@dataclass(frozen=True, eq=False)
class _Values:
    """Parameters and functions of parameters of a call.

    Attributes:
        tensors: all of them.
        numbers: those of `tensors` that are passed by value.
        scalars: those that are one number.
        inverted: divisors among `numbers` that are powers of two.
    """

    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, float]
    scalars: frozenset[str]
    inverted: frozenset[str]


def _values(text: str, direction: str, params: Sequence[Tensor], device: torch.device) -> _Values:
    """Parameters, and those functions of them that the kernels of a direction may need."""
    program = parse(text)
    there = [p.detach() if _is_number(p) else p.detach().to(device) for p in params]
    tensors = hoist(program, there, _hoisted(text, direction))
    given = {name for name, p in zip(program.params, params, strict=True) if _is_number(p)}
    numbers = {name: float(t) for name, t in tensors.items() if name in given or t.device != device}
    scalars = frozenset(name for name, t in tensors.items() if t.numel() == 1)
    inverted = frozenset(n for n in _divisors(text).intersection(numbers) if is_power_of_two(numbers[n]))
    return _Values(tensors, numbers, scalars, inverted)


@lru_cache(maxsize=1024)
def _divisors(text: str) -> frozenset[str]:
    return divisors(_program(text))


def _is_number(t: Tensor) -> bool:
    """Whether a tensor's value is at hand, so that it is passed by value and nothing is copied to the device."""
    return t.dim() == 0 and t.device.type == "cpu" and not t.requires_grad


def _arguments(names: Sequence[str], values: _Values, lanes: Lanes) -> list[Any]:
    found: list[Any] = []
    for name in names:
        if name in values.scalars:
            found.append(values.numbers.get(name, values.tensors[name]))
        else:
            found += spread(values.tensors[name], lanes)
    return found


def _states(program: Program, states: Sequence[Tensor], lanes: Lanes) -> tuple[list[Any], frozenset[str], set[str]]:
    """States before the first step as arguments, those that are one value for all lanes, and those passed by value."""
    named = dict(zip(program.states, states, strict=True))
    resting = frozenset(name for name, s in named.items() if s.dim() == 0)
    numbers = {name for name in resting if _is_number(named[name])}
    arguments = [
        float(s) if name in numbers else s.detach() if name in resting else lanes.lay(s.detach())
        for name, s in named.items()
    ]
    return arguments, resting, numbers


def _time(program: Program, T: int, static: int) -> tuple[int, int, int]:
    """(steps of the first chunk, of later chunks, number of later chunks)."""
    held = max(1, len(program.states) + len(program.inputs) - static)
    chunk = max(1, min(_CHUNK, _HELD // held, _OPERATIONS // max(1, len(program.nodes))))
    chunks = (T - 1) // chunk
    return T - chunks * chunk, chunk if chunks else 1, chunks


@dataclass(frozen=True)
class _Tiling:
    """How programs share the lanes: `groups` of programs, whose `tiles` are dealt out to `splits` programs each.

    `order`, `columns`, `inner` and `size` as in `TritonLayout`; `count` is what bounds the numbers of a group.
    """

    order: str
    columns: int
    groups: int
    tiles: int
    splits: int
    count: int
    inner: int
    size: int

    @property
    def programs(self) -> int:
        return self.groups * self.splits


def _tiling(lanes: Lanes, tile: int, pattern: tuple[int, int] | None) -> _Tiling:
    """Programs for gradients of parameters that repeat with this pattern (lanes each is repeated over, how many)."""
    inner, size = pattern or (1, 1)
    count, columns = lanes.count // size, 1
    if pattern is None:
        order, groups, share = "flat", 1, tile
    elif inner > 1:
        order, groups, share = "runs", size, tile
    else:
        columns = min(tile, 1 << (size - 1).bit_length())
        order, groups, share = "columns", -(-size // columns), tile // columns
    tiles = -(-count // share)
    splits = max(1, min(tiles, _PROGRAMS // groups))
    return _Tiling(order, columns, groups, tiles, splits, count, inner, size)


def forward(
    text: str, inputs: Sequence[Tensor], states: Sequence[Tensor], params: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Run the step `text` over the leading axis of `inputs`; returns outputs and final states."""
    program, lanes, device = _program(text), _format(inputs[0]), inputs[0].device
    outputs = [lanes.empty(lanes.T, inputs[0].dtype, device) for _ in program.outputs]
    last = [lanes.empty(None, torch.float32, device) for _ in program.states]
    if lanes.count:
        values = _values(text, "forward", params, device)
        sequences = [_sequence(x, lanes) for x in inputs]
        static = frozenset(name for name, (_, same) in zip(program.inputs, sequences, strict=True) if same)
        first, resting, numbers = _states(program, states, lanes)
        head, chunk, chunks = _time(program, lanes.T, len(static))
        layout = TritonLayout(
            io=lanes.io,
            scalars=values.scalars,
            inverted=values.inverted,
            tile=_tile(lanes, device),
            numbers=frozenset(numbers.union(values.numbers)),
            static=static,
            resting=resting,
            head=head,
            chunk=chunk,
            looped=chunks > 0,
            wide=lanes.count >= 1 << 30,
        )
        kernel, names = _kernel(text, layout, "forward")
        arguments = [
            lanes.count,
            *(x for x, _ in sequences),
            *first,
            *_arguments(names, values, lanes),
            *outputs,
            *last,
            *([chunks] if chunks else []),
        ]
        _launch(kernel, -(-lanes.count // layout.tile), layout, device, arguments)
    return outputs, last


def backward(
    text: str,
    inputs: Sequence[Tensor],
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> list[Tensor]:
    """Gradients of the `wanted` inputs, states and params, given those of outputs and final states (None: zero)."""
    program, lanes, device = _program(text), _format(inputs[0]), inputs[0].device
    n_in, n_state, n_out = len(inputs), len(states), len(program.outputs)
    of_inputs, of_states, of_params = wanted[:n_in], wanted[n_in : n_in + n_state], wanted[n_in + n_state :]
    to_inputs = [lanes.empty(lanes.T, inputs[0].dtype, device) for want in of_inputs if want]
    to_states = [lanes.empty(None, torch.float32, device) for want in of_states if want]
    learned = {name: p for name, p, want in zip(program.params, params, of_params, strict=True) if want}
    if not lanes.count:
        return [*to_inputs, *to_states, *(torch.zeros_like(p) for p in learned.values())]

    values = _values(text, "backward", params, device)
    varying = {name: repeats(p.shape, lanes)[1:] for name, p in learned.items() if p.numel() > 1}
    patterns = Counter(p for p in varying.values() if p[0] == 1 or lanes.count // p[1] >= _LEAST_RUN)
    pattern = max(patterns, key=lambda p: patterns[p], default=None)
    tile = _tile(lanes, device)
    tiling = _tiling(lanes, tile, pattern)
    sequences = [_sequence(x, lanes) for x in inputs]
    cotangents = [
        (name, *_sequence(g, lanes)) for name, g in zip(program.grads_outputs, grads, strict=False) if g is not None
    ]
    static = [name for name, (_, same) in zip(program.inputs, sequences, strict=True) if same]
    first, resting, numbers = _states(program, states, lanes)
    head, chunk, chunks = _time(program, lanes.T, len(static))
    layout = TritonLayout(
        io=lanes.io,
        scalars=values.scalars,
        inverted=values.inverted,
        tile=tile,
        grads_outputs=tuple(g is not None for g in grads[:n_out]),
        inputs=tuple(of_inputs),
        states=tuple(of_states),
        params=tuple((name, "sum" if varying.get(name) in (None, pattern) else "lane") for name in learned),
        numbers=frozenset(numbers.union(values.numbers)),
        static=frozenset([*static, *(name for name, _, same in cotangents if same)]),
        resting=resting,
        grads_next=tuple(g is not None for g in grads[n_out:]),
        head=head,
        chunk=chunk,
        looped=chunks > 0,
        kept=chunks > 1,
        order=tiling.order,
        columns=tiling.columns,
        wide=lanes.count >= 1 << 30,
    )
    kernel, names = _kernel(text, layout, "backward")
    sums: dict[str, Tensor] = {}
    for name, how in layout.params:
        if how == "lane":
            sums[name] = lanes.empty(None, torch.float32, device)
        else:
            shape = (tiling.splits, tiling.size) if name in varying else (tiling.programs,)
            sums[name] = torch.empty(shape, dtype=torch.float32, device=device)
    history = tiling.programs * chunks * n_state * tile if layout.kept else 0
    arguments = [
        lanes.count,
        *(x for x, _ in sequences),
        *first,
        *_arguments(names, values, lanes),
        *(g for _, g, _ in cotangents),
        *(lanes.lay(g.detach().expand(lanes.shape)) for g in grads[n_out:] if g is not None),
        *to_inputs,
        *to_states,
        *sums.values(),
        tiling.tiles,
        tiling.splits,
        tiling.groups,
        tiling.count,
        tiling.inner,
        tiling.size,
        *([torch.empty(history, dtype=torch.float32, device=device)] if history else []),
        *([chunks] if chunks else []),
    ]
    _launch(kernel, tiling.programs, layout, device, arguments)
    return [*to_inputs, *to_states, *(_summed(sums[name], how, learned[name], lanes) for name, how in layout.params)]


def _summed(sums: Tensor, how: str, p: Tensor, lanes: Lanes) -> Tensor:
    """The gradient of a parameter from its partial sums."""
    if how == "lane":
        return sums.sum_to_size(p.shape)
    if sum(size > 1 for size in p.shape) <= 1:
        return sums.sum(0).reshape(p.shape).to(p.device)
    full = sums.sum(0).reshape(lanes.inner).permute([a - 1 for a in lanes.back[1:]])
    return full.sum_to_size(p.shape)
