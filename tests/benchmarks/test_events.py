import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from benchmarks.events import BATCH, T, Task, caches, drawn, recordings, row, rows_of, run, several, stored, theirs_of
from benchmarks.measure import Effort

from benchmarks import events as benchmark
from benchmarks import measure as measuring

QUICK = Effort(quick=True, loaded=True)


class ToFrame:
    """Frames by count, plainly."""

    def __init__(self, size, n_event_bins):
        self.size, self.bins = size, n_event_bins

    def __call__(self, array):
        frames = np.zeros((self.bins, *self.size[::-1]), np.int16)
        for frame, part in zip(frames, np.split(array[: len(array) // self.bins * self.bins], self.bins), strict=True):
            np.add.at(frame, (part["p"].astype(int), part["y"], part["x"]), 1)
        return frames


class DiskCachedDataset:
    """Keeps in memory what was asked for."""

    def __init__(self, dataset, cache_path):
        self.dataset, self.kept = dataset, {}
        assert cache_path

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, k):
        return self.kept.setdefault(k, self.dataset[k])


@pytest.fixture
def tonic():
    return SimpleNamespace(transforms=SimpleNamespace(ToFrame=ToFrame), DiskCachedDataset=DiskCachedDataset)


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    short = measuring.alternate
    monkeypatch.setattr(measuring, "alternate", lambda contests, *_: short(contests, 0.0, 1, 1))
    monkeypatch.setattr(benchmark, "version", lambda name: "1")


@pytest.fixture
def parts():
    return [drawn(500 + k, k) for k in range(BATCH + 1)]


def test_recordings_are_drawn_where_there_are_none(monkeypatch, tmp_path):
    monkeypatch.setenv("RHEOBASE_DATA", str(tmp_path))
    found = recordings(QUICK)
    assert {case: len(parts) for case, parts in found.items()} == {"drawn": 1, "drawn gestures": 2}
    assert len(recordings(Effort())["drawn gestures"]) == 10


def test_stored_recordings_begin_where_the_one_before_ends(tmp_path):
    columns = {name: np.array([1, 2, 3], np.uint8) for name in "xyp"}
    np.savez(tmp_path / "x.npz", dt=np.array([5, 7, 9], np.uint16), offsets=np.array([0, 2, 3]), **columns)
    assert [events.t.tolist() for events in stored(tmp_path / "x.npz")] == [[5, 12], [9]]
    np.savez(tmp_path / "y.npz", dt=np.array([5, 7, 9], np.uint16), **columns)
    assert [events.t.tolist() for events in stored(tmp_path / "y.npz")] == [[5, 12, 21]]


def test_a_peer_that_counts_the_same_is_timed(parts, tonic, facts):
    (task,) = several(parts, tonic)
    ours, theirs = rows_of("a case", task, QUICK, facts)
    assert (ours.contestant, ours.ratio, ours.phase, ours.T) == ("rheobase", 1.0, "frames by count", T)
    assert theirs.ratio == pytest.approx(theirs.median_ms / ours.median_ms)
    assert theirs.million_per_s == pytest.approx(task.N / theirs.median_ms / 1000)
    assert theirs.agreement == f"{len(parts) * T * 2 * 128 * 128} values equal"


def test_a_peer_that_counts_otherwise_is_refused(parts, tonic, facts):
    (task,) = several(parts, tonic)
    wrong = replace(task, theirs=lambda: task.theirs() + 1)
    assert {r.note for r in rows_of("a case", wrong, QUICK, facts)} == {"refused: does not agree"}
    assert "values differ" in wrong.check().text
    assert not replace(task, theirs=lambda: task.theirs()[1:]).check().holds


def test_close_is_not_equal():
    task = Task("x", 1, lambda: np.ones(3), lambda: np.ones(3) + 1e-6, (np.asarray, np.asarray))
    assert not task.check().holds
    assert replace(task, close=True).check().holds
    assert not replace(task, close=True, theirs=lambda: np.ones(3) + 1e-3).check().holds


def test_caches_are_built_anew_and_read_whole(parts, tonic, facts, tmp_path):
    build, read = caches(parts, tonic, tmp_path)
    assert build.check().holds
    assert read.check().holds
    rows = rows_of("a case", build, QUICK, facts) + rows_of("a case", read, QUICK, facts)
    assert all(r.median_ms > 0 and not r.note.startswith("refused") for r in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_every_phase_has_a_row_of_each(parts, tonic, facts, monkeypatch):
    monkeypatch.setattr(benchmark, "recordings", lambda effort: {"some": parts[:2]})
    monkeypatch.setitem(sys.modules, "tonic", tonic)
    shown = []
    rows = run(QUICK, facts, shown.extend)
    assert shown == rows
    assert [(r.contestant, r.phase) for r in rows] == [
        (name, phase) for phase in ("frames by count", "cache: build", "cache: read") for name in ("rheobase", "tonic")
    ]


def test_tonic_is_given_its_own_layout(parts):
    array = theirs_of(parts[0])
    assert array.dtype.names == ("x", "y", "t", "p")
    assert array["p"].dtype == bool
    assert row("c", "p", 1, "tonic", SimpleNamespace()).median_ms is None
