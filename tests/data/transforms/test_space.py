import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rheobase.data import (
    Events,
    center_crop,
    crop,
    cutout,
    downsample,
    drop_by_area,
    flip_polarity,
    flip_x,
    flip_y,
    jitter_space,
    random_crop,
    random_cutout,
    random_rotate,
    random_shift,
    refractory,
    rotate,
    sample_generator,
    shift,
    to_frames,
)

SEEDED = settings(derandomize=True, deadline=None)  # a first call may compile


def image(events):
    """Counts `[2, H, W]`."""
    return to_frames(events, 1, dtype="uint16")[0]


def full(width, height):
    """An event on every pixel, ON where x + y is even."""
    y, x = np.mgrid[:height, :width].reshape(2, -1)
    return Events.of(np.arange(x.size), x, y, (x + y) % 2 == 0, (width, height))


@SEEDED
@given(st.data())
def test_crops_cut_images(recordings, data):
    events = data.draw(recordings())
    W, H = events.sensor
    x, y = data.draw(st.integers(0, W - 1)), data.draw(st.integers(0, H - 1))
    width, height = data.draw(st.integers(1, W - x)), data.draw(st.integers(1, H - y))
    part = (slice(None), slice(y, y + height), slice(x, x + width))
    cut = crop(events, x, y, width, height)
    assert cut.sensor == (width, height)
    np.testing.assert_array_equal(image(cut), image(events)[part])
    hole = image(events)
    hole[part] = 0
    np.testing.assert_array_equal(image(cutout(events, x, y, width, height)), hole)
    middle = image(events)[:, (H - height) // 2 :, (W - width) // 2 :][:, :height, :width]
    np.testing.assert_array_equal(image(center_crop(events, width, height)), middle)


@SEEDED
@given(st.data(), st.integers(-8, 8), st.integers(-8, 8))
def test_flips_and_shifts_move_images(recordings, data, dx, dy):
    events = data.draw(recordings())
    W, H = events.sensor
    counts = image(events)
    np.testing.assert_array_equal(image(flip_x(events)), counts[:, :, ::-1])
    np.testing.assert_array_equal(image(flip_y(events)), counts[:, ::-1])
    np.testing.assert_array_equal(image(flip_polarity(events)), counts[::-1])
    np.testing.assert_array_equal(image(shift(events, dx, dy, wrap=True)), np.roll(counts, (dy, dx), (1, 2)))
    around = np.pad(counts, ((0, 0), (8, 8), (8, 8)))[:, 8 - dy : 8 - dy + H, 8 - dx : 8 - dx + W]
    np.testing.assert_array_equal(image(shift(events, dx, dy)), around)


@SEEDED
@given(st.data())
def test_quarter_turns_are_exact(recordings, data):
    events = data.draw(recordings())
    W, H = events.sensor
    square = Events(events.array, (max(W, H), max(W, H)))
    for k in range(-4, 5):
        np.testing.assert_array_equal(image(rotate(square, 90.0 * k)), np.rot90(image(square), k, (1, 2)))


def test_turned_events_leave_and_keep_their_times():
    events = full(9, 9)
    turned = rotate(events, 45.0)
    assert 49 < len(turned) < 81
    assert set(turned.t.tolist()) < set(events.t.tolist())
    assert image(turned)[:, 4, 4].tolist() == [0, 1]


@SEEDED
@given(st.data(), st.sampled_from([1, 2, 3, 1.5, 2.25, 7.0]), st.sampled_from([None, 0, 5]))
def test_coarser_pixels(recordings, data, factor, merge):
    events = data.draw(recordings())
    W, H = events.sensor
    coarse = downsample(events, (factor, 2), merge)
    assert coarse.sensor == (int((W - 1) // factor) + 1, (H + 1) // 2)
    expected = Events.of(events.t, events.x // factor, events.y // 2, events.p, coarse.sensor)
    if merge is not None:
        expected = refractory(expected, merge, by_polarity=True)
    np.testing.assert_array_equal(coarse.array, expected.array)
    if merge is None:
        np.testing.assert_array_equal(downsample(events, 2).array, downsample(events, (2, 2)).array)


def test_random_places_cover_the_sensor():
    events = full(4, 3)
    crops = {random_crop(events, 3, 2, sample_generator(0, 0, k)).t[0] for k in range(100)}
    assert crops == {0, 1, 4, 5}
    holes = {12 - len(random_cutout(events, 2, 2, sample_generator(0, 0, k))) for k in range(20)}
    assert holes == {4}
    areas = [drop_by_area(events, 0.5, sample_generator(0, 0, k)) for k in range(100)]
    assert {len(one) for one in areas} == {12 - 2 * 2}
    assert np.array_equal(sum(image(one) for one in areas) < 100, np.ones((2, 3, 4)) == 1)
    assert len(drop_by_area(events, 0, sample_generator(0))) == 12
    assert len(drop_by_area(events, 1, sample_generator(0))) == 0


def test_random_moves_keep_within_their_limits():
    one = Events.of([0], [10], [10], [1], (21, 21))
    moved = [random_shift(one, 2, sample_generator(0, 0, k)) for k in range(200)]
    assert {(int(m.x[0]), int(m.y[0])) for m in moved} == {(x, y) for x in range(8, 13) for y in range(8, 13)}
    corner = Events.of([0], [20], [10], [1], (21, 21))
    turned = [random_rotate(corner, 90.0, sample_generator(0, 0, k)) for k in range(200)]
    assert min(int(m.y[0]) for m in turned) < 1
    assert max(int(m.y[0]) for m in turned) > 19
    assert all(int(m.x[0]) >= 10 for m in turned)


def test_jitter_is_normal_and_drops_who_leaves():
    N = 20000
    events = Events.of(np.arange(N), [50] * N, [50] * N, [1] * N, (101, 101))
    moved = jitter_space(events, 3.0, sample_generator(0))
    assert len(moved) == N
    assert moved.x.std() == pytest.approx(np.sqrt(9 + 1 / 12), rel=0.03)
    assert moved.y.mean() == pytest.approx(50, abs=0.1)
    assert np.corrcoef(moved.x, moved.y)[0, 1] == pytest.approx(0, abs=0.03)
    corner = Events.of(np.arange(N), [0] * N, [0] * N, [1] * N, (101, 101))
    assert len(jitter_space(corner, 3.0, sample_generator(0))) == pytest.approx(N * 0.566**2, rel=0.05)
    assert np.array_equal(jitter_space(events, 0, sample_generator(0)).array, events.array)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e, g: crop(e, 2, 0, 3, 1), r"crop: the rectangle of 3 x 1 at \(2, 0\) must .* which is 4 x 3"),
        (lambda e, g: crop(e, 0, 0, 0, 1), "rectangle of 0 x 1"),
        (lambda e, g: center_crop(e, 5, 3), "rectangle of 5 x 3"),
        (lambda e, g: random_crop(e, 5, 3, g), "random_crop: the rectangle of 5 x 3"),
        (lambda e, g: cutout(e, -1, 0, 2, 2), r"cutout: the rectangle of 2 x 2 at \(-1, 0\)"),
        (lambda e, g: random_cutout(e, 2, 4, g), "random_cutout: the rectangle of 2 x 4"),
        (lambda e, g: drop_by_area(e, 1.5, g), r"fraction must lie in \[0, 1\], got 1.5"),
        (lambda e, g: random_shift(e, -1, g), "limit is a number of pixels and must not be negative, got -1"),
        (lambda e, g: rotate(e, np.nan), "degrees must be finite, got nan"),
        (lambda e, g: random_rotate(e, -1, g), "limit is an angle in degrees, finite and not negative, got -1"),
        (lambda e, g: jitter_space(e, -1.0, g), "std is a deviation in pixels, finite and not negative, got -1.0"),
        (lambda e, g: downsample(e, 0.5), "old pixels to a new one, finite and at least 1, got 0.5"),
        (lambda e, g: downsample(e, 2, merge=-1), "window is in ticks and must not be negative, got -1"),
    ],
)
def test_impossible_options_raise(call, message):
    with pytest.raises(ValueError, match=message):
        call(full(4, 3), sample_generator(0))
