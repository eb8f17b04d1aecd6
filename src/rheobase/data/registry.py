"""Data sets by name."""

import difflib
import fnmatch
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from rheobase.data.dataset import Dataset

Loader = TypeVar("Loader", bound=Callable[..., Dataset])

_LOADERS: dict[str, Callable[..., Dataset]] = {}


def register(loader: Loader) -> Loader:
    """Register a function under its own name, so that `load(name)` calls it.

    Every loader takes the keywords `root` (folder of data, None for the default) and `download` (may it fetch?).

    Raises:
        ValueError: the name is taken, or one of the two keywords is missing.
    """
    name = loader.__name__
    if name in _LOADERS:
        raise ValueError(f"register: there is already a data set {name!r}; give this loader another name")
    missing = {"root", "download"} - set(inspect.signature(loader).parameters)
    if missing:
        raise ValueError(f"register: loader {name!r} lacks the keyword(s) {', '.join(sorted(missing))}; add them")
    _LOADERS[name] = loader
    return loader


def list_datasets(pattern: str = "*") -> list[str]:
    """Return the sorted names that match a shell pattern: `list_datasets("*mnist")`."""
    return sorted(fnmatch.filter(_LOADERS, pattern))


def load(name: str, **options: Any) -> Dataset:
    """Load a data set: `load("mnist", download=True)`.

    Options every data set takes: `root`, the folder to look in (default: `$RHEOBASE_DATA`, else `~/.cache/rheobase`),
    and `download`, whether missing files may be fetched (default: no).

    Raises:
        ValueError: no such data set (the message names the closest), an option it does not take, or a damaged file.
        FileNotFoundError: files are missing and `download` is off.
        ConnectionError: files are missing and could not be downloaded.
    """
    if name not in _LOADERS:
        close = difflib.get_close_matches(name, _LOADERS)
        hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise ValueError(
            f"load: there is no data set {name!r}; {hint}"
            f"rheobase.data.list_datasets() lists all: {', '.join(list_datasets())}"
        )
    loader = _LOADERS[name]
    known = inspect.signature(loader).parameters
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"load: {name!r} takes no option {', '.join(unknown)}; its options are {', '.join(known)}")
    return loader(**options)
