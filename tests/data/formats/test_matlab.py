import pytest

from rheobase.data.formats.matlab import read_matlab

from .conftest import columns, pack_matlab

ROWS = [(100, 1, 2, 1), (250, 3, 9, 0)]


@pytest.mark.parametrize("packed", [True, False])
def test_packed_and_plain(tmp_path, packed):
    path = tmp_path / "a.mat"
    path.write_bytes(pack_matlab(ROWS, packed))
    events = read_matlab(path)
    assert (columns(events), events.sensor, events.unit) == (ROWS, (10, 10), "us")


def test_what_is_wrong_is_said(tmp_path):
    path = tmp_path / "a.mat"
    plain = pack_matlab(ROWS, packed=False)
    for data, message in (
        (plain[:100], "bytes b'MATLAB 5.0 MAT-file,' at byte offset 0"),
        (plain[:200], r"a content of \d+ bytes, in the element at byte offset 128; expected at most 64"),
        (plain.replace(b"spiketrain", b"spikestrain"[:10]), "no matrix spiketrain"),
        (plain.replace(b"\x65\0\0\0", b"\x66\0\0\0", 1), r"a matrix \[102, 2\] of 1616 bytes of type 9"),
        (plain.replace(b"\xf0\x3f", b"\xf1\x3f", 1), "spikes other than -1, 0 and 1"),
        (pack_matlab(ROWS)[:-4], r"in the element at byte offset 128"),
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            read_matlab(path)
    path.write_bytes(plain)
    with pytest.raises(ValueError, match=r"sensor=\(34, 34\) was given"):
        read_matlab(path, sensor=(34, 34))
