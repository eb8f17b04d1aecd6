"""How robust a trained run is: what attacks of several kinds reach on its test split, by a stated budget."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rheobase.data import Dataset, get_encoder
from rheobase.files import write_table
from rheobase.lab.attack import (
    Attacked,
    BoxAttack,
    Share,
    SpikeAttack,
    Trap,
    attack_coded,
    attack_events,
    attack_images,
    fooled,
    fooled_by_chance,
    hidden_layer,
    spiking_layers,
    success_curve,
    transferred,
    traps,
)
from rheobase.lab.attack.spikes import Loss
from rheobase.neurons import Atan, Surrogate
from rheobase.recipes.classification import Task, trained
from rheobase.train import RunFolder

COLUMNS = ("attack", "goal", "at", "hits", "count", "success", "low", "high", "perturbation", "silent")
"""Columns of attack.csv. `at` is a bound on the share of flipped bits, or the epsilon of a box; empty where there is
none. low and high are Wilson's 95 % interval; perturbation is the mean over successes; silent the share of updates
whose gradient was zero everywhere."""
TRAP_COLUMNS = ("threshold", "silent", "low", "high", "open", "below", "above", "distances")
"""Columns of attack_trap.csv; distances are the counts
of the bins of `rheobase.lab.attack.trap.EDGES`."""

FRACTIONS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)
"""Shares of flipped bits at which success is noted."""
EPSILONS = (2 / 255, 4 / 255, 8 / 255, 16 / 255, 32 / 255, 64 / 255)
"""Half-widths of the boxes of attacks on images."""
THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
"""Of the last hidden layer, at which the trap is looked at."""
ADAPTIVE: Surrogate = Atan(2.0)
"""The attacker's surrogate: zero nowhere."""
SMOOTHED = 4
"""Draws of a random encoder over which the adaptive attacker averages."""
CHUNK = 25
"""Samples that are attacked together."""
TRIES = 25
"""Draws of the better random baseline: an attack has as many iterations."""

Goal = Literal["untargeted", "targeted"]
Kind = Literal["events", "coded", "direct"]


@dataclass(frozen=True)
class Row:
    """What one attack reached.

    Attributes:
        attack: its name.
        goal: any wrong class, or a given one.
        at: bound on the perturbation, None where there is none.
        share: of the samples that were right before.
        perturbation: mean over successes.
        silent: share of updates without any gradient.
    """

    attack: str
    goal: Goal
    at: float | None
    share: Share
    perturbation: float | None = None
    silent: float | None = None


@dataclass(frozen=True, eq=False)
class Samples:
    """Test samples under attack.

    Attributes:
        kind: events, images that become spikes, or images that stay images.
        x: as they are stored, `[B, ...]`.
        y: classes.
        target: another class for each, every offset as often as another.
        encode: to the model's input `[T, B, ...]`.
    """

    kind: Kind
    x: Tensor
    y: Tensor
    target: Tensor
    encode: Callable[[Tensor, torch.Generator | None], Tensor]


def samples_of(task: Task, count: int) -> Samples:
    """The first test samples of each class, `count` in all.

    Raises:
        ValueError: pictures on the disk, counts of events, or fewer samples than classes.
    """
    dataset, encoder = task.dataset, task.config.encoder
    if not isinstance(dataset, Dataset):
        raise ValueError(f"attack: {dataset.name} lies as pictures on the disk; expected a set of samples in memory")
    if dataset.T is not None and encoder != "presence":
        raise ValueError(
            f"attack: the network reads counts of events, encoder {encoder!r}; expected spikes: train it with "
            f"--encoder presence"
        )
    K = len(dataset.classes)
    if count < K:
        raise ValueError(f"attack: samples is {count}; expected at least {K}, one of each class")
    chosen = first_of_each(dataset.test.y, count // K, K)
    split = dataset.test.select(chosen)
    kind: Kind = "events" if dataset.T is not None else "coded" if get_encoder(encoder).binary else "direct"
    offset = 1 + torch.arange(len(chosen)) // K % (K - 1)
    return Samples(kind, split.intensities(), split.y, (split.y + offset) % K, task.prepare)


def first_of_each(y: Tensor, count: int, classes: int) -> Tensor:
    """Indices of the first `count` samples of each class, the classes by turns."""
    return torch.stack([(y == k).nonzero()[:count, 0] for k in range(classes)], 1).flatten()


@dataclass(frozen=True)
class Settings:
    """What attacks have in common.

    Args:
        iterations: of each.
        threshold: of the last hidden layer in the attacks that move it.
        seed: of all draws.
        smoothed: draws of a random encoder over which the adaptive attack averages.
        loss: whose gradient is followed.
    """

    iterations: int = 25
    threshold: float = 1.0
    seed: int = 0
    smoothed: int = SMOOTHED
    loss: Loss = "cross_entropy"

    def ways(self, model: nn.Module) -> dict[str, SpikeAttack]:
        """Attacks on spikes by name: as it is, with another threshold, with another surrogate, with both."""
        found = {"": SpikeAttack(iterations=self.iterations, loss=self.loss)}
        if spiking_layers(model):
            found[", adaptive"] = replace(found[""], surrogate=ADAPTIVE)
        if _has_hidden_layer(model):
            tuned = f", threshold {self.threshold:g}"
            found |= {f"{name}{tuned}": replace(how, threshold=self.threshold) for name, how in found.items()}
        return found


def attack(
    run: RunFolder,
    *,
    which: str | None = None,
    samples: int = 100,
    settings: Settings = Settings(),
    other: RunFolder | None = None,
) -> tuple[list[Row], Path]:
    """Attack a run on its test split; write attack.csv and attack_trap.csv into it, note what matters in result.json.

    The loss is that of the training. Spikes are attacked by flips, without limit and within the number of events of
    each sample, and by as many random flips. Images that become spikes are attacked as images too; images that stay
    images in boxes.

    Args:
        run: a run with a checkpoint.
        which: "best" or "last"; that of its config by default.
        samples: how many test samples, the first of each class.
        settings: see `Settings`.
        other: a run on the same data, on which the attacked inputs are tried: black-box transfer.

    Returns:
        what each attack reached, and the file.

    Raises:
        ValueError: a run of several folds or on a graph, one that reads counts of events, too few samples, or another
            run with other input.
    """
    task, which = trained(run, which, samples)
    if not isinstance(task, Task):
        raise ValueError(f"{run.path} holds a network for {task.config.task}; expected one of samples")
    beside = None if other is None else _task_of(other, task)
    settings = replace(settings, loss=loss_of(task))
    began = time.perf_counter()
    with task.at_work():
        chosen = samples_of(task, samples)
        rows = list(attacks_on(task.model, chosen, settings, beside))
        seen = list(trap_of(task, chosen, settings.seed))
    path = run.path / "attack.csv"
    write_table(path, COLUMNS, map(_cells, rows))
    write_table(path.with_name("attack_trap.csv"), TRAP_COLUMNS, map(_trap_cells, seen))
    noted = {
        "checkpoint": which,
        "samples": len(chosen.y),
        "right": next((row.share.count for row in rows if row.attack != "transfer"), 0),
        "kind": chosen.kind,
        "iterations": settings.iterations,
        "threshold": settings.threshold,
        "surrogate": repr(ADAPTIVE),
        "seed": settings.seed,
        "seconds": time.perf_counter() - began,
        "headline": _headline(rows),
    }
    run.add_result("attack", noted)
    return rows, path


def loss_of(task: Task) -> Loss:
    """The loss that an attacker follows: the squared distance where the network was trained by it."""
    return "mse" if task.config.train.loss == "mse" else "cross_entropy"


def _task_of(other: RunFolder, task: Task) -> Task:
    found, _ = trained(other, None, None)
    same = ("data", "T", "encoder")
    if not isinstance(found, Task) or any(getattr(found.config, n) != getattr(task.config, n) for n in same):
        raise ValueError(f"{other.path} reads other input; to transfer, it needs the same {', '.join(same)}")
    return found


def _headline(rows: Sequence[Row]) -> dict[str, Any]:
    """The row that says most about robustness: the worst case over attacks within the events, or in the largest box."""
    worst = [row for row in rows if row.attack.startswith("worst")]
    if not worst:
        return {}
    row = worst[-1]
    low, high = row.share.interval
    return {
        "attack": row.attack,
        "success": row.share.value,
        "low": low,
        "high": high,
        "hits": row.share.hits,
        "count": row.share.count,
        "at": row.at,
    }


def attacks_on(model: nn.Module, samples: Samples, settings: Settings, other: Task | None = None) -> Iterator[Row]:
    """What attacks reach on a model: rows in the order of `attack.csv`."""
    if samples.kind == "direct":
        yield from boxed(model, samples, settings, other)
        return
    encoded = in_chunks(samples, settings, lambda x, _, __, generator: samples.encode(x, generator))
    spikes = torch.cat(encoded, 1)
    yield from flips(model, spikes, samples, settings, other)
    if samples.kind == "coded":
        yield from on_images(model, samples, settings)


def in_chunks(
    samples: Samples,
    settings: Settings,
    work: Callable[[Tensor, Tensor, Tensor, torch.Generator], Any],
    x: Tensor | None = None,
    axis: int = 0,
) -> list[Any]:
    """`work(x, y, target, generator)` on some samples at a time; x has its samples on an axis."""
    x = samples.x if x is None else x
    generator = torch.Generator(samples.y.device).manual_seed(settings.seed)
    parts = zip(x.split(CHUNK, axis), samples.y.split(CHUNK), samples.target.split(CHUNK), strict=True)
    return [work(*part, generator) for part in parts]


def joined(parts: Sequence[Attacked], axis: int) -> Attacked:
    """What an attack made of chunks, as of one batch; x has its samples on an axis."""
    fields = ("wrong", "success", "iterations", "silent", "perturbation", "length")
    return Attacked(
        torch.cat([part.x for part in parts], axis),
        *(torch.cat([getattr(part, name) for part in parts]) for name in fields),
    )


def flips(
    model: nn.Module, spikes: Tensor, samples: Samples, settings: Settings, other: Task | None = None
) -> Iterator[Row]:
    """Flips of spikes `[T, B, ...]`: without limit, within the events, and as many at random."""
    yield from without_limit(model, spikes, samples, settings, other)
    yield from within_events(model, spikes, samples, settings)


def without_limit(
    model: nn.Module, spikes: Tensor, samples: Samples, settings: Settings, other: Task | None = None
) -> Iterator[Row]:
    """Flips of spikes until the model is wrong, or says what it should; what fooled it is tried on another one."""
    goals: tuple[Goal, ...] = ("untargeted", "targeted")
    kept: dict[str, Attacked] = {}
    for goal in goals:
        for name, how in settings.ways(model).items():
            found = flipped(model, spikes, samples, settings, how, goal)
            yield from _rows(f"flips{name}", goal, found, FRACTIONS)
            if goal == "untargeted":
                kept[name] = found
    yield from _by_chance("random flips, as many as without limit", kept, model, spikes, samples, settings)
    if other is not None:
        for name, found in kept.items():
            yield _transferred(f"transfer, flips{name}", other.model, spikes, found.x, samples.y)
    yield _worst("worst of flips", kept)


def within_events(model: nn.Module, spikes: Tensor, samples: Samples, settings: Settings) -> Iterator[Row]:
    """Flips of spikes, no more than a sample has events."""
    events = spikes.sum([axis for axis in range(spikes.ndim) if axis != 1]).long()
    kept: dict[str, Attacked] = {}
    for name, how in settings.ways(model).items():
        kept[name] = flipped(model, spikes, samples, settings, how, "untargeted", budget=events)
        yield from _rows(f"flips within the events{name}", "untargeted", kept[name])
    yield from _by_chance("random flips, as many as within the events", kept, model, spikes, samples, settings)
    yield _worst("worst of flips within the events", kept)


def flipped(
    model: nn.Module,
    spikes: Tensor,
    samples: Samples,
    settings: Settings,
    how: SpikeAttack,
    goal: Goal,
    budget: Tensor | None = None,
) -> Attacked:
    """One attack by flips on all samples."""
    budgets = iter([None] * len(samples.y) if budget is None else budget.split(CHUNK))

    def work(x: Tensor, y: Tensor, target: Tensor, generator: torch.Generator) -> Attacked:
        wanted = target if goal == "targeted" else None
        return attack_events(model, x, y, how, target=wanted, budget=next(budgets), generator=generator)

    return joined(in_chunks(samples, settings, work, spikes, 1), 1)


def on_images(model: nn.Module, samples: Samples, settings: Settings) -> Iterator[Row]:
    """Changes of images that are encoded anew; the adaptive attack averages over draws of a random encoder."""
    goals: tuple[Goal, ...] = ("untargeted", "targeted")
    kept = {}
    for goal in goals:
        for name, how in settings.ways(model).items():
            if how.surrogate is not None:
                how = replace(how, encodings=settings.smoothed, checks=settings.smoothed)

            def work(
                x: Tensor, y: Tensor, target: Tensor, generator: torch.Generator, how: SpikeAttack, goal: Goal
            ) -> Attacked:
                wanted = target if goal == "targeted" else None
                return attack_coded(model, x, y, samples.encode, how, target=wanted, generator=generator)

            found = joined(in_chunks(samples, settings, partial(work, how=how, goal=goal)), 0)
            yield from _rows(f"image{name}", goal, found)
            if goal == "untargeted":
                kept[name] = found
    yield _worst("worst on images", kept)


def boxed(model: nn.Module, samples: Samples, settings: Settings, other: Task | None = None) -> Iterator[Row]:
    """Attacks on images in boxes, by every method and for every epsilon; those with gradients also adaptively.

    Before a random encoder all average over draws of it.
    """
    encodings = settings.smoothed if samples.kind == "coded" else 1
    clean = torch.cat(in_chunks(samples, settings, lambda x, y, _, g: fooled(model, samples.encode(x, g), y)))
    ways: dict[str, dict[str, Any]] = {"": {}}
    if spiking_layers(model):
        ways[", adaptive"] = {"surrogate": ADAPTIVE}
    for epsilon in EPSILONS:
        hits = torch.zeros_like(clean)
        for method in ("fgsm", "pgd", "mi_fgsm", "square"):
            for name, options in ways.items():
                if method == "square" and options:
                    continue
                how = BoxAttack(
                    epsilon, method, settings.iterations, loss=settings.loss, encodings=encodings, **options
                )  # type: ignore[arg-type]
                found = torch.cat(in_chunks(samples, settings, partial(_box, model, samples.encode, how)))
                hit = torch.cat(
                    in_chunks(samples, settings, lambda x, y, _, g: fooled(model, samples.encode(x, g), y), found)
                )
                hits |= hit
                change = (found - samples.x).square().flatten(1).mean(1)[hit & ~clean]
                mean = float(change.mean()) if len(change) else None
                yield Row(f"{method}{name}", "untargeted", epsilon, Share.of(hit, ~clean), mean)
                if other is not None and method == "pgd":
                    before, after = (samples.encode(each, None) for each in (samples.x, found))
                    yield _transferred(f"transfer, {method}{name}", other.model, before, after, samples.y, epsilon)
        yield Row("worst in the box", "untargeted", epsilon, Share.of(hits, ~clean))


def _box(
    model: nn.Module, encode: Any, how: BoxAttack, x: Tensor, y: Tensor, _: Tensor, generator: torch.Generator
) -> Tensor:
    return attack_images(model, x, y, encode, how, generator=generator)


def _rows(name: str, goal: Goal, found: Attacked, at: Sequence[float] = ()) -> Iterator[Row]:
    """The whole attack, then its success at bounds on the perturbation."""
    changes = found.perturbation[found.success]
    mean = float(changes.mean()) if len(changes) else None
    silent = found.silent_share
    share = Share.of(found.success, found.attacked)
    yield Row(name, goal, None, share, mean, None if silent != silent else silent)
    for most, part in zip(at, success_curve(found, at), strict=True):
        yield Row(name, goal, most, part)


def _by_chance(
    name: str, attacks: dict[str, Attacked], model: nn.Module, spikes: Tensor, samples: Samples, settings: Settings
) -> Iterator[Row]:
    """As many random flips as each attack made, once and in the best of several draws."""
    for way, found in attacks.items():
        mean = float(found.perturbation[found.attacked].mean()) if bool(found.attacked.any()) else None
        for tries in (1, TRIES):
            generator = torch.Generator(spikes.device).manual_seed(settings.seed)
            share = fooled_by_chance(model, spikes, samples.y, found, tries=tries, generator=generator)
            told = f", best of {tries}" if tries > 1 else ""
            yield Row(f"{name}{way}{told}", "untargeted", None, share, mean)


def _worst(name: str, attacks: dict[str, Attacked]) -> Row:
    """Samples that any of the attacks fooled."""
    some = next(iter(attacks.values()))
    hits = torch.stack([found.success for found in attacks.values()]).any(0)
    return Row(name, "untargeted", None, Share.of(hits, some.attacked))


def _transferred(name: str, other: nn.Module, clean: Tensor, found: Tensor, y: Tensor, at: float | None = None) -> Row:
    return Row(name, "untargeted", at, transferred(other, clean, found, y))


def trap_of(task: Task, samples: Samples, seed: int, thresholds: Sequence[float] = THRESHOLDS) -> Iterator[Trap]:
    """The trap of a task's network, at several thresholds of its last hidden layer; nothing of one without."""
    if not _has_hidden_layer(task.model):
        return
    generator = torch.Generator(samples.y.device).manual_seed(seed)
    x = samples.encode(samples.x, generator)
    yield from traps(task.model, x, samples.y, thresholds, loss=loss_of(task))


def _has_hidden_layer(model: nn.Module) -> bool:
    try:
        hidden_layer(model)
    except ValueError:
        return False
    return True


def _cells(row: Row) -> dict[str, Any]:
    low, high = row.share.interval
    return {
        "attack": row.attack,
        "goal": row.goal,
        "at": "" if row.at is None else f"{row.at:.6g}",
        "hits": row.share.hits,
        "count": row.share.count,
        "success": f"{row.share.value:.6g}",
        "low": f"{low:.6g}",
        "high": f"{high:.6g}",
        "perturbation": "" if row.perturbation is None else f"{row.perturbation:.6g}",
        "silent": "" if row.silent is None else f"{row.silent:.6g}",
    }


def _trap_cells(seen: Trap) -> dict[str, Any]:
    low, high = seen.silent.interval
    return {
        "threshold": seen.threshold,
        "silent": f"{seen.silent.value:.6g}",
        "low": f"{low:.6g}",
        "high": f"{high:.6g}",
        **{name: f"{getattr(seen, name):.6g}" for name in ("open", "below", "above")},
        "distances": " ".join(map(str, seen.counts)),
    }
