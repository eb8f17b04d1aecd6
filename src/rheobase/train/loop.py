"""The training loop: `fit` trains a module on batch sources and keeps everything in a run folder.

Killing `fit` at any moment and resuming it gives the same bits as never having killed it, as far as the operations
themselves are deterministic. Three rules make that true: the global generators are seeded anew for every epoch from
(seed, epoch), so batch sources that draw from them repeat themselves; an encoder's generator is seeded from
(seed, epoch, batch); and a checkpoint holds all else that changes, down to the partial sums of the running epoch.

Several processes train one model together when there is a process group (see `join`). All draw the same batches, and
process r of n runs the samples r, r + n, r + 2n, ... of each. Gradients, loss and the statistics of `TdBN` are those of
the whole batch, so the result is that of one process up to rounding. Each process draws dropout and the like from
generators of its own, seeded from (seed, epoch, batch, process) at every step. Process 0 alone writes.
"""

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rheobase.nn.norm import TdBN, synchronise
from rheobase.train.checkpoint import (
    Checkpoint,
    Which,
    copy_weights,
    has_checkpoint,
    load_checkpoint,
    random_state,
    remove_leftovers,
    save_checkpoint,
    seed_random,
    set_random_state,
)
from rheobase.train.config import TrainConfig
from rheobase.train.hooks import Hooks, Step
from rheobase.train.measure import TAME, Apply, Forward, Metrics, Prepare, Sums, measure, seed_of
from rheobase.train.processes import Batch, Part, Processes
from rheobase.train.run import RunFolder
from rheobase.train.schedule import schedule


@runtime_checkable
class BatchSource(Protocol):
    """Batches (x, y) of an epoch: the same for the same epoch number, and as many as `len` says.

    The global generators are seeded from (seed, epoch) when an epoch begins, so a shuffling DataLoader qualifies.
    """

    def __call__(self, epoch: int) -> Iterable[Batch]:
        """The batches of `epoch`; validation sources are always asked for epoch 0."""

    def __len__(self) -> int:
        """Batches per epoch."""


@dataclass(frozen=True)
class Batches:
    """A BatchSource from a function of the epoch number and the number of batches it gives."""

    make: Callable[[int], Iterable[Batch]]
    count: int

    def __call__(self, epoch: int) -> Iterable[Batch]:
        """The batches of `epoch`."""
        return self.make(epoch)

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True)
class FitResult:
    """What came out of `fit`; result.json holds the same under "train".

    `best` and `last` are lines of metrics.jsonl: epoch (from 0), step (optimiser steps so far), lr, train_loss,
    train_accuracy, validation_loss, validation_accuracy, seconds. Accuracies are fractions.
    """

    epochs: int
    steps: int
    stopped_early: bool
    best: Metrics
    last: Metrics


def fit(
    model: nn.Module,
    train: BatchSource,
    validation: BatchSource,
    config: TrainConfig,
    run: RunFolder,
    *,
    prepare: Prepare | None = None,
    apply: Apply | None = None,
    before_epoch: Callable[[int], None] | None = None,
    on_epoch: Callable[[Metrics], None] | None = None,
    on_step: Callable[[int, int], None] | None = None,
    hooks: Hooks | None = None,
    resume: bool | Which = False,
) -> FitResult:
    """Train `model` in place and leave metrics, checkpoints and the result in `run`; the model keeps the last weights.

    In a process group every process calls this alike and gets the same result; callbacks are called in all of them.
    Weights start as those of process 0. A batch with fewer samples than processes is run by all and counted once.

    Args:
        model: maps [T, B, ...] to per-step outputs [T, B, K]. What it remembers must lie in its state_dict.
        train: training batches (x, y); labels y are integers [B] in 0 .. K - 1, or soft ones: float32 [B, K], rows of
            probabilities.
        validation: batches that choose `best` and drive `patience`.
        config: see TrainConfig.
        run: a new run folder, or one to resume in.
        prepare: prepare(x, generator) -> [T, B, ...], usually an encoder; x is what the source gave, moved to the
            device if it is a tensor, and the generator lives on the device. None feeds x to the model.
        apply: apply(model, x) -> [T, B, K], how the model is run on what `prepare` gave; None is model(x). The place
            for what the model reads besides, such as a graph of which x numbers nodes.
        before_epoch: called with the number of each epoch before its first batch, and again where one is resumed
            within: the place to set what follows a schedule, such as `rb.nn.sharpen(model, epoch, config.epochs)`.
        on_epoch: called with each line of metrics, after it and its checkpoint are on the disk if one is due.
        on_step: called with (steps done, steps in all) after each optimiser step.
        hooks: adds to the loss, and changes gradients and weights around every update, see `Hooks`.
        resume: True continues from `last`, "best" from `best`.

    Raises:
        ValueError: data, shapes or labels do not fit; a loss or gradient is NaN or Inf (names epoch and step; the last
            good checkpoint stays); the run to resume has no sound checkpoint or was made with other settings; the run
            to start holds a checkpoint already.
        ConnectionError: another process of the group stopped.
    """
    processes = Processes.current()
    with processes.watched():
        if resume is False and processes.first(lambda: has_checkpoint(run)):
            raise ValueError(f"fit: {run.path} holds a checkpoint already; pass resume=True or make a new run folder")
        _check_source("train", train)
        _check_source("validation", validation)
        hooks = hooks or Hooks()
        training = _Training(Forward(model, config, prepare, apply), train, validation, run, processes, hooks)
        if resume is False:
            training.start()
        else:
            training.resume("last" if resume is True else resume)
        try:
            hooks.begin(model, training.rates)
            while not training.finished:
                if before_epoch is not None:
                    before_epoch(training.progress.epoch)
                line = training.run_epoch(on_step)
                if on_epoch is not None:
                    on_epoch(line)
        finally:
            hooks.end()
        return training.finish()


@dataclass
class _Progress:
    """Where a training stands: `batch` batches of `epoch` are done and add up to `sums`. All of it is saved."""

    epoch: int = 0
    batch: int = 0
    sums: Sums = field(default_factory=Sums)
    seconds: float = 0.0
    best: float | None = None
    best_epoch: int = 0


class _Training:
    """A model, its optimiser, its progress and its run folder; the methods move them together."""

    def __init__(
        self,
        forward: Forward,
        train: BatchSource,
        validation: BatchSource,
        run: RunFolder,
        processes: Processes,
        hooks: Hooks,
    ) -> None:
        self.processes, self.hooks = processes, hooks
        config = forward.config
        self.forward, self.train, self.validation, self.config, self.run = forward, train, validation, config, run
        self.model = forward.model
        self.parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.optimizer = _optimizer(list(self.parameters.values()), config)
        self.per_epoch = len(train)
        self.total = config.epochs * self.per_epoch
        of_schedule: dict[str, dict[str, Any]] = {
            "step": {"milestones": [m * self.per_epoch for m in config.milestones], "gamma": config.gamma},
            "cosine": {"floor": config.min_lr / config.lr, "cooldown": config.cooldown_epochs * self.per_epoch},
            "constant": {},
        }
        self.factor = partial(
            schedule(config.schedule),
            total=self.total,
            warmup=config.warmup_epochs * self.per_epoch,
            start=config.warmup_lr / config.lr,
            **of_schedule[config.schedule],
        )
        self.progress = _Progress()
        self.waiting: tuple[dict[str, Any], dict[str, Any], int] | None = None  # the best, where it is not saved yet
        self.random: dict[str, Any] = {}  # the generators' states to go on from, after resuming within an epoch

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return self.progress.epoch * self.per_epoch + self.progress.batch

    @property
    def rates(self) -> list[float]:
        """The learning rate of every step."""
        return [self.config.lr * self.factor(step) for step in range(self.total)]

    @property
    def finished(self) -> bool:
        waited = self.progress.epoch - 1 - self.progress.best_epoch
        return self.progress.epoch == self.config.epochs or 0 < self.config.patience <= waited

    def start(self) -> None:
        """Try the first batch of each source, then save the untrained model: a kill may come before epoch 0 ends."""
        for name, source in (("training", self.train), ("validation", self.validation)):
            measure(self.forward, islice(source(0), 1), f"{name} data", self.processes)
        self._take_over()
        self.processes.first(lambda: self.run.keep_metrics(0))
        self._save(["last"])

    def resume(self, which: Which) -> None:
        """Go back to where a checkpoint was taken, and forget what the run wrote after it."""
        checkpoint = self.processes.first(lambda: load_checkpoint(self.run, which))
        self._check_settings(checkpoint.state["settings"])
        copy_weights(self.model, checkpoint.weights, f"{self.run.path} ({which})")
        self.optimizer.load_state_dict(checkpoint.state["optimizer"])
        saved = checkpoint.state["progress"]
        self.progress = _Progress(**{**saved, "sums": Sums(**saved["sums"])})
        self.random = checkpoint.state["random"]
        self.processes.first(partial(self._forget_later, which, checkpoint))

    def _forget_later(self, which: Which, checkpoint: Checkpoint) -> None:
        if which != "last":  # so that `last` never covers more lines of metrics than there are
            save_checkpoint(self.run, ["last"], checkpoint.weights, checkpoint.state, self.step)
        self.run.keep_metrics(self.progress.epoch)
        remove_leftovers(self.run)

    def _take_over(self) -> None:
        """Give the weights and buffers of process 0 to the others."""
        if self.processes.count == 1:
            return
        state = self.processes.first(
            lambda: {k: v.cpu() if isinstance(v, Tensor) else v for k, v in self.model.state_dict().items()}
        )
        if self.processes.rank:
            self.model.load_state_dict(state)

    def run_epoch(self, on_step: Callable[[int, int], None] | None) -> Metrics:
        """Train on the batches of the epoch that are left, validate, and save."""
        progress = self.progress
        began = time.perf_counter() - progress.seconds
        every = self.config.checkpoint_every_steps
        self.model.train()
        for batch in self._batches_left():
            self._train_on(batch)
            if on_step is not None:
                on_step(self.step, self.total)
            if every and self.step % every == 0:
                progress.seconds = time.perf_counter() - began
                self._save(["last"])
        self._take_over()  # buffers may differ: those of norms that are not synchronised
        where = f"validation after epoch {progress.epoch}"
        measured, _ = measure(self.forward, self.validation(0), where, self.processes)
        line: Metrics = {
            "epoch": progress.epoch,
            "step": self.step,
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": progress.sums.mean_loss,
            "train_accuracy": progress.sums.accuracy,
            "validation_loss": measured.mean_loss,
            "validation_accuracy": measured.accuracy,
            "seconds": time.perf_counter() - began,
        }
        better = self._count_epoch(measured)
        due = self.finished or progress.epoch % self.config.checkpoint_every_epochs == 0
        line = self.processes.first(partial(self._append, line, due))
        self._keep(better, due)
        return line

    def _append(self, line: Metrics, wait: bool) -> Metrics:
        self.run.append_metrics(line, wait=wait)
        return line

    def finish(self) -> FitResult:
        """Write the result, taken from the metrics on the disk."""
        return self.processes.first(self._write_result)

    def _write_result(self) -> FitResult:
        lines = self.run.metrics()
        result = FitResult(
            epochs=self.progress.epoch,
            steps=self.step,
            stopped_early=self.progress.epoch < self.config.epochs,
            best=lines[self.progress.best_epoch],
            last=lines[-1],
        )
        self.run.add_result("train", asdict(result))
        return result

    def _batches_left(self) -> Iterator[Batch]:
        """The batches of this epoch that are not done; those done are drawn from the source but not run."""
        epoch, done = self.progress.epoch, self.progress.batch
        seed_random(seed_of(self.config.seed, epoch))
        batches = iter(self.train(epoch))
        count = sum(1 for _ in islice(batches, done))
        if done:
            set_random_state(self.random)
        for batch in batches:
            count += 1
            if count <= self.per_epoch:
                yield batch
        if count != self.per_epoch:
            raise ValueError(
                f"the training source gave {count} batches in epoch {epoch} but its len is {self.per_epoch}; "
                "make it give as many in every epoch"
            )

    def _train_on(self, batch: Batch) -> None:
        progress, step = self.progress, self.step
        where = f"epoch {progress.epoch}, step {step}"
        lr = self.config.lr * self.factor(step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        progress.sums.join(self._run(self.processes.part(batch, self.forward.axis), where))
        self.processes.add_gradients(self.parameters.values())
        here = Step(step, self.total, self.per_epoch, lr)
        self.hooks.before_update(here)
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters.values() if p.grad is not None])
        if not norm.isfinite():
            bad = [n for n, p in self.parameters.items() if p.grad is not None and not p.grad.isfinite().all()]
            raise ValueError(f"the gradient of {bad[0] if bad else 'all parameters'} is NaN or Inf at {where}; {TAME}")
        if self.config.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters.values(), self.config.clip_norm, norm)
        self.optimizer.step()
        self.hooks.after_update(here)
        progress.batch += 1

    def _run(self, part: Part, where: str) -> Sums:
        """Forward and backward of this process's part of a batch; the sums of all parts."""
        key = (self.progress.epoch, self.progress.batch, *self.processes.key)
        sums = Sums()
        seed = seed_of(self.config.seed, *key, "modules")
        with self.processes.own_random(seed), self._norms_of(part):
            outcome = self.forward(part.batch, where, *key)
            penalty = self.hooks.penalty(outcome.x, outcome.y)
            whole = outcome.loss if penalty is None else outcome.loss + penalty
            torch.autograd.backward(whole if part.share == 1 else whole * part.share)
        if part.share:
            sums.add(outcome)
        return sums.of_all(self.processes, self.forward.device)

    def _norms_of(self, part: Part) -> AbstractContextManager[None]:
        """Inside, norms take their statistics over all processes, where each has a part of the batch."""
        return nullcontext() if self.processes.count == 1 else _together(self.model, not part.whole)

    def _count_epoch(self, measured: Sums) -> bool:
        """Count the epoch as done, and say whether it is the best so far."""
        progress, by_loss = self.progress, self.config.monitor == "loss"
        value = measured.mean_loss if by_loss else measured.accuracy
        better = progress.best is None or (value < progress.best if by_loss else value > progress.best)
        if better:
            progress.best, progress.best_epoch = value, progress.epoch
        progress.epoch, progress.batch, progress.sums, progress.seconds = progress.epoch + 1, 0, Sums(), 0.0
        return better

    def _keep(self, better: bool, due: bool) -> None:
        """Save, or, where that is not due, keep a copy of what is best.

        `best` first: a kill between the two leaves `last` behind it, and the epochs since are simply run again.
        """
        if not due:
            self.waiting = (
                copy.deepcopy((self.model.state_dict(), self._state(), self.step)) if better else self.waiting
            )
            return
        if not better and self.waiting is not None:
            self.processes.first(partial(save_checkpoint, self.run, ["best"], *self.waiting))
        self.waiting = None
        self._save(["best", "last"] if better else ["last"])

    def _save(self, names: Sequence[Which]) -> None:
        self.processes.first(partial(self._write_checkpoint, names))

    def _write_checkpoint(self, names: Sequence[Which]) -> None:
        save_checkpoint(self.run, names, self.model.state_dict(), self._state(), self.step)

    def _state(self) -> dict[str, Any]:
        """What a checkpoint holds beside the weights."""
        return {
            "progress": asdict(self.progress),
            "optimizer": self.optimizer.state_dict(),
            "random": random_state(),
            "settings": self._settings(),
        }

    def _settings(self) -> dict[str, Any]:
        """What must be the same when a run is resumed."""
        free = {"device", "checkpoint_every_epochs", "checkpoint_every_steps", "memory"}
        settings = {name: value for name, value in asdict(self.config).items() if name not in free}
        return settings | {"batches per epoch": self.per_epoch}

    def _check_settings(self, saved: dict[str, Any]) -> None:
        now = self._settings()
        defaults = asdict(TrainConfig())
        saved = {name: defaults.get(name) for name in now} | saved  # a field newer than the run had its default
        changed = [
            f"{n} was {saved.get(n)!r} and is {now.get(n)!r}" for n in sorted(saved | now) if saved.get(n) != now.get(n)
        ]
        if changed:
            raise ValueError(
                f"fit: {self.run.path} was made with other settings: {'; '.join(changed)}; "
                "resume with the settings in its config.json or make a new run folder"
            )


@contextmanager
def _together(model: nn.Module, on: bool) -> Iterator[None]:
    """Inside, norms take their statistics over all processes, if `on`, else of this one; then as before."""
    before = [(module, module.synchronised) for module in model.modules() if isinstance(module, TdBN)]
    synchronise(model, on)
    try:
        yield
    finally:
        for module, synchronised in before:
            module.synchronised = synchronised


def _check_source(name: str, source: Any) -> None:
    if not isinstance(source, BatchSource) or len(source) < 1:
        raise ValueError(
            f"fit: {name} is a {type(source).__name__}; give a BatchSource with at least one batch, "
            "such as Batches(lambda epoch: ..., count)"
        )


def _optimizer(parameters: list[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    if not parameters:
        raise ValueError("fit: the model has no parameter that requires a gradient; unfreeze one or use `evaluate`")
    decayed = [config.decay_vectors or sum(size > 1 for size in p.shape) > 1 for p in parameters]
    groups = [
        {"params": [p for p, yes in zip(parameters, decayed, strict=True) if yes], "weight_decay": config.weight_decay},
        {"params": [p for p, yes in zip(parameters, decayed, strict=True) if not yes], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer](groups, lr=config.lr)
