"""Data sets of recordings: events that are read when they are asked for, and their labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from rheobase.data.dataset import Dataset, check_labels
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

    `window` is the time that frames span, in ticks from time 0; None lets every recording's frames span its own events.

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
    window: int | None = None

    def __post_init__(self) -> None:
        check_labels(f"EventDataset {self.name}", self.train.y, self.test.y, len(self.classes))

    def frames(
        self,
        T: int,
        *,
        size: int | None = None,
        by: Literal["time", "count"] = "time",
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Dataset:
        """The set as sequences of counts: samples uint8 `[T, 2, H, W]` (OFF, ON), or `[T, C]` from a sensor of one row.

        They are made once and kept on the disk, see `rheobase.data.cached_frames`.

        Args:
            T: steps.
            size: pixels of a side that pixels are summed to, or channels of sound; None keeps all. The sensor's width
                over `size` is the factor for both sides.
            by: steps of equal time, or of equal numbers of events (not for sound).
            on_progress: called with recordings done and all, first of the training split.

        Raises:
            ValueError: T < 1, a size that is larger than the sensor or below 1, sound by count.
        """
        from rheobase.data.cache import cached_frames
        from rheobase.data.frames import ToFrames, ToSpikeTensor
        from rheobase.data.transforms import Compose, Downsample

        width, height = self.sensor
        if size is not None and not 1 <= size <= width:
            raise ValueError(f"frames: size is {size}; expected 1 to {width}, the width of the sensor of {self.name}")
        start = None if self.window is None else 0
        transform: Callable[[Events], np.ndarray]
        if height == 1:
            if by != "time":
                raise ValueError(f"frames: {self.name} is sound, which is cut by='time'; got {by!r}")
            transform = ToSpikeTensor(T, size, window=self.window, start=start)
        else:
            cut = ToFrames(T, by, self.window, start) if by == "time" else ToFrames(T, by)
            transform = cut if size in (None, width) else Compose((Downsample(width / size), cut))
        train, test = (cached_frames(split, transform, on_progress=on_progress) for split in (self.train, self.test))
        return Dataset(
            name=self.name,
            train=train,
            test=test,
            classes=tuple(self.classes),
            mean=(),
            std=(),
            source=self.source,
            licence=self.licence,
            citation=self.citation,
            T=T,
        )
