"""Events: what an event camera, a spiking cochlea or any sensor by address gives, as one structured array.

The columns of a recording, and what it says of itself:

    import numpy as np
    from rheobase.data import Events

    events = Events.of(t=[10, 20, 25], x=[3, 0, 3], y=[1, 1, 2], p=[1, 0, 1], sensor=(4, 3))
    assert events.t[-1] - events.t[0] == 15 and events.seconds == 15e-6
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from rheobase.data.rows import copy_rows, sort_rows, take_rows

Unit = Literal["s", "ms", "us", "ns"]

EVENT = np.dtype([("t", np.int64), ("x", np.uint16), ("y", np.uint16), ("p", np.bool_)])
"""An event: time in ticks of the recording's unit, column, row, polarity (true: ON, brighter). 13 bytes, packed."""

TICKS_PER_SECOND: dict[Unit, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass(frozen=True, eq=False, repr=False)
class Events:
    """A recording: N events in the order of their times, with the size of the sensor and the unit of time.

    Sound has channels along x and a sensor of one row: `sensor=(700, 1)`; a sensor without polarity says ON always.

    Args:
        array: of dtype `EVENT`, `[N]`, times never falling.
        sensor: width and height; all x < width, all y < height.
        unit: of the times: s, ms, us or ns.

    Raises:
        ValueError: another dtype or shape, a size outside [1, 65536], an address outside the sensor, a time before the
            one ahead of it (the first such event is named), no such unit.
    """

    array: np.ndarray
    sensor: tuple[int, int]
    unit: Unit = "us"

    def __post_init__(self) -> None:
        array, (width, height) = self.array, self.sensor
        if array.dtype != EVENT or array.ndim != 1:
            raise ValueError(
                f"Events: array must be [N] of dtype EVENT {EVENT.descr}, got {list(array.shape)} of {array.dtype}; "
                "Events.of makes one from columns"
            )
        if self.unit not in get_args(Unit):
            raise ValueError(f"Events: unit is {self.unit!r}; expected one of {', '.join(get_args(Unit))}")
        if not (1 <= width <= 2**16 and 1 <= height <= 2**16):
            raise ValueError(f"Events: sensor is {self.sensor}; expected width and height in [1, 65536]")
        for axis, size in (("x", width), ("y", height)):
            if len(array) and array[axis].max() >= size:
                worst = int(array[axis].argmax())
                raise ValueError(
                    f"Events: event {worst} has {axis}={array[axis][worst]} on a sensor of {width} x {height}; "
                    f"expected {axis} < {size}: pass the true sensor size or crop first"
                )
        if len(array) > 1 and (fallen := np.flatnonzero(array["t"][1:] < array["t"][:-1])).size:
            k = int(fallen[0]) + 1
            raise ValueError(
                f"Events: event {k} has t={array['t'][k]} after t={array['t'][k - 1]}; "
                "expected times that never fall: sort by t (stable), as Events.of(..., sort=True) does"
            )

    @classmethod
    def of(
        cls,
        t: ArrayLike,
        x: ArrayLike,
        y: ArrayLike,
        p: ArrayLike,
        sensor: tuple[int, int],
        unit: Unit = "us",
        *,
        sort: bool = False,
    ) -> "Events":
        """Make a recording from columns of equal length; `p` is any numbers, those above zero meaning ON.

        Raises:
            ValueError: as the class; columns of unequal length, numbers that are not whole or that an address or a
                time cannot hold, NaN.
        """
        columns = {name: np.asarray(column) for name, column in (("t", t), ("x", x), ("y", y), ("p", p))}
        shapes = {column.shape for column in columns.values()}
        if len(shapes) != 1 or columns["t"].ndim != 1:
            sizes = ", ".join(f"{name} {list(column.shape)}" for name, column in columns.items())
            raise ValueError(f"Events.of: got columns {sizes}; expected four of equal shape [N]")
        array = np.empty(len(columns["t"]), EVENT)
        for name in ("t", "x", "y"):
            array[name] = _whole(name, columns[name])
        if columns["p"].dtype.kind not in "iubf" or np.isnan(columns["p"]).any():
            raise ValueError(
                f"Events.of: p is of {columns['p'].dtype} or holds NaN; expected numbers, above zero for ON"
            )
        array["p"] = columns["p"] > 0
        return cls(sort_rows(array) if sort else array, sensor, unit)

    @classmethod
    def none(cls, sensor: tuple[int, int], unit: Unit = "us") -> "Events":
        """A recording without events."""
        return cls(np.empty(0, EVENT), sensor, unit)

    @property
    def t(self) -> np.ndarray:
        """Times in ticks of the unit, int64 `[N]`: a view."""
        return self.array["t"]

    @property
    def x(self) -> np.ndarray:
        """Columns, uint16 `[N]`: a view."""
        return self.array["x"]

    @property
    def y(self) -> np.ndarray:
        """Rows, uint16 `[N]`: a view."""
        return self.array["y"]

    @property
    def p(self) -> np.ndarray:
        """Polarities, bool `[N]`, true for ON: a view."""
        return self.array["p"]

    @property
    def duration(self) -> int:
        """Ticks from the first event to the last, 0 if there are fewer than two."""
        return int(self.t[-1]) - int(self.t[0]) if len(self) else 0

    @property
    def seconds(self) -> float:
        """Seconds from the first event to the last."""
        return self.duration / TICKS_PER_SECOND[self.unit]

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: slice | np.ndarray) -> "Events":
        """The events at a slice or under a mask, as a recording of the same sensor."""
        taken = take_rows(self.array, index) if isinstance(index, np.ndarray) else self.array[index]
        return replace(self, array=taken)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.array)

    def __repr__(self) -> str:
        width, height = self.sensor
        return f"Events({len(self)} on {width} x {height}, {self.seconds:g} s, unit={self.unit!r})"

    def between(self, start: int, stop: int) -> "Events":
        """The events with start <= t < stop, both in ticks: a view."""
        low, high = np.searchsorted(self.t, (start, stop))
        return self[int(low) : int(high)]

    def in_unit(self, unit: Unit) -> "Events":
        """The same recording with times in another unit, rounded down where it is coarser.

        Raises:
            ValueError: no such unit, or times too large for it.
        """
        if unit not in get_args(Unit):
            raise ValueError(f"in_unit: unit is {unit!r}; expected one of {', '.join(get_args(Unit))}")
        ours, theirs = TICKS_PER_SECOND[self.unit], TICKS_PER_SECOND[unit]
        array = copy_rows(self.array)
        if theirs >= ours:
            factor = theirs // ours
            limit = np.iinfo(np.int64).max // factor
            if len(array) and max(int(self.t[-1]), -int(self.t[0])) > limit:
                raise ValueError(f"in_unit: t={int(self.t[-1])} {self.unit} does not fit into 64 bits in {unit}")
            array["t"] *= factor
        else:
            array["t"] //= ours // theirs
        return Events(array, self.sensor, unit)


def _whole(name: str, column: np.ndarray) -> np.ndarray:
    """The column, checked to hold whole numbers that the field can hold."""
    bounds = np.iinfo(EVENT[name])
    if column.dtype.kind == "f":
        if not np.isfinite(column).all() or (column != np.floor(column)).any():
            raise ValueError(
                f"Events.of: {name} holds NaN, Inf or fractions; round it to whole ticks or addresses first"
            )
    elif column.dtype.kind not in "iub":
        raise ValueError(f"Events.of: {name} is of {column.dtype}; expected numbers")
    # float64 rounds the largest time up to 2**63, which does not fit.
    if column.size and (int(column.min()) < bounds.min or int(column.max()) > bounds.max):
        raise ValueError(
            f"Events.of: {name} lies in {column.min()} .. {column.max()}; expected {bounds.min} .. {bounds.max}"
        )
    return column
