"""How sparse spikes, windows and gradients of a small network are after training."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rheobase.data import Dataset, Split, batches, hold_out, load
from rheobase.lab.cost.h2learn import StepTrace, trace_step
from rheobase.neurons import IterativeLIF, Rectangle
from rheobase.nn import PerStep, TdBN
from rheobase.recipes.studies import Measurement, register

T, CHANNELS, SAMPLES, EPOCHS, BATCH = 4, (16, 32, 32), 8000, 2, 64
_SHEET = "another implementation at these settings"

PUBLISHED: dict[float, dict[str, tuple[str, str, str]]] = {
    0.5: {
        "spike rate": (".08", ".12", ".22"),
        "octets without a spike": (".74", ".53", ".23"),
        "window open": (".11", ".12", ".12"),
        "du not zero": (".05", ".07", ".18"),
        "do not zero": (".26", ".27", "1.0"),
    },
    1.0: {
        "spike rate": (".10", ".12", ".22"),
        "octets without a spike": (".72", ".52", ".23"),
        "window open": (".26", ".32", ".24"),
        "du not zero": (".09", ".14", ".31"),
        "do not zero": (".26", ".28", "1.0"),
    },
    2.0: {
        "spike rate": (".10", ".13", ".21"),
        "octets without a spike": (".72", ".50", ".24"),
        "window open": (".54", ".51", ".45"),
        "du not zero": (".15", ".18", ".51"),
        "do not zero": (".26", ".28", "1.0"),
    },
}
"""Width of the window, what is measured, and the numbers of the three layers to compare with."""


def network(width: float) -> nn.Sequential:
    """Three 3x3 convolutions with batch norm and LIF, the first two max-pooled behind the neuron, and a linear layer.

    kappa = 0.5, theta = 1, a rectangle of the given width, gradients through the reset.
    """
    layers, c_in, side = nn.Sequential(), 1, 28
    for k, c_out in enumerate(CHANNELS):
        cell = IterativeLIF(0.5, 1.0, Rectangle(width), detach_reset=False, strict=False)
        layers.extend([PerStep(nn.Conv2d(c_in, c_out, 3, padding=1)), TdBN(c_out), cell])
        if k < 2:
            layers.append(PerStep(nn.MaxPool2d(2)))
            side //= 2
        c_in = c_out
    return layers.extend([PerStep(nn.Flatten()), PerStep(nn.Linear(c_in * side * side, 10))])


@dataclass
class Densities:
    """Shares of values that are not zero, of spikes and of the gradients at each neuron."""

    rate: list[float] = field(default_factory=list)
    empty: list[float] = field(default_factory=list)
    du: dict[int, float] = field(default_factory=dict)
    do: dict[int, float] = field(default_factory=dict)


def densities(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Densities, StepTrace]:
    """Of one training step on x `[T, B, ...]` with labels y.

    du is the gradient for a neuron's input, behind the norm; do that for its spikes. An octet is eight neurons that
    follow one another in a map, row by row.
    """
    seen, handles = Densities(), []
    cells = [module for module in model.modules() if isinstance(module, IterativeLIF)]

    def look(k: int, x: Tensor, s: Tensor) -> None:
        seen.rate.append(s.mean().item())
        maps = s.detach().flatten(3)
        seen.empty.append(1 - maps[..., : maps.shape[3] // 8 * 8].unflatten(3, (-1, 8)).amax(-1).mean().item())
        x.register_hook(lambda grad: seen.du.__setitem__(k, (grad != 0).float().mean().item()))
        s.register_hook(lambda grad: seen.do.__setitem__(k, (grad != 0).float().mean().item()))

    for k, cell in enumerate(cells):
        handles.append(cell.register_forward_hook(lambda _, inputs, s, k=k: look(k, inputs[0], s)))
    try:
        F.cross_entropy(model(x).mean(0), y).backward()
    finally:
        for handle in handles:
            handle.remove()
    model.zero_grad()
    return seen, trace_step(model, x, lambda logits: F.cross_entropy(logits.mean(0), y))


def trained(width: float, train: Split, seed: int) -> nn.Sequential:
    """The network after two epochs of Adam."""
    torch.manual_seed(seed)
    model = network(width)
    optimizer = torch.optim.Adam(model.parameters())
    for epoch in range(EPOCHS):
        for x, y in batches(train, BATCH, seed=seed, epoch=epoch, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(model(_steps(x)).mean(0), y.long()).backward()
            optimizer.step()
    return model


def accuracy(model: nn.Module, test: Split) -> float:
    """Share of the test samples that are classified right."""
    model.eval()
    right = 0
    with torch.no_grad():
        for x, y in batches(test, 250, seed=0, epoch=0, shuffle=False):
            right += int((model(_steps(x)).mean(0).argmax(1) == y).sum())
    model.train()
    return right / len(test)


def _steps(x: Tensor) -> Tensor:
    return x.expand(T, *x.shape)


@register
def h2learn_densities(seed: int) -> Iterator[Measurement]:
    r"""How sparse spikes, windows and gradients are, which is what an accelerator for training can skip.

    Three 3x3 convolutions of 16, 32 and 32 channels with batch norm and LIF (kappa 0.5, theta 1, gradients through the
    reset), the first two max-pooled 2x2, and a linear layer; T = 4, 8000 images of MNIST, two epochs of Adam, a
    rectangular window of width a. Measured on 256 training images after that. du is the gradient for the membrane,
    behind the norm; do that for the spikes. Claim: du grows with the window, pooling leaves a quarter of do, and what
    enters the transposed product, in front of the norm, is dense.
    Compared with a calculation for arXiv:2107.11746, whose abstract alone could be read.
    Command: `rheobase study h2learn-densities`
    """
    dataset = load("mnist")
    assert isinstance(dataset, Dataset)
    _, part = hold_out(dataset.train, SAMPLES / len(dataset.train), seed=seed)
    assert isinstance(part, Split)
    for width, published in PUBLISHED.items():
        model = trained(width, part, seed)
        x, y = next(iter(batches(part, 256, seed=seed, epoch=EPOCHS, shuffle=True)))
        seen, step = densities(model, _steps(x), y.long())
        entering = [layer.nonzero.float().mean().item() for layer in step.layers[: len(CHANNELS)]]
        values = {
            "spike rate": seen.rate,
            "octets without a spike": seen.empty,
            "window open": [cell.open for cell in step.neurons],
            "du not zero": [seen.du[k] for k in range(len(CHANNELS))],
            "do not zero": [seen.do[k] for k in range(len(CHANNELS))],
            "enters the transposed product": entering,
        }
        subject = f"window {width:.1f}"
        for metric, found in values.items():
            for k, value in enumerate(found):
                beside = published.get(metric, ("", "", ""))[k]
                yield Measurement(subject, k + 1, metric, value, beside, _SHEET if beside else "measured")
        yield Measurement(subject, 0, "test accuracy", accuracy(model, dataset.test), "0.95", _SHEET)
