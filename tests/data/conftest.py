import gzip
import hashlib
import struct
import zipfile

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


@pytest.fixture(scope="session")
def write_bin():
    """Write (t, x, y, p) tuples as 40-bit events: byte x, byte y, then 1 bit polarity and 23 bits microseconds."""

    def write(path, events):
        words = (struct.pack(">BBI", x, y, p << 23 | t) for t, x, y, p in events)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(word[:2] + word[3:] for word in words))

    return write


@pytest.fixture(scope="session")
def zip_folder():
    """Pack a folder into a zip beside it, under its own name; return the archive and its MD5."""

    def pack(folder):
        archive = folder.with_name(f"{folder.name}.zip")
        with zipfile.ZipFile(archive, "w") as opened:
            for path in sorted(folder.rglob("*")):
                opened.write(path, path.relative_to(folder.parent))
        return archive, hashlib.md5(archive.read_bytes()).hexdigest()

    return pack
