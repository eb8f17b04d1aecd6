import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rheobase.data import Events, denoise, drop, drop_by_time, refractory, sample_generator

SEEDED = settings(derandomize=True, deadline=None)  # a first call may compile
WINDOWS = st.sampled_from([0, 1, 10, 50, 10**11])


def line(times, x):
    return Events.of(times, x, [0] * len(times), [1] * len(times), (max(x) + 1, 1))


@SEEDED
@given(st.data(), WINDOWS, st.sampled_from([4, 8]))
def test_events_with_a_recent_neighbour_stay(recordings, data, window, neighbours):
    events = data.draw(recordings())
    rows = events.array.tolist()

    def supports(earlier, later):
        dx, dy = abs(earlier[1] - later[1]), abs(earlier[2] - later[2])
        near = max(dx, dy) == 1 if neighbours == 8 else dx + dy == 1
        return near and later[0] - earlier[0] <= window

    keep = [any(supports(earlier, event) for earlier in rows[:i]) for i, event in enumerate(rows)]
    np.testing.assert_array_equal(denoise(events, window, neighbours).array, events.array[np.array(keep, bool)])


def test_lone_events_are_noise():
    assert denoise(line([0, 10, 20, 31, 31], [0, 1, 0, 1, 4]), 10).t.tolist() == [10, 20]
    lowest = np.iinfo(np.int64).min
    assert denoise(line([lowest + 5, lowest + 6], [0, 1]), 2**40).x.tolist() == [1]


@SEEDED
@given(st.data(), WINDOWS, st.booleans())
def test_pixels_rest_after_a_kept_event(recordings, data, window, by_polarity):
    events = data.draw(recordings())
    last, keep = {}, []
    for t, x, y, p in events.array.tolist():
        pixel = (x, y, p and by_polarity)
        keep.append(pixel not in last or t - last[pixel] >= window)
        if keep[-1]:
            last[pixel] = t
    np.testing.assert_array_equal(refractory(events, window, by_polarity).array, events.array[np.array(keep, bool)])


def test_rest_counts_from_what_was_kept():
    assert refractory(line([0, 6, 10, 12, 21], [0] * 5), 10).t.tolist() == [0, 10, 21]


def test_events_are_dropped_at_their_rate():
    events = line(range(10000), [0] * 10000)
    assert len(drop(events, 0.3, sample_generator(0))) == pytest.approx(7000, abs=150)
    assert len(drop(events, 0, sample_generator(0))) == 10000
    assert len(drop(events, 1, sample_generator(0))) == 0


def test_an_interval_is_dropped():
    events = line(range(100), [0] * 100)
    starts = set()
    for k in range(300):
        kept = drop_by_time(events, 0.9, sample_generator(0, 0, k)).t
        gone = np.setdiff1d(events.t, kept)
        assert len(gone) == 90
        assert gone[-1] - gone[0] == 89
        starts.add(int(gone[0]))
    assert starts == set(range(11))
    assert len(drop_by_time(events, 0, sample_generator(0))) == 100
    assert len(drop_by_time(events, 1, sample_generator(0))) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e, g: denoise(e, -1), "denoise: window is in ticks and must not be negative, got -1"),
        (lambda e, g: denoise(e, 1, 6), "neighbours is 6; expected 4"),
        (lambda e, g: refractory(e, -1), "refractory: window is in ticks and must not be negative, got -1"),
        (lambda e, g: drop(e, -0.1, g), r"drop: probability must lie in \[0, 1\], got -0.1"),
        (lambda e, g: drop_by_time(e, 2, g), r"drop_by_time: fraction must lie in \[0, 1\], got 2"),
    ],
)
def test_impossible_options_raise(untyped, call, message):
    with pytest.raises(ValueError, match=message):
        call(line([0], [0]), sample_generator(0))
