"""Where a gradient is wanted: the open windows of surrogates, followed through what moves spikes about.

The gradient of the loss for a spike is multiplied by the surrogate's derivative h. Where h is zero the window is closed
and that gradient need not be computed. A layer's input is seldom the neuron's output itself: it was reshaped, pooled,
masked or added to something else, and the windows go with it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from rheobase.neurons import Atan, FastSigmoid, Neuron
from rheobase.nn.fuse import settled
from rheobase.scan import Scan, Step, UnsupportedOperationError
from rheobase.scan.engine import engine, resolve
from rheobase.scan.functions import FUNCTIONS
from rheobase.scan.ir import live, parse
from rheobase.scan.spike import Derivative
from rheobase.scan.windows import watched, window, windows_of

aten = torch.ops.aten

_FAR = 1e12
"""A distance from the threshold beyond which no membrane is that of a working network."""


def surrogates(neuron: nn.Module) -> list[Derivative]:
    """The surrogates within a neuron."""
    return [value for scan in _scans(neuron) for value in scan.constants.values() if isinstance(value, Derivative)]


def open_windows(
    neuron: nn.Module, x: Any, y: Tensor, noise: Iterable[tuple[torch.Generator, Tensor]]
) -> Tensor | None:
    """Where the surrogates of a neuron that maps x to y `[T, B, ...]` have a derivative that is not zero.

    Nothing is run where no window ever closes. Else the neuron runs once more: on the engine that ran it, by a step
    that puts out its windows, or, where that engine might round otherwise than torch, as plain torch code.

    Args:
        neuron: any neuron, or a layer around one.
        x: what it was called with.
        y: what it put out.
        noise: generators and their states before that call, see `noise_of`.

    Returns:
        bool, of y's shape; None if the neuron has no surrogate, so that nothing is known.
    """
    found = surrogates(neuron)
    if found and all(map(_never_closes, found)):
        return torch.ones((), dtype=torch.bool, device=y.device).expand(y.shape)
    with _drawn_again(noise), torch.no_grad():
        watcher = _watcher_of(neuron, y)
        return _plain(neuron, x, y) if watcher is None else _fused(cast(Neuron, neuron), watcher, x)


@contextmanager
def _drawn_again(noise: Iterable[tuple[torch.Generator, Tensor]]) -> Iterator[None]:
    """Inside, the generators start from their states of then."""
    noise = list(noise)
    before = [generator.get_state() for generator, _ in noise]
    for generator, state in noise:
        generator.set_state(state)
    try:
        yield
    finally:
        for (generator, _), state in zip(noise, before, strict=True):
            generator.set_state(state)


def _never_closes(surrogate: Derivative) -> bool:
    """Whether the derivative is above zero at every distance that is no sign of a diverged network."""
    far = torch.tensor([-_FAR, 0.0, _FAR])
    return type(surrogate) in (Atan, FastSigmoid) and bool((surrogate.derivative(far) > 0).all())


def _watcher_of(neuron: nn.Module, y: Tensor) -> Scan | None:
    """What gives a neuron's windows on a fused engine, bit for bit those of the plain code; None if nothing does."""
    if not (isinstance(neuron, Neuron) and type(neuron).sequence is Neuron.sequence and neuron.scan.fused):
        return None
    if resolve(y.device) == "reference":
        return None
    return _watcher(neuron.scan.step, tuple(neuron.scan.constants.items()))


@lru_cache(maxsize=256)
def _watcher(step: Step, constants: tuple[tuple[str, Any], ...]) -> Scan | None:
    try:
        scan = Scan(windows_of(step), **dict(constants))
    except UnsupportedOperationError:
        return None
    program = parse(scan.text())
    exact = all(node.op not in FUNCTIONS for node in live(program.nodes, [*program.outputs, *program.next_states]))
    return scan if exact else None


def _fused(neuron: Neuron, watcher: Scan, x: Any) -> Tensor:
    before, neuron.scan = neuron.scan, watcher
    try:
        found: Tensor = neuron.sequence(x, None)[0]
    finally:
        neuron.scan = before
    return found.bool()


def _plain(neuron: nn.Module, x: Any, y: Tensor) -> Tensor | None:
    inputs = [settled(part).detach() for part in (x if isinstance(x, tuple | list) else (x,))]
    with engine("reference"):
        seen = _distances(neuron, inputs)
        if seen and seen[0][1].shape != y.shape[1:]:  # all neurons side by side, in the order that they lie in memory
            seen = _distances(neuron, [part.contiguous() for part in inputs])
    if not seen or len(seen) % len(y) or seen[0][1].numel() != y[0].numel():
        return None
    found = torch.zeros_like(y, dtype=torch.bool)
    for k, call in enumerate(seen):
        found[k * len(y) // len(seen)] |= window(*call).view(y.shape[1:])
    return found


def _distances(neuron: nn.Module, inputs: list[Tensor]) -> list[tuple[Derivative, Tensor]]:
    """The surrogates that were called while a neuron ran, with what they were called with."""
    with _watching(neuron) as seen:
        neuron.sequence(inputs if len(inputs) > 1 else inputs[0], None)  # type: ignore[operator]
    return seen


def noise_of(neuron: nn.Module, x: Any) -> list[tuple[torch.Generator, Tensor]]:
    """The generators that a neuron draws from, with their present states; none unless it is stochastic."""
    if all(len(scan.step.inputs) == 1 for scan in _scans(neuron)):
        return []
    first = x[0] if isinstance(x, tuple | list) else getattr(x, "x", x)
    default = torch.cuda.default_generators[first.device.index] if first.is_cuda else torch.default_generator
    found = {id(g): g for g in (getattr(module, "generator", None) or default for module in neuron.modules())}
    return [(generator, generator.get_state()) for generator in found.values()]


def _scans(neuron: nn.Module) -> list[Scan]:
    return [scan for module in neuron.modules() if isinstance(scan := getattr(module, "scan", None), Scan)]


@contextmanager
def _watching(neuron: nn.Module) -> Iterator[list[tuple[Derivative, Tensor]]]:
    seen: list[tuple[Derivative, Tensor]] = []
    before = [(scan, scan.constants) for scan in _scans(neuron)]
    for scan, constants in before:
        scan.constants = watched(constants, seen)
    try:
        yield seen
    finally:
        for scan, constants in before:
            scan.constants = constants


class Windows(TorchDispatchMode):
    """Follows windows from tensor to tensor while a model runs; what no rule knows has open windows everywhere.

    Args:
        product: called with operator, arguments and output of every matrix product.
    """

    def __init__(self, product: Callable[[Any, tuple[Any, ...], Any], None]) -> None:
        super().__init__()
        self.product = product
        self.paused = False
        self._open = WeakTensorKeyDictionary()

    def __setitem__(self, x: Tensor, windows: Tensor) -> None:
        self._open[x] = windows

    def __getitem__(self, x: Tensor) -> Tensor:
        """Where the gradient for x reaches an open window: bool, of x's shape."""
        found: Tensor | None = self._open.get(x)
        return torch.ones((), dtype=torch.bool, device=x.device).expand(x.shape) if found is None else found

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Inside, nothing is followed; only where this mode is the innermost one."""
        self.paused = True
        self.__exit__(None, None, None)
        try:
            yield
        finally:
            self.__enter__()
            self.paused = False

    def known(self, x: Any) -> bool:
        """Whether x has windows that may be closed."""
        return isinstance(x, Tensor) and x in self._open

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func.namespace != "aten":
            return out
        packet = func.overloadpacket
        if packet in _PRODUCTS or "attention" in func._opname:
            self.product(packet, args, out)
        elif packet in _RULES and any(
            self.known(t) for arg in args for t in (arg if isinstance(arg, list) else (arg,))
        ):
            found = _RULES[packet](self, out, *args, **kwargs)
            for t, windows in zip(out if isinstance(out, list | tuple) else (out,), found, strict=False):
                self._open[t] = windows
        elif func._schema.is_mutable:
            for t in tree_leaves(out):
                self._open.pop(t, None)
        return out


def _moved(func: Callable[..., Any]) -> Callable[..., Any]:
    """The rule of what moves values about: the windows move likewise."""

    def rule(windows: Windows, out: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        found = func(windows[x], *args, **kwargs)
        return found if isinstance(out, list | tuple) else (found,)

    return rule


def _as_it_was(windows: Windows, out: Tensor, x: Tensor, *_: Any, **__: Any) -> tuple[Tensor]:  # noqa: ARG001
    return (windows[x],)


def _reshaped(windows: Windows, out: Tensor, x: Tensor, *_: Any) -> tuple[Tensor]:
    return (windows[x].reshape(out.shape),)


def _joined(windows: Windows, out: Tensor, parts: list[Tensor], dim: int = 0) -> tuple[Tensor]:  # noqa: ARG001
    return (torch.cat([windows[part] for part in parts], dim),)


def _piled(windows: Windows, out: Tensor, parts: list[Tensor], dim: int = 0) -> tuple[Tensor]:  # noqa: ARG001
    return (torch.stack([windows[part] for part in parts], dim),)


def _padded(windows: Windows, out: Tensor, x: Tensor, pad: list[int], value: float = 0) -> tuple[Tensor]:  # noqa: ARG001
    return (aten.constant_pad_nd(windows[x], pad, False),)


def _pooled(axes: int) -> Callable[..., tuple[Tensor]]:
    def rule(windows: Windows, out: tuple[Tensor, Tensor], x: Tensor, *_: Any) -> tuple[Tensor]:
        indices = out[1]
        found = windows[x].flatten(-axes).gather(-1, indices.flatten(-axes))
        return (found.view(indices.shape),)

    return rule


def _summed(windows: Windows, out: Tensor, a: Tensor, b: Any, **_: Any) -> tuple[Tensor]:
    if not isinstance(b, Tensor):
        return (windows[a],)
    return ((windows[a] | windows[b]).expand(out.shape),)


def _multiplied(windows: Windows, out: Tensor, a: Tensor, b: Any) -> tuple[Tensor]:
    if not isinstance(b, Tensor):
        return (windows[a],)
    return (((windows[a] & (b != 0)) | (windows[b] & (a != 0))).expand(out.shape),)


_PRODUCTS = frozenset(
    {aten.convolution, aten.mm, aten.bmm, aten.mv, aten.dot, aten.addmm, aten.addmv, aten.baddbmm, aten.addbmm}
)
_RULES: dict[Any, Callable[..., Any]] = {
    **{
        packet: _moved(packet)
        for packet in (
            *(aten.permute, aten.transpose, aten.t, aten.unsqueeze, aten.squeeze, aten.expand, aten.slice, aten.select),
            *(aten.flip, aten.roll, aten.index_select, aten.repeat, aten.split, aten.split_with_sizes, aten.unbind),
            *(aten.pixel_shuffle, aten.pixel_unshuffle, aten.unfold),
        )
    },
    **dict.fromkeys((aten.clone, aten.detach, aten.alias, aten._to_copy, aten.lift_fresh), _as_it_was),
    **dict.fromkeys((aten.view, aten._unsafe_view, aten.reshape, aten._reshape_alias), _reshaped),
    aten.cat: _joined,
    aten.stack: _piled,
    aten.constant_pad_nd: _padded,
    aten.max_pool2d_with_indices: _pooled(2),
    aten.max_pool3d_with_indices: _pooled(3),
    aten.adaptive_max_pool2d: _pooled(2),
    aten.adaptive_max_pool3d: _pooled(3),
    aten.add: _summed,
    aten.sub: _summed,
    aten.mul: _multiplied,
}
"""`(windows, output, *arguments)` -> the windows of each output. The gradient for a maximum goes where it came from."""
