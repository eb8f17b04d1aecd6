"""Data sets that carry the source, licence and citation their `About` states."""

from rheobase.data.dataset import Dataset, Split
from rheobase.data.recordings import EventDataset, Recordings
from rheobase.data.registry import About


def image_dataset(name: str, about: About, classes: tuple[str, ...], train: Split, test: Split) -> Dataset:
    """A `Dataset` with the mean and standard deviation of its own train split, measured now."""
    mean, std = train.statistics()
    return Dataset(
        name=name,
        train=train,
        test=test,
        classes=classes,
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        source=about.source,
        licence=about.licence,
        citation=about.citation,
    )


def sequence_dataset(name: str, about: About, classes: tuple[str, ...], train: Split, test: Split, T: int) -> Dataset:
    """A `Dataset` of sequences of T steps."""
    return Dataset(
        name=name,
        train=train,
        test=test,
        classes=classes,
        mean=(),
        std=(),
        source=about.source,
        licence=about.licence,
        citation=about.citation,
        T=T,
    )


def event_dataset(
    name: str,
    about: About,
    classes: tuple[str, ...],
    train: Recordings,
    test: Recordings,
    sensor: tuple[int, int],
    window: int | None = None,
) -> EventDataset:
    """An `EventDataset` of recordings on one sensor."""
    return EventDataset(
        name=name,
        train=train,
        test=test,
        classes=classes,
        sensor=sensor,
        window=window,
        source=about.source,
        licence=about.licence,
        citation=about.citation,
    )
