"""Committed results: rows of a CSV file to tables and curves."""

import io
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

Row = dict[str, str]
SPREAD = 5
"""Seeds that are enough for a standard deviation."""
_COLOURS = ("#2f80c4", "#d96a00", "#7a7a7a", "#5b9f55", "#a05fb4", "#b8a000")
_MARKERS = "osD^vP"


def accuracy_table(rows: Iterable[Row], recipes: Sequence[str]) -> str:
    """A Markdown table of measured accuracies, a line for each recipe, data set and network: mean and range over seeds.

    Five seeds or more also have a standard deviation.

    Of several rows of one seed the last one counts. A recipe that was measured on several data sets has their names.

    The column of published numbers is left out where it would be empty.

    Args:
        rows: of results/accuracy.csv.
        recipes: names, or patterns such as "depth-ms-*", in the order of the lines.

    Raises:
        ValueError: a pattern that no row has.
    """
    grouped: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in rows:
        if row["metric"].endswith("accuracy") and row["tag"] != "floor":
            key = tuple(row[name] for name in ("recipe", "data", "model", "T", "epochs", "parameters"))
            grouped.setdefault(key, {})[row["seed"]] = row
    sets = Counter(recipe for recipe, _ in {key[:2] for key in grouped})
    chosen: dict[tuple[str, ...], tuple[str, ...]] = {}
    for pattern in recipes:
        found = [key for key in grouped if fnmatch(key[0], pattern)]
        if not found:
            raise ValueError(f"accuracy_table: no row of the results is of {pattern!r}; measure it or leave it out")
        chosen.update((key, _cells(key, list(grouped[key].values()), sets[key[0]] > 1)) for key in found)
    header = ("recipe", "network", "T", "epochs", "parameters", "seeds", "test accuracy", "published")
    width = len(header) - (not any(cells[-1] for cells in chosen.values()))
    lines = [header, ("---",) * len(header), *chosen.values()]
    return "\n".join(f"| {' | '.join(cells[:width])} |" for cells in lines)


def _cells(key: tuple[str, ...], rows: Sequence[Row], name_data: bool) -> tuple[str, ...]:
    recipe, data, model, T, epochs, parameters = key
    values = [100 * float(row["value"]) for row in rows]
    shown = f"{statistics.mean(values):.1f} %"
    if len(values) >= SPREAD:
        shown = f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f} %"
    if len(values) > 1:
        shown += f" ({min(values):.1f} - {max(values):.1f})"
    seeds = f"{len(rows)} seeds" if len(rows) >= SPREAD else ", ".join(row["seed"] for row in rows)
    published = next((row["published"] for row in reversed(rows) if row["published"]), "")
    counted = f"{int(parameters):,}" if parameters else ""
    named = f"`{recipe}`, {data}" if name_data else f"`{recipe}`"
    return named, f"`{model}`", T, epochs, counted, seeds, shown, published


@dataclass(frozen=True)
class Curve:
    """Points of one line, and in `low` and `high` the range of each."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


def curves(rows: Iterable[Row], label: str, x: str, y: str = "value") -> list[Curve]:
    """Curves of means: a curve for each value of the column `label`, x sorted, y averaged over rows of equal x."""
    points: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        points.setdefault(row[label], {}).setdefault(float(row[x]), []).append(float(row[y]))
    found = []
    for name, values in points.items():
        at = sorted(values)
        found.append(
            Curve(
                name,
                tuple(at),
                tuple(statistics.mean(values[a]) for a in at),
                tuple(min(values[a]) for a in at),
                tuple(max(values[a]) for a in at),
            )
        )
    return found


def plot(lines: Sequence[Curve], x_label: str, y_label: str, *, log_x: bool = False, log_y: bool = False) -> str:
    """The curves as SVG text, their ranges shaded."""
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(7, 3.6), layout="constrained")
    axes = canvas.subplots()
    for k, line in enumerate(lines):
        colour, marker = _COLOURS[k % len(_COLOURS)], _MARKERS[k % len(_MARKERS)]
        axes.plot(line.x, line.y, color=colour, marker=marker, markersize=5, label=line.label)
        if line.low:
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.2, linewidth=0)
    axes.set_xscale("log" if log_x else "linear")
    axes.set_yscale("log" if log_y else "linear")
    if log_x:
        ticks = sorted({value for line in lines for value in line.x})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
        axes.minorticks_off()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    text = io.StringIO()
    canvas.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
