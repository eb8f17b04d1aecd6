"""The page: a `RunReport` through the template `page.html`."""

import math
import os
from collections.abc import Iterator, Mapping
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np

from rheobase.files import write_atomic
from rheobase.report.content import CURVES, SATURATED_RATE, LayerActivity, RunReport
from rheobase.report.figures import (
    Chart,
    confusion_pixels,
    confusion_shades,
    evenly_spaced,
    histogram,
    line_chart,
    png,
    raster_pixels,
    rounded_up,
    row_shares,
    sample_pixels,
)
from rheobase.report.section import Curves, Grid, Part

RASTERS, RASTER_NEURONS, HISTOGRAMS, POINTS, TABLE_CLASSES, MISTAKES, BARS = 12, 64, 24, 400, 20, 8, 40
"""The most that is drawn: rasters, their neurons, histograms, points of a curve, classes in a table, mistakes, bars of
a stack."""


CURVE_KINDS = {"train": "faint", "validation": "strong"}


def render(report: RunReport) -> str:
    """The whole page as one HTML document: style and figures inside, no script, nothing fetched."""
    return filled(
        "page.html",
        report=report,
        curves=_curves(report),
        confusion=_confusion(report),
        sample=_sample(report),
        activity=_activity(report),
        sections=[(section, [_part(part) for part in section.parts]) for section in report.sections],
        config=list(_flat(report.config)),
        environment=list(_flat(report.environment)),
        saturated_rate=SATURATED_RATE,
    )


def write(report: RunReport, path: str | os.PathLike[str]) -> Path:
    """Write the page to `path`, whole or not at all: a reader never sees half of it.

    Raises:
        FileNotFoundError: the folder of `path` does not exist.
    """
    return write_whole(path, render(report).encode("utf-8", errors="replace"))


def filled(template: str, **values: Any) -> str:
    """A template of this room, filled in."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(lambda name: resources.files("rheobase.report").joinpath(name).read_text("utf-8")),
    )
    environment.filters |= {
        "percent": _percent,
        "count": _count,
        "number": _number,
        "cell": _cell,
        "rate": _rate,
        "duration": _duration,
    }
    return environment.get_template(template).render(values)


def write_whole(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write a file, whole or not at all.

    Raises:
        FileNotFoundError: the folder of `path` does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"report.write: no folder {path.parent} for {path.name}; make it first")
    write_atomic(path, data)
    return path


def _curves(report: RunReport) -> dict[str, Any]:
    axis, positions = _axis(report)
    charts, legends, told, skipped = {}, {}, {}, 0
    for quantity, write_value, best_of in (("loss", _number, min), ("accuracy", _percent, max)):
        series, legend = [], []
        for part in CURVE_KINDS:
            measured = [(x, line.get(f"{part}_{quantity}")) for x, line in zip(positions, report.history, strict=True)]
            present = [(x, float(cast(float, y))) for x, y in measured if y is not None]
            points = [(x, y) for x, y in present if math.isfinite(y)]
            skipped += len(present) - len(points)
            if points:
                at, best = best_of(points, key=lambda point: point[1])
                last = write_value(points[-1][1])
                legend.append({"name": part, "last": last, "best": write_value(best), "at": _number(at)})
                drawn = [points[i] for i in evenly_spaced(len(points), POINTS)]
                series.append((part, [x for x, _ in drawn], [y for _, y in drawn]))
        charts[quantity] = line_chart(series, axis, percent=quantity == "accuracy")
        legends[quantity] = legend
        told[quantity] = " ".join(
            f"{e['name']}: last {e['last']}, best {e['best']} at {axis} {e['at']}." for e in legend
        )
    shown = evenly_spaced(len(report.history), POINTS)
    return {
        "axis": axis,
        "charts": charts,
        "legends": legends,
        "told": told,
        "kinds": CURVE_KINDS,
        "skipped": skipped,
        "keys": CURVES,
        "rows": [(positions[i], [report.history[i].get(key) for key in CURVES]) for i in shown],
    }


def _axis(report: RunReport) -> tuple[str, list[float]]:
    """What the curves run along: the first of epoch and step that always grows, else the number of the line."""
    for key in ("epoch", "step"):
        values = [cast("float | None", line.get(key)) for line in report.history]
        known = [float(value) for value in values if value is not None and math.isfinite(value)]
        if known and len(known) == len(values) and all(a < b for a, b in pairwise(known)):
            return key, known
    return "line", [float(number) for number in range(1, len(report.history) + 1)]


def _confusion(report: RunReport) -> dict[str, Any] | None:
    if report.confusion is None:
        return None
    counts, names = report.confusion.astype(np.int64), list(report.class_names)
    shares, sizes = row_shares(counts), counts.sum(axis=1)
    wrong = counts * ~np.eye(len(counts), dtype=bool)
    worst = np.argsort(-wrong, axis=None, kind="stable")[:MISTAKES]
    mistakes = [divmod(int(i), len(names)) for i in worst if wrong.flat[i]]
    as_table = len(names) <= TABLE_CLASSES
    return {
        "names": names,
        "counts": counts.tolist(),
        "shades": confusion_shades(counts).tolist() if as_table else None,
        "image": None if as_table else png(confusion_pixels(counts)),
        "marks": [] if as_table else evenly_spaced(len(names), 6).tolist(),
        "recall": [float(shares[i, i]) if sizes[i] else math.nan for i in range(len(names))],
        "sizes": sizes.tolist(),
        "taken_for": [names[int(row.argmax())] if row.any() else "" for row in wrong],
        "mistakes": [(names[i], names[j], int(counts[i, j]), float(shares[i, j])) for i, j in mistakes],
        "right": int(np.trace(counts)),
        "total": int(counts.sum()),
    }


def _sample(report: RunReport) -> dict[str, Any] | None:
    if report.sample is None:
        return None
    height, width = report.sample.image.shape[-2:]
    return {"image": png(sample_pixels(report.sample.image)), "width": width, "height": height}


def _activity(report: RunReport) -> dict[str, Any]:
    layers = report.layers
    rastered, counted = evenly_spaced(len(layers), RASTERS), evenly_spaced(len(layers), HISTOGRAMS)
    upper = rounded_up(max((float(layers[i].rates.max(initial=0.0)) for i in counted), default=0.0) or 1.0)
    return {
        "rasters": [_raster(layers[i]) for i in rastered],
        "histograms": [(layers[i], histogram(layers[i].rates, upper)) for i in counted],
        "upper": upper,
        "depth": [
            (
                "Mean rate along the depth, spikes per step",
                _along([layer.mean_rate for layer in layers], percent=False),
            ),
            ("Silent neurons along the depth", _along([layer.silent for layer in layers], percent=True)),
        ],
        "steps": sorted({layer.steps for layer in layers}),
        "neurons": sum(layer.neurons for layer in layers),
    }


def _part(part: Part) -> dict[str, Any]:
    """A table as it is, a chart, or the largest bars of a stack with their parts as shares of the largest one."""
    if isinstance(part, Grid):
        return {"grid": part, "curves": None}
    if isinstance(part, Curves):
        chart = line_chart(part.lines, part.x_label, percent=part.percent, from_zero=True, whole=part.whole)
        write_value = _percent if part.percent else _number
        legend = [(name, write_value(ys[-1])) for name, _, ys in part.lines if ys]
        kinds = {name: f"line{k}" for k, (name, _, _) in enumerate(part.lines)}
        return {"grid": None, "curves": part, "chart": chart, "legend": legend, "kinds": kinds}
    sums = [sum(values[k] for _, values in part.parts) for k in range(len(part.labels))]
    shown = sorted(sorted(range(len(sums)), key=lambda k: -sums[k])[:BARS])
    largest = max(sums, default=0.0) or 1.0
    bars = [(part.labels[k], sums[k], [round(100 * values[k] / largest, 2) for _, values in part.parts]) for k in shown]
    return {"grid": None, "curves": None, "stack": part, "bars": bars, "names": [name for name, _ in part.parts]}


def _along(values: list[float], *, percent: bool) -> Chart | None:
    points = [(float(depth), value) for depth, value in enumerate(values, 1) if math.isfinite(value)]
    return line_chart([("", [x for x, _ in points], [y for _, y in points])], "layer", percent=percent, from_zero=True)


def _raster(layer: LayerActivity) -> dict[str, Any]:
    steps, columns = layer.raster.shape
    shown = evenly_spaced(columns, RASTER_NEURONS)
    neurons = shown if layer.shown is None else layer.shown[shown]
    raster = layer.raster[:, shown]
    return {
        "layer": layer,
        "image": png(raster_pixels(raster)) if raster.size else None,
        "steps": steps,
        "rows": len(shown),
        "row_height": max(2, min(10, 128 // max(len(shown), 1))),
        "first": int(neurons[0]) if len(neurons) else None,
        "last": int(neurons[-1]) if len(neurons) else None,
        "active": float((raster != 0).mean()) if raster.size else math.nan,
    }


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def _percent(share: float) -> str:
    return f"{100 * share:.2f}\u202f%" if math.isfinite(share) else "–"


def _count(value: int) -> str:
    return f"{value:,}"


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e9 else f"{value:.4g}"


def _cell(value: str | int | float | None) -> str:
    return value if isinstance(value, str) else _number(value)


def _rate(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "–"


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "–"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
