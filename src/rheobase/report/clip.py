"""Events to look at: a moving clip, a raster of sound-like events, or a page that holds one of them and what it counts.

Plain arrays come in, files come out. ON is blue, OFF is orange, as everywhere in a report.
"""

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rheobase.report.figures import BLUE, ORANGE, Chart, line_chart
from rheobase.report.page import filled, write_whole

_LEGEND, _GAP, _COLUMNS = 16, 6, 5
"""Pixels: height of the line below a picture, space between the pictures of a sheet; pictures in a row of a sheet."""
_CLIP_PIXELS, _CLIP_STEPS, _RATE_BINS = 320, 30, 100
"""Width that a clip is enlarged to, windows of a clip, points of the rate curve, when nothing is said."""
_INK, _GROUND = (87, 99, 111), (255, 255, 255)


@dataclass(frozen=True, eq=False)
class EventView:
    """N events as plain columns, to be drawn.

    Args:
        t: seconds `[N]`, never falling.
        x: columns `[N]`, or channels.
        y: rows `[N]`.
        p: bool `[N]`, true for ON.
        sensor: width and height; one row means sound-like events, drawn as a raster.
        title: of the page.

    Raises:
        ValueError: columns of unequal length, an address outside the sensor.
    """

    t: np.ndarray
    x: np.ndarray
    y: np.ndarray
    p: np.ndarray
    sensor: tuple[int, int]
    title: str = "Events"

    def __post_init__(self) -> None:
        shapes = {self.t.shape, self.x.shape, self.y.shape, self.p.shape}
        if len(shapes) != 1 or self.t.ndim != 1:
            raise ValueError(
                f"EventView: expected t, x, y, p of equal shape [N], got {', '.join(map(str, sorted(shapes)))}"
            )
        width, height = self.sensor
        if len(self.t) and not (
            0 <= self.x.min() <= self.x.max() < width and 0 <= self.y.min() <= self.y.max() < height
        ):
            raise ValueError(
                f"EventView: addresses reach x={self.x.max()}, y={self.y.max()}; expected them on a sensor of "
                f"{width} x {height}"
            )

    @property
    def seconds(self) -> float:
        """From the first event to the last."""
        return float(self.t[-1] - self.t[0]) if len(self.t) else 0.0

    def frames(self, T: int) -> np.ndarray:
        """Counts `[T, 2, H, W]` in T equal windows from the first event to the last, OFF before ON."""
        width, height = self.sensor
        step = _window(self.t, T)
        place = ((step * 2 + self.p) * height + self.y.astype(np.int64)) * width + self.x
        return np.bincount(place, minlength=T * 2 * height * width).reshape(T, 2, height, width)


def save_clip(
    frames: np.ndarray, path: str | os.PathLike[str], *, fps: float = 10.0, seconds: float | None = None
) -> Path:
    """Draw frames `[T, 2, H, W]` of event counts, OFF before ON: a moving `.gif`, or a `.png` with all side by side.

    The more events, the deeper the colour. Below each frame stands its time if `seconds` says how long all of them
    last, else its number, over a bar.

    Args:
        frames: counts, T >= 1.
        path: ends in .gif or .png.
        fps: frames per second of the clip.
        seconds: that the T frames span.

    Raises:
        ValueError: frames of another shape, fps <= 0, another ending.
        FileNotFoundError: the folder of `path` does not exist.
    """
    path = Path(path)
    if frames.ndim != 4 or frames.shape[1] != 2 or 0 in frames.shape or not fps > 0:
        raise ValueError(f"save_clip: expected frames [T, 2, H, W] and fps > 0, got {list(frames.shape)} and fps={fps}")
    if path.suffix not in (".gif", ".png"):
        raise ValueError(f"save_clip: {path.name} ends in {path.suffix!r}; expected .gif or .png")
    pictures = _pictures(frames, seconds)
    return write_whole(path, _gif(pictures, fps) if path.suffix == ".gif" else _sheet(pictures))


def save_raster(
    t: np.ndarray,
    channel: np.ndarray,
    path: str | os.PathLike[str],
    *,
    p: np.ndarray | None = None,
    channels: int | None = None,
) -> Path:
    """Draw events of channels over time as a `.png`: time runs right, channels run up.

    Args:
        t: seconds `[N]`.
        channel: `[N]`.
        path: ends in .png.
        p: bool `[N]`, OFF events are orange; None: all are ON.
        channels: that there are; None: up to the greatest that fired.

    Raises:
        ValueError: columns of unequal length, another ending.
        FileNotFoundError: the folder of `path` does not exist.
    """
    path = Path(path)
    on = np.ones(len(t), bool) if p is None else p
    if not t.shape == channel.shape == on.shape or t.ndim != 1 or path.suffix != ".png":
        raise ValueError(
            f"save_raster: expected t, channel, p of equal shape [N] and a .png, got {list(t.shape)}, "
            f"{list(channel.shape)}, {list(on.shape)} and {path.name}"
        )
    return write_whole(path, _raster(t, channel, on, channels))


def save_events(view: EventView, path: str | os.PathLike[str], *, fps: float = 10.0, steps: int = _CLIP_STEPS) -> Path:
    """Draw events as what the ending of `path` says: `.gif`, `.png`, or an `.html` page that needs nothing else.

    A sensor of one row is drawn as a raster, which cannot be a .gif; others as a clip of `steps` windows. The page
    adds count, duration, rate, sensor, the rate over time and the shares of ON and OFF.

    Raises:
        ValueError: another ending, steps < 1, fps <= 0.
        FileNotFoundError: the folder of `path` does not exist.
    """
    path = Path(path)
    if path.suffix not in (".gif", ".png", ".html") or steps < 1 or not fps > 0:
        raise ValueError(
            "save_events: expected .gif, .png or .html, steps >= 1 and fps > 0, "
            f"got {path.name}, steps={steps}, fps={fps}"
        )
    moving = view.sensor[1] > 1
    if not moving and path.suffix == ".gif":
        raise ValueError(
            f"save_events: a sensor of one row is drawn as a raster; expected .png or .html, got {path.name}"
        )
    if path.suffix == ".html":
        return write_whole(path, _page(view, moving, fps, steps).encode())
    if moving:
        return save_clip(view.frames(steps), path, fps=fps, seconds=view.seconds)
    return save_raster(view.t, view.x, path, p=view.p, channels=view.sensor[0])


def _window(t: np.ndarray, T: int) -> np.ndarray:
    """Which of T equal windows from the first time to the last each time lies in."""
    if not len(t):
        return np.empty(0, np.int64)
    span = float(t[-1] - t[0]) or 1.0
    return np.minimum(((t - t[0]) / span * T).astype(np.int64), T - 1)


def _coloured(frames: np.ndarray) -> np.ndarray:
    """`[T, 2, H, W]` counts to `[T, H, W, 3]` pixels on white; a pixel with both polarities mixes their colours."""
    off, on = frames[:, 0].astype(np.float64), frames[:, 1].astype(np.float64)
    total = off + on
    depth = np.sqrt(total / (total.max() or 1.0))[..., None]
    mixed = (on[..., None] * BLUE + off[..., None] * ORANGE) / np.maximum(total, 1)[..., None]
    return ((1 - depth) * _GROUND + depth * mixed).round().astype(np.uint8)


def _pictures(frames: np.ndarray, seconds: float | None) -> list[Any]:
    """Enlarged pictures with a line below that tells the time."""
    from PIL import Image, ImageDraw

    T, _, height, width = frames.shape
    scale = max(1, round(_CLIP_PIXELS / max(width, height)))
    pictures = []
    for step, pixels in enumerate(_coloured(frames), 1):
        picture = Image.new("RGB", (width * scale, height * scale + _LEGEND), _GROUND)
        picture.paste(Image.fromarray(pixels).resize((width * scale, height * scale), Image.Resampling.NEAREST))
        draw = ImageDraw.Draw(picture)
        draw.line((0, height * scale, width * scale * step / T, height * scale), fill=_INK, width=2)
        told = f"{step} / {T}" if seconds is None else f"{1000 * seconds * step / T:.1f} ms"
        draw.text((2, height * scale + 3), told, fill=_INK)
        pictures.append(picture)
    return pictures


def _gif(pictures: Sequence[Any], fps: float) -> bytes:
    file = io.BytesIO()
    first, *others = pictures
    first.save(file, "GIF", save_all=True, append_images=others, duration=round(1000 / fps), loop=0, disposal=1)
    return file.getvalue()


def _sheet(pictures: Sequence[Any]) -> bytes:
    from PIL import Image

    columns = min(_COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    width, height = (size + _GAP for size in pictures[0].size)
    sheet = Image.new("RGB", (columns * width - _GAP, rows * height - _GAP), _GROUND)
    for k, picture in enumerate(pictures):
        sheet.paste(picture, (k % columns * width, k // columns * height))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _raster(t: np.ndarray, channel: np.ndarray, on: np.ndarray, channels: int | None) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for chosen, colour in ((on, BLUE), (~on, ORANGE)):
        axes.plot(t[chosen], channel[chosen], ",", color=tuple(part / 255 for part in colour), rasterized=True)
    axes.set(xlabel="time in s", ylabel="channel", ylim=(-0.5, (channels or int(channel.max(initial=0)) + 1) - 0.5))
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": "Rheobase"})
    return file.getvalue()


def _page(view: EventView, moving: bool, fps: float, steps: int) -> str:
    if moving:
        kind, image = "gif", _gif(_pictures(view.frames(steps), view.seconds), fps)
    else:
        kind, image = "png", _raster(view.t, view.x, view.p, view.sensor[0])
    count, (width, height) = len(view.t), view.sensor
    per_pixel = np.bincount(view.y.astype(np.int64) * width + view.x, minlength=width * height)
    on = int(view.p.sum())
    return filled(
        "events.html",
        title=view.title,
        moving=moving,
        steps=steps,
        image=f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}",
        count=count,
        seconds=view.seconds,
        rate=count / view.seconds if view.seconds else float("nan"),
        width=width,
        height=height,
        active=float((per_pixel > 0).mean()),
        per_pixel=count / (width * height),
        most=int(per_pixel.max()),
        chart=_rates(view),
        polarity=[
            (name, number, number / count if count else 0.0) for name, number in (("ON", on), ("OFF", count - on))
        ],
    )


def _rates(view: EventView) -> Chart | None:
    """Events per second of each polarity over time in milliseconds; microseconds where it is over in 10 ms."""
    if not view.seconds:
        return None
    unit, per_second = ("ms", 1e3) if view.seconds >= 0.01 else ("us", 1e6)
    step, wide = _window(view.t, _RATE_BINS), view.seconds / _RATE_BINS
    middles = ((np.arange(_RATE_BINS) + 0.5) * wide * per_second).tolist()
    series = [
        (name, middles, (np.bincount(step[chosen], minlength=_RATE_BINS) / wide).tolist())
        for name, chosen in (("ON", view.p), ("OFF", ~view.p))
        if chosen.any()
    ]
    return line_chart(series, unit, percent=False, from_zero=True)
