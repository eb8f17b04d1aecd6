"""Measured rows: what a run found, in a committed CSV with everything needed to judge it."""

import csv
import io
from pathlib import Path

from rheobase.recipes.classification import config_of, recipe_of
from rheobase.train import RunFolder
from rheobase.train.run import write_atomic

COLUMNS = (
    "recipe", "data", "model", "T", "epochs", "seed", "metric", "value", "published", "tag", "parameters", "seconds",
    "device", "threads", "rheobase", "torch", "python", "commit", "date",
)  # fmt: skip


def record(run: RunFolder, path: Path, *, published: str = "", tag: str = "measured") -> None:
    """Append the test accuracy of a finished run to a CSV file; the file is replaced in one move.

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
    config, env = config_of(run), run.env()
    row = {
        "recipe": recipe_of(run),
        "data": config.data,
        "model": config.model,
        "T": config.T,
        "epochs": result["epochs"],
        "seed": config.train.seed,
        "metric": "test_accuracy",
        "value": f"{result['test_accuracy']:.4f}",
        "published": published,
        "tag": tag,
        "parameters": result["parameters"],
        "seconds": f"{result['seconds']:.0f}",
        "device": env.get("cpu") or env.get("processor", ""),
        "threads": env.get("threads", ""),
        "rheobase": env.get("rheobase", ""),
        "torch": env.get("torch", ""),
        "python": env.get("python", ""),
        "commit": env.get("commit") or "",
        "date": run.path.name[:8],
    }
    append_row(path, COLUMNS, row)


def append_row(path: Path, columns: tuple[str, ...], row: dict[str, object]) -> None:
    """Append a row to a CSV file, made with its header if it is not there, replaced in one move."""
    before = path.read_text() if path.exists() else ",".join(columns) + "\n"
    header = before.partition("\n")[0]
    if header != ",".join(columns):
        raise ValueError(f"{path} has the columns {header}; expected {','.join(columns)}; choose another file")
    line = io.StringIO()
    csv.DictWriter(line, columns, lineterminator="\n").writerow(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (before + line.getvalue()).encode())
