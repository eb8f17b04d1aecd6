"""Figures without a canvas: arrays to PNG data, numbers to the coordinates of an SVG that the page draws and colours.

The SVG text stays text, takes the colours of the page (light or dark) and has no ids that could clash.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BLUE, ORANGE = (47, 128, 196), (217, 106, 0)  # apart for every kind of colour vision, and legible on white and on black


def evenly_spaced(count: int, limit: int) -> np.ndarray:
    """Which of `count` things are shown when at most `limit` can be: int64 indices, growing from first to last."""
    shown = min(count, limit)
    return np.linspace(0, max(count - 1, 0), shown).round().astype(np.int64)


def png(pixels: np.ndarray) -> str:
    """`[H, W, 4]` uint8 red, green, blue, opacity as a `data:` address."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, np.ascontiguousarray(pixels), format="png", metadata={"Software": "Rheobase"})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def raster_pixels(raster: np.ndarray) -> np.ndarray:
    """`[T, m]` outputs to `[m, T, 4]` pixels: time runs right, neurons run up; blue is positive, orange negative."""
    values = raster.T[::-1].astype(np.float64)
    return _signed(values, np.abs(values).max(initial=0.0))


def sample_pixels(image: np.ndarray) -> np.ndarray:
    """`[H, W]` or `[C, H, W]` to `[H, W, 4]`, stretched from least to largest value; two channels are events."""
    channels = image.astype(np.float64).reshape(-1, *image.shape[-2:])
    if len(channels) == 2:
        difference = channels[0] - channels[1]
        return _signed(difference, np.abs(difference).max())
    low, high = channels.min(), channels.max()
    grey = (channels - low) / (high - low) if high > low else np.zeros_like(channels)
    colour = np.broadcast_to(np.moveaxis(grey, 0, -1), (*image.shape[-2:], 3))
    return np.dstack([(255 * colour).round(), np.full(image.shape[-2:], 255.0)]).astype(np.uint8)


def row_shares(counts: np.ndarray) -> np.ndarray:
    """`[K, K]` counts to shares of their row; a row without samples is 0."""
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def confusion_shades(counts: np.ndarray) -> np.ndarray:
    """Depth of each cell's colour in [0, 1]: share of the row on the diagonal, share / worst share elsewhere."""
    shares = row_shares(counts)
    errors = shares * ~np.eye(len(counts), dtype=bool)
    return np.where(errors > 0, errors / max(errors.max(), 1e-300), np.diag(np.diag(shares)))


def confusion_pixels(counts: np.ndarray) -> np.ndarray:
    """`[K, K]` counts to `[K, K, 4]` pixels: blue on the diagonal, orange elsewhere."""
    shades = confusion_shades(counts)
    return _signed(np.where(np.eye(len(counts), dtype=bool), shades, -shades), 1.0)


def _signed(values: np.ndarray, largest: float) -> np.ndarray:
    """Blue for positive, orange for negative values; opacity is the root of the size, so that small ones show."""
    colour = np.where((values < 0)[..., None], ORANGE, BLUE)
    opacity = 255 * np.sqrt(np.abs(values) / (largest or 1.0))
    return np.dstack([colour, opacity.round()]).astype(np.uint8)


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where, and what it says."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """A curve in the coordinates of its chart: `points` for `<polyline>`, and its last point."""

    name: str
    points: str
    end: tuple[float, float]


@dataclass(frozen=True)
class Chart:
    """The geometry of a line chart of `width` by `height`; y runs down, as in SVG."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    x_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]


def line_chart(
    series: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    x_label: str,
    *,
    percent: bool,
    from_zero: bool = False,
    whole: bool = True,
) -> Chart | None:
    """Curves (name, x, y) of finite numbers over x, marked at whole numbers if `whole`; None when there is no point."""
    series = [(name, xs, ys) for name, xs, ys in series if len(xs)]
    if not series:
        return None
    width, height, left, right, top, bottom = 440, 250, 52, 426, 10, 208
    x_low, x_high = _range([x for _, xs, _ in series for x in xs])
    y_low, y_high = _range([y for _, _, ys in series for y in ys])
    y_low = min(y_low, 0.0) if from_zero else y_low
    if percent:
        y_low, y_high = max(y_low, 0.0), min(y_high, 1.0)
    y_values = _ticks(y_low, y_high, 5, whole=False)
    x_values = [x for x in _ticks(x_low, x_high, 7, whole=whole) if x_low <= x <= x_high]
    y_low, y_high = y_values[0], y_values[-1]

    def across(x: float) -> float:
        return left + (x - x_low) / (x_high - x_low) * (right - left)

    def down(y: float) -> float:
        return bottom - (y - y_low) / (y_high - y_low) * (bottom - top)

    lines = []
    for name, xs, ys in series:
        points = [(round(across(x), 1), round(down(y), 1)) for x, y in zip(xs, ys, strict=True)]
        lines.append(Line(name, " ".join(f"{x:g},{y:g}" for x, y in points), points[-1]))
    return Chart(
        width=width,
        height=height,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        x_label=x_label,
        x_ticks=tuple(Tick(round(across(x), 1), _label(x)) for x in x_values),
        y_ticks=tuple(Tick(round(down(y), 1), f"{100 * y:.6g}\u202f%" if percent else _label(y)) for y in y_values),
        lines=tuple(lines),
    )


@dataclass(frozen=True)
class Bars:
    """A histogram: heights in [0, 1] relative to the tallest bar, which holds the share `peak` of all values."""

    heights: tuple[float, ...]
    peak: float


def histogram(values: np.ndarray, upper: float, bins: int = 25) -> Bars:
    """Shares of `values` in equal bins of [0, upper]; what lies beyond counts in the last."""
    counts, _ = np.histogram(np.clip(values, 0.0, upper), bins=bins, range=(0.0, upper))
    tallest = max(int(counts.max()), 1)
    return Bars(tuple(round(float(c), 4) for c in counts / tallest), float(counts.max()) / max(values.size, 1))


def rounded_up(value: float) -> float:
    """The least of 1, 2 or 5 times a power of ten that is not below `value` > 0."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-6)))


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.0 if high > low else 0.1 * abs(low) or 0.5
    return low - margin, high + margin


def _ticks(low: float, high: float, most: int, *, whole: bool) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    return [float(tick) for tick in MaxNLocator(most, steps=[1, 2, 5, 10], integer=whole).tick_values(low, high)]


def _label(value: float) -> str:
    return f"{int(value):,}" if value.is_integer() and abs(value) < 1e9 else f"{value:.6g}"
