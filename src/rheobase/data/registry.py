"""Data sets by name, and what one must know of them before one has them."""

import difflib
import fnmatch
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload

from rheobase.data.fetch import data_root

Loader = TypeVar("Loader", bound=Callable[..., Any])


@dataclass(frozen=True)
class About:
    """What `rheobase data info` says of a data set, also where it is absent.

    Attributes:
        title: what it holds, in a line.
        kind: "images", "events", "sound", "graphs", "episodes" or "generated".
        source: official address.
        licence: as its source states it.
        citation: whom to cite.
        split: how training and test samples are told apart, and how many there are of each.
        size: what there is to download, or "nothing".
        layout: every path below the data root that the loader looks at; empty if it needs no files.
        checksums: MD5 (32 digits), git's blob id (40) or SHA-256 (64) by file name.
        made_from: the registered data set that it is computed from, whose files it needs; empty if from none.
    """

    title: str
    kind: str
    source: str
    licence: str
    citation: str
    split: str
    size: str
    layout: tuple[str, ...] = ()
    checksums: Mapping[str, str] = field(default_factory=dict)
    made_from: str = ""


_LOADERS: dict[str, Callable[..., Any]] = {}
_ABOUT: dict[str, About] = {}
_FOLDS: dict[str, int] = {}


@overload
def register(loader: Loader) -> Loader: ...
@overload
def register(*, about: About, folds: int = 0) -> Callable[[Loader], Loader]: ...
def register(loader: Any = None, *, about: About | None = None, folds: int = 0) -> Any:
    """Register a function under its own name, so that `load(name)` calls it: `@register` or `@register(about=...)`.

    Every loader takes the keywords `root` (folder of data, None for the default) and `download` (may it fetch?). It
    returns a `Dataset`, an `EventDataset`, or what its kind of data needs. One whose set is measured by
    cross-validation takes `fold`, a number below `folds`, too.

    Raises:
        ValueError: the name is taken, or a keyword is missing.
    """
    if loader is None:
        return partial(register, about=about, folds=folds)
    name = loader.__name__
    if name in _LOADERS:
        raise ValueError(f"register: there is already a data set {name!r}; give this loader another name")
    missing = {"root", "download", *(["fold"] if folds else [])} - set(inspect.signature(loader).parameters)
    if missing:
        raise ValueError(f"register: loader {name!r} lacks the keyword(s) {', '.join(sorted(missing))}; add them")
    _LOADERS[name] = loader
    _FOLDS[name] = folds
    if about is not None:
        _ABOUT[name] = about
    return loader


def list_datasets(pattern: str = "*") -> list[str]:
    """Return the sorted names that match a shell pattern: `list_datasets("*mnist")`."""
    return sorted(fnmatch.filter(_LOADERS, pattern))


def about(name: str) -> About:
    """What is known of a registered data set without its files.

    Raises:
        ValueError: no such data set, or one that was registered without.
    """
    _find("about", name)
    if name not in _ABOUT:
        raise ValueError(
            f"about: {name!r} was registered without `about`; register it with @register(about=About(...))"
        )
    return _ABOUT[name]


def load(name: str, **options: Any) -> Any:
    """Load a data set: `load("mnist", download=True)`.

    Options every data set takes: `root`, the folder to look in (default: `$RHEOBASE_DATA`, else `~/.cache/rheobase`),
    and `download`, whether missing files may be fetched (default: no).

    Raises:
        ValueError: no such data set (the message names the closest), an option it does not take, or a damaged file.
        FileNotFoundError: files are missing and `download` is off.
        ConnectionError: files are missing and could not be downloaded.
    """
    loader = _find("load", name)
    known = inspect.signature(loader).parameters
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"load: {name!r} takes no option {', '.join(unknown)}; its options are {', '.join(known)}")
    return loader(**options)


def options_of(name: str) -> tuple[str, ...]:
    """The keywords that the loader of a data set takes.

    Raises:
        ValueError: no such data set.
    """
    return tuple(inspect.signature(_find("options_of", name)).parameters)


def folds_of(name: str) -> int:
    """How many folds a data set is cross-validated with, 0 if it has a split of its own.

    Raises:
        ValueError: no such data set.
    """
    _find("folds_of", name)
    return _FOLDS[name]


def files_of(name: str, root: str | os.PathLike[str] | None = None) -> tuple[Path, ...]:
    """Which paths of a data set's layout exist below the data root; none of an absent one.

    Raises:
        ValueError: as `about`.
    """
    paths = (data_root(root) / path for path in about(name).layout)
    return tuple(path for path in paths if path.exists())


def _find(caller: str, name: str) -> Callable[..., Any]:
    if name not in _LOADERS:
        close = difflib.get_close_matches(name, _LOADERS)
        hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise ValueError(
            f"{caller}: there is no data set {name!r}; {hint}"
            f"rheobase.data.list_datasets() lists all: {', '.join(list_datasets())}"
        )
    return _LOADERS[name]
