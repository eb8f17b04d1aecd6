"""One batch through encoder, model and loss, with every check on the way; and `evaluate`, which adds batches up."""

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rheobase.nn.memory import memory
from rheobase.nn.readout import read_out
from rheobase.train.config import TrainConfig
from rheobase.train.loss import loss
from rheobase.train.processes import Batch, Processes, are_labels, own_device

Prepare = Callable[[Any, torch.Generator], Tensor]
Apply = Callable[[nn.Module, Tensor], Tensor]
Metrics = dict[str, Any]
SOFT_TOLERANCE = 1e-3
TAME = "lower lr, set clip_norm, or train without autocast; checkpoints saved before this are sound"


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    config: TrainConfig,
    *,
    prepare: Prepare | None = None,
    apply: Apply | None = None,
    predictions: bool = False,
    together: bool = False,
) -> Metrics:
    """Mean loss and accuracy of `model` in evaluation mode, without gradients; training modes are put back afterwards.

    Args:
        model: maps [T, B, ...] to [T, B, K]; the predicted class has the largest readout.
        batches: pairs (x, y) as for `fit`; of soft labels the largest counts as the right class.
        config: gives loss, autocast, device and the seed; the encoder's generator is seeded from (seed, batch).
        prepare, apply: as for `fit`.
        predictions: also return "predictions", int64 [N].
        together: all processes of the process group call this with the same batches, and each runs its part of every
            batch; they get the same result. False measures everything in this process.

    Returns:
        "loss" and "accuracy" per sample, "count" of samples.

    Raises:
        ValueError: there are no batches; data, shapes or labels do not fit; a loss is NaN or Inf; predictions are to be
            made together.
    """
    if together and predictions:
        raise ValueError("evaluate: predictions are made by one process; leave `together` off")
    processes = Processes.current() if together else Processes()
    sums, predicted = measure(Forward(model, config, prepare, apply), batches, "evaluation", processes)
    result: Metrics = {"loss": sums.mean_loss, "accuracy": sums.accuracy, "count": sums.count}
    return result | {"predictions": predicted} if predictions else result


@dataclass(frozen=True)
class Outcome:
    """What the model read, labels, loss with its graph and as a number, predicted classes [B], how many are right."""

    x: Tensor
    y: Tensor
    loss: Tensor
    value: float
    predicted: Tensor
    correct: int


@dataclass
class Sums:
    """Sums over the batches seen so far."""

    loss: float = 0.0
    correct: int = 0
    count: int = 0

    def add(self, outcome: Outcome) -> None:
        """Count one more batch."""
        size = len(outcome.predicted)
        self.loss += outcome.value * size
        self.correct += outcome.correct
        self.count += size

    def join(self, other: "Sums") -> None:
        """Count what another has counted."""
        self.loss += other.loss
        self.correct += other.correct
        self.count += other.count

    def of_all(self, processes: Processes, device: torch.device) -> "Sums":
        """Those of all processes."""
        if processes.count == 1:
            return self
        loss, correct, count = processes.total([self.loss, float(self.correct), float(self.count)], device)
        return Sums(loss, int(correct), int(count))

    @property
    def mean_loss(self) -> float:
        """Loss per sample."""
        return self.loss / self.count

    @property
    def accuracy(self) -> float:
        """Fraction of samples that were predicted right."""
        return self.correct / self.count


class Forward:
    """One batch through encoder, model and loss, with every check on the way."""

    def __init__(
        self, model: nn.Module, config: TrainConfig, prepare: Prepare | None, apply: Apply | None = None
    ) -> None:
        self.device = _device(config.device)
        self.model = model.to(self.device)
        self.config = config
        self.prepare = prepare
        self.apply = apply or (lambda model, x: model(x))
        self.axis = 1 if prepare is None else 0  # of the samples in what the source gives
        self.generator = torch.Generator(self.device)
        options: dict[str, dict[str, Any]] = {
            "cross_entropy": {"label_smoothing": config.label_smoothing, "readout": config.readout},
            "mse": {"label_smoothing": config.label_smoothing, "readout": config.readout},
            "tet": {
                "lam": config.tet_lambda,
                "target": config.tet_target,
                "label_smoothing": config.label_smoothing,
            },
        }
        self.criterion = partial(loss(config.loss), **options[config.loss])

    def __call__(self, batch: Batch, where: str, *key: int | str) -> Outcome:
        """Run a batch; `where` names it in errors, and the encoder's generator is seeded from (seed, *key)."""
        x, y = self._input(batch, where, *key)
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.autocast == "bf16")
        with autocast, memory(self.config.memory):
            logits = self.apply(self.model, x)
        _check_output(logits, y, where)
        y = y.to(self.device)
        y = y.float() if y.is_floating_point() else y.long()
        logits = logits.float() if logits.dtype.itemsize < 4 else logits
        error = self.criterion(logits, y)
        value = error.item()
        if not math.isfinite(value):
            raise ValueError(f"the loss is {value} at {where}; {TAME}")
        predicted = read_out(logits.detach(), self.config.readout).argmax(1)
        labels = y.argmax(1) if y.is_floating_point() else y
        return Outcome(x, y, error, value, predicted, int((predicted == labels).sum()))

    def _input(self, batch: Batch, where: str, *key: int | str) -> tuple[Tensor, Tensor]:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise ValueError(f"the batch at {where} is a {type(batch).__name__}; give a pair (x, y)")
        x, y = batch
        if isinstance(x, Tensor):
            x = x.to(self.device, non_blocking=True)
            _check_finite(x, f"x at {where}")
        if self.prepare is not None:
            self.generator.manual_seed(seed_of(self.config.seed, *key))
            x = self.prepare(x, self.generator)
            if isinstance(x, Tensor):
                _check_finite(x, f"what `prepare` gave at {where}")
        if not isinstance(x, Tensor):
            raise ValueError(f"the input at {where} is a {type(x).__name__}; give `prepare` to make it a tensor")
        return x, y


def measure(forward: Forward, batches: Iterable[Batch], name: str, processes: Processes) -> tuple[Sums, Tensor]:
    """Sums over `batches` and the classes predicted here, in evaluation mode; every module's mode is put back."""
    sums, predicted = Sums(), []
    modes = [(module, module.training) for module in forward.model.modules()]
    forward.model.eval()
    try:
        with torch.no_grad():
            for index, batch in enumerate(batches):
                part = processes.part(batch, forward.axis)
                if part.share == 0:
                    continue
                key = ("evaluation", index, *processes.key)
                with processes.own_random(seed_of(forward.config.seed, *key, "modules")):
                    outcome = forward(part.batch, f"{name}, batch {index}", *key)
                sums.add(outcome)
                predicted.append(outcome.predicted.cpu())
    finally:
        for module, mode in modes:
            module.training = mode
    sums = sums.of_all(processes, forward.device)
    if not sums.count:
        raise ValueError(f"{name}: there are no batches; give at least one (x, y)")
    return sums, torch.cat(predicted or [torch.empty(0, dtype=torch.int64)])


def seed_of(*key: int | str) -> int:
    """A 32-bit seed that depends on every part of `key`."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, key)).encode()).digest()[:4], "little")


def _check_finite(x: Tensor, what: str) -> None:
    """Raise ValueError for NaN and Inf: a spiking layer turns them into silence, and the loss looks healthy."""
    if not (x.sum().isfinite() or x.isfinite().all()):  # a finite sum settles it in one pass
        raise ValueError(f"{what} holds NaN or Inf; clean the data")


def _check_output(logits: Any, y: Any, where: str) -> None:
    """Raise ValueError unless logits are floats [T, B, K] and y integers [B] in 0 .. K - 1 or probabilities [B, K]."""
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if not isinstance(logits, Tensor) or logits.ndim != 3 or not logits.is_floating_point():
        raise ValueError(f"the model's output at {where} is {shape}; per-step float logits [T, B, K] were expected")
    if not are_labels(y):
        got = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"the labels at {where} are {got}; integers [B] or floats [B, K] were expected")
    if len(y) != logits.shape[1] or len(y) == 0:
        raise ValueError(
            f"the model's output at {where} is {shape} for {len(y)} labels; "
            "[T, B, K] with one sample per label was expected: put time first"
        )
    if y.is_floating_point():
        _check_soft(y, logits.shape[2], where)
        return
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= logits.shape[2]:
        raise ValueError(
            f"the labels at {where} lie in {low} .. {high} but the model has {logits.shape[2]} outputs; "
            f"renumber the labels from 0 or give the model {high + 1} outputs"
        )


def _check_soft(y: Tensor, outputs: int, where: str) -> None:
    """Raise ValueError unless every row holds one probability for each output."""
    if y.shape[1] != outputs:
        raise ValueError(
            f"the soft labels at {where} are of {y.shape[1]} classes but the model has {outputs} outputs; "
            f"give the model {y.shape[1]} outputs"
        )
    total = y.float().sum(1)
    if not (bool((y >= 0).all()) and bool(((total - 1).abs() <= SOFT_TOLERANCE).all())):
        raise ValueError(
            f"the soft labels at {where} have a least value of {float(y.min()):g} and rows that sum to "
            f"{float(total.min()):g} .. {float(total.max()):g}; rows of probabilities, which sum to 1, were expected"
        )


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError('device is "cuda" but torch sees no CUDA device; use "cpu" or "auto"')
    return own_device(torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"))
