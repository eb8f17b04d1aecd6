"""What all readers of event files share: bytes checked before they are believed, and one way to say what is wrong."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from rheobase.data.events import EVENT, TICKS_PER_SECOND, Events, Unit
from rheobase.data.rows import sort_rows

Sensor = tuple[int, int]
"""Width and height."""

AGAIN = "copy or download the file again"
_LARGEST_SIDE = 2**16
_FINER: dict[Unit, Unit] = {"s": "us", "ms": "us", "us": "ns", "ns": "ns"}


def damaged(path: Path, what: str, offset: int, expected: str, do: str = AGAIN) -> ValueError:
    """The error for bytes that are not what the format says."""
    return ValueError(f"{path}: {what} at byte offset {offset}; expected {expected}; {do}")


@contextmanager
def blaming(path: Path, what: str, offset: int, expected: str) -> Iterator[None]:
    """What a library raises at damaged bytes becomes the one error; errors that name the path, and IndexError, pass."""
    try:
        yield
    except IndexError:
        raise
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(f"{path}: "):
            raise
        raise damaged(path, f"{what} ({error})", offset, expected) from error


def existing(path: Path) -> Path:
    """The path.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; expected a file of events; check the path")
    return path


def read_bytes(path: Path) -> bytes:
    """All bytes of a file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    return existing(path).read_bytes()


def text_header(path: Path, data: bytes, mark: bytes, last: str | None = None) -> tuple[list[str], int]:
    """The leading lines of text that begin with `mark`, without it, and the offset of the first byte after them.

    A line of bytes that are no text (UTF-8 without control characters) belongs to the data, although it begins with
    the mark. The line `last` ends the header.

    Raises:
        ValueError: the file ends inside a line.
    """
    lines, position = [], 0
    while data.startswith(mark, position):
        end = data.find(b"\n", position)
        line = _text(data[position + len(mark) : end if end >= 0 else len(data)])
        if line is None:
            break
        if end < 0:
            raise damaged(path, "the text header ends inside a line", len(data), "a line feed after every line")
        lines.append(line)
        position = end + 1
        if line == last:
            break
    return lines, position


def _text(line: bytes) -> str | None:
    try:
        text = line.decode().strip()
    except UnicodeDecodeError:
        return None
    return text if text.replace("\t", " ").isprintable() else None


def records(path: Path, data: bytes, start: int, kind: np.dtype, count: int | None = None) -> np.ndarray:
    """A view of the bytes from `start` on as records: `count` of them, or as many as fill the rest exactly.

    Raises:
        ValueError: the bytes end before, or inside a record.
    """
    rest = len(data) - start
    if count is None:
        count, over = divmod(rest, kind.itemsize)
        if over:
            raise damaged(
                path, f"the data end after {over} bytes of an event", len(data), f"events of {kind.itemsize} bytes each"
            )
    elif count * kind.itemsize > rest:
        raise damaged(path, f"the data end at byte {len(data)}, inside {count} events that begin", start, "all of them")
    return np.frombuffer(data, kind, count, start)


def unwrap(counter: np.ndarray, bits: int) -> np.ndarray:
    r"""Times, int64, from a counter of `bits` bits that starts again at 0 after its largest number.

    Steps are taken modulo $2^{bits}$, as numbers in $[-2^{bits-1}, 2^{bits-1})$: forwards or backwards by less than
    half of the range.
    """
    half = 1 << (bits - 1)
    t = counter.astype(np.int64)
    steps = np.diff(t)
    if steps.size and (steps.max() >= half or steps.min() < -half):
        steps += half
        steps &= 2 * half - 1
        steps -= half
        np.cumsum(steps, out=t[1:])
        t[1:] += t[0]
    return t


def whole_numbers(path: Path, name: str, column: np.ndarray, offset: int) -> np.ndarray:
    """A column of addresses, checked to hold whole numbers."""
    if column.dtype.kind == "f":
        if not (np.isfinite(column) & (column == np.floor(column)) & (np.abs(column) < 2**31)).all():
            raise damaged(path, f"{name} holds NaN, Inf or fractions, in data", offset, "whole numbers")
        return column.astype(np.int64)
    if column.dtype.kind not in "iub":
        raise damaged(path, f"{name} is of {column.dtype}, in data", offset, "whole numbers")
    return column


def ticks(
    path: Path, times: np.ndarray, unit: Unit | None, offset: int, decimal: bool | None = None
) -> tuple[np.ndarray, Unit]:
    """Whole ticks, int64, and their unit, from times in `unit`.

    Whole numbers keep the unit, microseconds if there is none. Decimal fractions are in seconds if there is none; they
    are rounded to microseconds from s and ms, to nanoseconds from us and ns. `decimal` says which of both they are;
    None looks for fractions.

    Raises:
        ValueError: times that are no finite numbers or do not fit into 64 bits.
    """
    if times.dtype.kind not in "iuf":
        raise damaged(path, f"times are of {times.dtype}, in data", offset, "numbers")
    if decimal is None:
        decimal = times.dtype.kind == "f" and bool((times != np.floor(times)).any())
    whole: Unit = unit or ("s" if decimal else "us")
    finer = _FINER[whole] if decimal else whole
    if times.dtype.kind == "f":
        with np.errstate(over="ignore"):
            times = np.rint(times.astype(np.float64) * (TICKS_PER_SECOND[finer] // TICKS_PER_SECOND[whole]))
        good = np.abs(times) < (2.0**63 if decimal else 2.0**53)  # beyond 2^53 float64 skips whole numbers
    else:
        good = times <= np.iinfo(np.int64).max
    if not good.all():
        worst = int(np.flatnonzero(~good)[0])
        raise damaged(
            path, f"time {worst} is {times[worst]} {finer}, in data", offset, "64 bits with a sign, floats below 2^53"
        )
    return times.astype(np.int64), finer


def agreed_sensor(path: Path, given: Sensor | None, stated: Sensor | None, stated_at: int = 0) -> Sensor | None:
    """The size that the file states, else the given one, else None.

    Raises:
        ValueError: the file states a size outside [1, 65536], or another one than was given.
    """
    if stated is None:
        return given
    if not all(1 <= side <= _LARGEST_SIDE for side in stated):
        raise damaged(path, f"the sensor is {stated[0]} x {stated[1]}", stated_at, "sides in 1 .. 65536")
    if given not in (None, stated):
        raise ValueError(
            f"{path}: sensor={given} was given, but the file states {stated} at byte offset {stated_at}; "
            "expected the same; leave sensor out, and crop afterwards"
        )
    return stated


def agreed_unit(path: Path, given: Unit | None, stated: Unit | None, stated_at: int = 0) -> Unit | None:
    """The unit that the file states, else the given one, else None.

    Raises:
        ValueError: the file states another one than was given.
    """
    if stated is not None and given not in (None, stated):
        raise ValueError(
            f"{path}: unit={given!r} was given, but the times are in {stated!r}, as stated at byte offset {stated_at}; "
            "expected the same; leave unit out, and convert with events.in_unit"
        )
    return stated or given


def smallest_sensor(x: np.ndarray, y: np.ndarray, standard: tuple[Sensor, ...] = ()) -> Sensor:
    """The first of the standard sizes that holds all addresses, else the largest address + 1 on both axes."""
    needed = (int(x.max()) + 1, int(y.max()) + 1) if len(x) else (1, 1)
    return next((size for size in standard if size[0] >= needed[0] and size[1] >= needed[1]), needed)


def as_events(
    path: Path,
    columns: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    sensor: Sensor,
    unit: Unit,
    *,
    sort: bool,
    at: Callable[[int], int],
) -> Events:
    """Events from the columns t, x, y and p, whose event k lies in the file at byte offset `at(k)`.

    With `sort` they are put in the order of their times, equal times as in the file.

    Raises:
        ValueError: an address outside the sensor, or a time before the one ahead of it and no `sort`.
    """
    t, x, y, p = columns
    for name, column, side in (("x", x, sensor[0]), ("y", y, sensor[1])):
        limit = min(side, _LARGEST_SIDE)
        if column.size and (column.min() < 0 or column.max() >= limit):
            k = int(np.flatnonzero((column < 0) | (column >= limit))[0])
            raise damaged(
                path,
                f"event {k} has {name}={column[k]}",
                at(k),
                f"{name} in 0 .. {limit - 1}",
                f"pass the true sensor size, or {AGAIN}",
            )
    falls = np.flatnonzero(t[1:] < t[:-1])
    if falls.size and not sort:
        k = int(falls[0]) + 1
        raise damaged(
            path,
            f"event {k} has t={t[k]} after t={t[k - 1]}",
            at(k),
            "times that never fall",
            f"{AGAIN}, or pass sort=True to take the events in the order of their times",
        )
    array = np.empty(len(t), EVENT)
    array["t"], array["x"], array["y"], array["p"] = t, x, y, p
    return Events(sort_rows(array) if falls.size else array, sensor, unit)


def column_events(
    path: Path,
    columns: dict[str, np.ndarray],
    sensor: Sensor | None,
    unit: Unit | None,
    *,
    sort: bool,
    at: Callable[[int], int],
    decimal: bool | None = None,
) -> Events:
    """Events from columns t, x, y and p of any numeric types: times as in `ticks`, those p above zero meaning ON.

    Without a sensor its size is the largest address + 1 on both axes.

    Raises:
        ValueError: columns of unequal length or not `[N]`, no numbers, and as `ticks` and `as_events`.
    """
    shapes = {column.shape for column in columns.values()}
    if len(shapes) != 1 or columns["t"].ndim != 1:
        sizes = ", ".join(f"{name} {list(column.shape)}" for name, column in columns.items())
        raise damaged(path, f"columns {sizes} in data", at(0), "four of equal shape [N]")
    t, unit = ticks(path, columns["t"], unit, at(0), decimal)
    x, y = (whole_numbers(path, name, columns[name], at(0)) for name in ("x", "y"))
    if columns["p"].dtype.kind not in "iufb" or np.isnan(columns["p"]).any():
        raise damaged(path, f"p is of {columns['p'].dtype} or holds NaN, in data", at(0), "numbers")
    return as_events(path, (t, x, y, columns["p"] > 0), sensor or smallest_sensor(x, y), unit, sort=sort, at=at)
