"""DVS128 Gesture: 11 gestures of 29 people under 5 lights, seen by an event camera.

As published: a recording per trial, `user<NN>_<light>.aedat` (AEDAT 3.1), with `..._labels.csv` saying which gesture
(1 to 11) lasts from which microsecond to which, and the lists `trials_to_train.txt` and `trials_to_test.txt`. As tonic
keeps it: a file per gesture, `user<NN>_<light>/<label>.npy`, rows of x, y, polarity and milliseconds.
"""

import functools
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rheobase.data.archives import unpack
from rheobase.data.event_files import files_key
from rheobase.data.events import Events
from rheobase.data.fetch import Source, check_md5, obtain
from rheobase.data.provenance import event_dataset
from rheobase.data.recordings import EventDataset, Recordings
from rheobase.data.registry import About, register

_SENSOR = (128, 128)
_CLASSES = (
    "hand clapping",
    "right hand wave",
    "left hand wave",
    "right arm clockwise",
    "right arm counter-clockwise",
    "left arm clockwise",
    "left arm counter-clockwise",
    "arm roll",
    "air drums",
    "air guitar",
    "other gestures",
)
_LABEL_COLUMNS = [b"class", b"startTime_usec", b"endTime_usec"]
_PARTS = ("Train", "Test")
_SOURCE = Source(
    dataset="dvs_gesture",
    files={"DvsGesture.tar.gz": "8a5c71fb11e24e5ca5b11866ca6c00a1"},
    folders=("dvs_gesture", "DVSGesture", "DVS128Gesture", "DVS128Gesture/extract"),
    instead={"DvsGesture.tar.gz": ("DvsGesture", "ibmGestureTrain")},
    page="https://research.ibm.com/interactive/dvsgesture/",
)
_ABOUT = About(
    title="DVS128 Gesture: 11 gestures of hands and arms seen by an event camera, 128 x 128",
    kind="events",
    source=_SOURCE.page,
    licence="CC BY 4.0",
    citation=(
        "A. Amir et al. A low power, fully event-based gesture recognition system. CVPR 2017, 7388-7397. "
        "doi:10.1109/CVPR.2017.781"
    ),
    split="official, by person: users 1 to 23 (98 trials) train, users 24 to 29 (24 trials) test",
    size="2.9 GB, by hand: the source asks for a browser",
    layout=_SOURCE.layout,
    checksums=_SOURCE.files,
)


@dataclass(frozen=True)
class Clips:
    """Reads clip k, the events of a trial from a microsecond up to another, of published recordings.

    A process keeps the trial it read last, so that clips of one trial, asked for in a row, cost one reading.
    """

    folder: Path
    clips: tuple[tuple[str, int, int], ...]

    def __call__(self, k: int) -> Events:
        """Read clip k."""
        name, start, stop = self.clips[k]
        return _trial(self.folder / name).between(start, stop)


@dataclass(frozen=True)
class MillisecondRows:
    """Reads file k, rows of x, y, polarity and milliseconds; times come out in microseconds."""

    folder: Path
    names: tuple[str, ...]

    def __call__(self, k: int) -> Events:
        """Read clip k."""
        from rheobase.data.formats.npz import read_array

        path = self.folder / self.names[k]
        rows = read_array(path)
        try:
            if rows.ndim != 2 or rows.shape[1] != 4 or rows.dtype.kind not in "iuf":
                raise ValueError(f"an array {list(rows.shape)} of {rows.dtype}")
            x, y, p, t = rows.T
            return Events.of(np.rint(t * 1000.0), x, y, p, _SENSOR, sort=True)
        except ValueError as error:
            raise ValueError(
                f"{path}: {error}; expected rows of x, y, polarity and milliseconds [N, 4]: download it again"
            ) from error


@functools.lru_cache(maxsize=1)
def _trial(path: Path) -> Events:
    from rheobase.data.formats import read_events

    return read_events(path, sensor=_SENSOR, unit="us", sort=True)


def read_gesture_labels(path: Path) -> list[tuple[int, int, int]]:
    """The gestures of a trial: (label from 0, first microsecond, microsecond after the last), in order.

    Format: a line `class,startTime_usec,endTime_usec`, then a line per gesture, classes counted from 1.

    Raises:
        ValueError: another head, a line that is not three whole numbers, no such class, or an end before its start;
            names the line and its byte offset.
    """
    from rheobase.data.formats.checks import damaged

    found, offset = [], 0
    lines = path.read_bytes().splitlines(keepends=True)
    if not lines or [name.strip() for name in lines[0].split(b",")] != _LABEL_COLUMNS:
        raise damaged(
            path, f"line 1 is {lines[0].strip() if lines else b''!r:.60}", 0, b",".join(_LABEL_COLUMNS).decode()
        )
    for number, line in enumerate(lines, start=1):
        cells = [cell.strip() for cell in line.split(b",")]
        if number > 1 and any(cells):
            whole = len(cells) == 3 and all(cell.isdigit() and len(cell) < 19 for cell in cells)
            gesture, start, stop = map(int, cells) if whole else (0, 0, 0)
            if not (1 <= gesture <= len(_CLASSES) and start <= stop):
                raise damaged(
                    path,
                    f"line {number} is {line.strip()!r:.60}",
                    offset,
                    f"three whole numbers: a class from 1 to {len(_CLASSES)}, start and end, start <= end",
                )
            found.append((gesture - 1, start, stop))
        offset += len(line)
    return found


@register(about=_ABOUT)
def dvs_gesture(*, root: str | os.PathLike[str] | None = None, download: bool = False) -> EventDataset:
    """Return DVS128 Gesture: clips of about 6 s on 128 x 128 pixels, 11 classes; users 1-23 train, 24-29 test.

    The archive has to be fetched by hand. Looks in `<root>/dvs_gesture`, `<root>/DVSGesture`, `<root>/DVS128Gesture`
    and `<root>/DVS128Gesture/extract` for the folder `DvsGesture` as published, for tonic's `ibmGestureTrain` with
    `ibmGestureTest` beside it, or for the archive, which is unpacked beside itself. Where the labels of a trial name
    a gesture more than once, each is a clip; tonic's files keep one.
    """
    (path,) = obtain(_SOURCE, root, download).values()
    if path.is_file():
        if path.name in _SOURCE.files:
            check_md5(path, _SOURCE.files[path.name])
        path = unpack(path, "DvsGesture")
    if path.name == "DvsGesture":
        train, test = (_published(path, f"trials_to_{part.lower()}.txt") for part in _PARTS)
    else:
        train, test = (_rows(path.with_name(f"ibmGesture{part}")) for part in _PARTS)
    return event_dataset("dvs_gesture", _ABOUT, _CLASSES, train, test, _SENSOR)


def _published(folder: Path, listed: str) -> Recordings:
    names = _present(folder / listed).read_text().split()
    clips: list[tuple[str, int, int]] = []
    labels: list[int] = []
    for name in names:
        if Path(name).name != name:
            raise ValueError(f"{folder / listed}: lists {name!r}, expected names of files beside it")
        _present(folder / name)
        for label, start, stop in read_gesture_labels(_present(folder / f"{Path(name).stem}_labels.csv")):
            clips.append((name, start, stop))
            labels.append(label)
    if not clips:
        raise ValueError(f"{folder / listed}: leads to no gesture, expected one trial a line; unpack the archive again")
    spans = hashlib.sha256(repr(clips).encode()).hexdigest()
    key = f"{files_key(folder, names)}:{spans}"
    return Recordings(Clips(folder, tuple(clips)), torch.tensor(labels, dtype=torch.int64), key)


def _rows(folder: Path) -> Recordings:
    paths = sorted(path.relative_to(folder) for path in _present(folder).glob("*/*.npy"))
    wrong = [path for path in paths if path.stem not in map(str, range(len(_CLASSES)))]
    if wrong or not paths:
        raise ValueError(
            f"{folder}: holds {len(paths)} files{f', among them {wrong[0]}' if wrong else ''}; "
            "expected <user>_<light>/<0 to 10>.npy: unpack the archive again"
        )
    names = tuple(path.as_posix() for path in paths)
    labels = torch.tensor([int(path.stem) for path in paths], dtype=torch.int64)
    return Recordings(MillisecondRows(folder, names), labels, files_key(folder, names))


def _present(path: Path) -> Path:
    if not path.exists():
        raise ValueError(f"{path}: is missing; unpack the archive again")
    return path
