"""Measured robustness of small victims: success and its budget, the trap and the threshold, a ReLU twin, defences."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rheobase.lab.attack import GradientPenalty, Share, SpikeAttack, adversarial, attack_events, traps
from rheobase.models import attacked_lif, create_model
from rheobase.neurons import Atan
from rheobase.nn.residual import MakeNeuron
from rheobase.recipes.attack import (
    Row,
    Samples,
    Settings,
    attacks_on,
    boxed,
    flipped,
    samples_of,
    within_events,
    without_limit,
)
from rheobase.recipes.classification import Task, load_run, train
from rheobase.recipes.registry import recipe
from rheobase.recipes.studies import Measurement, register
from rheobase.recipes.task import build, config_of
from rheobase.train import Apply, Hooks, RunFolder, fit

SETS = ("mnist", "fashion-mnist", "event-digits")
SWEEP = (0.15, 0.3, 0.6, 1.0, 2.0, 4.0)
"""Thresholds of the last hidden layer while gradients are computed; 0.3 is its own."""
RUNS = Path("runs")
"""Where victims are looked for, and trained if there is none."""

_PAPER = "published for another network: the code of arXiv:2001.01587, MNIST"
PUBLISHED = {
    ("image", "untargeted"): ".92",
    ("image, threshold 1", "untargeted"): "1.00",
    ("image", "targeted"): ".506",
    ("image, threshold 1", "targeted"): ".918",
}
"""Success of attacks on images by the attack and its goal, to compare with."""


def victim_run(name: str, seed: int, loss: str = "cross_entropy") -> RunFolder:
    """The newest finished run of a recipe with this seed and loss in `RUNS`; it is trained if there is none."""
    config = recipe(name)()
    config = replace(config, train=replace(config.train, seed=seed, loss=loss))
    for path in sorted((RUNS / name).glob("*/config.json"), reverse=True):
        run = RunFolder.open(path.parent)
        if config_of(run) == config and "eval" in run.result():
            return run
    return train(name, config, RUNS)[0]


def victim_task(name: str, seed: int, loss: str = "cross_entropy") -> Task:
    """The task of `victim_run` with the weights that its recipe measures."""
    run = victim_run(name, seed, loss)
    task: Task = build(config_of(run))
    load_run(task, run, None)
    return task


def measured(row: Row, subject: str, published: str = "") -> Iterator[Measurement]:
    """The numbers of a row."""
    low, high = row.share.interval
    bound = "" if row.at is None else f", at most {row.at:.3g}"
    name = f"{subject}, {row.attack}, {row.goal}{bound}"
    tag = f"95 % in {low:.3f} to {high:.3f}"
    tag = f"{tag}; {_PAPER}" if published else tag
    yield Measurement(name, row.share.count, "success", row.share.value, published, tag)
    if row.perturbation is not None and not row.attack.startswith("random"):  # it has that of the attack
        yield Measurement(name, row.share.count, "mean perturbation", row.perturbation)
    if row.silent is not None:
        yield Measurement(name, row.share.count, "updates without gradient", row.silent)


def _entered(study: Callable[[str, int], Iterator[Measurement]], data: str, claim: str) -> None:
    """Register a study of one data set."""

    def of_one(seed: int) -> Iterator[Measurement]:
        yield from study(data, seed)

    of_one.__name__ = f"{study.__name__}_{data}".replace("-", "_")
    of_one.__doc__ = f"{claim.format(data=data)}\n\nCommand: `rheobase study {of_one.__name__.replace('_', '-')}`"
    register(of_one)


def attack_curves(data: str, seed: int) -> Iterator[Measurement]:
    """What every attack reaches on the victim of a data set, 100 samples, 25 iterations."""
    task = victim_task(f"attacked-{data}", seed)
    with task.at_work():
        samples = samples_of(task, 100)
        rows: list[Row] = []
        for row in attacks_on(task.model, samples, Settings(seed=seed)):
            if not rows:
                yield Measurement(data, len(samples.y), "named rightly before", row.share.count / len(samples.y))
            rows.append(row)
            published = PUBLISHED.get((row.attack, row.goal), "") if data == "mnist" and row.at is None else ""
            yield from measured(row, data, published)
        yield from beside_chance(rows, data)


def beside_chance(rows: Sequence[Row], subject: str) -> Iterator[Measurement]:
    """Success of random flips over that of the attack within the events, which made as many; and whether it is half."""
    found = {row.attack: row.share for row in rows if row.goal == "untargeted" and row.at is None}
    for name, attack in found.items():
        chance = found.get(f"random {name.replace('flips', 'flips, as many as', 1)}")
        if name.startswith("flips within") and chance is not None and attack.hits:
            ratio = chance.value / attack.value
            said = "at most half, as claimed" if ratio <= 0.5 else "more than half, against the claim"
            yield Measurement(f"{subject}, {name}", attack.count, "random flips / attack", ratio, "at most .5", said)


def attack_threshold(data: str, seed: int) -> Iterator[Measurement]:
    """The trap and its escape: gradients and success over the threshold, by loss and by where the window is."""
    for loss in ("cross_entropy", "mse"):
        task = victim_task(f"attacked-{data}", seed, loss)
        with task.at_work():
            samples = samples_of(task, 50)
            spikes = samples.encode(samples.x, torch.Generator().manual_seed(seed))
            for window in ("original", "moved"):
                yield from _swept(task.model, samples, spikes, seed, loss, window, f"{data}, {loss}")


def _swept(
    model: nn.Module, samples: Samples, spikes: Tensor, seed: int, loss: Any, window: Any, subject: str
) -> Iterator[Measurement]:
    thresholds = SWEEP if window == "original" else tuple(value for value in SWEEP if value != 0.3)
    for threshold, seen in zip(
        thresholds, traps(model, spikes, samples.y, thresholds, loss=loss, window=window), strict=True
    ):
        name = f"{subject}, threshold {threshold:g}, window {window}"
        low, high = seen.silent.interval
        tag = f"95 % in {low:.3f} to {high:.3f}"
        yield Measurement(name, seen.silent.count, "clean samples without gradient", seen.silent.value, tag=tag)
        yield Measurement(name, seen.silent.count, "last membranes in the window", seen.open)
        how = SpikeAttack(threshold=threshold, window=window, loss=loss)
        for goal in ("untargeted", "targeted"):
            found = flipped(model, spikes, samples, Settings(seed=seed), how, goal)  # type: ignore[arg-type]
            share = Share.of(found.success, found.attacked)
            changes = found.perturbation[found.success]
            mean = float(changes.mean()) if len(changes) else None
            row = Row("flips", goal, None, share, mean, found.silent_share)  # type: ignore[arg-type]
            yield from measured(row, name)


for _data in SETS:
    _entered(
        attack_curves,
        _data,
        "Success of flips, of as many random flips, and of changed images on the victim of {data}.\n\n"
        "Liang et al., arXiv:2001.01587. Claim: without limit, with converter, flipper and threshold 1, at least 95 % "
        "untargeted\nand 80 % targeted; as many random flips as there are events reach at most half of the attack.",
    )
    _entered(
        attack_threshold,
        _data,
        "The trap: gradients and success over the threshold of the last hidden layer on {data}.\n\n"
        "Liang et al., arXiv:2001.01587. Claim: a higher threshold while gradients are computed leaves fewer samples "
        "without any\ngradient, by either loss, and raises targeted success; one that is too high does not help more.",
    )


@register
def attack_ann(seed: int) -> Iterator[Measurement]:
    """ReLU against spikes at equal shape and budget: attacks on images in boxes, MNIST.

    Liang et al., arXiv:2001.01587, compare at equal success; here each epsilon has its success and mean squared change.
    The spiking network reads the image as a current, or as Bernoulli spikes whose gradients are averaged over draws.
    Command: `rheobase study attack-ann`
    """
    for name in ("attacked-mnist-ann", "attacked-mnist-direct", "attacked-mnist"):
        task = victim_task(name, seed)
        with task.at_work():
            for row in boxed(task.model, samples_of(task, 100), Settings(seed=seed)):
                yield from measured(row, name)


@register
def attack_transfer(seed: int) -> Iterator[Measurement]:
    """Flips made on one victim, tried on one trained from another seed, on events: black-box attacks.

    Liang et al., arXiv:2001.01587, attack with the network's own gradients. Command: `rheobase study attack-transfer`
    """
    task, other = (victim_task("attacked-event-digits", each) for each in (seed, (seed + 1) % 3))
    with task.at_work():
        samples = samples_of(task, 100)
        spikes = samples.encode(samples.x, None)
        for row in without_limit(task.model, spikes, samples, Settings(seed=seed), other):
            if row.attack.startswith("transfer"):
                yield from measured(row, "event-digits")


@register
def attack_throughput(seed: int) -> Iterator[Measurement]:
    """Attacked samples a minute: 25 iterations on each of 50, none of which may succeed, on the victim of events.

    Network of Liang et al., arXiv:2001.01587. Claim: at least 100 a minute on one core.
    Command: `rheobase study attack-throughput`
    """
    torch.manual_seed(seed)
    for name, threshold in (("own threshold", None), ("threshold 1", 1.0)):
        model = create_model("event_pooled_snn").eval()
        x = (torch.rand(15, 25, 2, 34, 34) < 0.05).float()
        with torch.no_grad():
            y = model(x).mean(0).argmax(1)
        how, none = SpikeAttack(threshold=threshold), torch.zeros(25, dtype=torch.int64)
        attack_events(model, x, y, replace(how, iterations=1), budget=none)
        began = time.perf_counter()
        for _ in range(2):
            attack_events(model, x, y, how, budget=none)
        yield Measurement(name, 50, "samples a minute", 60 * 50 / (time.perf_counter() - began))


@register
def attack_defences(seed: int) -> Iterator[Measurement]:
    """Defences of a narrow victim on events: attacked spikes in training, a higher threshold, a penalty on gradients.

    Networks of Liang et al., arXiv:2001.01587, 8 channels, 10000 samples, 2 epochs. Attacks within the number of
    events; the worst of them, adaptive ones included, counts, and at equal success the share of bits that they flip.
    Command: `rheobase study attack-defences`
    """
    config = recipe("attacked-event-digits")()
    config = replace(config, width=8, train=replace(config.train, seed=seed, lr=2e-3))
    task: Task = build(config)
    wide = _cell(surrogate=Atan(2.0))
    plain = Hooks()
    with task.at_work():
        for name, neuron, apply, hooks in (
            ("none", attacked_lif, None, plain),
            ("attacked spikes", attacked_lif, adversarial(SpikeAttack(iterations=2, threshold=1.0), seed=seed), plain),
            ("threshold 0.4", _cell(threshold=0.4), None, plain),
            ("wide surrogate", wide, None, plain),
            ("wide surrogate, penalty on gradients", wide, None, GradientPenalty(10.0)),
        ):
            torch.manual_seed(seed)
            model = create_model("event_pooled_snn", width=8, neuron=neuron)
            _learn(task, model, apply, hooks)
            samples = samples_of(task, 100)
            spikes = samples.encode(samples.x, None)
            right = 0
            for row in within_events(model, spikes, samples, Settings(seed=seed)):
                right = row.share.count
                if "best" not in row.attack:
                    yield from measured(row, name)
            yield Measurement(name, len(samples.y), "named rightly before", right / len(samples.y))


def _cell(**options: Any) -> MakeNeuron:
    return lambda: attacked_lif(**options)


def _learn(task: Task, model: nn.Module, apply: Apply | None, hooks: Hooks) -> None:
    """Train as the task's config says, and leave nothing but the weights."""
    with tempfile.TemporaryDirectory() as folder:
        fit(
            model,
            task.source(task.train, shuffle=True),
            task.source(task.validation, shuffle=False),
            task.config.train,
            RunFolder.create(Path(folder), "defence", {}),
            prepare=task.prepare,
            apply=apply,
            hooks=hooks,
        )
    model.eval()
