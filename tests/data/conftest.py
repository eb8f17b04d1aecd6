import gzip
import hashlib
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import strategies as st

from rheobase.data import Events


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


@st.composite
def _recordings(draw, rows=None):
    """Up to 60 events on a small sensor, often at equal times or pixels, times often negative."""
    width, height = draw(st.integers(1, 7)), rows or draw(st.integers(1, 5))
    N, last = draw(st.integers(0, 60)), draw(st.sampled_from([0, 1, 7, 100, 10**12]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    t = np.sort(random.integers(0, last, N, endpoint=True)) + draw(st.sampled_from([0, -50, 10**15]))
    p = draw(st.sampled_from([0, 1, 2]))
    return Events.of(
        t,
        random.integers(width, size=N),
        random.integers(height, size=N),
        random.integers(2, size=N) if p == 2 else [p] * N,
        (width, height),
    )


@pytest.fixture(scope="session")
def recordings():
    """The strategy of random recordings: `data.draw(recordings())`, or of sensors with so many rows."""
    return _recordings
