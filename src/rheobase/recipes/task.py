"""What a config of any kind builds: a model with its data, as training and measuring take them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import singledispatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rheobase.train import Batches, RunFolder, TrainConfig

KINDS: dict[str, Callable[[Mapping[str, Any]], Any]] = {}
"""What reads the config of each kind of task from JSON. A config.json that names no kind is one of "samples"."""


@dataclass(frozen=True, eq=False)
class Trainable:
    """A config, its model, and its data with a validation split.

    Attributes:
        config: what it was built from; has `train`, `threads` and `measured`.
        model: what is trained.
        dataset: has `name`, `classes` and `T`, the steps of its sequences or None.
        train, validation: what `source` takes.
    """

    config: Any
    model: nn.Module
    dataset: Any
    train: Any
    validation: Any

    counted = "test samples"
    """What the price of a network is one of."""

    @property
    def test(self) -> Any:
        """The test split, for `source`; `y` are its labels."""
        return self.dataset.test

    def tested(self, samples: int | None) -> Any:
        """The first test samples, all if `samples` is None."""
        return self.test if samples is None else self.test.select(torch.arange(min(samples, len(self.test))))

    def prepare(self, x: Any, generator: torch.Generator | None) -> Tensor:
        """What a batch of `source` becomes before the model runs on it."""
        raise NotImplementedError

    def source(self, split: Any, shuffle: bool) -> Batches:
        """Batches of a split."""
        raise NotImplementedError

    def run(self, model: nn.Module, x: Tensor) -> Tensor:
        """The model's output for what `prepare` gave."""
        y: Tensor = model(x)
        return y

    @property
    def traceable(self) -> "Trainable":
        """The same task with a model whose input is a tensor, whatever that costs."""
        return self

    @property
    def parameters(self) -> int:
        """How many numbers are learned."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Inside, torch uses as many CPU threads as the config says."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.config.threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@singledispatch
def build(config: Any, *, root: Path | None = None, download: bool = False) -> Any:  # noqa: ARG001
    """Load the data and make the model, seeded by the config.

    Raises:
        ValueError: unknown names, or options that the model or the data set does not take.
        FileNotFoundError: the data set is not on this machine and `download` is off.
    """
    raise ValueError(f"build: got a {type(config).__name__}; expected the config of a recipe")


def known_fields(kind: type, given: Mapping[str, Any]) -> None:
    """Raise ValueError if JSON has a field that a config does not know."""
    if unknown := given.keys() - {f.name for f in fields(kind)}:
        raise ValueError(f"config.json has a field {sorted(unknown)[0]!r} that {kind.__name__} does not know")


def training_of(given: Mapping[str, Any]) -> TrainConfig:
    """The settings of a training out of JSON.

    Raises:
        ValueError: a field that this version does not have, or a value out of range.
    """
    known_fields(TrainConfig, given)
    return TrainConfig(**{**given, "milestones": tuple(given.get("milestones", ()))})  # a list in JSON


def config_of(run: RunFolder) -> Any:
    """The config in a run folder.

    Raises:
        ValueError: a kind of task or a field that this version does not know.
    """
    values = {k: v for k, v in run.config().items() if k not in ("recipe", "compressed")}
    kind = values.pop("task", "samples")
    if kind not in KINDS:
        raise ValueError(f"config.json is of a task {kind!r}; this version knows {', '.join(KINDS)}")
    return KINDS[kind](values)


def recipe_of(run: RunFolder) -> str:
    """The name of the recipe that made a run."""
    return str(run.config().get("recipe", run.path.parent.name))
