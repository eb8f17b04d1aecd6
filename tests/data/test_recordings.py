"""Frames of a data set of recordings; the recordings themselves are tested in test_events.py."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from rheobase.data import EventDataset, Events, Recordings


@dataclass(frozen=True)
class Drawn:
    """Recording k: 100 events drawn from seed k."""

    sensor: tuple[int, int]

    def __call__(self, k):
        random = np.random.default_rng(k)
        t = 1000 + np.sort(random.integers(0, 5000, 100))
        x, y = (random.integers(0, side, 100) for side in self.sensor)
        return Events.of(t, x, y, random.integers(0, 2, 100), self.sensor)


def drawn(sensor=(8, 6), window=None):
    read = Drawn(sensor)
    train, test = (Recordings(read, torch.arange(count) % 2, f"{part}{sensor}") for part, count in (("a", 5), ("b", 3)))
    return EventDataset("drawn", train, test, ("no", "yes"), sensor, "here", "none", "nobody", window)


def counted(events, T, start, window, factor):
    """Events per frame, polarity and pixel, the obvious way."""
    width, height = ((side - 1) // factor + 1 for side in events.sensor)
    frames = np.zeros((T, 2, height, width), np.int64)
    for t, x, y, p in events:
        k = (t - start) * T // window
        if 0 <= k < T or t == events.t[-1]:
            frames[min(k, T - 1), int(p), y // factor, x // factor] += 1
    return frames


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RHEOBASE_CACHE", str(tmp_path))


@pytest.mark.parametrize("size", [None, 8, 4])
def test_every_recording_spans_its_own_events(size):
    data = drawn()
    frames = data.frames(4, size=size)
    factor = 8 // (size or 8)
    assert (frames.T, frames.name, frames.classes, frames.sample_shape) == (
        4, "drawn", ("no", "yes"), (2, 6 // factor, 8 // factor)
    )  # fmt: skip
    for k in range(3):
        events = data.test[k]
        expected = counted(events, 4, events.t[0], events.duration, factor)
        assert (frames.test.x[k].numpy() == expected).all()
    assert frames.train.y.tolist() == [0, 1, 0, 1, 0]


def test_a_window_starts_at_time_zero():
    data = drawn(window=4000)
    frames = data.frames(4)
    for k in range(3):
        inside = data.test[k].between(0, 4000)
        assert (frames.test.x[k].numpy() == counted(inside, 4, 0, 4000, 1)).all()
    assert int(frames.test.x[:, 0].sum()) == 0


def test_frames_of_equal_counts():
    frames = drawn(window=4000).frames(4, by="count")
    assert frames.test.x.sum((2, 3, 4)).tolist() == [[25] * 4] * 3


def test_sound_has_channels():
    data = drawn((6, 1), window=6000)
    frames = data.frames(3, size=2)
    assert frames.sample_shape == (2,)
    for k in range(3):
        events = data.test[k]
        expected = np.zeros((3, 2))
        np.add.at(expected, (events.t // 2000, events.x // 3), 1)
        assert (frames.test.x[k].numpy() == expected).all()


def test_progress_is_told_and_sizes_are_checked():
    told = []
    drawn().frames(2, on_progress=lambda done, total: told.append((done, total)))
    assert (5, 5) in told
    assert (3, 3) in told
    with pytest.raises(ValueError, match="size is 9; expected 1 to 8, the width of the sensor of drawn"):
        drawn().frames(2, size=9)
    with pytest.raises(ValueError, match="is sound"):
        replace(drawn((6, 1))).frames(2, by="count")
