"""The settings of one training: a frozen dataclass that says no to what cannot work."""

from dataclasses import dataclass
from typing import Literal

from rheobase.nn.readout import READOUTS


@dataclass(frozen=True)
class TrainConfig:
    """How `fit` trains.

    Args:
        epochs: passes over the training batches.
        optimizer: "sgd" (with `momentum`), "adamw" or "adam".
        lr: base learning rate; the schedule multiplies it at every step.
        momentum: of SGD; the others ignore it.
        weight_decay: L2 term of SGD and Adam, decoupled decay of AdamW.
        decay_vectors: also decay parameters with at most one axis longer than 1: biases, norm scales, neuron constants.
        schedule: "cosine", "constant" or "step".
        warmup_epochs: epochs of linear warm-up.
        warmup_lr: rate that the warm-up rises from.
        min_lr: rate that the "cosine" schedule falls to.
        cooldown_epochs: last epochs of the "cosine" schedule, all at `min_lr`.
        milestones: epochs at which the "step" schedule multiplies the rate by `gamma`.
        gamma: see `milestones`.
        loss: "cross_entropy" or "mse" (squared distance to the label), both of the readout, or "tet" (of every step).
        readout: what classes are read from, and the first two losses are of: the "mean", "sum", "last", "max" or
            "first" over time, see `rheobase.nn.read_out`.
        label_smoothing: share of every label that is spread over all classes, in any loss.
        tet_lambda: weight of the regression term of "tet".
        tet_target: value that term pulls the logits to.
        clip_norm: largest allowed 2-norm of all gradients together; None leaves them alone.
        autocast: "bf16" runs the model under torch.autocast; the loss stays in float32.
        memory: "full" keeps what backward needs; "bits" keeps the inputs of segments of the model's `Blocks`, spikes as
            bits, and computes the rest again: equal bits, less memory, more time.
        seed: of dropout, encoders and whatever else draws from the global generators.
        monitor: what makes a validation "best", and what `patience` watches.
        patience: stop after this many epochs without a better validation; 0 never stops early.
        checkpoint_every_epochs: save after every so many epochs, and after the last one. More than one is for epochs
            shorter than the disk needs; a kill loses the epochs since, and a copy of the best weights waits in memory.
        checkpoint_every_steps: also save `last` within an epoch; 0 saves after epochs only.
        device: "auto" (CUDA if there is one), "cpu" or "cuda".

    Raises:
        ValueError: a setting that is out of range, unknown, or without effect beside the others.
    """

    epochs: int = 10
    optimizer: Literal["sgd", "adamw", "adam"] = "adamw"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    decay_vectors: bool = False
    schedule: Literal["cosine", "constant", "step"] = "cosine"
    warmup_epochs: int = 0
    warmup_lr: float = 0.0
    min_lr: float = 0.0
    cooldown_epochs: int = 0
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    loss: Literal["cross_entropy", "mse", "tet"] = "cross_entropy"
    readout: Literal["mean", "sum", "last", "max", "first"] = "mean"
    label_smoothing: float = 0.0
    tet_lambda: float = 0.05
    tet_target: float = 1.0
    clip_norm: float | None = None
    autocast: Literal["bf16"] | None = None
    memory: Literal["full", "bits"] = "full"
    seed: int = 0
    monitor: Literal["accuracy", "loss"] = "accuracy"
    patience: int = 0
    checkpoint_every_epochs: int = 1
    checkpoint_every_steps: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))  # a list when the config was read from JSON
        choices: dict[str, tuple[str | None, ...]] = {
            "optimizer": ("sgd", "adamw", "adam"),
            "schedule": ("cosine", "constant", "step"),
            "loss": ("cross_entropy", "mse", "tet"),
            "readout": tuple(READOUTS),
            "autocast": ("bf16", None),
            "memory": ("full", "bits"),
            "monitor": ("accuracy", "loss"),
            "device": ("auto", "cpu", "cuda"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"TrainConfig: {name} is {getattr(self, name)!r}; choose one of {allowed}")
        ranges = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "lr": (0 < self.lr < float("inf"), "above 0 and finite"),
            "momentum": (0 <= self.momentum < 1, "in [0, 1)"),
            "weight_decay": (0 <= self.weight_decay < float("inf"), "0 or above, and finite"),
            "warmup_epochs": (0 <= self.warmup_epochs < self.epochs, "0 or above, and below epochs"),
            "warmup_lr": (
                self.warmup_lr == 0 or (0 < self.warmup_lr <= self.lr and self.warmup_epochs > 0),
                "0, or above, at most lr, and given with warmup_epochs",
            ),
            "min_lr": (
                self.min_lr == 0 or (0 < self.min_lr <= self.lr and self.schedule == "cosine"),
                '0, or above, at most lr, and given with schedule="cosine"',
            ),
            "cooldown_epochs": (
                self.cooldown_epochs == 0
                or (0 < self.cooldown_epochs <= self.epochs - self.warmup_epochs and self.min_lr > 0),
                "0, or above, with warmup_epochs at most epochs, and given with min_lr",
            ),
            "milestones": (
                (self.schedule == "step") == bool(self.milestones),
                'given with schedule="step" and only then',
            ),
            "gamma": (0 < self.gamma <= 1, "in (0, 1]"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "in [0, 1)"),
            "tet_lambda": (0 <= self.tet_lambda <= 1, "in [0, 1]"),
            "clip_norm": (self.clip_norm is None or self.clip_norm > 0, "above 0, or None"),
            "seed": (self.seed >= 0, "0 or above"),
            "patience": (self.patience >= 0, "0 or above"),
            "checkpoint_every_epochs": (
                self.checkpoint_every_epochs == 1
                or (self.checkpoint_every_epochs > 1 and self.checkpoint_every_steps == 0),
                "at least 1, and 1 where checkpoint_every_steps is given",
            ),
            "checkpoint_every_steps": (self.checkpoint_every_steps >= 0, "0 or above"),
        }
        for name, (fine, expected) in ranges.items():
            if not fine:
                raise ValueError(f"TrainConfig: {name} is {getattr(self, name)!r} but must be {expected}")
