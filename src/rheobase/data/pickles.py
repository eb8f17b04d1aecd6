"""Pickles of old data sets, read without running anything that they name.

A pickle may name any function and have it called. Here it may name NumPy's arrays and types and what a caller lists.
"""

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def read_pickle(path: Path, data: bytes, more: Mapping[tuple[str, str], Any] | None = None) -> Any:
    """Read a pickle made by Python 2 or 3: numbers, strings, lists, dicts and NumPy arrays.

    Strings of Python 2 are read as Latin-1.

    Args:
        path: where the bytes come from, for messages.
        data: the pickle.
        more: further names it may hold, (module, name) -> what to call in their place.

    Raises:
        ValueError: the pickle is damaged, or names something else; names the file and the name.
    """
    try:
        return _Unpickler(data, {**_NUMPY, **(more or {})}).load()
    except Exception as error:  # a damaged pickle can raise almost anything
        raise ValueError(f"{path}: not a pickle of plain arrays ({error}); delete it and download it again") from error


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, allowed: Mapping[tuple[str, str], Any]) -> None:
        super().__init__(io.BytesIO(data), fix_imports=False, encoding="latin1")
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not allowed") from None


def _dtype(name: str, align: int = 0, copy: int = 0) -> np.dtype:
    return np.dtype(name, bool(align), bool(copy))


def _bytes(text: str, encoding: str = "latin1") -> bytes:
    """What Python 3 writes for bytes where Python 2 shall be able to read them."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it holds bytes in {encoding}, expected latin1")
    return text.encode(encoding)


_RECONSTRUCT = np.empty(0).__reduce__()[0]
_NUMPY: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _bytes,
}
