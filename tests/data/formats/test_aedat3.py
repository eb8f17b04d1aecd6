import struct

import pytest

from rheobase.data.formats.aedat3 import read_aedat3

from .conftest import columns, packet_aedat3

HEAD = b"#!AER-DAT3.1\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"


def written(tmp_path, data):
    path = tmp_path / "a.aedat"
    path.write_bytes(data)
    return path


def test_overflows_invalid_events_and_other_packets(tmp_path):
    data = HEAD + packet_aedat3([(2**31 - 1, 1, 2, 1)]) + packet_aedat3([(0, 5, 5, 1)], valid=0, overflow=1)
    data += (
        packet_aedat3([(1, 3, 4, 0)], kind=3)
        + packet_aedat3([], overflow=1)
        + packet_aedat3([(5, 7, 8, 0)], overflow=1)
    )
    events = read_aedat3(written(tmp_path, data))
    assert columns(events) == [(2**31 - 1, 1, 2, 1), (2**31 + 5, 7, 8, 0)]
    assert events.sensor == (128, 128)


def test_unknown_source_takes_the_argument_or_the_smallest_sensor(tmp_path):
    path = written(tmp_path, HEAD.replace(b"DVS128", b"File") + packet_aedat3([(1, 130, 2, 1)]))
    assert read_aedat3(path).sensor == (240, 180)
    assert read_aedat3(path, sensor=(200, 200)).sensor == (200, 200)


def header(kind=1, size=8, time_at=4, overflow=0, capacity=1, number=1):
    return struct.pack("<hhiiiiii", kind, 0, size, time_at, overflow, capacity, number, number)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"#!AER-DAT3.0\r\n#!END-HEADER\r\n", r"bytes b'#!AER-DAT3.0\\r\\n' at byte offset 0; expected #!AER-DAT3.1"),
        (b"#!AER-DAT3.1\r\n", "the text header ends at byte offset 14; expected its last line"),
        (HEAD + bytes(27), f"inside a packet's header at byte offset {len(HEAD)}; expected 28 bytes"),
        (
            HEAD + header() + bytes(7),
            f"a packet of 8 bytes at byte offset {len(HEAD)}; expected at most the 7 that follow",
        ),
        (HEAD + header(capacity=2**31 - 1) + bytes(8), "a packet of 17179869176 bytes at byte offset"),
        (HEAD + header(capacity=-1) + bytes(8), "capacity -1, overflow 0 at byte offset"),
        (HEAD + header(number=2) + bytes(16), "a packet of 2 events of 8 bytes, capacity 1"),
        (HEAD + header(size=4) + bytes(8), "polarity events of 4 bytes with the time at 4"),
        (HEAD + packet_aedat3([(1, 0, 0, 1), (-1, 0, 0, 1)]), f"event 1 has time -1 at byte offset {len(HEAD) + 36}"),
        (
            HEAD + packet_aedat3([(2, 0, 0, 1)]) + packet_aedat3([(1, 0, 0, 1)]),
            f"byte offset {len(HEAD) + 64}; expected times",
        ),
        (HEAD + packet_aedat3([(2, 128, 0, 1)]), f"event 0 has x=128 at byte offset {len(HEAD) + 28}"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        read_aedat3(written(tmp_path, data))
