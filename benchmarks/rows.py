"""What a benchmark leaves behind: rows of a table, a CSV file, ratios."""

import csv
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Facts:
    """Where, when and with what a row was measured."""

    threads: int
    commit: str
    date: str
    machine: str
    torch: str


@dataclass(frozen=True)
class Row:
    """One contestant in one case and phase; no times where it was not timed, and `note` says why.

    Attributes:
        N: neurons of one step; inputs are `[T, N]` in fp32.
        median_ms, copy_ms: median time, and that of a plain copy of the input.
        ratio_to_rheobase: this contestant's median over that of Rheobase in the same repetitions.
        agreement: what the correctness check saw before anything was timed.
    """

    benchmark: str
    contestant: str
    version: str
    case: str
    T: int
    N: int
    phase: str
    median_ms: float | None
    ratio_to_rheobase: float | None
    agreement: str
    copy_ms: float | None
    facts: Facts
    note: str = ""

    def flat(self) -> dict[str, str]:
        """The row as strings, the facts spread out; empty where there is no number."""
        values = {**asdict(self), **asdict(self.facts)}
        return {name: _word(values[name]) for name in COLUMNS}


def _word(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


REFUSED, BUSY = "refused", "not timed"
"""How the note of a row without times begins: the contestant was wrong, or other processes were at work."""

Show = Callable[[Sequence[Row]], None]
"""Takes each group of rows as it is ready."""

COLUMNS = (*(f.name for f in fields(Row) if f.name not in ("facts", "note")), *(f.name for f in fields(Facts)), "note")


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Replace the file by these rows, in one move: a reader sees the old table or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(row.flat() for row in rows)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


SHOWN = ("contestant", "T", "N", "phase", "median_ms", "ratio_to_rheobase", "copy_ms", "agreement", "note")
_WIDTHS = (22, 4, 9, 18, 10, 18, 9, 42, 0)


def line(cells: Sequence[str]) -> str:
    """One line of the printed table, whose columns are `SHOWN`."""
    return " ".join(cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()


def ratios(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """contestant -> phase -> "T=4 N=32768" -> ratio, and "geometric mean" over them; timed peers only."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        if row.ratio_to_rheobase is not None and row.contestant != "rheobase":
            cases = found.setdefault(row.contestant, {}).setdefault(row.phase, {})
            cases[f"T={row.T} N={row.N}"] = round(row.ratio_to_rheobase, 3)
    for phases in found.values():
        for cases in phases.values():
            cases["geometric mean"] = round(math.exp(sum(map(math.log, cases.values())) / len(cases)), 3)
    return found
