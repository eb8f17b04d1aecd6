import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rheobase.data import (
    Compose,
    Crop,
    Events,
    TimeFrames,
    ToFrames,
    ToSpikeTensor,
    ToTimeSurface,
    ToVoxelGrid,
    data_root,
    frames_of,
    time_frames,
    to_frames,
    to_spike_tensor,
    to_time_surface,
    to_voxel_grid,
)

SEEDED = settings(derandomize=True, deadline=None)  # a first call may compile
STEPS = st.integers(1, 9)


def plain_frames(events, T, frame):
    """Counts by `np.add.at`, frame(i) being the frame of event i or None."""
    width, height = events.sensor
    frames = np.zeros((T, 2, height, width), np.int64)
    for i, (_, x, y, p) in enumerate(events.array.tolist()):
        if (k := frame(i)) is not None:
            np.add.at(frames, (k, int(p), y, x), 1)
    return frames


def line(times, width=1, x=None, p=None):
    """Events at these times, all of one pixel unless told."""
    N = len(times)
    return Events.of(times, [0] * N if x is None else x, [0] * N, [1] * N if p is None else p, (width, 1))


@SEEDED
@given(st.data(), STEPS)
def test_frames_by_time_are_integer_arithmetic(recordings, data, T):
    events = data.draw(recordings())
    times = events.t.tolist()
    span = times[-1] - times[0] if times else 0
    expected = plain_frames(events, T, lambda i: min(T - 1, (times[i] - times[0]) * T // span) if span else 0)
    frames = to_frames(events, T)
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, expected)


@SEEDED
@given(st.data(), STEPS, st.integers(1, 200), st.integers(-60, 60))
def test_frames_of_a_window_are_integer_arithmetic(recordings, data, T, window, start):
    events = data.draw(recordings())
    times = events.t.tolist()

    def frame(i):
        k = (times[i] - start) * T // window
        return k if 0 <= k < T else None

    np.testing.assert_array_equal(to_frames(events, T, window=window, start=start), plain_frames(events, T, frame))


def test_edges_of_windows_are_exact():
    events = line([0, 3, 4, 6, 7, 9, 10])
    assert to_frames(events, 3, window=10).ravel().tolist()[1::2] == [2, 2, 2]  # [0, 10/3), [10/3, 20/3), [20/3, 10)
    assert to_frames(events, 2).ravel().tolist()[1::2] == [3, 4]
    assert to_frames(line([5, 5, 5]), 3).ravel().tolist()[1::2] == [3, 0, 0]
    assert to_frames(line([0, 1]), 5).ravel().tolist()[1::2] == [1, 0, 0, 0, 1]
    far = line([0, 10**15 - 1, 10**15, 3 * 10**15 - 1])
    assert to_frames(far, 3, window=3 * 10**15).ravel().tolist()[1::2] == [2, 1, 1]


def test_a_start_after_the_last_event_leaves_nothing():
    assert not to_frames(line([0, 3]), 2, start=4).any()
    assert to_frames(line([0, 3]), 2, start=3)[0].sum() == 1
    assert time_frames(line([0, 3]), 2, start=4).shape == (0, 2, 1, 1)


@SEEDED
@given(st.data(), STEPS)
def test_frames_by_count_share_the_events_evenly(recordings, data, T):
    events = data.draw(recordings())
    N = len(events)
    owner = {i: k for k in range(T) for i in range(k * N // T, (k + 1) * N // T)}
    frames = to_frames(events, T, by="count")
    np.testing.assert_array_equal(frames, plain_frames(events, T, owner.get))
    sizes = frames.reshape(T, -1).sum(1, dtype=int)
    assert sizes.max() - sizes.min() <= 1
    assert sizes.sum() == N


@SEEDED
@given(st.data(), st.integers(10, 50))
def test_time_frames_reach_the_last_event(recordings, data, width_ticks):
    events = data.draw(recordings())
    if events.duration > 1000:
        width_ticks *= 10**11
    times = events.t.tolist()
    T = (times[-1] - times[0]) // width_ticks + 1 if times else 0
    expected = plain_frames(events, T, lambda i: (times[i] - times[0]) // width_ticks)
    np.testing.assert_array_equal(time_frames(events, width_ticks), expected)


@pytest.mark.parametrize(("dtype", "most"), [("uint8", 255), ("uint16", 300), ("int32", 300), ("float32", 300)])
def test_counts_stop_at_the_largest_number(dtype, most):
    events = line(np.arange(600), p=np.arange(600) % 2)
    frames = to_frames(events, 1, dtype=dtype)
    assert frames.dtype == dtype
    assert frames.ravel().tolist() == [most, most]
    assert to_spike_tensor(events, 1, dtype=dtype).tolist() == [[255 if dtype == "uint8" else 600]]


def test_several_recordings_are_counted_as_each_alone():
    parts = [line([0, 2, 9]), line([]), line([4])]
    frames = frames_of(parts, 3, by="count")
    assert frames.shape == (3, 3, 2, 1, 1)
    for one, part in zip(frames, parts, strict=True):
        np.testing.assert_array_equal(one, to_frames(part, 3, by="count"))
    with pytest.raises(ValueError, match=r"recordings of one sensor, got \[\(1, 1\), \(2, 1\)\]"):
        frames_of([line([0]), line([0], width=2)], 3)
    with pytest.raises(ValueError, match="got none"):
        frames_of([], 3)


def test_views_and_read_only_recordings_are_counted():
    events = line(np.arange(10), width=10, x=np.arange(10))
    assert to_frames(events[::2], 1)[0, 1, 0].tolist() == [1, 0] * 5
    events.array.setflags(write=False)
    assert to_frames(events, 1)[0, 1, 0].tolist() == [1] * 10


@SEEDED
@given(st.data(), STEPS)
def test_voxel_grids_interpolate_in_time(recordings, data, bins):
    events = data.draw(recordings())
    width, height = events.sensor
    expected = np.zeros((bins, height, width))
    for t, x, y, p in events.array.tolist():
        position = (bins - 1) * (t - int(events.t[0])) / events.duration if events.duration else 0
        share = np.maximum(0, 1 - abs(np.arange(bins) - position))
        np.add.at(expected, (slice(None), y, x), (1 if p else -1) * share)
    grid = to_voxel_grid(events, bins)
    assert grid.dtype == np.float32
    np.testing.assert_allclose(grid, expected, atol=2e-5)


def test_the_last_event_lies_in_the_last_bin_however_long_the_recording():
    for k, span in enumerate(np.random.default_rng(0).integers(2**50, 2**62, 300).tolist()):
        grid = to_voxel_grid(line([0, span]), 3 + k).ravel()
        assert (grid[0], grid[-1], grid.sum()) == (1, 1, 2)


@SEEDED
@given(st.data(), STEPS, st.floats(1, 1e3))
def test_time_surfaces_decay_since_the_last_event(recordings, data, T, tau):
    events = data.draw(recordings())
    width, height = events.sensor
    first = int(events.t[0]) if len(events) else 0
    at = [first - (-k * events.duration // T) for k in range(1, T + 1)]
    expected = np.zeros((T, 2, height, width))
    for surface, time in zip(expected, at, strict=True):
        for t, x, y, p in events.array.tolist():
            if t <= time:
                surface[int(p), y, x] = np.exp(-(time - t) / tau)
    np.testing.assert_allclose(to_time_surface(events, tau, T=T), expected, atol=1e-6)
    np.testing.assert_array_equal(to_time_surface(events, tau, at=at), to_time_surface(events, tau, T=T))
    np.testing.assert_array_equal(to_time_surface(events, tau), to_time_surface(events, tau, T=1))


def test_a_surface_at_an_event_is_one_there():
    surfaces = to_time_surface(line([10, 20]), 10.0, at=[9, 10, 20, 30])
    np.testing.assert_allclose(surfaces[:, 1, 0, 0], [0, 1, 1, np.exp(-1)], rtol=1e-6)
    assert not surfaces[:, 0].any()


@SEEDED
@given(st.data(), STEPS, st.integers(1, 7), st.booleans())
def test_spikes_are_counted_per_channel(recordings, data, T, channels, binary):
    events = data.draw(recordings(rows=1))
    width = events.sensor[0]
    channels = min(channels, width)
    expected = np.zeros((T, channels), int)
    for t, x, _, _ in events.array.tolist():
        if -60 <= t < 40:
            expected[(t + 60) * T // 100, x * channels // width] += 1
    steps = to_spike_tensor(events, T, channels, window=100, start=-60, binary=binary)
    np.testing.assert_array_equal(steps, expected.clip(max=1) if binary else expected)
    assert to_spike_tensor(events, T).shape == (T, width)
    assert to_spike_tensor(events, T).sum() == len(events)


def test_channels_are_grouped_evenly():
    events = line(range(700), width=700, x=range(700))
    assert to_spike_tensor(events, 1, 140).tolist() == [[5] * 140]


VALUES = [
    (ToFrames(3, by="count"), lambda e: to_frames(e, 3, by="count")),
    (TimeFrames(5, dtype="float32"), lambda e: time_frames(e, 5, dtype="float32")),
    (ToVoxelGrid(4), lambda e: to_voxel_grid(e, 4)),
    (ToTimeSurface(2.5, T=2), lambda e: to_time_surface(e, 2.5, T=2)),
    (ToSpikeTensor(4, binary=True), lambda e: to_spike_tensor(e, 4, binary=True)),
]


@pytest.mark.parametrize(("value", "function"), VALUES)
def test_values_do_what_functions_do(value, function):
    events = line([0, 3, 4, 9], width=3, x=[0, 2, 2, 1])
    before = events.array.copy()
    again = pickle.loads(pickle.dumps(value))
    assert again == value
    assert hash(again) == hash(value)
    assert eval(repr(value)) == value
    np.testing.assert_array_equal(again(events), function(events))
    np.testing.assert_array_equal(events.array, before)


def test_frames_end_a_pipeline():
    events = line([0, 3, 4, 9], width=3, x=[0, 2, 2, 1])
    frames = Compose((Crop(1, 0, 2, 1), ToFrames(2)))(events)
    assert frames.tolist() == [[[[0, 0]], [[0, 2]]], [[[0, 0]], [[1, 0]]]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: to_frames(e, 0), "T must be at least 1, got 0"),
        (lambda e: to_frames(e, 2, by="size"), "by is 'size'; expected one of time, count"),
        (lambda e: to_frames(e, 2, window=0), "window must be at least 1 tick, got 0"),
        (lambda e: to_frames(e, 2, by="count", window=5), "by count the whole recording is cut, got window=5"),
        (lambda e: to_frames(e, 2, by="count", start=0), "got window=None and start=0"),
        (lambda e: to_frames(e, 2, dtype="int8"), "counts cannot be int8; expected one of uint8, uint16"),
        (lambda e: time_frames(e, 0), "width_ticks must be at least 1, got 0"),
        (lambda e: to_voxel_grid(e, 0), "bins must be at least 1, got 0"),
        (lambda e: to_time_surface(e, 0.0), "tau is a time constant in ticks, positive and finite, got 0.0"),
        (lambda e: to_time_surface(e, 1.0, at=[1], T=1), r"got at=\[1\] and T=1; expected one of them"),
        (lambda e: to_time_surface(e, 1.0, at=[2, 1]), r"times that never fall, got at=\[2, 1\]"),
        (lambda e: to_time_surface(e, 1.0, T=0), "T must be at least 1, got 0"),
        (lambda e: to_spike_tensor(e, 2, 4), r"channels must lie in \[1, 3\], the sensor's width, got 4"),
        (lambda e: to_spike_tensor(Events.none((2, 2)), 2), "a sensor of one row, got 2 x 2"),
    ],
)
def test_what_cannot_be_made_raises(untyped, call, message):
    with pytest.raises(ValueError, match=message):
        call(line([0, 1], width=3))


def test_frames_of_a_real_recording():
    path = data_root() / "dvs_recordings" / "stripes.npz"
    if not path.exists():
        pytest.skip(f"no recording at {path}")
    stored = np.load(path)
    t = np.cumsum(stored["dt"].astype(np.int64))
    events = Events.of(t, stored["x"], stored["y"], stored["p"], (128, 128))
    expected = np.zeros((16, 2, 128, 128), int)
    frame = np.minimum(15, (t - t[0]) * 16 // (t[-1] - t[0]))
    np.add.at(expected, (frame, stored["p"].astype(int), stored["y"], stored["x"]), 1)
    np.testing.assert_array_equal(to_frames(events, 16), expected.clip(max=255))
    np.testing.assert_array_equal(to_frames(events, 16, dtype="uint16"), expected)
