"""What `attack` noted in a run, as a section of its page."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from rheobase.files import read_table
from rheobase.lab.attack.trap import EDGES
from rheobase.report import Curves, Grid, Section, Stack
from rheobase.train import RunFolder

Rows = Sequence[Mapping[str, str]]


def attack_sections(run: RunFolder) -> tuple[Section, ...]:
    """The section of a run's robustness; none if it was not attacked."""
    path, found = run.path / "attack.csv", run.result().get("attack")
    if found is None or not path.is_file():
        return ()
    rows = read_table(path)
    parts: list[Grid | Stack | Curves] = list(_curves(rows, found))
    parts.append(_table(rows))
    trap = run.path / "attack_trap.csv"
    seen = read_table(trap) if trap.is_file() else []
    if seen:
        parts.extend(_trap(seen))
    return (Section("How robust it is", attack_text(found), tuple(parts)),)


def attack_text(found: Mapping[str, Any]) -> str:
    """What was attacked, and the one number to quote."""
    of = {
        "events": "spikes of events",
        "coded": "spikes of an encoder, and images before it",
        "direct": "images in a box",
    }[found["kind"]]
    said = [
        f"Attacks on {of}: {found['right']} of {found['samples']} test samples were named rightly and attacked, the "
        f"first of each class, {found['iterations']} iterations each, the {found['checkpoint']} checkpoint, seed "
        f"{found['seed']}. An attack succeeds when the largest output is wrong and alone. Intervals are Wilson's, 95 %."
    ]
    if worst := found["headline"]:
        bound = "" if worst["at"] is None else f" at epsilon {worst['at']:.3g}"
        said.append(
            f"{worst['attack'].capitalize()}{bound}: {worst['success']:.1%} of {worst['count']} "
            f"({worst['low']:.1%} to {worst['high']:.1%}); robust are the others, against these attacks."
        )
    if found["kind"] != "direct":
        said.append(
            f"Adaptive attacks follow the surrogate {found['surrogate']}, which is zero nowhere: gradients that vanish "
            f"beyond a narrow window are no defence."
        )
    return " ".join(said)


def _curves(rows: Rows, found: Mapping[str, Any]) -> Iterator[Curves]:
    """Success over the bound: share of flipped bits, or epsilon."""
    of: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in rows:
        if row["at"] and not row["attack"].startswith("transfer"):
            of.setdefault((row["goal"], row["attack"]), []).append((float(row["at"]), float(row["success"])))
    for goal in ("untargeted", "targeted"):
        lines = [(name, *map(tuple, zip(*points, strict=True))) for (g, name), points in of.items() if g == goal]
        if found["kind"] == "direct":
            lines = [line for line in lines if line[0] in ("fgsm", "pgd", "square", "worst in the box")]
        if lines:
            label = "epsilon" if found["kind"] == "direct" else "share of flipped bits, at most"
            yield Curves(f"Success, {goal}", label, tuple(lines[:4]))  # type: ignore[arg-type]


def _table(rows: Rows) -> Grid:
    columns = ("attack", "goal", "bound", "success", "from", "to", "of", "perturbation", "updates without gradient")
    shown = [row for row in rows if not row["at"] or not row["attack"].startswith("flips")]
    return Grid(
        "What each attack reached",
        columns,
        tuple(
            (
                row["attack"],
                row["goal"],
                float(row["at"]) if row["at"] else "none",
                _percent(row["success"]),
                _percent(row["low"]),
                _percent(row["high"]),
                row["count"],
                float(row["perturbation"]) if row["perturbation"] else None,
                _percent(row["silent"]) if row["silent"] else None,
            )
            for row in shown
        ),
        folded=len(shown) > 40,
    )


def _percent(share: str) -> str:
    return f"{100 * float(share):.1f} %"


def _trap(seen: Rows) -> Iterator[Grid | Stack | Curves]:
    at = tuple(float(row["threshold"]) for row in seen)
    lines = (
        ("samples without any gradient", at, tuple(float(row["silent"]) for row in seen)),
        ("last membranes in the window", at, tuple(float(row["open"]) for row in seen)),
    )
    yield Curves("The trap: gradients over the threshold of the last hidden layer", "threshold", lines)
    labels = tuple(f"{low:g} to {high:g}" for low, high in pairwise(EDGES))
    chosen = [row for row in seen if row["threshold"] in ("0.3", "1.0")] or list(seen[:2])
    counts = [(f"threshold {row['threshold']}", tuple(map(float, row["distances"].split()))) for row in chosen]
    whole = [(name, tuple(value / sum(values) for value in values)) for name, values in counts]
    yield Stack(
        "Distance of the last membranes from their threshold", "share of neurons and steps", labels, tuple(whole)
    )
    columns = ("threshold", "no gradient", "from", "to", "in the window", "below it", "above it")
    rows = tuple(
        (row["threshold"], *(_percent(row[name]) for name in ("silent", "low", "high", "open", "below", "above")))
        for row in seen
    )
    yield Grid("The trap in numbers", columns, rows, folded=True)
