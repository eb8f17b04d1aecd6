"""Find a data set's files below the data root, or fetch them from their source."""

import hashlib
import os
import shutil
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from uuid import uuid4

_TIMEOUT_S = 60


@dataclass(frozen=True)
class Source:
    """The files of a data set: `files` maps name to MD5.

    `folders`, relative to the data root, are looked through in order, and the first receives downloads. `addresses`
    are tried in order; a file's URL is address + name.
    """

    dataset: str
    files: Mapping[str, str]
    folders: tuple[str, ...]
    addresses: tuple[str, ...]


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder that holds data sets: `root`, else `$RHEOBASE_DATA`, else `~/.cache/rheobase`."""
    return Path(root or os.environ.get("RHEOBASE_DATA") or "~/.cache/rheobase").expanduser()


def obtain(source: Source, root: str | os.PathLike[str] | None = None, download: bool = False) -> dict[str, Path]:
    """Return where each file of `source` lies, looking in every folder for `name` and for `name` without `.gz`.

    With `download`, missing files are fetched to a temporary name, checked against their MD5, then moved into place.

    Raises:
        FileNotFoundError: files are missing and `download` is off; names them, the paths, and what to do.
        ConnectionError: no address delivered the right bytes; says what each one did.
    """
    base = data_root(root)
    candidates = {
        name: [base / folder / alias for folder in source.folders for alias in (name, name.removesuffix(".gz"))]
        for name in source.files
    }
    # Of several copies the first one named wins.
    found = {name: path for name, paths in candidates.items() for path in reversed(paths) if path.is_file()}
    missing = [name for name in source.files if name not in found]
    if missing and not download:
        raise FileNotFoundError(_missing_message(source, missing, candidates))
    for name in missing:
        found[name] = candidates[name][0]
        _download(source, name, found[name])
    return found


def _missing_message(source: Source, missing: list[str], candidates: dict[str, list[Path]]) -> str:
    looked = "\n".join(f"  {path}" for name in missing for path in candidates[name])
    addresses = " or ".join(source.addresses)
    return (
        f"{source.dataset}: {len(missing)} of {len(source.files)} files are missing: {', '.join(missing)}.\n"
        f"Looked at:\n{looked}\n"
        f"To download them from {addresses}, add --download to the command (rheobase train RECIPE --download) "
        f"or call rheobase.data.load({source.dataset!r}, download=True).\n"
        "To use files that you have, put them at one of these paths, or point RHEOBASE_DATA (or root=) at their folder."
    )


def _download(source: Source, name: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for address in source.addresses:
        url = address + name
        part = target.with_name(f".{name}.{uuid4().hex}.part")
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response, part.open("xb") as file:
                shutil.copyfileobj(response, file)
            with part.open("rb") as file:
                digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            if digest == source.files[name]:
                part.replace(target)
                return
            failures.append(f"{url}: got {part.stat().st_size} bytes with MD5 {digest}, expected {source.files[name]}")
        except (OSError, HTTPException) as error:
            failures.append(f"{url}: {error}")
        finally:
            part.unlink(missing_ok=True)
    raise ConnectionError(
        f"{source.dataset}: could not download {name}:\n"
        + "\n".join(f"  {failure}" for failure in failures)
        + f"\nTry again later, or place the file yourself at {target}"
    )
