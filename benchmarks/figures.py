"""What was measured, drawn from the committed tables when the documentation is built."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rows import geometric_mean
from rheobase.files import read_table

OURS = "rheobase"
COLOURS = ("#2f80c4", "#d96a00", "#7a7a7a", "#5b9f55", "#a05fb4", "#b8a000", "#c94f6d", "#3aa6a6")
"""Ours first."""
MARKERS = "osD^vP*X"
"""Told apart without colour too."""

Table = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Figure:
    """How a table is drawn: a line for each case, size and phase, a mark on it for each contestant.

    Attributes:
        title: heading on the page.
        text: what the marks are.
        unit: of the column, on the axis.
        column: of the table.
        phases: that are drawn.
    """

    title: str
    text: str
    phases: tuple[str, ...]
    column: str = "median_ms"
    unit: str = "ms"


FIGURES = {
    "neuron": Figure("A layer of neurons", "Median times of one layer of LIF neurons.", ("forward+backward",)),
    "fc": Figure(
        "Fully connected layers",
        "Median times: a linear layer with LIF, 500 steps, batch 16, forward and backward; and a training step of a "
        "network of three such layers, batch 64.",
        ("forward+backward", "training step"),
    ),
    "conv": Figure(
        "Convolutional networks",
        "Median times of a training step, of its convolutions alone, and of all else in it; 32x32, batch 16.",
        ("training step", "products", "norm+neuron"),
    ),
    "trained": Figure(
        "Trained networks",
        "Median times of a training step and of inference at the rates that training gave, in fp32 and in bf16.",
        ("training step", "inference"),
    ),
    "products": Figure(
        "Products that read spikes",
        "Median times of one convolution or linear layer at several densities of spikes.",
        ("forward", "weight gradient", "input gradient"),
    ),
    "sparse": Figure(
        "Products of pruned weights",
        "Median times of one convolution or linear layer whose weights are zero to a share; networks are in the table.",
        ("forward",),
    ),
    "memory": Figure(
        "Memory of a training step",
        "What is kept for backward, and how far one step raises the resident memory.",
        ("saved for backward", "peak of a step"),
        "mib",
        "MiB",
    ),
    "compile": Figure(
        "First use of a neuron",
        "From the import of the library to the first gradient, beyond the imports of torch, its tracer and numba.",
        ("first use", "second process", "4 at once"),
    ),
    "events": Figure(
        "Recordings of event cameras",
        "Median times of making frames, grids and surfaces of a recording, filtering it, and of caching frames.",
        ("frames by time", "frames by count", "voxel grid", "time surface", "denoise", "cache: build", "cache: read"),
    ),
    "gpu": Figure(
        "A layer of neurons on a GPU",
        "Median times of one layer of LIF neurons.",
        ("forward", "forward+backward"),
    ),
    "parallel_reset": Figure(
        "Reset parallel over time",
        "Median times of a LIF's exact reset, as the fused loop over time and as a fixed point over all steps at once.",
        ("forward",),
    ),
    "psn": Figure(
        "Parallel spiking neurons",
        "Median times of one layer of PSNs (rheobase), and of LIF neurons in three ways.",
        ("inference", "training"),
    ),
}


def groups(figure: Figure, table: Table) -> dict[str, dict[str, float]]:
    """Label of a group -> contestant -> value; cases that a table has one of are not named."""
    several = len({row["case"] for row in table}) > 1
    single_phase = len({row["phase"] for row in table if row["phase"] in figure.phases}) == 1
    sizes: dict[str, set[tuple[str, str]]] = {}
    for row in table:
        sizes.setdefault(row["case"], set()).add((row["T"], row["N"]))
    found: dict[str, dict[str, float]] = {}
    for row in table:
        if row["phase"] not in figure.phases or not row[figure.column]:
            continue
        size = f"T={row['T']}, {_count(row['N'])}" if len(sizes[row["case"]]) > 1 else ""
        words = (row["case"] if several else "", size, "" if single_phase else row["phase"])
        found.setdefault(", ".join(filter(None, words)), {})[row["contestant"]] = float(row[figure.column])
    return found


def _count(N: str) -> str:
    power = int(N).bit_length() - 1
    return f"$2^{{{power}}}$" if int(N) == 2**power else N


def draw(figure: Figure, table: Table, path: Path) -> None:
    """Write the figure, as SVG if the path says so: a mark for each contestant, on a logarithmic axis."""
    from matplotlib.figure import Figure as Canvas

    shown = groups(figure, table)
    names = list(dict.fromkeys(name for values in shown.values() for name in values))
    canvas = Canvas(figsize=(8, 1.3 + 0.3 * len(shown)), layout="constrained")
    axes = canvas.subplots()
    for k, name in enumerate(names):
        at = [(values[name], row) for row, values in enumerate(shown.values()) if name in values]
        x, y = zip(*at, strict=True)
        axes.scatter(x, y, 36, COLOURS[k % len(COLOURS)], marker=MARKERS[k % len(MARKERS)], label=name)
    axes.set_yticks(range(len(shown)), list(shown), fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel(figure.unit)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    canvas.legend(fontsize=8, loc="outside lower center", ncols=4, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, metadata={"Date": None})


def summary(table: Table) -> str:
    """A Markdown table: ratios to Rheobase, geometric mean (smallest - largest) over all cases and sizes, by phase."""
    phases = list(dict.fromkeys(row["phase"] for row in table))
    found: dict[str, dict[str, list[float]]] = {}
    for row in table:
        if row["contestant"] != OURS and row["ratio"]:
            label = f"{row['contestant']} {row['version'].partition('+')[0]}"
            found.setdefault(label, {}).setdefault(row["phase"], []).append(float(row["ratio"]))
    lines = [f"| | {' | '.join(phases)} |", f"|---{'|---' * len(phases)}|"]
    lines += [f"| {name} | {' | '.join(_range(cells.get(p, [])) for p in phases)} |" for name, cells in found.items()]
    return "\n".join(lines)


def _range(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = f"{geometric_mean(values):.2g}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.2g} - {max(values):.2g})"


def reasons(table: Table) -> str:
    """What the notes say, once each: other equations, contestants that are not here or were refused."""
    found = dict.fromkeys(f"{row['contestant']}: {row['note']}" for row in table if row["note"])
    return "\n".join(f"- {words}" for words in found)


def pages(results: Path, out: Path) -> str:
    """Draw every table there is into `out`, and return the Markdown that shows them, images named by `out`'s name."""
    parts = []
    for name, figure in FIGURES.items():
        path = results / f"bench_{name}.csv"
        if not path.exists():
            continue
        table = read_table(path)
        draw(figure, table, out / f"{name}.svg")
        newest = table[-1]
        where = f"{newest['machine']}, {newest['threads']} threads, torch {newest['torch']}, commit {newest['commit']}"
        parts += [
            f"## {figure.title}",
            f"{figure.text} Lower is better. Measured on {where}: `python -m benchmarks {name}`, "
            f"`results/{path.name}`.",
            f"![{figure.title}]({out.name}/{name}.svg)",
            "As multiples of Rheobase's, geometric mean (smallest - largest):",
            summary(table),
            reasons(table),
        ]
    return "\n\n".join(filter(None, parts)) + "\n"
