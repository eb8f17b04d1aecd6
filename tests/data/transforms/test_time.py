import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rheobase.data import Events, downsample_time, flip_time, jitter_time, sample_generator, uniform_noise

SEEDED = settings(derandomize=True, deadline=None)  # a first call may compile


@SEEDED
@given(st.data(), st.sampled_from([1, 3, 10, 10**11]))
def test_a_coarser_clock_rounds_down(recordings, data, ticks):
    events = data.draw(recordings())
    coarse = downsample_time(events, ticks)
    assert coarse.t.tolist() == [t // ticks * ticks for t in events.t.tolist()]
    assert np.array_equal(coarse.x, events.x)
    merged = downsample_time(events, ticks, merge=True)
    assert merged.array.tolist() == list(dict.fromkeys(coarse.array.tolist()))


@SEEDED
@given(st.data(), st.booleans())
def test_backwards_twice_is_the_recording(recordings, data, polarity):
    events = data.draw(recordings())
    back = flip_time(events, polarity)
    if len(events):
        assert back.t.tolist() == [int(events.t[0]) + int(events.t[-1]) - t for t in events.t.tolist()[::-1]]
    assert np.array_equal(back.x, events.x[::-1])
    assert np.array_equal(back.p, ~events.p[::-1] if polarity else events.p[::-1])
    assert np.array_equal(flip_time(back, polarity).array, events.array)


def test_jitter_moves_events_and_sorts_them():
    N = 20000
    events = Events.of([1000] * N, np.arange(N), [0] * N, [1] * N, (N, 1))
    moved = jitter_time(events, 20.0, sample_generator(0))
    assert moved.t.std() == pytest.approx(20, rel=0.03)
    assert moved.t.mean() == pytest.approx(1000, abs=1)
    assert sorted(moved.x.tolist()) == list(range(N))
    assert (np.diff(moved.x.astype(int))[np.diff(moved.t) == 0] > 0).all()
    assert np.array_equal(jitter_time(events, 0, sample_generator(0)).array, events.array)


@pytest.mark.parametrize("polarities", [1, 2])
def test_noise_comes_at_its_rate(polarities):
    events = Events.of([0, 2 * 10**6], [0, 9], [0, 4], [0, 0], (10, 5))
    noisy = uniform_noise(events, 100, sample_generator(0), polarities)
    added = noisy[(noisy.t > 0) & (noisy.t < 2 * 10**6)]
    assert len(added) == pytest.approx(100 * 2 * 50, abs=300)
    assert added.p.mean() == pytest.approx(1.0 if polarities == 1 else 0.5, abs=0.02)
    counts = np.histogram2d(added.x, added.y, (10, 5))[0]
    assert counts.min() > 130
    assert np.histogram(added.t, 10)[0].min() > 850
    assert noisy.array.tolist()[0] == (0, 0, 0, False)


def test_no_time_no_noise():
    assert len(uniform_noise(Events.none((10, 5)), 1e9, sample_generator(0))) == 0
    one = Events.of([5], [0], [0], [1], (10, 5))
    assert uniform_noise(one, 1e9, sample_generator(0)).array.tolist() == one.array.tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e, g: downsample_time(e, 0), "ticks must be at least 1, got 0"),
        (lambda e, g: jitter_time(e, np.inf, g), "std_ticks is a deviation, finite and not negative, got inf"),
        (lambda e, g: uniform_noise(e, -1, g), "rate must be finite and not negative, got -1"),
        (lambda e, g: uniform_noise(e, 1, g, 3), "polarities is 3; expected 1 or 2"),
    ],
)
def test_impossible_options_raise(untyped, call, message):
    with pytest.raises(ValueError, match=message):
        call(Events.none((2, 2)), sample_generator(0))
