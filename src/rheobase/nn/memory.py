"""Training in less memory: blocks forget what they computed and compute it again in backward.

Source: Chen et al. 2016, arXiv:1604.06174, section 4 (segments of about the square root of the number of layers). What
differs: the input of a segment that reads spikes is kept as bits.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from rheobase.nn.fuse import Sequential, settled
from rheobase.nn.packing import packing, packing_is_on
from rheobase.nn.values import Values, emits
from rheobase.scan.bits import dense_stride, pack, unpack
from rheobase.scan.engine import chosen, engine
from rheobase.scan.static import is_static
from rheobase.scan.temporal import Call, ModelState, active, within

Memory = Literal["full", "bits"]
"""Keep everything that backward needs, or the inputs of segments of blocks alone."""

_mode: Memory = "full"  # a plain global, like the engine
_recomputing = False


@contextmanager
def memory(mode: Memory) -> Iterator[None]:
    """Inside, `Blocks` keep for backward all that it needs ("full", the default) or their segments' inputs ("bits").

    A setting of the process, read in the forward pass. Outputs, gradients and running statistics are equal bit for bit;
    "bits" computes every segment twice.

    Raises:
        ValueError: no such mode.
    """
    global _mode, _run
    if mode not in ("full", "bits"):
        raise ValueError(f"there is no memory mode {mode!r}; expected 'full' or 'bits'")
    if mode == "bits":
        _run = _uncompiled()
    before, _mode = _mode, mode
    try:
        yield
    finally:
        _mode = before


def recomputing() -> bool:
    """Whether a segment is being run again for its backward pass, so that hooks may tell."""
    return _recomputing


class Blocks(Sequential):
    """A `Sequential` of blocks on `[T, B, ...]` that obeys `rb.memory`; same state_dict.

    In "bits" mode segments of at least two blocks keep only their input: as bits where the block before declares to
    emit spikes, else as it is. In backward a segment runs again on what it had: input, parameters, state of the
    surrounding `rb.call`, random numbers, training modes, autocast, engine; and on copies of its buffers, so that
    running statistics count a batch once. So what a block puts out must not depend on a buffer that it changes itself.
    Two sums are added in another order: the gradient of a parameter that several segments share is summed by segment,
    and that of a layer which runs twice in one autocast region in fp32, where torch adds in bf16.

    Args:
        blocks: as for nn.Sequential.
        reads: what the first block is fed with.
        segments: blocks in each segment, 2 or more; None takes about the square root of their number, longer ones
            first.

    Raises:
        ValueError: segments of fewer than two blocks, or that do not add up to the blocks.
        RuntimeError: a second derivative is asked for in "bits" mode.
    """

    def __init__(self, *blocks: Any, reads: Values = "real", segments: Sequence[int] | None = None) -> None:
        super().__init__(*blocks)
        self.reads: Values = reads
        self.segments = None if segments is None else tuple(segments)
        self.sizes()

    def sizes(self) -> tuple[int, ...]:
        """Blocks in each segment."""
        n = len(self)
        if self.segments is None:
            count = max(1, min(round(math.sqrt(n)), n // 2))
            return tuple(n // count + (k < n % count) for k in range(count))
        if min(self.segments, default=0) < 2 or sum(self.segments) != n:
            raise ValueError(
                f"Blocks: segments are {self.segments} for {n} blocks; expected sizes of at least 2 that add up to {n}"
            )
        return self.segments

    def waiting(self, x: Any, reader: nn.Module | None = None) -> Any:
        """Run the blocks in order; in "bits" mode nothing is left waiting."""
        if _mode == "full" or len(self) < 2 or not torch.is_grad_enabled():
            return super().waiting(x, reader)
        return _run(self, settled(x))


def _forget(blocks: Blocks, x: Tensor) -> Tensor:
    rest, reads = iter(blocks), blocks.reads
    for size in blocks.sizes():
        segment = _Segment([next(rest) for _ in range(size)], reads, x)
        x, reads = segment(x), emits(segment.module, reads)
    return x


_run: Callable[[Blocks, Tensor], Tensor] = _forget


@lru_cache(maxsize=1)
def _uncompiled() -> Callable[[Blocks, Tensor], Tensor]:
    """`_forget`, at which compiled programs break; made when it is needed, for it imports the compiler."""
    reason = "rb.memory('bits') runs blocks again by autograd; compile in memory mode 'full'"
    return cast(Callable[[Blocks, Tensor], Tensor], torch.compiler.disable(_forget, reason=reason))


Layout = list[tuple[str, int]]
"""The keys of a state, and how many tensors each has."""


class _Segment:
    """Blocks in a row, and all that a second run needs to be the first one again."""

    def __init__(self, blocks: list[nn.Module], reads: Values, x: Tensor) -> None:
        self.module, self.binary = Sequential(*blocks), reads == "binary"
        self.engine, self.packing, self.random = chosen(), packing_is_on(), _random(x.device)
        self.modes = [module.training for module in self.module.modules()]
        self.device, self.cast = x.device.type, torch.is_autocast_enabled(x.device.type)
        self.format = torch.get_autocast_dtype(x.device.type)
        self.cache = torch.is_autocast_cache_enabled()
        call = active()
        self.names, self.count, before = None, {}, {}
        if call:
            self.names, self.count = call.names, dict(call.count)
            mine = {call.names[module] for module in self.module.modules() if module in call.names}
            before = {key: state for key, state in call.before.items() if key.rpartition("#")[0] in mine}
        self.before, self.given = _layout(before), _tensors(before)
        self.after: Layout = []

    def __call__(self, x: Tensor) -> Tensor:
        """The output; states before and after are taken from and given to the surrounding call."""
        y, *states = _Checkpoint.apply(self, x, *self.given, *self.module.parameters())
        self.given = []
        if call := active():
            call.after.update(_state(self.after, states))
            call.count.update(self.counted)
        return cast(Tensor, y)

    def keep(self, x: Tensor) -> Tensor:
        """What is kept of x."""
        if not self.binary:
            return x
        self.steps = x.shape[0] if is_static(x) else None
        one = x[0] if is_static(x) else x
        self.like = (one.shape, dense_stride(one), one.dtype)
        return pack(one)

    def kept(self, saved: Tensor) -> Tensor:
        """x again."""
        if not self.binary:
            return saved.detach()
        x = unpack(saved, *self.like)
        return x if self.steps is None else x.expand(self.steps, *x.shape)

    def first(self, x: Tensor, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The first run: without a graph, so that autocast may keep none of the weights it casts."""
        call = self._call(given)
        with within(call), self._autocast(cache=False):
            y: Tensor = self.module(x)
        if call is None:
            return (y,)
        self.after, self.counted = _layout(call.after), call.count
        return (y, *_tensors(call.after))

    def again(self, x: Tensor, given: Sequence[Tensor], parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The second run, with a graph: leaves no trace in buffers, random numbers or the surrounding call."""
        global _recomputing
        tensors = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
        tensors |= zip((name for name, _ in self.module.named_parameters()), parameters, strict=True)
        call, random, outer = self._call(given), _random(x.device), _recomputing
        modes = [module.training for module in self.module.modules()]
        _recomputing = True
        _set_random(x.device, self.random)
        self._set_modes(self.modes)
        try:
            with (
                within(call),
                engine(self.engine),
                packing(self.packing),
                self._autocast(cache=self.cache),
                torch.enable_grad(),
            ):
                y: Tensor = torch.func.functional_call(self.module, tensors, (x,))
        finally:
            _recomputing = outer
            self._set_modes(modes)
            _set_random(x.device, random)
        return (y,) if call is None else (y, *_tensors(call.after))

    def _autocast(self, cache: bool) -> torch.autocast:
        return torch.autocast(self.device, self.format, self.cast, cache)

    def _set_modes(self, modes: Sequence[bool]) -> None:
        for module, mode in zip(self.module.modules(), modes, strict=True):
            module.training = mode

    def _call(self, given: Sequence[Tensor]) -> Call | None:
        return None if self.names is None else Call(self.names, _state(self.before, given), {}, dict(self.count))


class _Checkpoint(torch.autograd.Function):
    """A segment that keeps its input, the states before it and the parameters."""

    @staticmethod
    def forward(ctx: Any, segment: _Segment, x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        found = segment.first(x, tensors)
        ctx.segment = segment
        ctx.save_for_backward(segment.keep(x), *tensors)
        ctx.set_materialize_grads(False)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "rb.memory('bits') has no second derivative; run forward and backward in memory mode 'full'"
            )
        kept, *tensors = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1:]
        states = sum(size for _, size in ctx.segment.before)
        inputs = [t.detach() for t in (ctx.segment.kept(kept), *tensors[:states])]
        for t, want in zip(inputs, wanted, strict=False):
            t.requires_grad_(want)
        found = ctx.segment.again(inputs[0], inputs[1:], tensors[states:])
        roots = [(y, g) for y, g in zip(found, grads, strict=True) if g is not None and y.requires_grad]
        inputs = [t for t, want in zip((*inputs, *tensors[states:]), wanted, strict=True) if want]
        if not roots:
            return None, *(None for _ in wanted)
        ends, cotangents = zip(*roots, strict=True)
        to_inputs = iter(torch.autograd.grad(ends, inputs, cotangents, allow_unused=True))
        return None, *(next(to_inputs) if want else None for want in wanted)


def _layout(state: ModelState) -> Layout:
    return [(key, len(tensors)) for key, tensors in state.items()]


def _tensors(state: ModelState) -> list[Tensor]:
    return [tensor for tensors in state.values() for tensor in tensors]


def _state(layout: Layout, tensors: Sequence[Tensor]) -> ModelState:
    parts = iter(tensors)
    return {key: tuple(next(parts) for _ in range(size)) for key, size in layout}


def _random(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The state of the generators that a module on the device draws from."""
    other = None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device)
    return torch.get_rng_state(), other


def _set_random(device: torch.device, state: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.get_device_module(device).set_rng_state(state[1], device)


def saved_bytes(model: nn.Module, x: Any) -> int:
    """Bytes that a forward pass of `model(x)` keeps for backward: whole storages, each counted once, no parameters.

    Args:
        model: any module; runs as it is, in training or not.
        x: its input; counted where the model keeps it.
    """
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def see(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(see, lambda t: t):
        y = model(x)  # alive until the count is done, so that no memory is used twice
    del y
    return sum(kept.values())
