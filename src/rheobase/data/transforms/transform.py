"""Transforms as values: printed, compared, hashed, pickled and composed; each does what the function it names does.

The `repr` of a pipeline is the same in every process, so it serves as part of a key for what is kept on the disk.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from rheobase.data.events import Events

Pipeline = Callable[[Events, np.random.Generator | None], Any]
"""What a transform is to others: events, and a generator if it is random, to events or to an array."""


def sample_generator(seed: int, epoch: int = 0, sample: int = 0) -> np.random.Generator:
    """A generator for one sample of one epoch: Philox, seeded by these three alone.

    So what is drawn for a sample does not depend on the order, on batches or on the number of workers. NumPy keeps the
    bits of Philox for ever; a new NumPy version may draw other normal numbers from them.

    Raises:
        ValueError: one of them is negative.
    """
    if min(seed, epoch, sample) < 0:
        raise ValueError(
            f"sample_generator: seed, epoch and sample must not be negative, got {seed}, {epoch} and {sample}"
        )
    return np.random.Generator(np.random.Philox([seed, epoch, sample]))


def given(caller: str, generator: np.random.Generator | None) -> np.random.Generator:
    """The generator, which must be there.

    Raises:
        ValueError: it is None.
    """
    if generator is None:
        raise ValueError(
            f"{caller}: is random and got no generator; "
            "pass one: sample_generator(seed, epoch, sample) or np.random.Generator(np.random.Philox(seed))"
        )
    return generator


def happens(caller: str, probability: int | float, generator: np.random.Generator | None) -> bool:
    """Whether something of this probability happens; one number is drawn unless it is 1.

    Raises:
        ValueError: a probability outside [0, 1], or below 1 without a generator.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"{caller}: probability must lie in [0, 1], got {probability}")
    return probability == 1 or bool(given(caller, generator).random() < probability)


@dataclass(frozen=True)
class Transform:
    """A function of events with its options: `transform(events)` is `function(events, **options)`.

    The fields are the options, by name. A subclass with `random = True` hands the generator on as well.
    """

    function: ClassVar[Callable[..., Any]]
    random: ClassVar[bool] = False

    def __call__(self, events: Events, generator: np.random.Generator | None = None) -> Any:
        """Apply it: events for a transform of events, an array for one that makes frames, surfaces or spikes."""
        options = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.random:
            options["generator"] = generator
        return self.function(events, **options)


@dataclass(frozen=True)
class Compose:
    """Transforms one after the other: `Compose((a, b))(events, generator)` is `b(a(events, generator), generator)`.

    All draw from the one generator in turn, so its state alone fixes the result. Without steps it returns the events.

    Raises:
        ValueError: (of the call) a step that is not the last made something other than events.
    """

    steps: tuple[Pipeline, ...]

    def __call__(self, events: Events, generator: np.random.Generator | None = None) -> Any:
        """Apply all steps in turn."""
        made: Any = events
        for k, step in enumerate(self.steps):
            if not isinstance(made, Events):
                raise ValueError(
                    f"Compose: step {k}, {step!r}, takes events but step {k - 1}, {self.steps[k - 1]!r}, made "
                    f"{type(made).__name__}; only the last step may make something else"
                )
            made = step(made, generator)
        return made
