"""Recordings of event cameras made into frames, grids and surfaces, filtered and cached: Rheobase and tonic.

Real recordings if they lie under `$RHEOBASE_DATA` (`dvs_recordings/stripes.npz`, `dvs_gesture_clips`), else drawn ones
whose pixels are as uneven; the case says which. N counts events, T frames, and `million_per_s` events. Everything is on
one thread and in memory but for the cache.

What both make is compared before it is timed, and where the conventions differ Rheobase is asked for tonic's:

- frames by time: tonic's windows are `duration // T` ticks long and what is left at the end is dropped, so Rheobase
  gets that window; by count: tonic drops the remainder, so both get a multiple of T events. tonic counts in int16,
  which wraps; Rheobase in uint8, which stays at 255, and tonic's counts are cut there for the comparison.
- voxel grid: tonic scales times to T bins instead of T - 1, which makes it T + 1 bins without the last: Rheobase makes
  T + 1. It also overwrites the polarities that it is given, so it gets its own copy, with whole numbers.
- time surface: tonic takes a surface at the end of a window, that tick itself excluded: Rheobase is asked for the tick
  before, and the surfaces are compared after one tick of decay.
- denoise: tonic has 4 neighbours, wants less than the window, and lets everything pass before time `window`: Rheobase
  gets 4 neighbours and one tick less, both get times that begin later.
- refractory is not compared: tonic's dead time starts anew at events that it drops.

Cache: frames of the same recordings, "cache: build" into an empty folder, "cache: read" one epoch in batches of 4 from
the files; tonic's `DiskCachedDataset` as it comes (HDF5 with lzf), after a transform to uint8 for equal bytes.
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.agreement import Agreement, attempt
from benchmarks.measure import Contest, Effort, compare, nothing
from benchmarks.rows import REFUSED, Facts, Row, Show, over_first
from rheobase.data import (
    Events,
    Recordings,
    ToFrames,
    cached_frames,
    center_crop,
    data_root,
    denoise,
    downsample,
    frames_of,
    time_frames,
    to_frames,
    to_time_surface,
    to_voxel_grid,
)

OURS, PEER = "rheobase", "tonic"
T = 16
FRAME_US, FILTER_US, TAU_US = 10_000, 5_000, 50_000
BATCH = 4
CLOSE = 1e-5
"""Largest difference of float32 from float64, over the largest value."""


@dataclass(frozen=True)
class Task:
    """What both libraries make of recordings.

    Attributes:
        N: events handled.
        ours, theirs: make it; timed.
        forms: turn ours and theirs into arrays that must be equal; not timed.
        close: whether they need only be close.
        release: clears up after a call.
    """

    phase: str
    N: int
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    forms: tuple[Callable[[Any], Any], Callable[[Any], Any]]
    close: bool = False
    release: Callable[[], object] = nothing

    def check(self) -> Agreement:
        """Run both once and compare."""
        a, b = (np.asarray(form(make())) for form, make in zip(self.forms, (self.ours, self.theirs), strict=True))
        if a.shape != b.shape:
            return Agreement(False, f"shapes {list(a.shape)} and {list(b.shape)}")
        if self.close:
            worst = float(np.abs(a - b).max() / np.abs(b).max())
            return Agreement(worst <= CLOSE, f"differ by {worst:.0e} of the largest")
        other = int((a != b).sum())
        return Agreement(other == 0, f"{a.size} values equal" if other == 0 else f"{other} of {a.size} values differ")


def recordings(effort: Effort) -> dict[str, list[Events]]:
    """Case -> recordings; several are binned in one go."""
    folder = data_root()
    one, many = folder / "dvs_recordings" / "stripes.npz", folder / "dvs_gesture_clips" / "dvs_gesture_clips.npz"
    found = {"stripes": stored(one)} if one.exists() else {"drawn": [drawn(350_000, 0)]}
    if many.exists():
        found["gestures"] = stored(many)
    else:
        found["drawn gestures"] = [drawn(80_000, k) for k in range(10)]
    return {case: parts[:2] if effort.quick else parts for case, parts in found.items()}


def stored(path: Path) -> list[Events]:
    """The recordings of a file: columns x, y, p, and dt, the time since the event before."""
    with np.load(path) as file:
        columns = {name: file[name] for name in file.files}
    offsets = columns.get("offsets", [0, len(columns["dt"])])
    return [
        Events.of(np.cumsum(columns["dt"][a:b].astype(np.int64)), *(columns[name][a:b] for name in "xyp"), (128, 128))
        for a, b in pairwise(offsets)
    ]


def drawn(N: int, seed: int) -> Events:
    """Events on 128 x 128 in 1.2 s, dense in the middle."""
    random = np.random.default_rng(seed)
    x, y = random.normal(64, 25, (2, N)).clip(0, 127).astype(int)
    return Events.of(np.sort(random.integers(0, 1_200_000, N)), x, y, random.integers(2, size=N), (128, 128))


def theirs_of(events: Events, polarity: type = np.bool_) -> np.ndarray:
    """The recording as tonic has it."""
    array = np.empty(len(events), [("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", polarity)])
    for name in "xytp":
        array[name] = events.array[name]
    return array


def same(made: Any) -> Any:
    """For what needs no turning into another form."""
    return made


def capped(made: Any) -> np.ndarray:
    """Counts that stay at 255."""
    return np.minimum(made, 255)


def columns(made: Any) -> np.ndarray:
    """Events as rows of numbers: t, x, y, p."""
    array = made.array if isinstance(made, Events) else made
    return np.stack([array[name].astype(np.int64) for name in "txyp"])


def single(events: Events, tonic: Any) -> list[Task]:
    """What is made of one recording."""
    width, height = events.sensor
    size, array, N = (width, height, 2), theirs_of(events), len(events)
    frames, window = partial(tonic.transforms.ToFrame, size), events.duration // T
    whole, theirs_whole = events[: N // T * T], array[: N // T * T]
    voxels = partial(tonic.transforms.ToVoxelGrid(size, T), theirs_of(events, np.int8))
    ends = [int(events.t[0]) + (k + 1) * window - 1 for k in range(T)]
    later = Events.of(events.t + 2 * FILTER_US, events.x, events.y, events.p, events.sensor)
    return [
        Task(
            "frames by time",
            N,
            partial(to_frames, events, T, window=window * T),
            partial(frames(n_time_bins=T), array),
            (same, capped),
        ),
        Task(
            "frames by count",
            len(whole),
            partial(to_frames, whole, T, by="count"),
            partial(frames(n_event_bins=T), theirs_whole),
            (same, capped),
        ),
        Task(
            "frames of 10 ms",
            N,
            partial(time_frames, events, FRAME_US),
            partial(frames(time_window=FRAME_US, include_incomplete=True), array),
            (same, capped),
        ),
        Task(
            "voxel grid",
            N,
            partial(to_voxel_grid, events, T + 1),
            voxels,
            (lambda grid: grid[:-1], lambda grid: grid[:, 0]),
            close=True,
        ),
        Task(
            "time surface",
            N,
            partial(to_time_surface, events, TAU_US, at=ends),
            partial(tonic.transforms.ToTimesurface(size, dt=window, tau=TAU_US), array),
            (lambda surface: surface * np.exp(-1 / TAU_US), same),
            close=True,
        ),
        Task(
            "denoise",
            N,
            partial(denoise, later, FILTER_US - 1, 4),
            partial(tonic.transforms.Denoise(filter_time=FILTER_US), theirs_of(later)),
            (columns, columns),
        ),
        Task(
            "downsample",
            N,
            partial(downsample, events, 4),
            partial(tonic.transforms.Downsample(spatial_factor=0.25), array),
            (columns, columns),
        ),
        Task(
            "center crop",
            N,
            partial(center_crop, events, width // 2, height // 2),
            partial(tonic.transforms.CenterCrop(size, (width // 2, height // 2)), array),
            (columns, columns),
        ),
    ]


def several(parts: Sequence[Events], tonic: Any) -> list[Task]:
    """Frames of several recordings in one array."""
    arrays = [theirs_of(events) for events in parts]
    make = tonic.transforms.ToFrame((*parts[0].sensor, 2), n_event_bins=T)
    whole = [events[: len(events) // T * T] for events in parts]
    return [
        Task(
            "frames by count",
            sum(map(len, whole)),
            partial(frames_of, whole, T, by="count"),
            lambda: np.stack([make(array) for array in arrays]),
            (same, capped),
        )
    ]


class Theirs:
    """What tonic's caches read from: frames and labels by index."""

    def __init__(self, parts: Sequence[Events], tonic: Any) -> None:
        self.arrays = [theirs_of(events[: len(events) // T * T]) for events in parts]
        self.make = tonic.transforms.ToFrame((*parts[0].sensor, 2), n_event_bins=T)

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, k: int) -> tuple[np.ndarray, int]:
        return capped(self.make(self.arrays[k])).astype(np.uint8), 0


def caches(parts: Sequence[Events], tonic: Any, folder: Path) -> list[Task]:
    """Building caches, each time in an empty folder below `fresh`, and reading those below `kept`."""
    whole = [events[: len(events) // T * T] for events in parts]
    ours = Recordings(whole.__getitem__, torch.zeros(len(whole), dtype=torch.int64), f"benchmark {len(whole)} {T}")
    theirs = Theirs(parts, tonic)

    def build(name: str) -> Any:
        return cached_frames(ours, ToFrames(T, by="count"), folder=new_folder(folder / name))

    def build_theirs(name: str) -> Any:
        dataset = tonic.DiskCachedDataset(theirs, cache_path=str(new_folder(folder / name)))
        for k in range(len(dataset)):
            dataset[k]
        return dataset

    def read(split: Any) -> list[np.ndarray]:
        return [split.samples(slice(k, k + BATCH)).clone().numpy() for k in range(0, len(split), BATCH)]

    def read_theirs(dataset: Any) -> list[np.ndarray]:
        indices = range(len(dataset))
        return [np.stack([dataset[i][0] for i in indices[k : k + BATCH]]) for k in indices[::BATCH]]

    def all_of(reader: Callable[[Any], list[np.ndarray]]) -> Callable[[Any], np.ndarray]:
        return lambda made: np.concatenate(reader(made))

    N, epochs = sum(map(len, whole)), (np.concatenate, np.concatenate)
    return [
        Task(
            "cache: build",
            N,
            partial(build, "fresh"),
            partial(build_theirs, "fresh"),
            (all_of(read), all_of(read_theirs)),
            release=partial(shutil.rmtree, folder / "fresh", ignore_errors=True),
        ),
        Task("cache: read", N, partial(read, build("kept")), partial(read_theirs, build_theirs("kept")), epochs),
    ]


def new_folder(base: Path) -> Path:
    """An empty folder below another."""
    base.mkdir(exist_ok=True)
    return Path(tempfile.mkdtemp(dir=base))


def rows_of(case: str, task: Task, effort: Effort, where: Facts) -> list[Row]:
    """A task with both contestants, checked first."""
    agreement = attempt(task.check)
    task.release()
    contests = {OURS: Contest(task.ours, task.release), PEER: Contest(task.theirs, task.release)}
    times, note = compare(contests, effort) if agreement.holds else ({}, f"{REFUSED}: does not agree")
    return [row(case, task.phase, task.N, name, where, times, agreement.text, note) for name in (OURS, PEER)]


def row(
    case: str,
    phase: str,
    N: int,
    name: str,
    where: Facts,
    times: dict[str, float] | None = None,
    agreement: str = "",
    note: str = "",
) -> Row:
    """A row of one contestant."""
    found = times or {}
    return Row(
        benchmark="events",
        contestant=name,
        version=version("rheobase" if name == OURS else name),
        case=case,
        T=T,
        N=N,
        phase=phase,
        median_ms=found.get(name),
        million_per_s=N / found[name] / 1000 if name in found else None,
        ratio=over_first(found, name, OURS),
        agreement=agreement,
        facts=where,
        note=note,
    )


def run(effort: Effort, where: Facts, show: Show) -> list[Row]:
    """The whole comparison, recording by recording; then the caches."""
    import tonic

    rows: list[Row] = []

    def add(found: list[Row]) -> None:
        show(found)
        rows.extend(found)

    for case, parts in recordings(effort).items():
        for task in several(parts, tonic) if len(parts) > 1 else single(parts[0], tonic):
            add(rows_of(case, task, effort, where))
        if len(parts) == 1:
            continue
        with tempfile.TemporaryDirectory() as folder:
            for task in caches(parts, tonic, Path(folder)):
                add(rows_of(case, task, effort, where))
    return rows
