"""Three sign gestures as events that were emulated from video at 30 frames a second."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rheobase.data.event_files import files_key, kept_columns
from rheobase.data.events import Events
from rheobase.data.fetch import Source, check_md5, obtain
from rheobase.data.folds import check_fold, stratified_folds
from rheobase.data.provenance import event_dataset
from rheobase.data.recordings import EventDataset, Recordings
from rheobase.data.registry import About, register

FOLDS = 5
_CLASSES, _PER_CLASS = 3, 40
_SENSOR = (128, 128)
_US_PER_TICK = 100
_NAMES = ("x", "y", "p", "t_100us", "offsets", "label")
_SOURCE = Source(
    dataset="dvs_sign_v2e",
    files={"train.npz": "0bbbf3411d8234c3624c57a453132429"},
    folders=("dvs_sign_v2e",),
    instead={"train.npz": ("train_self",)},
    page="https://github.com/najie1314/DVS",
)
_ABOUT = About(
    title="3 sign gestures x 40, 128 x 128, 3 to 6 s; emulated from 30 Hz video, not recorded by an event camera",
    kind="events",
    source=_SOURCE.page,
    licence="none stated for the data; the paper is under CC BY 4.0",
    citation=(
        "X. Chen, L. Su, J. Zhao, K. Qiu, N. Jiang, G. Zhai. Sign language gesture recognition and classification "
        "based on event camera with spiking neural networks. Electronics 12(4), 786, 2023. "
        "doi:10.3390/electronics12040786"
    ),
    split=f"none official here: the source's 120 training samples in {FOLDS} folds drawn once, each tests 24 (8 of a "
    "class; classes have numbers for names) and trains on the 96 others",
    size="6.3 MB as columns, 0.1 GB as the source's folder train_self",
    layout=_SOURCE.layout,
    checksums=_SOURCE.files,
)


@register(about=_ABOUT, folds=FOLDS)
def dvs_sign_v2e(*, root: str | os.PathLike[str] | None = None, download: bool = False, fold: int = 0) -> EventDataset:
    """Return 96 + 24 recordings of 10 to 95 thousand events: fold `fold` is tested, the other four train.

    Looks in `<root>/dvs_sign_v2e` for the source's folder `train_self` (`<class>/<k>.csv`, a line `seconds,x,y,p` per
    event), or for `train.npz`: `x`, `y`, `p`, `t_100us` of all recordings one after the other, `offsets` and `label`.

    Raises:
        ValueError: no such fold, or a damaged file.
        FileNotFoundError: neither is there.
    """
    check_fold("dvs_sign_v2e", fold, FOLDS)
    (path,) = obtain(_SOURCE, root, download).values()
    read: _Tables | _Columns
    if path.is_dir():
        read = _Tables(path)
        labels = np.repeat(np.arange(_CLASSES), _PER_CLASS)
        if missing := [str(read.path(k)) for k in range(len(labels)) if not read.path(k).is_file()]:
            raise FileNotFoundError(
                f"dvs_sign_v2e: {path} lacks {len(missing)} of {len(labels)} files, {missing[0]} first; copy the whole "
                f"folder train_self of {_SOURCE.page}"
            )
        key = files_key(path, [str(read.path(k).relative_to(path)) for k in range(len(labels))])
    else:
        check_md5(path, _SOURCE.files["train.npz"])
        read = _Columns(path)
        labels = kept_columns(path, _NAMES)["label"].astype(np.int64)
        key = _SOURCE.files["train.npz"]
    y = torch.from_numpy(labels)
    tested = np.isin(np.arange(len(y)), stratified_folds(y, FOLDS)[fold])
    train, test = (
        Recordings(_Chosen(read, tuple(rows.tolist())), y[torch.from_numpy(rows)], f"{key} fold {fold} {part}")
        for part, rows in (("train", np.flatnonzero(~tested)), ("test", np.flatnonzero(tested)))
    )
    return event_dataset("dvs_sign_v2e", _ABOUT, tuple(map(str, range(_CLASSES))), train, test, _SENSOR)


@dataclass(frozen=True)
class _Chosen:
    """Reads recording `rows[k]`."""

    read: "_Tables | _Columns"
    rows: tuple[int, ...]

    def __call__(self, k: int) -> Events:
        return self.read(self.rows[k])


@dataclass(frozen=True)
class _Columns:
    """Reads recording k of the npz."""

    file: Path

    def __call__(self, k: int) -> Events:
        columns = kept_columns(self.file, _NAMES)
        part = slice(*columns["offsets"][k : k + 2])
        t, x, y, p = (columns[name][part] for name in ("t_100us", "x", "y", "p"))
        return Events.of(t.astype(np.int64) * _US_PER_TICK, x, y, p, _SENSOR)


@dataclass(frozen=True)
class _Tables:
    """Reads recording k of the source's folder: class after class, as they are numbered."""

    folder: Path

    def path(self, k: int) -> Path:
        return self.folder / str(k // _PER_CLASS) / f"{k % _PER_CLASS}.csv"

    def __call__(self, k: int) -> Events:
        from rheobase.data.formats import read_events

        events = read_events(self.path(k), sensor=_SENSOR, unit="s", format="csv", sort=True).in_unit("us")
        events.t[:] = np.rint(events.t / _US_PER_TICK) * _US_PER_TICK
        return events
