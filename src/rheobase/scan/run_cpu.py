"""The CPU engine: lays tensors out as lanes, compiles the emitted kernels once per machine, runs them on threads."""

import hashlib
import importlib.util
import linecache
import math
import os
import sys
import threading
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rheobase.scan import emit_cpu
from rheobase.scan.emit_cpu import Layout
from rheobase.scan.ir import Node, Program, hoist, live, parse
from rheobase.scan.pool import run_blocks

_FORMAT = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16", torch.float16: "f16"}
_TILES = (1024, 256)
_HISTORY_BYTES = 1 << 19
"""What a tile's states of all steps may take: a fraction of a core's second-level cache."""
_NODE_NS = 0.045
"""Nanoseconds that one operation takes a lane and step, roughly, to decide whether a job is worth a second thread."""
_MAX_BLOCKS = 64
_MIN_BLOCK = 4096
compiling = threading.Lock()


def kernel_folder() -> Path:
    """Where generated kernels are kept: `$RHEOBASE_KERNELS`, default `~/.cache/rheobase/kernels`."""
    return Path(os.environ.get("RHEOBASE_KERNELS") or Path.home() / ".cache" / "rheobase" / "kernels")


@lru_cache(maxsize=1)
def _toolchain() -> str:
    import llvmlite
    import numba
    from llvmlite.binding import get_host_cpu_features, get_host_cpu_name

    return (
        f"{emit_cpu.EMITTER} {numba.__version__} {llvmlite.__version__} "
        f"{get_host_cpu_name()} {get_host_cpu_features().flatten()}"
    )


def kernel_module(source: str, toolchain: str) -> types.ModuleType:
    """Import generated source, from the kernel folder if it can be written there, else from memory.

    `toolchain` says what else the kernel depends on: versions of emitter and compiler, kind of processor.
    """
    digest = hashlib.sha256((source + toolchain).encode()).hexdigest()[:24]
    name = f"rheobase_kernel_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    path = kernel_folder() / f"{name}.py"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            temporary = path.with_name(f".{name}.{os.getpid()}.{threading.get_ident()}")
            temporary.write_text(source)
            try:
                os.link(temporary, path)  # never replaces: numba's index goes by the file's time
            except FileExistsError:
                pass
            finally:
                temporary.unlink()
        module = _execute(name, path)
    except OSError as error:
        warnings.warn(
            f"kernels cannot be kept in {path.parent} ({error}); they are compiled again in every process; "
            f"set RHEOBASE_KERNELS to a folder that can be written",
            RuntimeWarning,
            stacklevel=2,
        )
        module = types.ModuleType(name)
        module.__dict__["CACHE"] = False
        linecache.cache[f"<{name}>"] = len(source), None, source.splitlines(keepends=True), f"<{name}>"
        exec(compile(source, f"<{name}>", "exec"), module.__dict__)
    sys.modules[name] = module
    return module


def _execute(name: str, path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.__dict__["CACHE"] = True
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@lru_cache(maxsize=4096)
def _kernel(text: str, layout: Layout, direction: str) -> tuple[Callable[..., None], list[str], float]:
    """The compiled kernel, the parameters and hoisted values that it takes, and its nanoseconds a lane and step."""
    program = parse(text)
    with compiling:
        if direction == "forward":
            module, names = (
                kernel_module(emit_cpu.emit_forward(program, layout), _toolchain()),
                emit_cpu.forward_parameters(program),
            )
        else:
            module, names = (
                kernel_module(emit_cpu.emit_backward(program, layout), _toolchain()),
                emit_cpu.backward_parameters(program, layout),
            )
    return getattr(module, direction), names, _NODE_NS * len(program.nodes) * (0.5 if direction == "forward" else 1)


@dataclass(frozen=True, eq=False)
class _Lanes:
    """How `[T, *shape]` lies in memory: `order` lists the axes of one step from the slowest to the fastest."""

    T: int
    shape: tuple[int, ...]
    order: tuple[int, ...]
    io: str

    @cached_property
    def count(self) -> int:
        """Lanes: neurons times samples."""
        return math.prod(self.shape)

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """Strides of one step; those of axes of size one are 0, for they may be anything."""
        found, stride = [0] * len(self.shape), 1
        for a in reversed(self.order):
            if self.shape[a] != 1:
                found[a] = stride
                stride *= self.shape[a]
        return tuple(found)

    @cached_property
    def back(self) -> list[int]:
        """The permutation from memory order to the order of the axes."""
        return [self.order.index(a) for a in range(len(self.shape))]

    @property
    def inner(self) -> tuple[int, ...]:
        """Sizes of one sample's axes, in memory order."""
        return tuple(self.shape[a] for a in self.order[1:])

    def empty(self, T: int | None, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
        """An uninitialised tensor of this layout, with T steps or (None) of one step's shape."""
        sizes = ([] if T is None else [T]) + [self.shape[a] for a in self.order]
        memory = torch.empty(sizes, dtype=dtype, device=device)
        if self.order == tuple(range(len(self.shape))):
            return memory
        return memory.permute(self.back if T is None else [0, *(a + 1 for a in self.back)])

    def fits(self, shape: Sequence[int], stride: Sequence[int]) -> bool:
        """Whether a tensor lies as this layout says (a sequence's steps may all be the same memory)."""
        if len(shape) > len(self.shape):
            if shape[0] > 1 and stride[0] not in (0, self.count):
                return False
            stride = stride[1:]
        return all(size == 1 or a == b for size, a, b in zip(self.shape, stride, self.strides, strict=True))

    def lay(self, x: Tensor) -> Tensor:
        """x itself if it fits, else a copy that does."""
        if self.fits(x.shape, x.stride()):
            return x
        steps = x.shape[0] if x.dim() > len(self.shape) else None
        return self.empty(steps, x.dtype, x.device).copy_(x)


def _lanes(x: Tensor) -> _Lanes:
    return _lanes_of(x.shape, x.stride(), x.dtype)


@lru_cache(maxsize=4096)
def _lanes_of(shape: torch.Size, stride: tuple[int, ...], dtype: torch.dtype) -> _Lanes:
    T, step = shape[0], tuple(shape[1:])
    axes = sorted(range(1, len(step)), key=lambda a: (-stride[a + 1], a))
    lanes = _Lanes(T, step, (0, *axes), _FORMAT[dtype])
    return lanes if lanes.fits(shape, stride) else _Lanes(T, step, tuple(range(len(step))), lanes.io)


def _flat(x: Tensor, size: int) -> Any:
    """The first `size` values of x's memory as a NumPy array; 16-bit floats as unsigned integers."""
    flat = x.detach().as_strided((size,), (1,))
    if x.dtype in (torch.bfloat16, torch.float16):
        return flat.view(torch.int16).numpy().view(np.uint16)
    return flat.numpy()


def _sequence(x: Tensor, lanes: _Lanes) -> tuple[Any, int]:
    """Memory of a sequence and the distance between steps: 0 where all steps are one."""
    x = lanes.lay(x)
    step = 0 if lanes.T > 1 and x.stride(0) == 0 else lanes.count
    return _flat(x, lanes.count * (lanes.T if step else 1)), step


def _state(s: Tensor, lanes: _Lanes) -> tuple[Any, int]:
    """Memory of a state and its distance between lanes: 0 where one value serves all."""
    if s.dim() == 0:
        return _flat(s, 1), 0
    return _flat(lanes.lay(s), lanes.count), 1


def _parameter(p: Tensor, lanes: _Lanes) -> tuple[Tensor, int, int]:
    """A parameter's values along the lanes: (values, lanes each is repeated over, how many there are)."""
    rest = lanes.shape[1:]
    aligned = p.reshape([1] * (len(rest) - p.dim()) + list(p.shape))
    varying = [k for k, size in enumerate(aligned.shape) if size > 1]
    position = {a - 1: k for k, a in enumerate(lanes.order[1:])}
    if len(varying) == 1:
        k = position[varying[0]]
        return aligned.reshape(-1), math.prod(lanes.inner[k + 1 :]), lanes.inner[k]
    values = aligned.expand(rest).permute([a - 1 for a in lanes.order[1:]]).reshape(-1)
    return values, 1, values.numel()


def _blocks(lanes: _Lanes, tile: int) -> tuple[int, int]:
    """(lanes in a block, blocks): depends on the size alone, so that sums do not depend on the threads."""
    wanted = max(_MIN_BLOCK, -(-lanes.count // _MAX_BLOCKS))
    block = -(-wanted // tile) * tile
    return block, -(-lanes.count // block)


def _tile(program: Program, lanes: _Lanes) -> int:
    width = 8 if lanes.io == "f64" else 4
    need = lanes.T * max(1, len(program.states)) * width
    return next((tile for tile in _TILES if tile * need <= _HISTORY_BYTES), _TILES[-1])


def _arguments(
    names: Sequence[str], values: Mapping[str, Tensor], numbers: Mapping[str, float], lanes: _Lanes
) -> list[Any]:
    found: list[Any] = []
    for name in names:
        if name in numbers:
            found.append(numbers[name])
        else:
            p, inner, size = _parameter(values[name].detach(), lanes)
            found += [p.contiguous().numpy(), inner, size]
    return found


@lru_cache(maxsize=1024)
def _hoisted_forward(text: str) -> list[Node]:
    """The hoisted nodes that the forward kernel needs."""
    program = parse(text)
    return live(program.hoisted, emit_cpu.forward_parameters(program))


@lru_cache(maxsize=1024)
def _divisors(text: str) -> frozenset[str]:
    return emit_cpu.divisors(parse(text))


def _numbers(text: str, values: Mapping[str, Tensor]) -> tuple[dict[str, float], frozenset[str]]:
    """The parameters and hoisted values that are one number, and which divisors among them are powers of two."""
    numbers = {name: value.item() for name, value in values.items() if value.numel() == 1}
    return numbers, frozenset(n for n in _divisors(text) & numbers.keys() if emit_cpu.is_power_of_two(numbers[n]))


def forward(
    text: str, inputs: Sequence[Tensor], states: Sequence[Tensor], params: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Run the step `text` over the leading axis of `inputs`; returns outputs and final states."""
    program, lanes = parse(text), _lanes(inputs[0])
    values = hoist(program, params, _hoisted_forward(text))
    numbers, inverted = _numbers(text, values)
    layout = Layout(lanes.io, frozenset(numbers), inverted, _TILES[0])
    kernel, names, ns = _kernel(text, layout, "forward")
    outputs = [lanes.empty(lanes.T, inputs[0].dtype) for _ in program.outputs]
    last = [lanes.empty(None, states[0].dtype) for _ in program.states]
    size = lanes.count * lanes.T
    if size:
        block, blocks = _blocks(lanes, layout.tile)
        arguments = [
            *(a for x in inputs for a in _sequence(x, lanes)),
            *(a for s in states for a in _state(s, lanes)),
            *_arguments(names, values, numbers, lanes),
            *(_flat(o, size) for o in outputs),
            *(_flat(s, lanes.count) for s in last),
        ]
        run_blocks(lambda lo, hi: kernel(lo, hi, block, lanes.T, lanes.count, *arguments), blocks, size * ns / 1000)
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
    program, lanes = parse(text), _lanes(inputs[0])
    values = hoist(program, params, program.hoisted)
    n_in, n_state, n_out = len(inputs), len(states), len(program.outputs)
    member, dtype = states[0].dtype if states else inputs[0].dtype, inputs[0].dtype
    tile = _tile(program, lanes)
    block, blocks = _blocks(lanes, tile)
    of_param = dict(zip(program.params, params, strict=True))
    where: dict[str, tuple[int, int]] = {}
    kinds: list[tuple[str, str]] = []
    for name, want in zip(program.params, wanted[n_in + n_state :], strict=True):
        if not want:
            continue
        p = of_param[name]
        where[name] = (lanes.count, 1) if p.numel() == 1 else _parameter(p.detach(), lanes)[1:]
        kinds.append((name, "sum" if where[name][1] <= _MIN_BLOCK else "lane"))
    numbers, inverted = _numbers(text, values)
    layout = Layout(
        lanes.io,
        frozenset(numbers),
        inverted,
        tile,
        tuple(g is not None for g in grads[:n_out]),
        tuple(wanted[:n_in]),
        tuple(wanted[n_in : n_in + n_state]),
        tuple(kinds),
    )
    kernel, names, ns = _kernel(text, layout, "backward")
    to_inputs = [lanes.empty(lanes.T, dtype) for want in layout.inputs if want]
    to_states = [lanes.empty(None, member) for want in layout.states if want]
    sums = {
        name: torch.zeros(blocks, where[name][1], dtype=torch.float64) if how == "sum" else lanes.empty(None, member)
        for name, how in kinds
    }
    size = lanes.count * lanes.T
    if size:
        arguments: list[Any] = [
            *(a for x in inputs for a in _sequence(x, lanes)),
            *(a for s in states for a in _state(s, lanes)),
            *_arguments(names, values, numbers, lanes),
            *(a for g in grads[:n_out] if g is not None for a in _sequence(g, lanes)),
        ]
        zero = torch.zeros((), dtype=member)
        for g in grads[n_out:]:
            arguments += _state(zero if g is None else g.expand(lanes.shape), lanes)
        arguments += [_flat(g, size) for g in to_inputs]
        arguments += [_flat(g, lanes.count) for g in to_states]
        for name, how in kinds:
            if how == "lane":
                arguments.append(_flat(sums[name], lanes.count))
            else:
                arguments += [sums[name].numpy(), *where[name]]
        run_blocks(lambda lo, hi: kernel(lo, hi, block, lanes.T, lanes.count, *arguments), blocks, size * ns / 1000)
    to_params = []
    for name, how in kinds:
        p = of_param[name]
        if how == "lane":
            to_params.append(sums[name].sum_to_size(p.shape))
        elif sum(size > 1 for size in p.shape) <= 1:
            to_params.append(sums[name].sum(0).to(member).reshape(p.shape))
        else:
            full = sums[name].sum(0).reshape(lanes.inner).permute([a - 1 for a in lanes.back[1:]])
            to_params.append(full.sum_to_size(p.shape).to(member))
    return [*to_inputs, *to_states, *to_params]
