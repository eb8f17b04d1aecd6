"""Classification: the one place where models, data and training meet. A recipe is a config of this file."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rheobase.data import (
    Augment,
    Dataset,
    EventDataset,
    ImageFolder,
    ImageFolders,
    Split,
    batches,
    folds_of,
    get_encoder,
    hold_out,
    list_datasets,
    load,
    options_of,
)
from rheobase.models import MODELS, create_model
from rheobase.neurons import NEURONS, create_neuron
from rheobase.nn import PerChannel, begin_epoch, observe
from rheobase.recipes.attack_page import attack_sections
from rheobase.recipes.compress_page import compress_sections
from rheobase.recipes.cost_page import cost_sections
from rheobase.recipes.h2learn_page import h2learn_sections
from rheobase.recipes.task import KINDS, Trainable, build, config_of, known_fields, recipe_of, training_of
from rheobase.report import LayerActivity, RunReport, Sample, evenly_spaced, write
from rheobase.scan import Temporal
from rheobase.train import (
    Batches,
    Processes,
    RunFolder,
    TrainConfig,
    evaluate,
    fit,
    has_checkpoint,
    load_weights,
)

Metrics = dict[str, Any]

IMAGE_SIDE = 224
"""Pixels of a side of what is cut out of pictures that are read from the disk, unless the config says otherwise."""

RASTER_NEURONS = 64
"""A raster keeps at most this many neurons of a layer, evenly spaced."""


@dataclass(frozen=True)
class Classification:
    """A network, its data, and how it is trained.

    Args:
        data: name of the data set, see `rheobase list data`.
        model: name of the model, see `rheobase list models`.
        neuron: name of the neuron, see `rheobase list neurons`; None leaves the model's own.
        neuron_options: pairs of name and value that `create_neuron` is given besides; `("shape", "channel")` makes the
            parameters of the neurons one a channel, in a model of `ConvSNN`.
        width: channels of the first stage; None leaves the model's own.
        encoder: how an image becomes a sequence, see `rheobase.data.list_encoders`; sequences take "direct"
            or "presence", spikes in the place of counts.
        T: time steps.
        size: pixels of a side (channels of sound) that the frames of recordings are summed to; None keeps all. Of
            pictures on the disk (imagenet): side of the part that is cut out for training; None is 224.
        test_size: of pictures on the disk, side of the middle part at validation and test; None is `size`.
        test_resize: pixels that the shorter side of such a picture has before; None is 256/224 of `test_size`.
        workers: threads that read pictures from the disk; they change nothing but the time.
        frames_by: frames of recordings are of equal "time", or of an equal "count" of events.
        augment: what is done to training batches; None leaves them as they are.
        fold: of a set that is cross-validated: the fold to test; None trains one network for each fold.
        batch_size: samples in a batch, those of all processes together.
        validation: share of the training split that is held out; it picks the best checkpoint, the test split does not.
        train_samples: how many of the others are trained on, drawn by the seed with equal shares of all classes; None
            takes all.
        measured: which weights are measured: the "best" on the validation split, or the "last", where that split is too
            small to tell them apart.
        threads: CPU threads to use; None leaves torch's choice. Small networks are not faster on several, and several
            wait for each other where the machine has other work. Equal bits need an equal number.
        train: optimiser, schedule, epochs and the rest.

    Raises:
        ValueError: a setting that is out of range, or an unknown encoder.
    """

    data: str = "digits"
    model: str = "ms_resnet20"
    neuron: str | None = None
    neuron_options: tuple[tuple[str, int | float | bool | str], ...] = ()
    width: int | None = None
    encoder: str = "direct"
    T: int = 4
    size: int | None = None
    test_size: int | None = None
    test_resize: int | None = None
    workers: int = 0
    frames_by: Literal["time", "count"] = "time"
    augment: Augment | None = None
    fold: int | None = None
    batch_size: int = 50
    validation: float = 0.1
    train_samples: int | None = None
    measured: Literal["best", "last"] = "best"
    threads: int | None = None
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        get_encoder(self.encoder)
        for name, fine, expected in (
            ("T", self.T >= 1, "at least 1"),
            ("size", self.size is None or self.size >= 1, "at least 1, or None"),
            ("test_size", self.test_size is None or self.test_size >= 1, "at least 1, or None"),
            (
                "test_resize",
                self.test_resize is None or self.test_resize >= self.test_side,
                f"at least the {self.test_side} pixels of the part that is cut out, or None",
            ),
            ("workers", self.workers >= 0, "0 or above"),
            ("frames_by", self.frames_by in ("time", "count"), '"time" or "count"'),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("train_samples", self.train_samples is None or self.train_samples >= 1, "at least 1, or None"),
            ("neuron_options", not self.neuron_options or self.neuron is not None, "none where neuron is None"),
            ("measured", self.measured in ("best", "last"), '"best" or "last"'),
            ("validation", 0 < self.validation < 1, "in (0, 1)"),
            ("threads", self.threads is None or self.threads >= 1, "at least 1, or None"),
        ):
            if not fine:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected {expected}")

    @property
    def test_side(self) -> int:
        """Pixels of a side of what is cut out of pictures on the disk at validation and test."""
        return self.test_size or self.size or IMAGE_SIDE

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Classification":
        """The config that `asdict` wrote.

        Raises:
            ValueError: a field that this version does not have, or a value out of range.
        """
        values = dict(values)
        train, augment = values.pop("train", {}), values.pop("augment", None)
        known_fields(cls, values)
        known_fields(Augment, augment or {})
        values["neuron_options"] = tuple((name, value) for name, value in values.get("neuron_options", ()))
        return cls(
            **values,
            train=training_of(train),
            augment=None if augment is None else Augment(**augment),
        )


KINDS["samples"] = Classification.from_dict


@dataclass(frozen=True, eq=False)
class Task(Trainable):
    """What a config builds: model, data with its validation split, and the encoder bound to T.

    `flat`: the model reads vectors, and images are handed to it as such.
    """

    config: Classification
    model: nn.Module
    dataset: Dataset | ImageFolders
    train: Split | ImageFolder
    validation: Split | ImageFolder
    flat: bool = False

    def prepare(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """A batch as it is stored, images `[B, C, H, W]` in [0, 1], to the network's input `[T, B, C, H, W]`."""
        encoded = self.dataset.encode(x, self.config.T, self.config.encoder, generator)
        return encoded.flatten(2) if self.flat else encoded

    @property
    def test_shape(self) -> tuple[int, ...]:
        """The shape of a stored test sample: `[C, ...]`, with T before it if the set is of sequences."""
        if isinstance(self.dataset, ImageFolders):
            return (3, self.config.test_side, self.config.test_side)
        return tuple(self.dataset.test.x.shape[1:])

    def source(self, split: Split | ImageFolder, shuffle: bool) -> Batches:
        """Batches of a split for `fit`, the same for the same seed and epoch.

        Shuffled ones are for training: they alone are augmented, and random parts of pictures on the disk.
        """
        make = partial(self._batches, split, shuffle)
        return Batches(make, len(make(0)))

    def _batches(self, split: Split | ImageFolder, shuffle: bool, epoch: int) -> Any:
        config, seed = self.config, self.config.train.seed
        drawn: Any
        if isinstance(split, ImageFolder):
            drawn = split.batches(
                config.batch_size,
                train=shuffle,
                seed=seed,
                epoch=epoch,
                size=config.size or IMAGE_SIDE if shuffle else config.test_side,
                resize=config.test_resize,
                workers=config.workers,
            )
        else:
            drawn = batches(split, config.batch_size, seed=seed, epoch=epoch, shuffle=shuffle)
        if config.augment is None or not shuffle:
            return drawn
        classes, mean = len(self.dataset.classes), self.dataset.mean or None
        return config.augment.over(drawn, classes=classes, seed=seed, epoch=epoch, fill=mean)


@build.register
def _(config: Classification, *, root: Path | None = None, download: bool = False) -> Task:
    dataset = _dataset(config, root, download)
    seed = config.train.seed
    shape: tuple[int, ...]
    stored: tuple[int, ...]
    if isinstance(dataset, ImageFolders):
        shape = stored = (3, config.size or IMAGE_SIDE, config.size or IMAGE_SIDE)
    else:
        shape, stored = dataset.sample_shape, tuple(dataset.train.x.shape[1:])
    if config.augment is not None:
        config.augment.check(stored)
    train: Split | ImageFolder
    validation: Split | ImageFolder
    train, validation = hold_out(dataset.train, config.validation, seed=seed)
    if config.train_samples is not None and config.train_samples != len(train):
        if config.train_samples > len(train):
            raise ValueError(f"train_samples is {config.train_samples}; expected at most {len(train)}, or None for all")
        train = hold_out(train, config.train_samples / len(train), seed=seed)[1]
    torch.manual_seed(seed)
    options: dict[str, Any] = {"neuron": neuron_of(config), "width": config.width}
    if get_encoder(config.encoder).scans:
        shape = shape[:-1]
    flat = False
    if config.model in MODELS:
        entry = MODELS[config.model]
        if entry.equivariance != "batch":
            raise ValueError(f"{config.model} reads graphs; {config.data} is a set of samples: choose another model")
        flat = len(entry.example()) == 1
        if not flat and len(entry.example()) != len(shape):
            raise ValueError(
                f"{config.model} reads steps of {len(entry.example())} axes, but {config.data} with encoder "
                f"{config.encoder!r} has steps of shape {shape}; expected another model or encoder"
            )
        if not entry.any_T:
            options["T"] = config.T
    model = create_model(
        config.model,
        in_channels=math.prod(shape) if flat else shape[0],
        classes=len(dataset.classes),
        **{name: value for name, value in options.items() if value is not None},
    )
    return Task(config, model, dataset, train, validation, flat)


def neuron_of(config: Any) -> Callable[[], nn.Module] | None:
    """What makes the neurons of a config by its `neuron`, `neuron_options` and T; None where it names none."""
    if config.neuron is None:
        return None
    options: dict[str, Any] = dict(config.neuron_options)
    if config.neuron in NEURONS and not NEURONS[config.neuron].any_T:
        options["T"] = config.T
    per_channel = options.get("shape") == "channel"
    if per_channel:
        del options["shape"]
    make = partial(create_neuron, config.neuron, **options)
    return PerChannel(make) if per_channel else make


def _dataset(config: Classification, root: Path | None, download: bool) -> Dataset | ImageFolders:
    """The data set of a config, recordings as frames."""
    name = config.data
    options: dict[str, Any] = {"root": root, "download": download}
    folds = folds_of(name) if name in list_datasets() else 0
    if (config.fold is None) == (folds > 0) or (config.fold is not None and not 0 <= config.fold < folds):
        expected = f"0 to {folds - 1}: {name} is cross-validated" if folds else f"None: {name} has a split of its own"
        raise ValueError(f"fold is {config.fold}; expected {expected}")
    if folds:
        options["fold"] = config.fold
    if name in list_datasets() and "T" in options_of(name):
        options["T"] = config.T
    dataset = load(name, **options)
    if isinstance(dataset, ImageFolders):
        return dataset
    _unused(config, f"{name} is no set of pictures on the disk", test_size=None, test_resize=None, workers=0)
    if isinstance(dataset, EventDataset):
        return dataset.frames(config.T, size=config.size, by=config.frames_by)
    _unused(config, f"{name} does not consist of recordings", size=None, frames_by="time")
    if not isinstance(dataset, Dataset):
        raise ValueError(f"data is {name!r}, a {type(dataset).__name__}; expected a set of samples with class labels")
    return dataset


def _unused(config: Classification, why: str, **plain: Any) -> None:
    """Raise ValueError if a field, without effect here, is not as it is by default."""
    for name, value in plain.items():
        if getattr(config, name) != value:
            raise ValueError(f"{name} is {getattr(config, name)!r}; expected {value!r}: {why}")


def train(
    recipe: str,
    config: Any,
    runs: Path,
    *,
    download: bool = False,
    on_epoch: Callable[[Metrics], None] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[RunFolder, Metrics]:
    """Train from scratch in a new run folder below `runs`, then measure a checkpoint on the test split, see `measured`.

    Every process of a process group calls this; the data is loaded by process 0 first, which alone writes.
    With a set that is cross-validated and no `fold`, the run holds one run for each fold, in `folds/fold<k>`; its
    result is of all their test samples together.

    Returns:
        the run folder and its result: see `measure`.
    """
    if isinstance(config, Classification) and config.augment is not None:
        config.augment.check_installed()
    processes = Processes.current()
    kind = {} if isinstance(config, Classification) else {"task": config.task}
    new_run = partial(RunFolder.create, runs, recipe, {"recipe": recipe, **kind, **asdict(config)})
    if is_cross_validated(config):
        with processes.in_turn():
            build(replace(config, fold=0), download=download)  # what is wrong or missing raises before there is a run
        run = processes.first(new_run)
        return run, _fit_folds(run, download, on_epoch, on_step)
    with processes.in_turn():
        task = build(config, download=download)
    with task.at_work():
        run = processes.first(new_run)
    return run, _fit(task, run, False, on_epoch, on_step)


def resume(
    run: RunFolder,
    *,
    which: str = "last",
    on_epoch: Callable[[Metrics], None] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Metrics:
    """Go on with a run that was stopped; it ends with the same bits as if it had never been.

    Raises:
        ValueError: the run was made by compression, which goes on by itself.
    """
    if "compressed" in run.config():
        raise ValueError(f"{run.path} was made by compression; go on with `rheobase compress --resume {run.path}`")
    if is_cross_validated(config_of(run)):
        return _fit_folds(run, False, on_epoch, on_step, which)
    return _fit(build(config_of(run)), run, "best" if which == "best" else True, on_epoch, on_step)


def is_cross_validated(config: Any) -> bool:
    """Whether one network is trained for each fold of the data."""
    return (
        isinstance(config, Classification)
        and config.fold is None
        and config.data in list_datasets()
        and folds_of(config.data) > 0
    )


def _fold_runs(run: RunFolder) -> list[RunFolder | None]:
    """The newest run of every fold, None where there is none yet."""
    found = []
    for k in range(folds_of(config_of(run).data)):
        paths = sorted((run.path / "folds" / f"fold{k}").glob("*/config.json"))
        found.append(RunFolder.open(paths[-1].parent) if paths else None)
    return found


def _fit_folds(run: RunFolder, download: bool, on_epoch: Any, on_step: Any, which: str = "last") -> Metrics:
    """Train the folds that are not done, a begun one from its checkpoint `which`, then pool."""
    config, recipe = config_of(run), recipe_of(run)
    states = Processes.current().first(lambda: [(fold, _state_of(fold)) for fold in _fold_runs(run)])
    for k, (fold, state) in enumerate(states):
        tell = None if on_epoch is None else partial(_tell_fold, on_epoch, k)
        if fold is None or state == "new":
            train(
                f"fold{k}",
                replace(config, fold=k),
                run.path / "folds",
                download=download,
                on_epoch=tell,
                on_step=on_step,
            )
        elif state == "begun":
            resume(fold, which=which, on_epoch=tell, on_step=on_step)
    return _pool(run, recipe, [fold.result()["eval"] for fold in _fold_runs(run) if fold is not None])


def _state_of(fold: RunFolder | None) -> Literal["new", "begun", "done"]:
    if fold is None or not (has_checkpoint(fold) or fold.result()):
        return "new"
    return "done" if "eval" in fold.result() else "begun"


def _tell_fold(on_epoch: Callable[[Metrics], None], fold: int, metrics: Metrics) -> None:
    on_epoch({**metrics, "fold": fold})


def _pool(run: RunFolder, recipe: str, results: Sequence[Metrics]) -> Metrics:
    """One result of those of all folds: each test sample counts once."""
    count = sum(each["test_count"] for each in results)
    result = {
        "recipe": recipe,
        "checkpoint": results[0]["checkpoint"],
        "test_accuracy": sum(each["test_accuracy"] * each["test_count"] for each in results) / count,
        "test_loss": sum(each["test_loss"] * each["test_count"] for each in results) / count,
        "test_count": count,
        "validation_accuracy": sum(each["validation_accuracy"] or 0.0 for each in results) / len(results),
        "parameters": results[0]["parameters"],
        "epochs": max(each["epochs"] for each in results),
        "seconds": sum(each["seconds"] for each in results),
        "folds": [each["test_accuracy"] for each in results],
    }
    return _noted(run, result)


def _noted(run: RunFolder, result: Metrics) -> Metrics:
    """The result, written into the run by process 0."""
    Processes.current().first(partial(run.add_result, "eval", result))
    return result


def _all_fold_runs(run: RunFolder) -> list[RunFolder]:
    """The run of every fold.

    Raises:
        ValueError: one is missing.
    """
    folds = _fold_runs(run)
    if None in folds:
        raise ValueError(f"{run.path} lacks fold {folds.index(None)}; finish it: rheobase train --resume {run.path}")
    return [fold for fold in folds if fold is not None]


def _fit(task: Trainable, run: RunFolder, resume: Any, on_epoch: Any, on_step: Any) -> Metrics:
    with task.at_work():
        fit(
            task.model,
            task.source(task.train, shuffle=True),
            task.source(task.validation, shuffle=False),
            task.config.train,
            run,
            prepare=task.prepare,
            apply=task.run,
            before_epoch=partial(begin_epoch, task.model, epochs=task.config.train.epochs),
            on_epoch=on_epoch,
            on_step=on_step,
            resume=resume,
        )
    return measure(run, task=task)


def measure(run: RunFolder, *, which: str | None = None, task: Trainable | None = None) -> Metrics:
    """Measure a checkpoint of a run, that of its config by default, on the test split; note it in result.json.

    Every process of a process group calls this, and measures a part.

    Returns:
        recipe, checkpoint, test_accuracy, test_loss, test_count, validation_accuracy, parameters, epochs, seconds; of a
        cross-validated run also `folds`, the test accuracy of each.
    """
    if is_cross_validated(config_of(run)):
        return _pool(run, recipe_of(run), [measure(fold, which=which) for fold in _all_fold_runs(run)])
    task = task or build(config_of(run))
    which = load_run(task, run, which)
    with task.at_work():
        found = evaluate(
            task.model,
            task.source(task.test, shuffle=False)(0),
            task.config.train,
            prepare=task.prepare,
            apply=task.run,
            together=True,
        )
    history = run.metrics()
    line = run.result().get("train", {}).get("best" if which == "best" else "last", {})
    result = {
        "recipe": recipe_of(run),
        "checkpoint": which,
        "test_accuracy": found["accuracy"],
        "test_loss": found["loss"],
        "test_count": found["count"],
        "validation_accuracy": line.get("validation_accuracy"),
        "parameters": task.parameters,
        "epochs": len(history),
        "seconds": sum(entry["seconds"] for entry in history),
    }
    return _noted(run, result)


def classify(run: RunFolder, images: np.ndarray, *, which: str | None = None) -> list[str]:
    """Class names for images `[N, C, H, W]` with intensities in [0, 1], or for sequences as its set holds them.

    Raises:
        ValueError: wrong shape, NaN or Inf, or intensities outside [0, 1]; a run of several folds, or on a graph.
    """
    refuse_folds(run)
    config = config_of(run)
    if not isinstance(config, Classification):
        raise ValueError(f"{run.path} holds a network for {config.task}; only those that read samples classify images")
    task = build(config)
    shape = task.test_shape
    if images.ndim != 1 + len(shape) or images.shape[1:] != shape or len(images) == 0:
        raise ValueError(f"images have shape {images.shape}; {task.dataset.name} networks read [N, ...] = N x {shape}")
    x = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))
    if not x.isfinite().all():
        raise ValueError(f"images hold {int((~x.isfinite()).sum())} NaN or Inf; clean them first")
    if task.dataset.T is None and (x.min() < 0 or x.max() > 1):
        raise ValueError(
            f"images lie in {x.min():g} .. {x.max():g}; divide by the full scale to get intensities in [0, 1]"
        )
    load_run(task, run, which)
    full_scale = 1 if isinstance(task.dataset, ImageFolders) or task.dataset.T is None else task.dataset.test.full_scale
    split = Split(x, torch.zeros(len(x), dtype=torch.int64), full_scale)
    batches = task.source(split, shuffle=False)(0)
    with task.at_work():
        found = evaluate(task.model, batches, task.config.train, prepare=task.prepare, predictions=True)
    return [task.dataset.classes[k] for k in found["predictions"]]


def refuse_folds(run: RunFolder) -> None:
    """Raises ValueError if a run holds a network for each fold, and names one of them."""
    if is_cross_validated(config_of(run)):
        raise ValueError(f"{run.path} holds a network for each fold; name one: {_all_fold_runs(run)[0].path}")


def trained(run: RunFolder, which: str | None, samples: int | None) -> tuple[Any, str]:
    """The task of a run with a checkpoint loaded, see `load_run`, and which one it is.

    Raises:
        ValueError: a run of several folds, or fewer than one sample is asked for.
    """
    refuse_folds(run)
    if samples is not None and samples < 1:
        raise ValueError(f"samples is {samples}; expected at least 1, or None for all")
    task = build(config_of(run))
    return task, load_run(task, run, which)


def load_run(task: Trainable, run: RunFolder, which: str | None) -> str:
    """Load a checkpoint of a run into its task's model, that of its config by default, and say which one it is."""
    chosen: Literal["best", "last"] = "best" if (which or task.config.measured) == "best" else "last"
    load_weights(task.model, run, chosen)
    return chosen


def report(run: RunFolder, *, which: str | None = None) -> Path:
    """Run a checkpoint over the test split, look at every spiking layer, and write `report.html` into the run.

    Of a cross-validated run the confusions are of all folds together, all else is of fold 0.
    """
    folds = _all_fold_runs(run) if is_cross_validated(config_of(run)) else [run]
    pages = [_page(fold, which) for fold in folds]
    page = pages[0]
    if len(pages) > 1:
        confusion = np.sum([each.confusion for each in pages if each.confusion is not None], axis=0)
        page = replace(
            page,
            title=f"{page.title}: {len(pages)} folds; curves and spikes of fold 0",
            recipe=recipe_of(run),
            command=str(run.env().get("command", "")),
            test_accuracy=float(np.trace(confusion) / confusion.sum()),
            seconds=sum(each.seconds for each in pages),
            confusion=confusion,
        )
    return write(page, run.path / "report.html")


def _page(run: RunFolder, which: str | None) -> RunReport:
    """What there is to see of one network."""
    task = build(config_of(run))
    which = load_run(task, run, which)
    activity = _Activity(task.config.T)
    began = time.perf_counter()
    with task.at_work(), observe(task.model, activity.see):
        found = evaluate(
            task.model,
            task.source(task.test, shuffle=False)(0),
            task.config.train,
            prepare=task.prepare,
            apply=task.run,
            predictions=True,
        )
    predicted, labels = found["predictions"].numpy(), task.test.y.numpy()
    classes = task.dataset.classes
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    env, history = run.env(), run.metrics()
    return RunReport(
        title=f"{task.config.model} on {task.dataset.name}",
        recipe=recipe_of(run),
        command=str(env.get("command", "")),
        test_accuracy=found["accuracy"],
        parameters=task.parameters,
        seconds=sum(line["seconds"] for line in history),
        environment={**env, "checkpoint": which, "seconds to evaluate": round(time.perf_counter() - began, 2)},
        config=asdict(task.config),
        history=history,
        confusion=confusion,
        class_names=classes,
        layers=activity.layers(),
        sample=Sample(_picture(task), classes[int(labels[0])], classes[int(predicted[0])])
        if isinstance(task, Task)
        else None,
        sections=(*compress_sections(run), *cost_sections(run), *h2learn_sections(run), *attack_sections(run)),
    )


def _picture(task: Task) -> np.ndarray:
    """The first test sample as an image: a sequence of frames summed over time, sound as channels over time."""
    x, _ = next(iter(task.source(task.dataset.test, shuffle=False)(0)))
    sample: np.ndarray = x[0].numpy()
    if task.dataset.T is None:
        return sample
    return sample.T if sample.ndim == 2 else sample.sum(axis=0)


class _Activity:
    """Adds up what every spiking layer emits, and keeps the first sample's raster."""

    def __init__(self, T: int) -> None:
        self.T = T
        self.sums: dict[str, Tensor] = {}
        self.graded: dict[str, bool] = {}
        self.rasters: dict[str, tuple[Tensor, Tensor]] = {}
        self.samples: dict[str, int] = {}

    def see(self, name: str, layer: Temporal, output: Tensor) -> None:
        if not hasattr(layer, "emits"):  # a norm over time
            return
        spikes = output.float().flatten(2)
        self.samples[name] = self.samples.get(name, 0) + spikes.shape[1]
        total = spikes.abs().sum((0, 1)).double().cpu()
        if name in self.sums:
            self.sums[name] += total
            return
        self.sums[name] = total
        self.graded[name] = getattr(layer, "emits", "real") != "binary"
        n = spikes.shape[2]
        shown = torch.from_numpy(evenly_spaced(n, RASTER_NEURONS))
        self.rasters[name] = spikes[:, 0, shown].cpu(), shown

    def layers(self) -> list[LayerActivity]:
        return [
            LayerActivity(
                name=name,
                rates=(total / (self.T * self.samples[name])).numpy(),
                raster=self.rasters[name][0].numpy(),
                graded=self.graded[name],
                shown=self.rasters[name][1].numpy(),
            )
            for name, total in self.sums.items()
        ]
