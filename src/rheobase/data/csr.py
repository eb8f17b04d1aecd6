"""Sparse matrices as files keep them: compressed rows, checked before they are used.

`indices[indptr[i] : indptr[i + 1]]` are the columns of row i, `data` the numbers there.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def coordinates(path: Path, indices: np.ndarray, indptr: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Rows and columns of the stored numbers, int64 `[2, nnz]`.

    Args:
        path: where they come from, for messages.
        indices, indptr: of the matrix.
        shape: its rows and columns.

    Raises:
        ValueError: they do not agree.
    """
    rows, columns = map(int, shape)
    lengths = np.diff(indptr)
    agree = len(indptr) == rows + 1 and indptr[0] == 0 and indptr[-1] == len(indices)
    if not agree or (lengths < 0).any() or (len(indices) and not 0 <= indices.min() <= indices.max() < columns):
        raise ValueError(
            f"{path}: a sparse matrix {rows} x {columns} of {len(indices)} numbers does not agree with its indices; "
            "download it again"
        )
    return np.stack([np.repeat(np.arange(rows), lengths), indices.astype(np.int64)])


def dense(path: Path, data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The matrix as float32 `[rows, columns]`.

    Raises:
        ValueError: as `coordinates`, or there are more or fewer numbers than indices.
    """
    if len(data) != len(indices):
        raise ValueError(f"{path}: {len(data)} numbers for {len(indices)} indices; download it again")
    x = np.zeros([int(size) for size in shape], np.float32)
    x[tuple(coordinates(path, indices, indptr, shape))] = data
    return x
