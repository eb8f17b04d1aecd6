r"""Whole channels: choosing and zeroing the least of them, and taking out of a model those that are silent.

A channel of a layer is silent if it puts out zero for every input: its weights and bias are zero, or the norm behind it
has scale and shift zero, and what follows up to the next layer (neuron, pooling, rectifier) makes zero of zero. Then
the channel and the weights by which the next layer reads it can be left out, and the rest computes what it did.

Where that may be done is read off one run of the model on an example: layers follow each other where what one puts out,
and nothing else, is what the next is given, and no one else gets it. This holds in nn.Sequential, `PerStep`,
`NormNeuron`, in models that call their parts in a row, and inside the branches of residual blocks. The sum at a block's
end, attention, graphs and recurrence end such a chain; the channels there stay.
"""

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from rheobase.lab.compress.weights import Scope
from rheobase.models.head import Average1d, Average2d
from rheobase.neurons import Neuron
from rheobase.nn import Conv1d, Conv2d, Conv3d, Linear, PerStep, TdBN

Model = TypeVar("Model", bound=nn.Module)
Criterion = Literal["l1", "scale"]

_CONVOLUTIONS: dict[type[nn.Module], int] = {
    **{nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3},
    **{Conv1d: 1, Conv2d: 2, Conv3d: 3},
}
_LINEAR = (nn.Linear, Linear)
_NORMS = (TdBN, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_POOLS: dict[type[nn.Module], int] = {
    kind: axes
    for axes, kinds in {
        1: (nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d, Average1d),
        2: (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, Average2d),
        3: (nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d),
    }.items()
    for kind in kinds
}
_BY_ELEMENT = (
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus),
    *(nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Softsign, nn.LogSigmoid),
)


@dataclass(frozen=True)
class Silent:
    """The silent channels of one layer.

    Attributes:
        layer: its name.
        channels: how many it has.
        silent: how many of them put out zero, whatever comes in.
        removable: how many of these `shrink` leaves out.
        reason: why the others stay; empty where there are none.
    """

    layer: str
    channels: int
    silent: int
    removable: int
    reason: str = ""


def shrink(model: Model, example: Tensor | tuple[Any, ...]) -> Model:
    """A copy of the model, in eval mode, without the channels that are silent and that nobody needs in their place.

    Its output is that of the model in eval mode, but for the order in which sums are added. Layers keep their names;
    parameters have other shapes, so the result is no checkpoint of a registered model: save the model itself, and
    shrink what was loaded. `silent_channels` tells what is taken out, what stays, and why.

    Exactly zero is asked for: of weights and bias, or of a norm's scale and shift, and that a neuron, given zero from
    rest, never fires, which is found by running it. At least one channel of every layer stays.

    Args:
        model: is not changed.
        example: an input as the model takes it, of any number of samples; a tuple where it takes several.
    """
    return _shrunk(model, example)[0]


def silent_channels(model: nn.Module, example: Tensor | tuple[Any, ...]) -> list[Silent]:
    """What `shrink` finds: layers with silent channels, how many it takes out, and why the others stay.

    A channel counts that is silent once those before it are taken out.

    Args:
        model: is not changed.
        example: as for `shrink`.
    """
    return _shrunk(model, example)[1]


def zero_channels(
    model: Model,
    share: float,
    example: Tensor | tuple[Any, ...],
    *,
    criterion: Criterion = "l1",
    scope: Scope = "layer",
) -> Model:
    r"""A copy of the model in which the least of the channels that `shrink` could leave out are zero.

    Weights and bias of the layer that makes a channel, scale and shift of the norms behind it, and weights of
    convolutions of that channel alone become zero. Names and shapes stay: a checkpoint of the copy loads into what
    `create_model` builds. Where a neuron fires without input nothing is taken.

    A channel's score is $\frac1n\sum_i |w_i|$ over the n weights that make it, or $|\gamma|$, the scale of the last
    norm behind it.

    Args:
        model: is not changed.
        share: of the channels of such layers, from 0 to below 1, rounded down.
        example: as for `shrink`.
        criterion: "l1", the weights, or "scale", the norm.
        scope: "layer" takes that share of every layer, "global" the least of all. One channel of each layer stays.

    Raises:
        ValueError: a share, criterion or scope that there is not; no layer whose channels could be left out; a layer
            without a norm that is to be judged by it.

    Source: Li et al. 2016, arXiv:1608.08710 (filters by their L1 norm; here per weight, so that layers compare); Liu et
    al. 2017, arXiv:1708.06519 (scales of norms, over all layers; without its training for sparse scales).
    """
    if not 0 <= share < 1:
        raise ValueError(f"zero_channels: share is {share}; expected a share of the channels, from 0 to below 1")
    if criterion not in ("l1", "scale"):
        raise ValueError(f"zero_channels: there is no criterion {criterion!r}; expected 'l1' or 'scale'")
    if scope not in ("layer", "global"):
        raise ValueError(f"zero_channels: there is no scope {scope!r}; expected 'layer' or 'global'")
    found = copy.deepcopy(model)
    groups = [group for group in _groups(found, example) if group.reader is not None and _can_be_silent(group)]
    if not groups:
        raise ValueError(
            "zero_channels: the model has no two layers in a row between which channels could be left out; "
            "prune single weights instead"
        )
    scores = [_scores(group, criterion) for group in groups]
    if scope == "layer":
        least = [score.argsort()[: int(share * len(score))] for score in scores]
    else:
        least = _least_of_all(scores, share)
    with torch.no_grad():
        for group, chosen in zip(groups, least, strict=True):
            for layer in (group.maker.layer, *(part.layer for part in group.followers)):
                if not isinstance(layer, Neuron):
                    for parameter in layer.parameters(recurse=False):
                        parameter[chosen] = 0.0
    return found


@dataclass(frozen=True)
class _Call:
    """How one module was called: the tensors that it was given, and what it gave."""

    given: tuple[Tensor, ...]
    gave: Any


@dataclass
class _Trace:
    """One run of a model.

    Attributes:
        calls: of every module.
        order: of the calls of a module's children, by the module: pairs of child and its call.
        computes: modules that make tensors themselves, between their children's.
    """

    calls: dict[nn.Module, list[_Call]] = field(default_factory=dict)
    order: dict[nn.Module, list[tuple[nn.Module, _Call]]] = field(default_factory=dict)
    computes: set[nn.Module] = field(default_factory=set)


class _Watch(TorchFunctionMode):
    """Notes who computes tensors."""

    def __init__(self, trace: _Trace, running: list[nn.Module]) -> None:
        super().__init__()
        self.trace, self.running = trace, running

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        writes = func is Tensor.__setitem__
        if self.running and (writes or any(isinstance(t, Tensor) for t in tree_leaves(found))):
            self.trace.computes.add(self.running[-1])
        return found


def _traced(model: nn.Module, example: tuple[Any, ...]) -> _Trace:
    """Run the model in eval mode and note what went where."""
    trace, running = _Trace(), list[nn.Module]()

    def enter(module: nn.Module, given: Any, named: Any) -> None:  # noqa: ARG001
        running.append(module)

    def leave(module: nn.Module, given: Any, named: Any, gave: Any) -> None:
        running.pop()
        call = _Call(tuple(t for t in tree_leaves((given, named)) if isinstance(t, Tensor)), gave)
        trace.calls.setdefault(module, []).append(call)
        if running:
            trace.order.setdefault(running[-1], []).append((module, call))

    learning = [module for module in model.modules() if module.training]
    handles = []
    for module in model.modules():
        handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(module.register_forward_hook(leave, with_kwargs=True))
    model.eval()
    try:
        with torch.no_grad(), _Watch(trace, running):
            model(*example)
    finally:
        for handle in handles:
            handle.remove()
        for module in learning:
            module.training = True
    return trace


@dataclass(frozen=True)
class _Part:
    """A layer in a chain: its name, itself, what it was given; None: it is not known what it does to channels."""

    name: str
    layer: Any
    given: Tensor | None

    @property
    def size(self) -> torch.Size:
        """Of what it was given."""
        assert self.given is not None
        return self.given.shape


class _Chains:
    """The chains of a model, as lists of parts."""

    def __init__(self, model: nn.Module, example: tuple[Any, ...]) -> None:
        self.trace = _traced(model, example)
        self.names = {module: name for name, module in model.named_modules()}
        self.shared = _shared(model)
        self.found: list[list[_Part]] = []
        self.found.insert(0, self._parts(model))

    def _parts(self, module: nn.Module) -> list[_Part]:
        """The module as parts of the chain that it is in; what is inside of a strange one becomes chains apart."""
        calls = self.trace.calls[module]
        once = len(calls) == 1 and module not in self.shared
        if once and isinstance(module, PerStep) and len(self.trace.calls.get(module.module, [])) == 1:
            return self._parts(module.module)
        if once and _is_leaf(module) and len(calls[0].given) == 1:
            return [_Part(self.names[module], module, calls[0].given[0])]
        if once and (children := self._row(module)):
            return [part for child in children for part in self._parts(child)]
        for child in module.children():
            if child in self.trace.calls:
                self.found.append(self._parts(child))
        return [_Part(self.names[module], module, None)]

    def _row(self, module: nn.Module) -> list[nn.Module]:
        """The children of a module that does nothing but call one after the other."""
        order, (own,) = self.trace.order.get(module, []), self.trace.calls[module]
        if not order or module in self.trace.computes or len(own.given) != 1:
            return []
        given: Any = own.given[0]
        for _, call in order:
            if len(call.given) != 1 or call.given[0] is not given:
                return []
            given = call.gave
        return [child for child, _ in order] if given is own.gave else []


def _is_leaf(module: nn.Module) -> bool:
    if isinstance(module, Neuron):
        return type(module).sequence is Neuron.sequence or type(module).__module__.startswith("rheobase.")
    return type(module) in (*_CONVOLUTIONS, *_LINEAR, *_NORMS, *_POOLS, *_BY_ELEMENT, nn.Flatten)


def _shared(model: nn.Module) -> set[nn.Module]:
    """Modules that have a parameter in common with another."""
    owners: dict[int, set[nn.Module]] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), set()).add(module)
    return {module for several in owners.values() if len(several) > 1 for module in several}


@dataclass
class _Group:
    """A layer that makes channels, what handles them one by one, and the layer that reads them all.

    Attributes:
        maker: a convolution or a linear layer.
        followers: norms, neurons, convolutions of one channel each, ...
        reader: None where the channels must stay; then `reason` says why.
        spread: so many features of one channel lie side by side where the reader reads them.
    """

    maker: _Part
    followers: list[_Part] = field(default_factory=list)
    reader: _Part | None = None
    spread: int = 1
    reason: str = ""

    @property
    def channels(self) -> int:
        """How many the maker makes."""
        return len(self.maker.layer.weight)

    def norms(self) -> list[Any]:
        """The norms among the followers."""
        return [part.layer for part in self.followers if type(part.layer) in _NORMS]

    def silent(self) -> Tensor:
        """Which channels are zero for every input where the reader reads them."""
        with torch.no_grad():
            silent = _zero_rows(self.maker.layer)
            for part in self.followers:
                silent = _still_silent(part, silent)
        return silent


def _groups(model: nn.Module, example: Tensor | tuple[Any, ...]) -> list[_Group]:
    """All groups of the model, in the order of their chains."""
    given = example if isinstance(example, tuple) else (example,)
    return [group for chain in _Chains(model, given).found for group in _of_chain(chain)]


def _of_chain(chain: list[_Part]) -> Iterator[_Group]:
    group: _Group | None = None
    axis = 0  # of channels, from the end
    for part in chain:
        layer = part.layer
        makes = 0 if part.given is None else _axis_made(layer)
        if group is not None:
            if part.given is not None and _follows(part, group.channels, axis, group.spread):
                if type(layer) is nn.Flatten:
                    group.spread *= math.prod(part.size[len(part.size) + axis + 1 :])
                    axis = -1
                else:
                    group.followers.append(part)
                continue
            if makes and makes == axis and layer.weight.shape[1] == group.channels * group.spread:
                group.reader = part
            else:
                group.reason = f"{part.name or 'the model'} ({type(layer).__name__}) needs them in their place"
            yield group
            group = None
        if makes:
            group, axis = _Group(part), makes
    if group is not None:
        group.reason = "what comes after them (a sum, the output) needs them in their place"
        yield group


def _axis_made(layer: Any) -> int:
    """The axis, from the end, of the channels that a layer makes out of all of its input's; 0: it makes none."""
    if type(layer) in _LINEAR:
        return -1
    axes = _CONVOLUTIONS.get(type(layer))
    return 0 if axes is None or layer.groups != 1 else -(axes + 1)


def _follows(part: _Part, channels: int, axis: int, spread: int) -> bool:
    """Whether a layer handles the channels on that axis one by one, in a way that is known."""
    layer, size = part.layer, part.size
    where = len(size) + axis
    if type(layer) in _BY_ELEMENT:
        return True
    if type(layer) is nn.Flatten:
        return layer.start_dim % len(size) == where and layer.end_dim % len(size) == len(size) - 1
    if spread != 1 or where < 0 or size[where] != channels:
        return False
    if type(layer) is TdBN:
        return where == 2
    if type(layer) in _NORMS:
        return where == 1 and layer.running_var is not None
    if isinstance(layer, Neuron):
        return where == 2 and len(layer.scan.step.inputs) == 1
    if type(layer) in _POOLS:
        return axis == -(_POOLS[type(layer)] + 1)
    alone = type(layer) in _CONVOLUTIONS and layer.groups == channels == len(layer.weight)
    return alone and axis == -(_CONVOLUTIONS[type(layer)] + 1)


def _zero_rows(layer: Any) -> Tensor:
    """Channels whose weights and bias are zero."""
    silent: Tensor = ~layer.weight.flatten(1).any(1)
    return silent if layer.bias is None else silent & (layer.bias == 0)


def _still_silent(part: _Part, silent: Tensor) -> Tensor:
    """Channels that are zero behind a follower, from those that are zero before it."""
    layer = part.layer
    if type(layer) in _NORMS:
        scale, shift = _affine(layer)
        return (silent | (scale == 0)) & (shift == 0)
    if isinstance(layer, Neuron):
        return silent & _stays_silent(part)
    if type(layer) in _CONVOLUTIONS:
        return (silent if layer.bias is None else silent & (layer.bias == 0)) | _zero_rows(layer)
    if type(layer) in _BY_ELEMENT:
        return silent & bool(copy.copy(layer).eval()(torch.zeros(1, 1, 1)) == 0)
    return silent


def _affine(norm: Any) -> tuple[Tensor, Tensor]:
    """Scale and shift of a norm in eval."""
    if isinstance(norm, TdBN):
        return norm.running_affine()
    scale = torch.rsqrt(norm.running_var + norm.eps)
    scale = scale if norm.weight is None else norm.weight * scale
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else norm.bias + shift


def _stays_silent(part: _Part) -> Tensor:
    """Of which channels a neuron puts out zero for ever, if it is given zero from rest.

    It is run on zeros, as many as the example has; then its state must not change any more, unless the neuron takes no
    longer sequences.
    """
    assert part.given is not None
    neuron, T = part.layer, len(part.given)
    x = part.given.new_zeros(T, 1, *part.size[2:])
    y, after = neuron.sequence(x, None)
    silent = _by_channel(y == 0)
    if not neuron.streamable or getattr(neuron, "T", None) == T:
        return silent
    more, later = neuron.sequence(x[:1], after)
    silent &= _by_channel(more == 0)
    for before, now in zip(after, later, strict=True):
        silent &= _by_channel((before == now).unsqueeze(0))
    return silent


def _by_channel(fine: Tensor) -> Tensor:
    """Whether all is fine of a channel, axis 2."""
    return fine.transpose(0, 2).flatten(1).all(1)


def _shrunk(model: Model, example: Tensor | tuple[Any, ...]) -> tuple[Model, list[Silent]]:
    """The smaller copy, and what was found."""
    small = copy.deepcopy(model).eval()
    found = []
    for group in _groups(small, example):
        cut = group.silent()
        channels, silent = len(cut), int(cut.sum())
        if group.reader is None:
            cut[:] = False
        elif silent == channels:
            cut[0] = False
        removable = int(cut.sum())
        if silent:
            reason = "" if removable == silent else group.reason or "a layer keeps one channel"
            found.append(Silent(group.maker.name, channels, silent, removable, reason))
        if removable:
            _leave_out(group, (~cut).nonzero()[:, 0])
    return small, found


def _leave_out(group: _Group, keep: Tensor) -> None:
    """Keep these channels alone."""
    channels = group.channels
    _select(group.maker.layer, ("weight", "bias"), keep)
    _count(group.maker.layer, ("out_channels", "out_features"), len(keep))
    for part in group.followers:
        layer = part.layer
        if type(layer) in _NORMS:
            _select(layer, ("weight", "bias", "running_mean", "running_var"), keep)
            _count(layer, ("channels", "num_features"), len(keep))
        elif isinstance(layer, Neuron):
            axes = len(part.size) - 2
            _select(layer, [n for n in layer.scan.params if _is_by_channel(getattr(layer, n), axes, channels)], keep)
        elif type(layer) in _CONVOLUTIONS:
            _select(layer, ("weight", "bias"), keep)
            _count(layer, ("in_channels", "out_channels", "groups"), len(keep))
    assert group.reader is not None
    features = (keep[:, None] * group.spread + torch.arange(group.spread, device=keep.device)).flatten()
    _select(group.reader.layer, ("weight",), features, axis=1)
    _count(group.reader.layer, ("in_channels", "in_features"), len(features))


def _is_by_channel(value: Any, axes: int, channels: int) -> bool:
    """Whether a neuron's parameter has the channels on its first axis, for inputs of so many axes without T and B."""
    return isinstance(value, Tensor) and value.dim() == axes and value.shape[0] == channels


def _select(layer: nn.Module, names: Iterable[str], keep: Tensor, axis: int = 0) -> None:
    for name in names:
        value = getattr(layer, name, None)
        if isinstance(value, Tensor):
            kept = value.detach().index_select(axis, keep)
            setattr(layer, name, nn.Parameter(kept, value.requires_grad) if isinstance(value, nn.Parameter) else kept)


def _count(layer: nn.Module, names: Iterable[str], count: int) -> None:
    for name in names:
        if hasattr(layer, name):
            setattr(layer, name, count)


def _can_be_silent(group: _Group) -> bool:
    """Whether channels without weights put out nothing."""
    if any(norm.weight is None or norm.bias is None for norm in group.norms()):
        return False
    silent = torch.ones_like(_zero_rows(group.maker.layer))
    with torch.no_grad():
        for part in group.followers:
            if type(part.layer) not in (*_NORMS, *_CONVOLUTIONS):
                silent = _still_silent(part, silent)
    return bool(silent.all())


def _scores(group: _Group, criterion: Criterion) -> Tensor:
    if criterion == "l1":
        weights: Tensor = group.maker.layer.weight.detach()
        return weights.abs().flatten(1).mean(1)
    norms = group.norms()
    if not norms:
        raise ValueError(
            f"zero_channels: no norm follows {group.maker.name}, so its channels have no scale; take criterion='l1'"
        )
    gain: Tensor = norms[-1].gain() if isinstance(norms[-1], TdBN) else norms[-1].weight
    return gain.detach().abs()


def _least_of_all(scores: list[Tensor], share: float) -> list[Tensor]:
    """The channels of each layer that are among the least of all layers; the best of every layer stays."""
    entries = sorted(
        (float(score[channel]), k, int(channel)) for k, score in enumerate(scores) for channel in score.argsort()[:-1]
    )
    taken: list[list[int]] = [[] for _ in scores]
    for _, k, channel in entries[: int(share * sum(map(len, scores)))]:
        taken[k].append(channel)
    return [torch.tensor(channels, dtype=torch.int64) for channels in taken]
