import pytest

from rheobase.data.formats.dat import read_dat

from .conftest import columns, pack_dat


def written(tmp_path, data):
    path = tmp_path / "a.dat"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("version", [1, 2])
def test_versions(tmp_path, rows, version):
    events = read_dat(written(tmp_path, pack_dat(rows, version)))
    assert columns(events) == rows
    assert events.sensor == (120, 100)


def test_stated_size(tmp_path, rows):
    path = written(tmp_path, pack_dat(rows).replace(b"% Date", b"% Width 640\n% Height 480\n% Date"))
    assert read_dat(path).sensor == read_dat(path, sensor=(640, 480)).sensor == (640, 480)
    with pytest.raises(ValueError, match=r"sensor=\(1, 2\) was given, but the file states \(640, 480\)"):
        read_dat(path, sensor=(1, 2))


def test_32_bits_of_time_are_unwrapped(tmp_path):
    times = [2**32 - 1, 2**32, 2**32 + 2**31 - 1]
    assert read_dat(written(tmp_path, pack_dat([(t, 0, 0, 1) for t in times]))).t.tolist() == times


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"text", r"bytes b'te' at byte offset 0; expected a header"),
        (b"% Version 3\n\0\x08", "version 3 in the header that begins at byte offset 0; expected version 1 or 2"),
        (b"% Version x\n\0\x08", "version 'x' in the header"),
        (b"% Version 2\n\0", "the file ends at byte offset 13; expected 14 bytes or more"),
        (b"% Version 2\n\x0e\x08", "events of type 14 and 8 bytes at byte offset 12"),
        (b"% Version 2\n\0\x08abc", "after 3 bytes of an event at byte offset 17"),
        (b"% Version 2\n% Width 0\n% Height 9\n\0\x08", "the sensor is 0 x 9 at byte offset 0"),
        (pack_dat([(5, 0, 0, 0), (4, 0, 0, 0)]), r"event 1 has t=4 after t=5 at byte offset \d+"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        read_dat(written(tmp_path, data))
