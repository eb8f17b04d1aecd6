"""What an attacker may change while he computes gradients: a layer's threshold, the surrogates; and what he leaves."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, cast

import torch
from torch import Tensor, nn

from rheobase.neurons import Neuron, Shifted, Surrogate
from rheobase.scan import Scan

Window = Literal["original", "moved"]


def spiking_layers(model: nn.Module) -> dict[str, Neuron]:
    """The neurons of a model that have a surrogate and a threshold, by qualified name, in the order of definition."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Neuron) and hasattr(module, "threshold") and _surrogates(module)
    }


def hidden_layer(model: nn.Module) -> str:
    """The name of the last hidden spiking layer, the penultimate layer of the paper.

    That is the last one, or the one before it where the model ends in a neuron.

    Raises:
        ValueError: there is no such layer.
    """
    layers = spiking_layers(model)
    *_, last = (module for module in model.modules() if not list(module.children()))
    names = [name for name, layer in layers.items() if layer is not last]
    if not names:
        raise ValueError(
            f"attack: {type(model).__name__} has {len(layers)} spiking layers with a surrogate and a threshold, none "
            f"of them hidden; leave the threshold alone"
        )
    return names[-1]


@contextmanager
def firing_at(
    model: nn.Module, threshold: float | None, layer: str | None = None, window: Window = "original"
) -> Iterator[None]:
    r"""Inside, one layer fires at another threshold; the old one is back afterwards, whatever happens.

    Args:
        model: any module with neurons of `rheobase.neurons`.
        threshold: $\vartheta_{att}$; None changes nothing.
        layer: qualified name of the layer; None is `hidden_layer`.
        window: "original" leaves the surrogate centred on the old threshold, as the published code does; "moved"
            centres it on the new one.

    Raises:
        ValueError: no such layer or window, a threshold that is not positive, or a layer whose neurons have thresholds
            of their own, so that there is no one distance by which the window stays behind.
    """
    if threshold is None:
        yield
        return
    if not threshold > 0:
        raise ValueError(f"attack: threshold is {threshold}; expected a positive number, or None to leave it")
    if window not in ("original", "moved"):
        raise ValueError(f"attack: window is {window!r}; expected 'original' or 'moved'")
    neuron = _layer(model, layer)
    scan, before = neuron.scan, cast(Tensor | float, neuron.threshold)
    old = _only(before, layer or hidden_layer(model)) if window == "original" else threshold
    kept = before.detach().clone() if isinstance(before, Tensor) else before
    try:
        if isinstance(before, Tensor):
            with torch.no_grad():
                before.fill_(threshold)
        else:
            neuron.threshold = float(threshold)  # type: ignore[assignment]
        if threshold != old:
            neuron.scan = _rescanned(scan, lambda surrogate: Shifted(surrogate, threshold - old))
        yield
    finally:
        neuron.scan = scan
        if isinstance(before, Tensor):
            with torch.no_grad():
                before.copy_(kept)  # type: ignore[arg-type]
        else:
            neuron.threshold = before  # type: ignore[assignment]


@contextmanager
def surrogates(model: nn.Module, surrogate: Surrogate | None) -> Iterator[None]:
    """Inside, every neuron of the model has this surrogate, so that closed windows hide no gradient; None: its own.

    Spikes are the same. The adaptive attacker's choice: a wide, smooth one.
    """
    layers = {} if surrogate is None else spiking_layers(model)
    before = {layer: layer.scan for layer in layers.values()}
    try:
        for layer, scan in before.items():
            assert surrogate is not None
            layer.scan = _rescanned(scan, lambda _: surrogate)
        yield
    finally:
        for layer, scan in before.items():
            layer.scan = scan


@contextmanager
def as_victim(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in eval mode and its parameters need no gradient; both are put back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    learned = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval()
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, wanted in learned:
            parameter.requires_grad_(wanted)
        for module, mode in modes:
            module.training = mode


def _surrogates(neuron: Neuron) -> list[str]:
    return [name for name, value in neuron.scan.constants.items() if isinstance(value, Surrogate)]


def _layer(model: nn.Module, name: str | None) -> Neuron:
    layers, name = spiking_layers(model), name or hidden_layer(model)
    if name not in layers:
        raise ValueError(f"attack: there is no spiking layer {name!r}; there are {', '.join(layers)}")
    return layers[name]


def _only(threshold: Tensor | float, layer: str) -> float:
    """The one value of a threshold."""
    if not isinstance(threshold, Tensor):
        return threshold
    low, high = (float(bound) for bound in threshold.detach().aminmax())
    if low != high:
        raise ValueError(
            f"attack: the neurons of {layer} have thresholds from {low:g} to {high:g}, so the window cannot stay where "
            f"it is; pass window='moved'"
        )
    return low


def _rescanned(scan: Scan, change: Callable[[Surrogate], Surrogate]) -> Scan:
    """The same step with other surrogates."""
    constants = {
        name: change(value) if isinstance(value, Surrogate) else value for name, value in scan.constants.items()
    }
    return Scan(scan.step, **constants)
