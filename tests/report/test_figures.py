import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheobase.report import evenly_spaced
from rheobase.report.figures import (
    BLUE,
    ORANGE,
    confusion_pixels,
    confusion_shades,
    histogram,
    line_chart,
    png,
    raster_pixels,
    rounded_up,
    row_shares,
    sample_pixels,
)


@given(count=st.integers(0, 5000), limit=st.integers(2, 100))
def test_evenly_spaced_shows_the_ends_and_nothing_twice(count, limit):
    shown = evenly_spaced(count, limit)
    gaps = np.diff(shown)
    assert len(shown) == min(count, limit)
    assert count == 0 or (shown[0], shown[-1]) == (0, count - 1)
    assert len(gaps) == 0 or (gaps.min() >= 1 and gaps.max() - gaps.min() <= 1)


def test_png_keeps_every_pixel():
    from matplotlib.image import imread

    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 4)).astype(np.uint8)
    head, data = png(pixels).split(",")
    assert head == "data:image/png;base64"
    np.testing.assert_array_equal((255 * imread(io.BytesIO(base64.b64decode(data)))).round(), pixels)


def test_a_raster_runs_right_and_up():
    pixels = raster_pixels(np.array([[1, 0, 0], [0, 0, 0]]))
    assert pixels.shape == (3, 2, 4)
    assert tuple(pixels[2, 0]) == (*BLUE, 255)
    assert pixels[..., 3].sum() == 255


def test_graded_outputs_show_sign_and_size():
    small, negative, zero = raster_pixels(np.array([[0.5, -2.0, 0.0]]))[::-1, 0]
    assert tuple(small) == (*BLUE, 128)
    assert tuple(negative) == (*ORANGE, 255)
    assert zero[3] == 0


def test_a_raster_without_spikes_or_columns_is_drawn_empty():
    assert not raster_pixels(np.zeros((4, 3), bool))[..., 3].any()
    assert raster_pixels(np.zeros((4, 0))).shape == (0, 4, 4)


def test_grey_colour_and_event_images():
    ramp = np.array([[2.0, 4.0], [6.0, 6.0]])
    grey = sample_pixels(ramp)
    assert grey[..., 0].tolist() == [[0, 128], [255, 255]]
    np.testing.assert_array_equal(grey, sample_pixels(ramp[None]))
    colour = sample_pixels(np.stack([ramp, 0 * ramp, 0 * ramp]))
    assert tuple(colour[1, 1]) == (255, 0, 0, 255)
    events = sample_pixels(np.array([[[1, 0, 0]], [[0, 1, 0]]]))
    assert [tuple(pixel) for pixel in events[0]] == [(*BLUE, 255), (*ORANGE, 255), (*BLUE, 0)]


def test_an_image_of_one_value_is_black():
    assert sample_pixels(np.full((2, 2), 7, np.uint8))[..., :3].max() == 0


def test_confusion_shades_by_row_and_by_the_worst_confusion():
    counts = np.array([[8, 2, 0], [1, 19, 0], [0, 0, 0]])
    np.testing.assert_allclose(row_shares(counts), [[0.8, 0.2, 0], [0.05, 0.95, 0], [0, 0, 0]])
    np.testing.assert_allclose(confusion_shades(counts), [[0.8, 1, 0], [0.25, 0.95, 0], [0, 0, 0]])
    pixels = confusion_pixels(counts)
    assert tuple(pixels[0, 1]) == (*ORANGE, 255)
    assert tuple(pixels[1, 0]) == (*ORANGE, 128)
    assert tuple(pixels[1, 1, :3]) == BLUE


def test_a_perfect_confusion_has_no_orange():
    assert confusion_shades(np.diag([3, 4])).tolist() == [[1, 0], [0, 1]]


def test_a_chart_puts_points_where_its_ticks_say():
    chart = line_chart([("a", [0.0, 10.0], [0.0, 2.0]), ("empty", [], [])], "epoch", percent=False)
    assert [line.name for line in chart.lines] == ["a"]
    assert chart.lines[0].points == f"{chart.left},{chart.bottom} {chart.right},{chart.top}"
    assert chart.lines[0].end == (chart.right, chart.top)
    assert (chart.x_ticks[0].at, chart.x_ticks[0].label) == (chart.left, "0")
    assert (chart.y_ticks[-1].at, chart.y_ticks[-1].label) == (chart.top, "2")


@given(
    points=st.lists(st.tuples(st.integers(0, 10**6), st.floats(-1e6, 1e6)), min_size=1, max_size=20),
    from_zero=st.booleans(),
)
def test_every_point_and_tick_lies_inside_the_chart(points, from_zero):
    xs, ys = [float(x) for x, _ in points], [y for _, y in points]
    chart = line_chart([("a", xs, ys)], "step", percent=False, from_zero=from_zero)
    for point in chart.lines[0].points.split():
        x, y = map(float, point.split(","))
        assert chart.left <= x <= chart.right
        assert chart.top <= y <= chart.bottom
    assert all(chart.left <= tick.at <= chart.right for tick in chart.x_ticks)
    assert all(chart.top <= tick.at <= chart.bottom for tick in chart.y_ticks)
    assert len(chart.y_ticks) >= 2


def test_percent_ticks_stay_within_a_hundred():
    chart = line_chart([("a", [1.0, 2.0], [0.971, 1.0])], "epoch", percent=True)
    assert chart.y_ticks[-1].label == "100\u202f%"


def test_no_points_no_chart():
    assert line_chart([("a", [], [])], "epoch", percent=False) is None


def test_histogram_counts_everything_once():
    bars = histogram(np.array([0.0, 0.01, 0.02, 0.5, 1.0, 1.1]), upper=1.0, bins=10)
    assert bars.heights == (1.0, 0, 0, 0, 0, pytest.approx(1 / 3, abs=1e-4), 0, 0, 0, pytest.approx(2 / 3, abs=1e-4))
    assert bars.peak == 0.5
    assert histogram(np.zeros(0), upper=1.0).peak == 0


@pytest.mark.parametrize(
    ("value", "bound"), [(1.0, 1), (1.01, 2), (0.21, 0.5), (0.002, 0.002), (7.0, 10), (1 + 1e-7, 1)]
)
def test_rounded_up(value, bound):
    assert rounded_up(value) == pytest.approx(bound)
