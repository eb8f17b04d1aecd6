"""A trained run made smaller: a new run with plain weights, which every other verb accepts."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from rheobase.files import read_table, write_atomic, write_table
from rheobase.lab.compress import (
    Channels,
    CompressionReport,
    Method,
    compress,
    compressible,
    method_from,
    method_to,
    nearest,
    save_packed,
)
from rheobase.lab.compress.quantise import FLOAT_BITS
from rheobase.lab.cost import activity, tracing
from rheobase.nn import begin_epoch
from rheobase.recipes.classification import Task, load_run, measure, refuse_folds
from rheobase.recipes.task import Trainable, build, config_of, recipe_of
from rheobase.train import (
    Hooks,
    RunFolder,
    TrainConfig,
    evaluate,
    fit,
    has_checkpoint,
    load_checkpoint,
    save_checkpoint,
)

COLUMNS = ("layer", "weights", "zeros", "sparsity", "distinct", "bits", "form", "bytes")
"""Columns of compress.csv; the last two say how packed.safetensors keeps the layer."""
COUNTED = 1000
"""Operations and spikes are counted on so many test samples, unless the caller says otherwise."""

Metrics = dict[str, Any]


@dataclass(frozen=True)
class Compression:
    """How a run is compressed.

    Args:
        methods: in order, see `rheobase.lab.compress.compress`.
        exclude: patterns of layers to leave alone.
        lr: base learning rate of every phase; None is that of the run.
        optimizer: of every phase; None is that of the run.
        clip_norm: largest 2-norm of the gradients in every phase; None is that of the run.
    """

    methods: tuple[Method, ...]
    exclude: tuple[str, ...] = ()
    lr: float | None = None
    optimizer: str | None = None
    clip_norm: float | None = None

    @property
    def name(self) -> str:
        """The methods' names."""
        return "-".join(method.name for method in self.methods)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**asdict(self), "methods": [method_to(method) for method in self.methods]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Compression":
        """What `to_dict` wrote. Raises ValueError like `method_from`."""
        methods = tuple(method_from(each) for each in values["methods"])
        return cls(**{**values, "methods": methods, "exclude": tuple(values["exclude"])})

    def phase(self, train: TrainConfig, epochs: int) -> TrainConfig:
        """The settings of a phase: the run's, over so many epochs, without warm-up, cool-down and patience."""
        found: dict[str, Any] = {name: getattr(self, name) for name in ("lr", "optimizer", "clip_norm")}
        found = {name: value for name, value in found.items() if value is not None}
        milestones = tuple(sorted({m * epochs // train.epochs for m in train.milestones}))
        plain = {"warmup_epochs": 0, "cooldown_epochs": 0, "patience": 0, "min_lr": 0.0}
        return replace(train, **{**plain, **found, "epochs": epochs, "milestones": milestones})


def compress_run(
    source: RunFolder,
    config: Compression,
    runs: Path,
    *,
    which: str | None = None,
    samples: int | None = COUNTED,
    on_epoch: Callable[[Metrics], None] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[RunFolder, Metrics]:
    """Compress a checkpoint of a run into a new run below `runs`; the run itself is only read.

    The new run holds the compressed weights as its checkpoints, `compress.csv` (a row a layer), `codes.safetensors`
    (masks, and codes, levels and scales of quantised weights), `packed.safetensors` (all weights, packed), and in
    result.json the sums, with accuracy, spikes and operations before and after.

    Args:
        source: a run with a checkpoint.
        config: methods, in order.
        runs: where run folders are made.
        which: "best" or "last"; that of the run's config by default.
        samples: how many of the first test samples operations and spikes are counted on; None is all.

    Returns:
        the new run and what is noted in it.

    Raises:
        ValueError: a run of several folds, or what a method refuses.
    """
    refuse_folds(source)
    task = build(config_of(source))
    which = load_run(task, source, which)
    compressible(task.model, config.exclude)  # what is wrong raises before there is a run
    label = f"{recipe_of(source)}-{config.name}"
    kept = {"from": str(source.path.resolve()), "checkpoint": which, "samples": samples, **config.to_dict()}
    with task.at_work():
        run = RunFolder.create(runs, label, {**source.config(), "recipe": label, "compressed": kept})
    return run, _compress(task, source, run, config, samples, on_epoch, on_step)


def resume_compress(
    run: RunFolder,
    *,
    on_epoch: Callable[[Metrics], None] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Metrics:
    """Go on with a compression that was stopped; it ends with the same bits as if it had never been.

    Raises:
        ValueError: the run was not made by `compress_run`, or the run that it began with is gone.
    """
    kept, done = dict(run.config().get("compressed") or {}), run.result()
    if "compress" in done:
        return {**done["eval"], "compress": done["compress"]}
    if not kept:
        raise ValueError(f"{run.path} was not made by compression; go on with `rheobase train --resume {run.path}`")
    source, which, samples = RunFolder.open(kept.pop("from")), kept.pop("checkpoint"), kept.pop("samples")
    task = build(config_of(source))
    load_run(task, source, which)
    return _compress(task, source, run, Compression.from_dict(kept), samples, on_epoch, on_step)


def _compress(
    task: Trainable,
    source: RunFolder,
    run: RunFolder,
    config: Compression,
    samples: int | None,
    on_epoch: Any,
    on_step: Any,
) -> Metrics:
    before = counts(task, task.model, samples, bits_in(source))
    phases = _Phases(task, run, config, on_epoch, on_step)
    with task.at_work():
        made, report = compress(
            task.model, config.methods, phases, exclude=config.exclude, example=_example(task, config)
        )
    run.keep_metrics(0)
    for number, (name, line) in enumerate(phases.lines):
        run.append_metrics({**line, "epoch": number, "phase": name}, wait=False)
    save_checkpoint(run, ["best", "last"], made.state_dict(), {"compressed": True}, 0)
    packed = save_packed(run.path / "packed.safetensors", made.state_dict())
    write_atomic(run.path / "codes.safetensors", safetensors.torch.save(codes(made, report)))
    write_table(run.path / "compress.csv", COLUMNS, _rows(report, packed))
    after = counts(task, made, samples, bits_in(run))
    measured = measure(run)
    sizes = {"bytes": (run.path / "packed.safetensors").stat().st_size, "dense_bytes": _bytes(made)}
    found = {**report.summary(), **sizes, "before": before, "after": after, "exclude": list(config.exclude)}
    found["spikes_ratio"] = _ratio(after["spikes_per_neuron"], before["spikes_per_neuron"])
    found["operations_ratio"] = _ratio(after["operations"], before["operations"])
    found["bit_operations_ratio"] = _ratio(after["bit_operations"], before["bit_operations"])
    run.add_result("compress", found)
    shutil.rmtree(run.path / "phases", ignore_errors=True)  # their metrics are in those of the run
    return {**measured, "compress": found}


def _example(task: Trainable, config: Compression) -> Tensor | None:
    """Two training samples as the model reads them, if a method wants to see it run."""
    if not any(isinstance(method, Channels) for method in config.methods):
        return None
    if not isinstance(task, Task):
        raise ValueError("channels are taken out of networks that read samples; choose another method for a graph")
    x, _ = next(iter(task.source(task.validation, shuffle=False)(0)))
    return task.prepare(x[:2], torch.Generator().manual_seed(0))


def _ratio(after: float | None, before: float | None) -> float | None:
    return after / before if after is not None and before else None


def _bytes(model: nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in model.state_dict().values())


def _rows(report: CompressionReport, packed: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "layer": layer.name,
            "weights": layer.weights,
            "zeros": layer.zeros,
            "sparsity": f"{layer.sparsity:.6g}",
            "distinct": layer.distinct,
            "bits": layer.bits,
            "form": packed[layer.name].form,
            "bytes": packed[layer.name].bytes,
        }
        for layer in report.layers
    ]


def codes(model: nn.Module, report: CompressionReport) -> dict[str, Tensor]:
    """Beside plain weights: NAME.mask (bool), and of quantised ones NAME.codes (int8) into NAME.levels, NAME.scale.

    A quantised weight is scale * levels[codes] where its mask is on (or there is none), and 0 elsewhere, bit for bit.
    """
    found = {f"{name}.mask": mask.cpu() for name, mask in report.masks.items()}
    weights = model.state_dict()
    for name, table in report.tables.items():
        scale = report.scales[name].cpu()
        values = nearest(weights[name].cpu(), scale, table)
        found[f"{name}.codes"] = torch.searchsorted(table, values).to(torch.int8)
        found[f"{name}.levels"], found[f"{name}.scale"] = table, scale
    return {name: value.clone() for name, value in found.items()}  # safetensors refuses shared memory


def bits_in(run: RunFolder) -> dict[str, int]:
    """Bits of the weights that a run has quantised, by layer."""
    path = run.path / "compress.csv"
    rows = read_table(path) if path.is_file() else []
    return {row["layer"].removesuffix(".weight"): int(row["bits"]) for row in rows}


def counts(task: Trainable, model: nn.Module, samples: int | None, bits: Mapping[str, int]) -> Metrics:
    """Accuracy on all test samples; spikes per neuron and operations per sample on some.

    Operations are pairs of an input and a weight that are both not zero, counted on real inputs; of a layer whose
    weights have b `bits` each is b / 32 bit operations.
    """
    task = replace(task.traceable, model=model)
    split = task.test if samples is None or len(task.test) <= samples else task.tested(samples)
    arguments: dict[str, Any] = {"prepare": task.prepare, "apply": task.run}
    with task.at_work():
        whole = evaluate(model, task.source(task.test, shuffle=False)(0), task.config.train, **arguments)
        with tracing(model) as tracer:
            evaluate(model, task.source(split, shuffle=False)(0), task.config.train, **arguments)
    report = tracer.report()
    pairs = {product.name: (product.effective or 0.0) * product.executed for product in report.products}
    return {
        "accuracy": whole["accuracy"],
        "count": whole["count"],
        "counted": len(split),
        "spikes_per_neuron": activity(report).spikes_per_neuron,
        "operations": sum(pairs.values()),
        "bit_operations": sum(count * bits.get(name, FLOAT_BITS) / FLOAT_BITS for name, count in pairs.items()),
    }


@dataclass
class _Phases:
    """Trains as the run itself was trained, every phase in a run folder of its own: `phases/<number>-<name>`.

    A phase that is done already is read, one that was begun goes on: so a compression that was killed goes on.

    Attributes:
        lines: names of phases and lines of metrics so far.
    """

    task: Trainable
    run: RunFolder
    config: Compression
    on_epoch: Callable[[Metrics], None] | None
    on_step: Callable[[int, int], None] | None
    lines: list[tuple[str, Metrics]] = field(default_factory=list)
    number: int = 0

    def __call__(self, model: nn.Module, epochs: int, hooks: Hooks, name: str) -> None:
        """See `rheobase.lab.compress.Fit`."""
        self.number += 1
        task, folder = self.task, f"{self.number:02}-{name}"
        train = self.config.phase(task.config.train, epochs)
        begun = sorted((self.run.path / "phases" / folder).glob("*/config.json"))
        phase = RunFolder.open(begun[-1].parent) if begun else None
        if phase is None or not has_checkpoint(phase):
            phase = RunFolder.create(self.run.path / "phases", folder, {"phase": name, **asdict(train)})
        if "train" in phase.result():
            model.load_state_dict(load_checkpoint(phase).weights)
        else:
            fit(
                model,
                task.source(task.train, shuffle=True),
                task.source(task.validation, shuffle=False),
                train,
                phase,
                prepare=task.prepare,
                apply=task.run,
                before_epoch=partial(begin_epoch, model, epochs=epochs),
                on_epoch=None if self.on_epoch is None else partial(self._tell, name, epochs),
                on_step=self.on_step,
                hooks=hooks,
                resume=has_checkpoint(phase),
            )
        self.lines += [(name, line) for line in phase.metrics()]

    def _tell(self, name: str, epochs: int, line: Metrics) -> None:
        assert self.on_epoch is not None
        self.on_epoch({**line, "phase": name, "epochs": epochs})
