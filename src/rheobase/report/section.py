"""Further sections of the page: tables, stacked bars and curves that the caller fills; checked when they are built."""

import math
from dataclasses import dataclass

Cell = str | int | float | None
"""What a cell of a table shows: text, a number, or a dash."""

COLOURS = 4
"""How many parts of a stacked bar, or lines of a chart, can be told apart."""


@dataclass(frozen=True)
class Grid:
    """A table whose first column names its rows.

    Args:
        heading: what it shows.
        columns: heads of the columns.
        rows: a cell for each column.
        total: a last row that stays in sight.
        folded: it is opened by a click.

    Raises:
        ValueError: a row has more or fewer cells than there are columns.
    """

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    total: tuple[Cell, ...] | None = None
    folded: bool = False

    def __post_init__(self) -> None:
        for row in (*self.rows, *(() if self.total is None else (self.total,))):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"Grid {self.heading!r}: a row has {len(row)} cells, expected {len(self.columns)}; "
                    f"pass one for each of {', '.join(self.columns)}"
                )


@dataclass(frozen=True)
class Stack:
    """Stacked bars, one a label, of parts that add up.

    Args:
        heading: what it shows.
        unit: of the values.
        labels: names of the bars.
        parts: up to four names with a value for each label, none below zero.

    Raises:
        ValueError: too many parts, values of another number than labels, or one that is negative or not finite.
    """

    heading: str
    unit: str
    labels: tuple[str, ...]
    parts: tuple[tuple[str, tuple[float, ...]], ...]

    def __post_init__(self) -> None:
        if len(self.parts) > COLOURS:
            raise ValueError(f"Stack {self.heading!r}: {len(self.parts)} parts, expected at most {COLOURS}; join some")
        for name, values in self.parts:
            if len(values) != len(self.labels):
                raise ValueError(
                    f"Stack {self.heading!r}: part {name!r} has {len(values)} values for {len(self.labels)} labels; "
                    f"pass one for each"
                )
            if not all(math.isfinite(value) and value >= 0 for value in values):
                raise ValueError(
                    f"Stack {self.heading!r}: part {name!r} holds negative numbers, NaN or Inf; pass sizes"
                )


@dataclass(frozen=True)
class Curves:
    """Lines in one chart.

    Args:
        heading: what it shows.
        x_label: what they run along.
        lines: up to four names, each with its x, growing, and its y.
        percent: y are shares.
        whole: marks of the x axis are whole numbers.

    Raises:
        ValueError: too many lines, x and y of different lengths, or a number that is not finite.
    """

    heading: str
    x_label: str
    lines: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...]
    percent: bool = True
    whole: bool = False

    def __post_init__(self) -> None:
        if len(self.lines) > COLOURS:
            raise ValueError(f"Curves {self.heading!r}: {len(self.lines)} lines, expected at most {COLOURS}; make two")
        for name, xs, ys in self.lines:
            if len(xs) != len(ys):
                raise ValueError(
                    f"Curves {self.heading!r}: line {name!r} has {len(xs)} x and {len(ys)} y; pass as many"
                )
            if not all(map(math.isfinite, (*xs, *ys))):
                raise ValueError(f"Curves {self.heading!r}: line {name!r} holds NaN or Inf; leave such points out")


Part = Grid | Stack | Curves
"""What a section consists of."""


@dataclass(frozen=True)
class Section:
    """A section of the page, behind those that every run has.

    Args:
        title: its headline.
        text: what it is about.
        parts: tables, bars and curves, in order.
    """

    title: str
    text: str
    parts: tuple[Part, ...]
