"""Data sets of recordings: events that are read when they are asked for, and their labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from rheobase.data.events import Events


@dataclass(frozen=True, eq=False, repr=False)
class Recordings:
    """N recordings with labels, read one at a time: `events = recordings[k]`, label `recordings.y[k]`.

    Args:
        read: `read(k)` gives recording k; called from several processes at once, so it must be picklable and must
            open its files itself.
        y: labels, int64 `[N]`.
        key: says what bytes the recordings are (names and sizes of files, or a digest): what is made of them is kept
            under it.

    Raises:
        ValueError: y is not int64 `[N]`.
    """

    read: Callable[[int], Events]
    y: Int64[Tensor, " N"]
    key: str

    def __post_init__(self) -> None:
        if self.y.dtype != torch.int64 or self.y.ndim != 1:
            raise ValueError(f"Recordings: y must be int64 [N], got {self.y.dtype} {list(self.y.shape)}")

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, k: int) -> Events:
        if not -len(self) <= k < len(self):
            raise IndexError(f"Recordings: there is no recording {k}; there are {len(self)}")
        return self.read(k % len(self))

    def __repr__(self) -> str:
        return f"Recordings({len(self)}, key={self.key!r})"


@dataclass(frozen=True, eq=False)
class EventDataset:
    """A named data set of recordings on one sensor: fixed `train` and `test` splits, class names, provenance.

    Raises:
        ValueError: a label names no class.
    """

    name: str
    train: Recordings
    test: Recordings
    classes: Sequence[str]
    sensor: tuple[int, int]
    source: str
    licence: str
    citation: str

    def __post_init__(self) -> None:
        for part, split in (("train", self.train), ("test", self.test)):
            wrong = split.y[(split.y < 0) | (split.y >= len(self.classes))]
            if len(wrong):
                raise ValueError(
                    f"EventDataset {self.name}: {part} has label {int(wrong[0])}, "
                    f"but the labels of {len(self.classes)} classes are 0 to {len(self.classes) - 1}"
                )
