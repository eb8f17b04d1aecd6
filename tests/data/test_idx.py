import gzip
import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from rheobase.data.idx import read_idx

NAMES = ["images-ubyte", "images-ubyte.gz"]
byte_arrays = arrays(np.uint8, array_shapes(min_dims=1, max_dims=3, max_side=6))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("idx")


@pytest.mark.parametrize("name", NAMES)
@given(array=byte_arrays)
def test_round_trip(folder, write_idx, name, array):
    write_idx(folder / name, array)
    read = read_idx(folder / name, array.shape)
    assert read.shape == array.shape
    assert (read.numpy() == array).all()


def test_packed_file_of_many_chunks(folder, write_idx):
    array = np.random.default_rng(0).integers(0, 256, (100, 45, 45), dtype=np.uint8)
    assert len(write_idx(folder / "large.gz", array)) > 3 * 2**16
    assert (read_idx(folder / "large.gz", array.shape).numpy() == array).all()


@pytest.mark.parametrize("name", NAMES)
@given(array=byte_arrays, data=st.data())
def test_truncated_file_raises(folder, write_idx, name, array, data):
    path = folder / name
    whole = write_idx(path, array)
    keep = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:keep])
    with pytest.raises(ValueError, match=rf"{name}.*ends? at byte {keep}\b"):
        read_idx(path, array.shape)


@given(array=byte_arrays, data=st.data())
def test_changed_header_raises_with_its_offset(folder, write_idx, array, data):
    path = folder / "header-ubyte"
    whole = bytearray(write_idx(path, array))
    position = data.draw(st.integers(0, 3 + 4 * array.ndim))
    whole[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(whole)
    offset = [0, 0, 2, 3][position] if position < 4 else position - position % 4
    with pytest.raises(ValueError, match=rf"header-ubyte: .* at byte offset {offset} is \d+, expected"):
        read_idx(path, array.shape)


@given(array=byte_arrays, data=st.data())
def test_changed_packed_file_raises_or_reads_right(folder, write_idx, array, data):
    path = folder / "packed-ubyte.gz"
    whole = bytearray(write_idx(path, array))
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(whole)
    try:
        read = read_idx(path, array.shape)
    except ValueError:
        with pytest.raises(ValueError, match=r"packed-ubyte.gz: .*\bbyte"):
            read_idx(path, array.shape)
    else:
        assert (read.numpy() == array).all()


def test_right_size_but_other_shape_raises(folder, write_idx):
    write_idx(folder / "wide", np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match="length of axis 1 at byte offset 8 is 3, expected 4"):
        read_idx(folder / "wide", (2, 4, 3))


def test_bytes_after_the_data_raise(folder, write_idx):
    for name in NAMES:
        whole = write_idx(folder / name, np.zeros((2, 3)))
        (folder / name).write_bytes(whole + b"\0")
        with pytest.raises(ValueError, match=f"follow the gzip stream, which ends at byte {len(whole)}|after byte 18"):
            read_idx(folder / name, (2, 3))
    (folder / "long.gz").write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x02abc"))
    with pytest.raises(ValueError, match="go on after byte 10"):
        read_idx(folder / "long.gz", (2,))


def test_md5_is_of_the_file_on_disk(folder, write_idx):
    path = folder / "checked.gz"
    whole = write_idx(path, np.arange(5))
    digest = hashlib.md5(whole).hexdigest()
    assert read_idx(path, (5,), digest).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match=rf"{len(whole)} bytes with MD5 {digest}, expected MD5 {'0' * 32}.*delete it"):
        read_idx(path, (5,), "0" * 32)
