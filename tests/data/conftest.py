import gzip
import struct

import numpy as np
import pytest


def idx_bytes(array: np.ndarray) -> bytes:
    """The idx format, written independently of the reader: >HBB, one >I per axis, C-ordered bytes."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture(scope="session")
def write_idx():
    """Write an array as an idx file, packed if the name ends in .gz; return the bytes written."""

    def write(path, array):
        data = idx_bytes(array)
        data = gzip.compress(data, mtime=0) if path.suffix == ".gz" else data
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return data

    return write
