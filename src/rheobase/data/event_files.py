"""Recordings kept as one file each, or as columns in one npz: readers that open their files when asked."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rheobase.data.events import Events, Unit
from rheobase.data.recordings import Recordings

_DELTA = ("x", "y", "p", "dt", "offsets")


@dataclass(frozen=True)
class EventFiles:
    """Reads file k of a folder as events: `EventFiles(folder, names, sensor)(k)`.

    Events that a published file has out of order are put in the order of their times.
    """

    folder: Path
    names: tuple[str, ...]
    sensor: tuple[int, int]
    unit: Unit | None = None

    def __call__(self, k: int) -> Events:
        """Read recording k."""
        from rheobase.data.formats import read_events

        return read_events(self.folder / self.names[k], sensor=self.sensor, unit=self.unit, sort=True)


def file_recordings(
    folder: Path, names: Sequence[str], labels: Sequence[int], sensor: tuple[int, int], unit: Unit | None = None
) -> Recordings:
    """Recordings of files below a folder, their key made of the files' names and sizes."""
    names = tuple(names)
    read = EventFiles(folder, names, sensor, unit)
    return Recordings(read, torch.tensor(labels, dtype=torch.int64), files_key(folder, names))


def files_key(folder: Path, names: Sequence[str]) -> str:
    """The SHA-256 of the names and sizes of files, in their order."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\t{(folder / name).stat().st_size}\n".encode())
    return digest.hexdigest()


def class_files(folder: Path, classes: Sequence[str], suffixes: Sequence[str]) -> list[list[str]]:
    """By class, the sorted names `<class>/<file>` of its files with one of the suffixes.

    Raises:
        ValueError: the folder of a class is missing, or holds no such file.
    """
    found = []
    for label in classes:
        inside = folder / label
        names = sorted(f"{label}/{path.name}" for path in inside.glob("*") if path.suffix in suffixes)
        if not names:
            raise ValueError(
                f"{inside}: holds no {' or '.join(suffixes)} file, expected the recordings of class {label!r}; "
                "delete the folder and unpack it again"
            )
        found.append(names)
    return found


@dataclass(frozen=True)
class DeltaEvents:
    """Reads recording `index[k]` of an npz that holds all recordings one after the other.

    Format: `x`, `y`, `p` and `dt`, microseconds since the event before in the same recording, all `[N]`; `offsets`
    `[R+1]`: recording r is events offsets[r] to offsets[r+1] - 1, its times the cumulative sum of dt.
    """

    path: Path
    index: tuple[int, ...]
    sensor: tuple[int, int]

    def __call__(self, k: int) -> Events:
        """Read recording k."""
        columns = kept_columns(self.path, _DELTA)
        start, stop = columns["offsets"][self.index[k] : self.index[k] + 2]
        dt, x, y, p = (columns[name][start:stop] for name in ("dt", "x", "y", "p"))
        return Events.of(np.cumsum(dt, dtype=np.int64), x, y, p, self.sensor)


def delta_recordings(path: Path, index: Sequence[int], labels: Sequence[int], sensor: tuple[int, int]) -> Recordings:
    """Recordings `index` of an npz as `DeltaEvents` reads it.

    Raises:
        ValueError: the file is damaged, or its columns do not agree.
    """
    columns = kept_columns(path, _DELTA)
    offsets = columns["offsets"]
    lengths = {len(columns[name]) for name in ("x", "y", "p", "dt")}
    if len(lengths) != 1 or offsets[0] != 0 or (np.diff(offsets) < 0).any() or lengths != {int(offsets[-1])}:
        raise ValueError(
            f"{path}: columns of {sorted(lengths)} events, offsets from {offsets[0]} to {offsets[-1]}; expected four "
            "equal columns and offsets that rise from 0 to their length: download it again"
        )
    key = f"{files_key(path.parent, [path.name])}:{','.join(map(str, index))}"
    return Recordings(DeltaEvents(path, tuple(index), sensor), torch.tensor(labels, dtype=torch.int64), key)


def read_columns(path: Path, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The named arrays of an npz file, and those of the optional ones that it has.

    Raises:
        ValueError: it is damaged, or lacks one.
    """
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            if missing := sorted(set(names) - set(arrays.files)):
                raise ValueError(f"it lacks {', '.join(missing)}")
            return {name: arrays[name] for name in (*names, *optional) if name in arrays.files}
    except Exception as error:  # a damaged zip can raise almost anything
        raise ValueError(f"{path}: not an npz with {', '.join(names)} ({error}); download it again") from error


def kept_columns(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """`read_columns`, whose arrays stay in memory until the file changes: for readers of one recording at a time."""
    known = path.stat()
    return _kept(path, names, known.st_size, known.st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _kept(path: Path, names: tuple[str, ...], size: int, changed: int) -> dict[str, np.ndarray]:  # noqa: ARG001
    return read_columns(path, names)
