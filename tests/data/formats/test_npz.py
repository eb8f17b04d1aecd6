import io
import struct
import zipfile

import numpy as np
import pytest

from rheobase.data import Events
from rheobase.data.formats.npz import read_npz

from .conftest import archive, columns

T, X, Y, P = np.array([1, 5]), np.array([2, 3], np.uint8), np.array([0, 9], np.int16), np.array([1, 0])


def written(tmp_path, data, name="a.npz"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def test_columns_of_any_type(tmp_path):
    events = read_npz(
        written(tmp_path, archive(t=T, x=X.astype(float), y=Y, p=P * 2.0 - 1, label=np.array(3))), unit="ms"
    )
    assert columns(events) == [(1, 2, 0, 1), (5, 3, 9, 0)]
    assert (events.sensor, events.unit) == ((4, 10), "ms")


def test_seconds_become_microseconds(tmp_path):
    events = read_npz(written(tmp_path, archive(t=np.array([0.25, 1.0]), x=X, y=Y, p=P)))
    assert (events.t.tolist(), events.unit) == ([250000, 1000000], "us")


def test_steps_of_one_recording(tmp_path):
    steps = np.array([3, 4], np.uint16)
    arrays = {"dt": steps, "x": X, "y": Y, "p": P}
    assert read_npz(written(tmp_path, archive(**arrays, offsets=np.array([0, 2])))).t.tolist() == [3, 7]
    assert read_npz(written(tmp_path, archive(**arrays, t0=np.array(100)))).t.tolist() == [103, 107]
    with pytest.raises(ValueError, match=r"2 recordings, whose offsets lie at byte offset \d+; expected one recording"):
        read_npz(written(tmp_path, archive(**arrays, offsets=np.array([0, 1, 2]))))


def test_records_alone_or_in_an_archive(tmp_path):
    records = np.array([(1, 7, 4, 2)], [("p", "?"), ("t", ">i8"), ("y", "<u2"), ("x", "u1")])
    buffer = io.BytesIO()
    np.save(buffer, records)
    assert columns(read_npz(written(tmp_path, buffer.getvalue(), "a.npy"))) == [(7, 2, 4, 1)]
    assert columns(read_npz(written(tmp_path, archive(events=records)))) == [(7, 2, 4, 1)]


def test_records_with_sensor_and_unit(tmp_path):
    events = Events.of([1, 5], [2, 3], [0, 9], [1, 0], (20, 10), "ms")
    data = archive(events=events.array, sensor=np.array([20, 10]), unit=np.array("ms"))
    again = read_npz(written(tmp_path, data))
    assert (again.sensor, again.unit, again.array.tolist()) == ((20, 10), "ms", events.array.tolist())
    with pytest.raises(
        ValueError, match=r"unit='us' was given, but the times are in 'ms', as stated at byte offset \d+"
    ):
        read_npz(written(tmp_path, data), unit="us")


def test_polarities_that_are_no_numbers_raise(tmp_path):
    with pytest.raises(ValueError, match="p is of float64 or holds NaN, in data at byte offset"):
        read_npz(written(tmp_path, archive(t=T, x=X, y=Y, p=np.array([1, np.nan]))))


def test_nothing_is_unpickled(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"an array \[1\] of object .* at byte offset 0; expected numbers"):
        read_npz(written(tmp_path, buffer.getvalue(), "a.npy"))


def test_declared_sizes_are_checked_before_anything_is_allocated(tmp_path):
    data = bytearray(archive(t=T, x=X, y=Y, p=P))
    central = data.index(b"PK\x01\x02")
    data[central + 24 : central + 28] = struct.pack("<I", 2**31)
    with pytest.raises(ValueError, match="t of 2147483648 bytes at byte offset 0"):
        read_npz(written(tmp_path, bytes(data)))
    shape = io.BytesIO()
    np.save(shape, np.zeros(10))
    with pytest.raises(ValueError, match=r"an array \[99\] of float64 in 80 bytes at byte offset 0"):
        read_npz(written(tmp_path, shape.getvalue().replace(b"(10,)", b"(99,)"), "a.npy"))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X, "y": Y, "p": P}, "arrays p, x, y in the archive that begins at byte offset 0; expected t, x, y, p"),
        ({"t": T[:1], "x": X, "y": Y, "p": P}, r"columns t \[1\], x \[2\]"),
        ({"t": np.array([1.0, np.nan]), "x": X, "y": Y, "p": P}, "time 1 is nan"),
        ({"t": np.array(["a", "b"]), "x": X, "y": Y, "p": P}, "times are of <U1"),
        ({"t": T, "x": X + 0.5, "y": Y, "p": P}, "x holds NaN, Inf or fractions"),
        ({"t": T, "x": X, "y": Y, "p": np.array(["a", "b"])}, "p is of <U1"),
        ({"t": T, "x": X, "y": Y - 1, "p": P}, "event 0 has y=-1"),
        ({"t": T[::-1], "x": X, "y": Y, "p": P}, "event 1 has t=1 after t=5"),
        ({"t": T, "x": X, "y": Y, "p": P, "unit": np.array("h")}, "unit is 'h'"),
        ({"t": T, "x": X, "y": Y, "p": P, "sensor": np.array([1])}, r"sensor is \[1\] of int64"),
        ({"dt": T * 1.0, "x": X, "y": Y, "p": P}, "dt is of float64"),
        ({"dt": T * 2**61, "x": X, "y": Y, "p": P}, "times too large for 64 bits"),
        ({"t": np.array([0.0, 2.0**60]), "x": X, "y": Y, "p": P}, "floats below 2"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message):
        read_npz(written(tmp_path, archive(**arrays)))


def test_other_ways_to_pack_raise(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_BZIP2) as file:
        file.writestr("t.npy", b"x")
    with pytest.raises(ValueError, match="t is packed in another way at byte offset 0"):
        read_npz(written(tmp_path, buffer.getvalue()))
