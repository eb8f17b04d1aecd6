"""Files written whole or not at all, and waited for until they are on the disk."""

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until its bytes are on the disk; not atomic."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk (POSIX; elsewhere the system gives no way to ask)."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that whoever reads it, even after a kill, finds all of the old bytes or all of the new.

    Several may write it at once: the last one wins. A failure leaves the old file and nothing beside it; a kill may
    leave a part, see `remove_parts`.
    """
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        write_synced(part, data)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside, no other process is in here for the same folder (POSIX; elsewhere, and on network file systems
    that lock no folders, nothing is locked).

    For a file that is read, changed and written back. The system lets go of the lock when a process dies.
    """
    if os.name != "posix":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def remove_parts(path: Path) -> None:
    """Delete what kills within `write_atomic` left beside a file; only for who alone writes that file."""
    for part in path.parent.glob(f".{path.name}.*.part"):
        part.unlink(missing_ok=True)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write a CSV file in one move; a column that a row lacks is empty."""
    lines = io.StringIO()
    writer = csv.DictWriter(lines, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, lines.getvalue().encode())


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file by the names of its columns."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
