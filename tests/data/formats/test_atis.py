import struct

import pytest

from rheobase.data.formats.atis import read_atis

from .conftest import columns, pack_atis


def test_the_clock_row_delays_what_follows(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(pack_atis([(8000, 1, 2, 1), (8191, 0, 240, 0), (5, 3, 4, 0), (8190, 0, 240, 0), (6, 5, 6, 1)]))
    assert columns(read_atis(path)) == [(8000, 1, 2, 1), (5 + 8192, 3, 4, 0), (6 + 2 * 8192, 5, 6, 1)]


def test_23_bits_of_time_are_unwrapped(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(pack_atis([(2**23 - 1, 0, 0, 1), (3, 0, 0, 0)]))
    assert read_atis(path).t.tolist() == [2**23 - 1, 2**23 + 3]


@pytest.mark.parametrize(
    ("x", "y", "sensor"), [(33, 33, (34, 34)), (34, 0, (128, 128)), (200, 0, (240, 180)), (255, 9, (256, 256))]
)
def test_smallest_sensor(tmp_path, x, y, sensor):
    path = tmp_path / "a.bin"
    path.write_bytes(pack_atis([(1, x, y, 1)]))
    assert read_atis(path).sensor == sensor


def test_part_of_an_event_raises(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(struct.pack("7B", *range(7)))
    with pytest.raises(ValueError, match=r"a\.bin: the data end after 2 bytes of an event at byte offset 7; expected"):
        read_atis(path)
