"""Zip and tar archives, read in memory or unpacked safely."""

import errno
import gzip
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

# RuntimeError: a zip that is encrypted, or packed in a way that is not known.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    RuntimeError,
)
_DAMAGE_CODES = (None, errno.EINVAL)  # of OSError: bzip2's own, and a place before the start of the file
_SIZE_LIMIT = 1 << 38  # 256 GiB: all of ImageNet fits


@dataclass(frozen=True)
class Entry:
    """A regular file in an archive: its path with forward slashes, the bytes it says it has, and how to open it."""

    name: str
    size: int
    open: Callable[[], Any]


@contextmanager
def entries(archive: Path) -> Iterator[Iterator[Entry]]:
    """Open a zip or a tar (packed by gzip, bzip2 or xz, or not) and hand out its regular files in order.

    Raises:
        ValueError: the archive is damaged, also if this shows only while a file is read inside the `with`; it holds a
            link or a device, or a name that is absolute or leaves the archive. Names archive and entry.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                yield _zipped(archive, opened)
        else:
            with tarfile.open(archive) as opened_tar:
                yield _tarred(archive, opened_tar)
    except _DAMAGE as error:
        raise _damaged(archive, error) from error
    except OSError as error:
        if error.errno not in _DAMAGE_CODES:
            raise
        raise _damaged(archive, error) from error


def read_entries(archive: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The files of an archive whose names are wanted, in memory and by name.

    Raises:
        ValueError: as `entries`.
    """
    with entries(archive) as found:
        return {entry.name: _read(archive, entry) for entry in found if wanted(entry.name)}


def unpack(archive: Path, top: str, limit: int = _SIZE_LIMIT) -> Path:
    """Unpack an archive beside itself and return `<folder of the archive>/<top>`, a file or a folder of the archive.

    All of it is unpacked under a temporary name first: `top` is either whole or absent. Other things in the archive
    are left out. Nothing is done if `top` is there already.

    Raises:
        ValueError: as `entries`; there is no `top` in it, or it holds more than `limit` bytes.
        PermissionError: nothing may be written beside it.
    """
    target = archive.parent / top
    if target.exists():
        return target
    part = archive.with_name(f".{top}.{uuid4().hex}.part")
    try:
        part.mkdir()
    except OSError as error:
        raise PermissionError(
            f"{archive}: cannot be unpacked beside itself ({error}); unpack {top} where you may write, and point "
            "RHEOBASE_DATA (or root=) at that folder"
        ) from error
    try:
        total = 0
        with entries(archive) as found:
            for entry in found:
                if PurePosixPath(entry.name).parts[0] != top:
                    continue
                total += entry.size
                if total > limit:
                    raise ValueError(f"{archive}: holds more than {limit} bytes, at {entry.name}; expected no more")
                _copy(archive, entry, part / entry.name)
        if not (part / top).exists():
            raise ValueError(f"{archive}: holds nothing named {top}; it is not the original: download it again")
        try:
            (part / top).replace(target)
        except OSError:
            if not target.exists():  # else another process was faster
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def _zipped(archive: Path, opened: zipfile.ZipFile) -> Iterator[Entry]:
    for info in opened.infolist():
        _check_name(archive, info.filename)
        kind = info.external_attr >> 28
        if kind not in (0, 0o4, 0o10):
            raise ValueError(f"{archive}: {info.filename} is a link or a device; expected files and folders only")
        if not info.is_dir():
            yield Entry(info.filename, info.file_size, partial(opened.open, info))


def _tarred(archive: Path, opened: tarfile.TarFile) -> Iterator[Entry]:
    for info in opened:
        _check_name(archive, info.name)
        if not (info.isfile() or info.isdir()):
            raise ValueError(f"{archive}: {info.name} is a link or a device; expected files and folders only")
        if info.isfile():
            yield Entry(info.name, info.size, partial(opened.extractfile, info))


def _check_name(archive: Path, name: str) -> None:
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts or "\\" in name or ":" in parts[0] or "\0" in name:
        raise ValueError(f"{archive}: has an entry {name!r}; expected a path inside the archive: do not use it")


def _read(archive: Path, entry: Entry) -> bytes:
    with entry.open() as file:
        data = file.read(entry.size + 1)
    _check_size(archive, entry, len(data))
    return data


def _copy(archive: Path, entry: Entry, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with entry.open() as file, target.open("xb") as copy:
            shutil.copyfileobj(file, copy)
            _check_size(archive, entry, copy.tell())
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise ValueError(
            f"{archive}: has {entry.name} twice, or as a file and as a folder; expected it once; delete it and "
            "download it again"
        ) from error


def _damaged(archive: Path, error: Exception) -> ValueError:
    return ValueError(f"{archive}: damaged archive ({error}); delete it and download it again")


def _check_size(archive: Path, entry: Entry, found: int) -> None:
    if found != entry.size:
        raise ValueError(
            f"{archive}: {entry.name} has {found} bytes or more, expected {entry.size}; delete it and download it again"
        )
