"""Measured rows: what a run found, in a committed CSV with everything needed to judge it."""

import csv
import io
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from rheobase.files import locked, write_atomic
from rheobase.recipes.classification import Classification, is_cross_validated
from rheobase.recipes.task import config_of, recipe_of
from rheobase.train import RunFolder, environment

COLUMNS = (
    "recipe", "data", "model", "T", "epochs", "seed", "metric", "value", "published", "tag", "parameters", "seconds",
    "device", "threads", "rheobase", "torch", "python", "commit", "date",
)  # fmt: skip


def record(run: RunFolder, path: Path, *, published: str = "", tag: str = "measured") -> None:
    """Append the test accuracy of a finished run to a CSV file; the file is replaced in one move.

    The metric of a cross-validated run is "cross_validated_accuracy".

    Args:
        run: a run with a result.
        path: the file; made with its header if it is not there.
        published: the number it is to be compared with, empty if there is none.
        tag: where that number comes from.

    Raises:
        ValueError: the run has no result yet, or the file has other columns.
    """
    result = run.result().get("eval")
    if result is None:
        raise ValueError(f"{run.path} has no result; finish it with `rheobase train --resume {run.path}`")
    row = {
        **_row_of_run(run),
        "value": f"{result['test_accuracy']:.4f}",
        "published": published,
        "tag": tag,
        "seconds": f"{result['seconds']:.0f}",
    }
    append_row(path, COLUMNS, row)


def record_cost(run: RunFolder, path: Path) -> None:
    """Append what `cost` noted in a run to a CSV file: spikes per neuron, and energy per sample in nJ by its rule.

    Raises:
        ValueError: the run was not priced or measured yet, or priced on other samples or weights than it was measured
            on; or the file has other columns.
    """
    cost, measured = run.result().get("cost"), run.result().get("eval")
    if cost is None or measured is None:
        raise ValueError(f"{run.path} was not priced yet; run `rheobase cost {run.path}` after it is measured")
    whole = isinstance(config_of(run), Classification)  # a graph always runs whole
    for name, priced, expected, counts in (
        ("samples", cost["samples"], measured["test_count"], whole),
        ("checkpoint", cost["checkpoint"], measured["checkpoint"], True),
    ):
        if counts and priced != expected:
            raise ValueError(
                f"{run.path} was priced with {name} {priced!r} but measured with {expected!r}; use the same"
            )
    for metric, value, tag in (
        ("spikes_per_neuron", cost["spikes_per_neuron"], "measured"),
        ("energy_nJ", cost["energy_pJ"] / 1e3, f"counted by the rule {cost['rule']}"),
    ):
        if value is not None:  # no spikes, where no neuron emits {0, 1}
            row = {**_row_of_run(run), "metric": metric, "value": f"{value:.6g}", "tag": tag}
            append_row(path, COLUMNS, row)


COMPRESSION_COLUMNS = (
    "recipe", "data", "model", "T", "seed", "methods", "sparsity", "raw_sparsity", "D", "bits", "activity", "epochs",
    "accuracy_before", "accuracy", "lost_points", "spikes_ratio", "operations_ratio", "bit_operations_ratio", "storage",
    "bytes", "weights", "parameters", "seconds", "device", "threads", "rheobase", "torch", "python", "commit", "date",
)  # fmt: skip
"""Of rows of compressed networks: `sparsity` and `bits` are what came out, `raw_sparsity` and `D` are LATS'."""


def record_compression(run: RunFolder, path: Path) -> None:
    """Append what compression noted in a run to a CSV file; the file is replaced in one move.

    Raises:
        ValueError: the run was not made by compression, or the file has other columns.
    """
    found = run.result().get("compress")
    if found is None:
        raise ValueError(f"{run.path} was not compressed to its end; finish it with `rheobase compress --resume`")
    before, after = found["before"]["accuracy"], found["after"]["accuracy"]
    known = {name: value for stage in found["stages"] for name, value in stage.items()}
    row = _row_of_run(run)
    measured = {
        "recipe": recipe_of(RunFolder.open(run.config()["compressed"]["from"])),
        "methods": " ".join(_named(stage) for stage in found["stages"]),
        "sparsity": f"{found['sparsity']:.4f}",
        "raw_sparsity": f"{known['raw_sparsity']:.4f}" if "raw_sparsity" in known else "",
        "D": f"{known['D']:.4g}" if "raw_sparsity" in known else "",
        "bits": f"{found['bits']:.4g}",
        "activity": known.get("strength", ""),
        "epochs": found["epochs"],
        "accuracy_before": f"{before:.4f}",
        "accuracy": f"{after:.4f}",
        "lost_points": f"{100 * (before - after):.2f}",
        **{name: f"{found[name]:.4f}" for name in _RATIOS if found[name] is not None},
        "bytes": found["bytes"],
        "weights": found["weights"],
        "seconds": f"{run.result()['eval']['seconds']:.0f}",
    }
    append_row(path, COMPRESSION_COLUMNS, {name: {**row, **measured}.get(name, "") for name in COMPRESSION_COLUMNS})


_RATIOS = ("spikes_ratio", "operations_ratio", "bit_operations_ratio", "storage")


def _named(stage: Mapping[str, Any]) -> str:
    """A method, and of LATS its schedule where it is another."""
    other = stage.get("schedule", "lats")
    return str(stage["method"]) if other == "lats" else f"{stage['method']}:{other}"


def record_attack(run: RunFolder, path: Path) -> None:
    """Append the share of successes that `attack` notes as its headline to a CSV file.

    Raises:
        ValueError: the run was not attacked or measured yet; or the file has other columns.
    """
    found = run.result().get("attack")
    if found is None or "eval" not in run.result() or not found["headline"]:
        raise ValueError(f"{run.path} was not attacked yet; run `rheobase attack {run.path}` after it is measured")
    head = found["headline"]
    bound = "" if head["at"] is None else f", epsilon {head['at']:.3g}"
    row = {
        **_row_of_run(run),
        "metric": f"success of attack: {head['attack']}{bound}",
        "value": f"{head['success']:.4f}",
        "tag": f"measured on {head['count']} samples, 95 % in {head['low']:.3f} to {head['high']:.3f}",
    }
    append_row(path, COLUMNS, row)


def _row_of_run(run: RunFolder) -> dict[str, object]:
    """The columns of every row that is measured on a finished run."""
    config, result = config_of(run), run.result()["eval"]
    return {
        **_subject(recipe_of(run), config),
        "model": config.model,
        "epochs": result["epochs"],
        "parameters": result["parameters"],
        **machine(run.env()),
        "date": run.path.name[:8],
    }


def record_floors(recipe: str, config: Classification, found: Mapping[str, float], path: Path) -> None:
    """Append what `floors` found to a CSV file, a row for each method, its name in the place of a model's."""
    env = {**environment(), "threads": config.threads or environment()["threads"]}
    for method, value in found.items():
        if method != "count":
            row = {
                **_subject(recipe, config),
                "model": method,
                "value": f"{value:.4f}",
                "tag": "floor",
                **machine(env),
                "date": date.today().strftime("%Y%m%d"),
            }
            append_row(path, COLUMNS, row)


def _subject(recipe: str, config: Any) -> dict[str, object]:
    metric = "cross_validated_accuracy" if is_cross_validated(config) else "test_accuracy"
    return {"recipe": recipe, "data": config.data, "T": config.T, "seed": config.train.seed, "metric": metric}


def machine(env: Mapping[str, object]) -> dict[str, object]:
    """The columns that say where a number was measured, from what `environment` found."""
    return {
        "device": env.get("cpu") or env.get("processor", ""),
        "commit": env.get("commit") or "",
        **{name: env.get(name, "") for name in ("threads", "rheobase", "torch", "python")},
    }


def append_row(path: Path, columns: tuple[str, ...], row: dict[str, object]) -> None:
    """Append a row to a CSV file, made with its header if it is not there, replaced in one move.

    Several processes may append to one file.

    Raises:
        ValueError: the file has other columns.
    """
    line = io.StringIO()
    csv.DictWriter(line, columns, lineterminator="\n").writerow(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):
        before = path.read_text() if path.exists() else ",".join(columns) + "\n"
        header = before.partition("\n")[0]
        if header != ",".join(columns):
            raise ValueError(f"{path} has the columns {header}; expected {','.join(columns)}; choose another file")
        write_atomic(path, (before + line.getvalue()).encode())
