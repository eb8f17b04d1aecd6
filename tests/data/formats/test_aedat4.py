import struct

import pytest

from rheobase.data.formats.aedat4 import read_aedat4

from .conftest import columns, flatbuffer, pack_aedat4, packet_aedat4


def written(tmp_path, data):
    path = tmp_path / "a.aedat4"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("compression", range(5))
def test_all_compressions(tmp_path, rows, compression):
    events = read_aedat4(written(tmp_path, pack_aedat4(rows, compression)))
    assert columns(events) == rows
    assert (events.sensor, events.unit) == ((34, 34), "us")


def test_data_end_at_the_table(tmp_path, rows):
    whole = pack_aedat4(rows, 0, table_at=-1)
    data = pack_aedat4(rows, 0, table_at=len(whole))
    assert columns(read_aedat4(written(tmp_path, data + b"a table of any kind"))) == rows


def test_streams_and_sizes(tmp_path, rows):
    path = written(tmp_path, pack_aedat4(rows, 0, sides=None))
    assert read_aedat4(path).sensor == (128, 128)
    assert read_aedat4(path, sensor=(20, 20), stream=5).sensor == (20, 20)
    with pytest.raises(ValueError, match=r"no stream of events 3 .* expected one of \[5\]; pass another stream"):
        read_aedat4(path, stream=3)


ROW = [(1, 2, 3, 1), (2, 3, 4, 0)]


def test_what_is_wrong_is_said(tmp_path):
    whole = pack_aedat4(ROW, 0)
    for data, message in (
        (b"#!AER-DAT4.1\r\n", r"bytes b'#!AER-DAT4.1\\r\\n' at byte offset 0"),
        (whole[:40], "the header of .* bytes at byte offset 14; expected 8 .. 22 bytes"),
        (whole[:-3], r"a packet of \d+ bytes at byte offset \d+; expected 0 \.\. \d+"),
        (pack_aedat4(ROW, 0, table_at=5), "a table of data at 5 in the header at byte offset 14"),
        (whole.replace(b"IOHE", b"IOHX"), r"the header has the mark b'IOHX' at byte offset 14"),
        (whole.replace(b"EVTS\x06", b"EVTX\x06"), "a packet of events has the mark b'EVTX'"),
        (whole.replace(b"</dv>", b"<!dv>"), "a declaration in the XML"),
        (whole.replace(b"</dv>", b"</dx>"), "damaged XML .* at byte offset 14"),
        (pack_aedat4([(2, 2, 3, 1), (1, 3, 4, 0)], 0), "event 1 has t=1 after t=2 at byte offset"),
        (pack_aedat4([(2, -1, 3, 1)], 0), "event 0 has x=-1 at byte offset"),
    ):
        with pytest.raises(ValueError, match=message):
            read_aedat4(written(tmp_path, data))


def test_counts_and_places_of_a_flatbuffer_are_checked(tmp_path):
    start = len(pack_aedat4([], 0)) - 2 * (8 + len(packet_aedat4([]))) - 13
    huge = flatbuffer(b"EVTS", [struct.pack("<I", 4)], struct.pack("<I", 2**31))
    far = flatbuffer(b"EVTS", [struct.pack("<I", 2**31)], struct.pack("<I", 0))
    for packet, message in ((huge, "says 2147483648 items of 16 bytes"), (far, "points outside of itself")):
        data = pack_aedat4([], 0)[:start] + struct.pack("<ii", 5, len(packet)) + packet
        with pytest.raises(ValueError, match=f"a packet of events {message} at byte offset {start}"):
            read_aedat4(written(tmp_path, data))


@pytest.mark.parametrize(("package", "compression"), [("lz4.frame", 1), ("zstandard", 3)])
def test_what_unpacks_to_too_much_raises(tmp_path, package, compression):
    compress = pytest.importorskip(package).compress
    head = pack_aedat4([], compression)
    head = head[: head.index(b"</dv>") + 5]
    packed = compress(bytes(1 << 22)) if compression == 3 else compress(bytes(1 << 16))[:-6]
    with pytest.raises(ValueError, match=r"frame .* byte offset .*; expected"):
        read_aedat4(written(tmp_path, head + struct.pack("<ii", 5, len(packed)) + packed))
