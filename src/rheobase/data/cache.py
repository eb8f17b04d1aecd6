"""Arrays made once and kept on the disk: the frames of a set of recordings, or whatever rows a function makes.

    from rheobase.data.cache import cached_frames

    split = cached_frames(recordings, transform)  # transform: Events -> uint8 or float32 of one shape
    split.x  # a tensor [N, ...] that lies on the disk; pages come as they are read

A kept array is one file in `.npy` format that ends with its key, `<first 32 hex digits of SHA-256 of the key>.npy`.
While it is made it is called `.part`, and a journal says which ranges of rows are on the disk: who is killed loses the
ranges in work, and the next call goes on. Who makes it holds a lock that the system drops when he dies.
"""

import errno
import hashlib
import io
import json
import math
import mmap
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO

import numpy as np
import torch

from rheobase.data.dataset import Split
from rheobase.data.events import Events
from rheobase.data.recordings import Recordings

FORMAT = 1
"""Part of every key; a change of what is kept takes the next number."""

_SHARD_BYTES, _SHARDS = 2**24, 64
_ALONE_S = 2.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Progress = Callable[[int, int], None]
"""Called with the rows that are done and the rows in all."""


def cache_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """Where arrays are kept: `folder`, else `$RHEOBASE_CACHE`, else `~/.cache/rheobase/frames`."""
    return Path(folder or os.environ.get("RHEOBASE_CACHE") or "~/.cache/rheobase/frames").expanduser()


def cached_frames(
    recordings: Recordings,
    transform: Callable[[Events], np.ndarray],
    *,
    folder: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> Split:
    """Apply `transform` to every recording once, and keep what comes of it; x of the split lies on the disk.

    Args:
        recordings: what is read; its `key` is part of the key.
        transform: gives uint8 or float32 of the same shape for every recording. Its repr is part of the key, so it
            must say all that it does: a frozen dataclass does.
        folder: where to keep it, see `cache_folder`.
        workers: processes, 0 for none but the caller; None takes one per core if the work takes longer than seconds.
        on_progress: called with (recordings done, all).

    Raises:
        ValueError: no recordings, a repr that does not tell transforms apart, a result of another shape or type.
        OSError: the folder cannot be written or the disk is full.
    """
    if len(recordings) == 0:
        raise ValueError("cached_frames: there are no recordings; expected one or more")
    said = repr(transform)
    if re.search(r" at 0x[0-9a-f]+|\.\.\.", said):
        raise ValueError(
            f"cached_frames: the repr of transform, {said}, does not tell it from another one; "
            "make it a frozen dataclass of numbers, strings and tuples"
        )
    key = f"{recordings.key}\n{said}"
    kept = _Kept.at(key, folder)
    array = kept.array()
    if array is None or len(array) != len(recordings):
        first = transform(recordings[0])
        make = partial(_transformed, recordings.read, transform)
        array = cached_array(
            key,
            len(recordings),
            first.shape,
            first.dtype,
            make,
            folder=folder,
            workers=workers,
            on_progress=on_progress,
        )
    return Split(torch.from_numpy(array), recordings.y)


def cached_array(
    key: str,
    count: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any] | type,
    make: Callable[[int, int], np.ndarray],
    *,
    folder: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> np.ndarray:
    """The array `[count, *shape]` whose rows start to stop are `make(start, stop)`, made once and kept on the disk.

    It is mapped copy-on-write: nothing is read before it is used, and what is written into it stays in memory.

    Args:
        key: says all that the array depends on.
        count: rows, one or more.
        shape: of a row.
        dtype: uint8 or float32.
        make: gives rows; always the same ones. Workers need it to be picklable and defined in a module, not in the
            script that runs.
        folder: where to keep it, see `cache_folder`.
        workers: processes, 0 for none but the caller; None takes one per core, when the caller has worked alone for
            two seconds, and none if `make` cannot be sent to them.
        on_progress: called with (rows done, count).

    Raises:
        ValueError: count < 1, a dtype that a split does not take, rows of another shape or dtype, workers < 0, or
            workers that `make` cannot be sent to.
        OSError: the folder cannot be written or the disk is full.
    """
    dtype = np.dtype(dtype)
    if count < 1 or dtype not in (np.uint8, np.float32) or (workers or 0) < 0:
        raise ValueError(
            "cached_array: expected count >= 1, dtype uint8 or float32 and workers >= 0, "
            f"got count={count}, dtype={dtype}, workers={workers}"
        )
    kept = _Kept.at(key, folder)
    if (array := kept.array((count, *shape), dtype)) is not None:
        return array
    from filelock import FileLock

    lock = FileLock(kept.path.with_suffix(".lock"))
    with _writing(kept.path.parent):
        kept.path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        if kept.array((count, *shape), dtype) is None:  # nobody made it while this waited
            rows = _Rows(kept.path.with_suffix(".part"), _header((count, *shape), dtype), kept.key, shape, dtype, make)
            _build(rows, count, workers, on_progress)
            rows.path.replace(kept.path)
            _journal(rows).unlink()
    finally:
        lock.release()
    made = kept.array((count, *shape), dtype)
    if made is None:
        raise OSError(errno.EIO, f"cached_array: {kept.path} is not what was written; is the disk sound?")
    return made


def _transformed(
    read: Callable[[int], Events], transform: Callable[[Events], np.ndarray], start: int, stop: int
) -> np.ndarray:
    rows = [transform(read(k)) for k in range(start, stop)]
    for k, row in enumerate(rows, start):
        if (row.shape, row.dtype) != (rows[0].shape, rows[0].dtype):
            raise ValueError(
                f"cached_frames: recording {k} became {row.dtype} {list(row.shape)}, recording {start} "
                f"{rows[0].dtype} {list(rows[0].shape)}; expected one shape and dtype for all"
            )
    return np.stack(rows)


@dataclass(frozen=True)
class _Kept:
    """A file of a kept array: `.npy`, then its key."""

    path: Path
    key: bytes

    @classmethod
    def at(cls, key: str, folder: str | os.PathLike[str] | None) -> "_Kept":
        whole = f"{key}\nformat {FORMAT}".encode()
        return cls(cache_folder(folder) / f"{hashlib.sha256(whole).hexdigest()[:32]}.npy", whole)

    def array(self, shape: tuple[int, ...] | None = None, dtype: np.dtype[Any] | None = None) -> np.ndarray | None:
        """The array, mapped copy-on-write, or None if the file is absent, foreign, or not of this shape and dtype."""
        try:
            with self.path.open("rb") as file:
                if np.lib.format.read_magic(file) != (1, 0):
                    return None
                found, in_columns, kind = np.lib.format.read_array_header_1_0(file)
                offset, end = file.tell(), kind.itemsize * math.prod(found)
                file.seek(offset + end)
                same = (shape is None or found == shape) and (dtype is None or kind == dtype)
                if in_columns or not same or file.read(len(self.key) + 1) != self.key:
                    return None
                return np.ndarray(found, kind, _mapped(file), offset)
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: it does not begin as an .npy file
            return None


def _header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    header = io.BytesIO()
    fields = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, fields)
    return header.getvalue()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Failures to write into the folder say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            advice = "make room, or set RHEOBASE_CACHE to a folder with more; what is done stays, the next call goes on"
        else:
            advice = "set RHEOBASE_CACHE to a folder that can be written"
        message = f"cached_array: cannot write to {folder} ({error.strerror or error}); {advice}"
        raise OSError(error.errno, message) from error


def _mapped(file: BinaryIO) -> mmap.mmap:
    """The file, copy-on-write, and where the system allows it without a claim on memory for pages never written."""
    if hasattr(mmap, "MAP_NORESERVE"):
        flags, rights = mmap.MAP_PRIVATE | mmap.MAP_NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE
        return mmap.mmap(file.fileno(), 0, flags=flags, prot=rights)
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


@dataclass(frozen=True)
class _Rows:
    """Rows that are being made, and the file they are written to: all that a worker must know."""

    path: Path
    header: bytes
    key: bytes
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    make: Callable[[int, int], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes of a row."""
        return self.dtype.itemsize * math.prod(self.shape)

    def begin(self, count: int) -> None:
        """Make the file: the header, a hole for `count` rows, the key."""
        with self.path.open("wb") as file:
            file.write(self.header)
            file.seek(count * self.nbytes, os.SEEK_CUR)
            file.write(self.key)

    def write(self, start: int, stop: int) -> None:
        """Make rows and write them to their place; they are on the disk when this returns."""
        rows = self.make(start, stop)
        if rows.shape != (stop - start, *self.shape) or rows.dtype != self.dtype:
            raise ValueError(
                f"cached_array: rows {start} to {stop} came as {rows.dtype} {list(rows.shape)}; "
                f"expected {self.dtype} {[stop - start, *self.shape]}"
            )
        with _writing(self.path.parent), self.path.open("r+b") as file:
            file.seek(len(self.header) + start * self.nbytes)
            file.write(np.ascontiguousarray(rows).data)
            file.flush()
            os.fsync(file.fileno())


def _build(rows: _Rows, count: int, workers: int | None, on_progress: Progress | None) -> None:
    """Make all rows that the journal does not know yet; to be called by the one process that holds the lock."""
    size = max(1, min(_SHARD_BYTES // max(rows.nbytes, 1), -(-count // _SHARDS)))
    path = _journal(rows)
    begun = _noted(path, rows, count)
    ahead = deque(
        shard for start in range(0, count, size) if (shard := (start, min(start + size, count))) not in (begun or ())
    )
    done = count - sum(stop - start for start, stop in ahead)
    with _writing(path.parent):
        need, free = (count - done) * rows.nbytes, shutil.disk_usage(path.parent).free
        if need > free:
            raise OSError(errno.ENOSPC, f"{_size(need)} are needed and {_size(free)} free")
        if begun is None:
            path.unlink(missing_ok=True)
            rows.begin(count)
            path.write_text(_title(rows, count), encoding="utf-8")
    task = None if workers == 0 else _sendable(rows)
    if workers and task is None:
        raise ValueError(
            "cached_array: what makes the rows cannot be sent to workers; define it at the top level of a module that "
            "can be imported (not of the script that runs), or pass workers=0"
        )

    def note(start: int, stop: int) -> None:
        nonlocal done
        with _writing(path.parent), path.open("a", encoding="utf-8") as journal:
            journal.write(f"\n{start} {stop} done")
            journal.flush()
            os.fsync(journal.fileno())
        done += stop - start
        if on_progress is not None:
            on_progress(done, count)

    crew = min(workers or _cores(), len(ahead)) if task is not None else 0
    alone_until = math.inf if crew < 2 and not workers else time.monotonic() + (0 if workers else _ALONE_S)
    while ahead and time.monotonic() < alone_until:
        rows.write(*ahead[0])
        note(*ahead.popleft())
    if ahead and task is not None:
        _share(task, ahead, min(crew, len(ahead)), note)


def _journal(rows: _Rows) -> Path:
    """Beside the part that it tells of."""
    return rows.path.with_suffix(".journal")


def _title(rows: _Rows, count: int) -> str:
    """The first line of a journal."""
    return json.dumps([rows.key.decode(), count, rows.shape, str(rows.dtype)])


def _noted(path: Path, rows: _Rows, count: int) -> set[tuple[int, int]] | None:
    """The ranges that an earlier process finished; None if it left nothing, or something else."""
    try:
        title, *lines = path.read_text(encoding="utf-8").split("\n")
        size = len(rows.header) + count * rows.nbytes + len(rows.key)
        if title != _title(rows, count) or rows.path.stat().st_size != size:
            return None
        whole = [line.split() for line in lines if line.endswith(" done")]  # a kill may cut a line off
        return {(int(start), int(stop)) for start, stop, _ in whole}
    except (FileNotFoundError, ValueError):
        return None


def _sendable(rows: _Rows) -> bytes | None:
    """The task of a worker, or None if it cannot be pickled or lives in the script that runs."""
    try:
        task = pickle.dumps(rows)
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
    return None if b"__main__" in task else task


def _share(task: bytes, ahead: "deque[tuple[int, int]]", workers: int, note: Callable[[int, int], None]) -> None:
    """Have so many processes make all ranges; note each as it is done.

    The workers are plain processes that hear on standard input, so a script needs no guard around its call, and they
    end when the caller dies, however it dies.
    """
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import _serve; _serve()"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    heard: SimpleQueue[tuple[int, int] | BaseException] = SimpleQueue()
    processes = [
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(workers)
    ]

    def drive(process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(task)
            while True:
                try:
                    shard = ahead.popleft()
                except IndexError:
                    return
                pickle.dump(shard, process.stdin)
                process.stdin.flush()
                error = pickle.load(process.stdout)
                heard.put(shard if error is None else error)
        except (EOFError, OSError) as error:
            died = f"cached_array: a worker died with status {process.wait()}; its words are above, or pass workers=0"
            heard.put(ChildProcessError(f"{died} ({error})"))

    wanted = len(ahead)
    threads = [threading.Thread(target=drive, args=(process,), daemon=True) for process in processes]
    try:
        for thread in threads:
            thread.start()
        for _ in range(wanted):
            found = heard.get()
            if isinstance(found, BaseException):
                raise found
            note(*found)
    finally:
        ahead.clear()
        for process in processes:
            process.kill()
        for thread, process in zip(threads, processes, strict=True):
            thread.join()
            process.communicate()


def _serve() -> None:
    """The life of a worker: read where rows are written, then ranges; answer None or the error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a transform prints does not mix with the answers
    rows: _Rows = pickle.load(sys.stdin.buffer)
    while True:
        try:
            shard = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        error: BaseException | None = None
        try:
            rows.write(*shard)
        except Exception as caught:
            error = caught
            error.add_note(f"in a worker, rows {shard[0]} to {shard[1]}:\n{traceback.format_exc()}")
        try:
            answer = pickle.dumps(error)
            pickle.loads(answer)
        except Exception:
            answer = pickle.dumps(RuntimeError(f"cached_array: rows {shard[0]} to {shard[1]}: {error!r}"))
        answers.write(answer)
        answers.flush()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count / 1e3:.1f} kB"
