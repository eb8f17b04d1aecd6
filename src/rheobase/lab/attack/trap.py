r"""The trap: where an attacker's gradient is zero everywhere, and how far the last membranes are from their window.

A rectangular surrogate is zero beyond some distance from the threshold. If the membranes of the last layer are far from
it, as training by cross entropy leaves them, no gradient of the loss reaches the input. A higher threshold of the last
hidden layer while the gradient is computed weakens their drive and brings them back (arXiv:2001.01587).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rheobase.lab.attack.evaluate import Share
from rheobase.lab.attack.spikes import Loss, is_silent, loss_of, mean_outputs
from rheobase.lab.attack.threshold import Window, as_victim, firing_at, spiking_layers, surrogates
from rheobase.neurons import Neuron, Surrogate
from rheobase.nn.fuse import settled
from rheobase.scan.windows import watched
from rheobase.scan.windows import window as window_at

EDGES = (-4.0, -3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0)
"""Of the bins that distances from the threshold are counted in."""


@dataclass(frozen=True)
class Trap:
    """What an attacker sees at one threshold.

    Attributes:
        threshold: of the last hidden layer; None is its own.
        silent: share of samples whose input gradient is zero everywhere.
        open: share of last-layer neurons and steps whose membrane is within the window.
        below, above: shares of those that are outside of it.
        edges: of the bins of distances from the threshold.
        counts: of the distances in the bins, those beyond in the first and last.
    """

    threshold: float | None
    silent: Share
    open: float
    below: float
    above: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]


@torch.enable_grad()
def input_gradient(
    model: nn.Module, x: Float[Tensor, "T B *rest"], y: Int[Tensor, " B"], loss: Loss = "cross_entropy"
) -> Float[Tensor, "T B *rest"]:
    """The gradient of the loss of each sample for its input, in eval mode."""
    with as_victim(model):
        leaf = x.detach().requires_grad_()
        found: Tensor = torch.autograd.grad(loss_of(mean_outputs(model, leaf), y, loss), leaf)[0]
        return found


def silent_samples(
    model: nn.Module, x: Float[Tensor, "T B *rest"], y: Int[Tensor, " B"], loss: Loss = "cross_entropy"
) -> Bool[Tensor, " B"]:
    """Samples whose input gradient is zero everywhere."""
    return is_silent(input_gradient(model, x, y, loss))


@torch.no_grad()
def distances(
    model: nn.Module, x: Float[Tensor, "T B *rest"], layer: str | None = None
) -> tuple[Float[Tensor, "T B *units"], Bool[Tensor, "T B *units"]]:
    r"""How far the membranes of a layer are from its threshold, $u_t - \vartheta$, and where its window is open.

    Args:
        model: run in eval mode.
        x: its input.
        layer: qualified name; None is the last spiking layer.

    Raises:
        ValueError: there is no such layer, or its neuron is not one spike of one input.
    """
    layers = spiking_layers(model)
    name = layer or next(reversed(layers), "")
    if name not in layers:
        raise ValueError(f"distances: there is no spiking layer {name!r}; there are {', '.join(layers) or 'none'}")
    neuron, currents = layers[name], list[Tensor]()
    handle = neuron.register_forward_pre_hook(lambda _, inputs: currents.append(settled(inputs[0])))
    try:
        with as_victim(model):
            model(x)
    finally:
        handle.remove()
    if len(currents) != 1:
        raise ValueError(f"distances: {name} ran {len(currents)} times; expected a layer that runs once")
    return _membranes(neuron, currents[0])


def _membranes(neuron: Neuron, current: Tensor) -> tuple[Tensor, Tensor]:
    """What the plain step compares with zero at each step."""
    seen: list[tuple[Surrogate, Tensor]] = []
    scan = neuron.scan
    constants = watched(scan.constants, seen)  # type: ignore[arg-type]
    params, state = scan.prepare([current], None, {name: getattr(neuron, name) for name in scan.params})
    for now in current:
        _, state = scan.step(now, *state, **params, **constants)
    if len(seen) != len(current):
        raise ValueError(
            f"distances: {scan.step.name} fires {len(seen)} times in {len(current)} steps; expected one a step"
        )
    return torch.stack([d for _, d in seen]), torch.stack([window_at(surrogate, d) for surrogate, d in seen])


def traps(
    model: nn.Module,
    x: Float[Tensor, "T B *rest"],
    y: Int[Tensor, " B"],
    thresholds: Sequence[float | None],
    *,
    loss: Loss = "cross_entropy",
    window: Window = "original",
    surrogate: Surrogate | None = None,
    edges: Sequence[float] = EDGES,
) -> Iterator[Trap]:
    """Look at a model at each threshold of its last hidden layer.

    Args:
        model: as for `attack_events`.
        x: clean input.
        y: classes.
        thresholds: to go through; None leaves the model's own.
        loss: whose gradient is looked at.
        window: see `firing_at`.
        surrogate: see `surrogates`.
        edges: of the bins of distances, growing.
    """
    for threshold in thresholds:
        with firing_at(model, threshold, window=window), surrogates(model, surrogate):
            silent = silent_samples(model, x, y, loss)
            found, is_open = distances(model, x)
        bounds = torch.tensor(edges, dtype=found.dtype, device=found.device)
        bins = (torch.bucketize(found.flatten(), bounds, right=True) - 1).clamp(0, len(edges) - 2)
        yield Trap(
            threshold,
            Share.of(silent, torch.ones_like(silent)),
            is_open.double().mean().item(),
            (~is_open & (found < 0)).double().mean().item(),
            (~is_open & (found >= 0)).double().mean().item(),
            tuple(edges),
            tuple(torch.bincount(bins, minlength=len(edges) - 1).tolist()),
        )
