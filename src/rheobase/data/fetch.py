"""Find a data set's files below the data root, or fetch them from their source."""

import hashlib
import os
import shutil
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from uuid import uuid4

_TIMEOUT_S = 60


@dataclass(frozen=True)
class Source:
    """The files of a data set: `files` maps name to MD5, or to git's blob id (40 digits) where a repository has them.

    `folders`, relative to the data root, are looked through in order, and the first receives downloads. `addresses`
    are tried in order; a file's URL is address + name.

    Attributes:
        instead: by file, paths relative to the folders that serve as well as the file does (what it unpacks to, another
            form of it); within a folder they are looked at first.
        urls: by file, the URL of one that does not lie at address + name; it is tried before the addresses.
        page: where a person finds the files; the only way to them if there are neither addresses nor URLs.
    """

    dataset: str
    files: Mapping[str, str]
    folders: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    instead: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    urls: Mapping[str, str] = field(default_factory=dict)
    page: str = ""

    def paths(self, name: str) -> list[str]:
        """Every path below the data root that is looked at for a file, in order."""
        aliases = dict.fromkeys((*self.instead.get(name, ()), name, name.removesuffix(".gz")))
        return [os.path.normpath(f"{folder}/{alias}") for folder in self.folders for alias in aliases]

    @property
    def layout(self) -> tuple[str, ...]:
        """Every path below the data root that is looked at, each once."""
        return tuple(dict.fromkeys(path for name in self.files for path in self.paths(name)))

    def locations(self, name: str) -> list[str]:
        """The URLs that a file may be fetched from, in order."""
        first = [self.urls[name]] if name in self.urls else []
        return first + [address + name for address in self.addresses]


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder that holds data sets: `root`, else `$RHEOBASE_DATA`, else `~/.cache/rheobase`."""
    return Path(root or os.environ.get("RHEOBASE_DATA") or "~/.cache/rheobase").expanduser()


def obtain(source: Source, root: str | os.PathLike[str] | None = None, download: bool = False) -> dict[str, Path]:
    """Return where each file of `source` lies: in every folder `instead` is looked for, then `name`, with and without
    `.gz`.

    With `download`, missing files are fetched to a temporary name, checked against their sum, then moved into place.

    Raises:
        FileNotFoundError: files are missing, and `download` is off or no program can fetch them; names them, their
            sums, the paths, and what to do.
        ConnectionError: no address delivered the right bytes; says what each one did.
    """
    base = data_root(root)
    candidates = {name: [base / path for path in source.paths(name)] for name in source.files}
    # Of several copies the first one named wins.
    found = {name: path for name, paths in candidates.items() for path in reversed(paths) if path.exists()}
    missing = [name for name in source.files if name not in found]
    if missing and not (download and all(source.locations(name) for name in missing)):
        raise FileNotFoundError(_missing_message(source, missing, candidates))
    for name in missing:
        found[name] = base / source.folders[0] / name
        _download(source, name, found[name])
    return found


def check_md5(path: Path, md5: str) -> None:
    """Do nothing if the file has this MD5.

    Raises:
        ValueError: it has another; names the file, its size and both sums.
    """
    _check(path, md5)


def check_blob(path: Path, blob: str) -> None:
    """Do nothing if git gives the file this blob id: SHA-1 of `blob <size>`, a zero byte and the bytes.

    Raises:
        ValueError: it gives another; names the file, its size and both ids.
    """
    _check(path, blob)


def _check(path: Path, known: str) -> None:
    found = _sum(path, known)
    if found != known:
        raise ValueError(
            f"{path}: {path.stat().st_size} bytes with {_kind(known)} {found}, expected {_kind(known)} {known}; the "
            "file is damaged or not the original: delete it and download it again"
        )


def _sum(path: Path, known: str) -> str:
    """The sum of a file, of the kind of the known one."""
    start = b"" if _kind(known) == "MD5" else b"blob %d\0" % path.stat().st_size
    digest = hashlib.md5(usedforsecurity=False) if _kind(known) == "MD5" else hashlib.sha1(usedforsecurity=False)
    digest.update(start)
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: digest).hexdigest()


def _kind(known: str) -> str:
    return "git blob" if len(known) == 40 else "MD5"


def _missing_message(source: Source, missing: list[str], candidates: dict[str, list[Path]]) -> str:
    looked = "\n".join(dict.fromkeys(f"  {path}" for name in missing for path in candidates[name]))
    sums = [(name, source.files[name]) for name in missing if source.files[name]]
    message = f"{source.dataset}: {len(missing)} of {len(source.files)} files are missing: {', '.join(missing)}.\n"
    message += f"Looked at:\n{looked}\n"
    if all(source.locations(name) for name in missing):
        addresses = " or ".join(source.addresses or [source.urls[name] for name in missing])
        message += (
            f"To download them from {addresses}, add --download to the command (rheobase train RECIPE --download) "
            f"or call rheobase.data.load({source.dataset!r}, download=True).\n"
        )
    if source.page:
        message += f"Where they come from: {source.page}\n"
    if sums:
        listed = "\n".join(f"  {name}: {known}" for name, known in sums)
        message += f"Their {_kind(sums[0][1])}:\n{listed}\n"
    return message + (
        "To use files that you have, put them at one of these paths, or point RHEOBASE_DATA (or root=) at their folder."
    )


def _download(source: Source, name: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for url in source.locations(name):
        part = target.with_name(f".{name}.{uuid4().hex}.part")
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response, part.open("xb") as file:
                shutil.copyfileobj(response, file)
            known = source.files[name]
            found = _sum(part, known)
            if found == known:
                part.replace(target)
                return
            failures.append(f"{url}: got {part.stat().st_size} bytes with {_kind(known)} {found}, expected {known}")
        except (OSError, HTTPException) as error:
            failures.append(f"{url}: {error}")
        finally:
            part.unlink(missing_ok=True)
    raise ConnectionError(
        f"{source.dataset}: could not download {name}:\n"
        + "\n".join(f"  {failure}" for failure in failures)
        + f"\nTry again later, or place the file yourself at {target}"
    )
