"""What a benchmark leaves behind: rows of a table, a CSV file, ratios."""

import csv
import math
import os
from collections.abc import Callable, Iterable, Sequence
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


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contestant in one case and phase; no value where it was not measured, and `note` says why.

    Attributes:
        N: neurons of one step, all samples and layers; or events, all recordings.
        median_ms: median time; None where memory was measured.
        mib: memory in MiB; None where time was measured.
        ratio: this contestant's value over that of Rheobase, measured in turns with it.
        agreement: what the correctness check saw before anything was timed.
        copy_ms: where it tells something, the time that copying the same bytes takes.
        million_per_s: of events, where these are what is handled.
    """

    benchmark: str
    contestant: str
    version: str
    case: str
    T: int
    N: int
    phase: str
    median_ms: float | None = None
    mib: float | None = None
    ratio: float | None = None
    agreement: str = ""
    copy_ms: float | None = None
    million_per_s: float | None = None
    facts: Facts
    note: str = ""

    def flat(self) -> dict[str, str]:
        """The row as strings, the facts spread out; empty where there is no number."""
        values = {**asdict(self), **asdict(self.facts)}
        return {name: _word(values[name]) for name in COLUMNS}


def _word(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


REFUSED, BUSY = "refused", "not timed"
"""What the note of a row without times says: the contestant was wrong, or other processes were at work."""

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


SHOWN = ("contestant", "case", "T", "N", "phase", "median_ms", "mib", "ratio", "copy_ms", "agreement", "note")
_WIDTHS = (22, 18, 4, 9, 20, 10, 9, 8, 9, 46, 0)


def line(cells: Sequence[str]) -> str:
    """One line of the printed table, whose columns are `SHOWN`; long cells are cut."""
    cut = [cell if not width else cell[:width] for cell, width in zip(cells, _WIDTHS, strict=True)]
    return " ".join(cell.ljust(width) for cell, width in zip(cut, _WIDTHS, strict=True)).rstrip()


def over_first(values: dict[str, float], contestant: str, first: str) -> float | None:
    """A contestant's value over the first's, where both were measured."""
    mine, base = values.get(contestant), values.get(first)
    return mine / base if mine is not None and base is not None else None


def geometric_mean(values: Iterable[float]) -> float:
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def ratios(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """contestant -> phase -> "T=4 N=32768" -> ratio, and "geometric mean" over them; measured peers only.

    Where a table has several cases, their names stand before T and N.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    several = len({row.case for row in rows}) > 1
    for row in rows:
        if row.ratio is not None and row.contestant != "rheobase":
            cases = found.setdefault(row.contestant, {}).setdefault(row.phase, {})
            cases[f"{row.case}, T={row.T} N={row.N}" if several else f"T={row.T} N={row.N}"] = round(row.ratio, 3)
    for phases in found.values():
        for cases in phases.values():
            cases["geometric mean"] = round(geometric_mean(cases.values()), 3)
    return found
