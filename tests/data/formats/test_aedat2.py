import struct

import pytest

from rheobase.data.formats.aedat2 import read_aedat2, read_cochlea
from rheobase.data.formats.chips import chip_size

from .conftest import columns, pack_aedat1, pack_aedat2, pack_cochlea


def written(tmp_path, data):
    path = tmp_path / "a.aedat"
    path.write_bytes(data)
    return path


def test_other_events_are_passed_over_and_times_sorted(tmp_path):
    data = pack_aedat2([(9, 1, 2, 1), (4, 3, 4, 0), (9, 0, 0, 0)])
    data += struct.pack(">IiIi", 0x80000000, 5, 0x400, 6)
    assert columns(read_aedat2(written(tmp_path, data))) == [(4, 3, 4, 0), (9, 1, 2, 1), (9, 0, 0, 0)]
    external = pack_aedat1([(1, 5, 6, 1)]) + struct.pack(">Hi", 0x8000, 2)
    assert columns(read_aedat2(written(tmp_path, external))) == [(1, 5, 6, 1)]


def test_32_bits_of_time_are_unwrapped(tmp_path):
    data = pack_aedat2([(2**31 - 2, 0, 0, 1), (-(2**31), 1, 0, 1), (-(2**31) + 7, 2, 0, 1)])
    assert read_aedat2(written(tmp_path, data)).t.tolist() == [2**31 - 2, 2**31, 2**31 + 7]
    assert read_cochlea(written(tmp_path, pack_cochlea([(2**32 - 1, 0, 0, 1), (1, 0, 0, 0)]))).t.tolist() == [
        200 * (2**32 - 1),
        200 * (2**32 + 1),
    ]


def test_version_2_without_chip_is_of_dvs128(tmp_path):
    """As jAER reads it: x from the right, bit 0 for OFF."""
    data = b"#!AER-DAT2.0\r\n" + struct.pack(">IiIi", 3 << 8 | 5 << 1, 1, 127 << 8 | 1, 2)
    events = read_aedat2(written(tmp_path, data))
    assert columns(events) == [(1, 122, 3, 1), (2, 127, 127, 0)]
    assert events.sensor == (128, 128)


def test_data_that_begin_like_a_header_line(tmp_path):
    data = b"#!AER-DAT2.0\r\n# AEChip: DAVIS640\n" + struct.pack(">Ii", 0x23000010, 10)
    assert len(read_aedat2(written(tmp_path, data))) == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"#!AER-DAT2.1\r\n", r"version '2.1' at byte offset 0; expected #!AER-DAT1.0 or #!AER-DAT2.0"),
        (b"#!AER-DAT2.0\r\n# AEChip: x.Nose\r\n", r"the chip 'x.Nose' .* byte offset 0; expected davis128 or"),
        (b"#!AER-DAT2.0\r\n# no end", r"the text header ends inside a line at byte offset 22"),
        (b"#!AER-DAT2.0\r\n" + bytes(9), r"after 1 bytes of an event at byte offset 23"),
        (
            b"#!AER-DAT2.0\r\n" + b"\0\1\0\0" + bytes(4),
            r"event 0 has address 0x00010000 at byte offset 14; .*chip=",
        ),
        (b"#!AER-DAT1.0\r\n# AEChip: DAVIS240\r\n", r"addresses of 16 bits of a DAVIS240 .* expected version 2"),
        (pack_aedat2([(0, 0, 181, 0)]), r"event 0 has y=181 at byte offset 86; expected y in 0 \.\. 179"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        read_aedat2(written(tmp_path, data))


def test_arguments_are_checked(tmp_path):
    path = written(tmp_path, pack_aedat2([]))
    with pytest.raises(ValueError, match=r"sensor=\(34, 34\) was given, but the file states \(240, 180\)"):
        read_aedat2(path, sensor=(34, 34))
    assert read_aedat2(path, chip="DAVIS346").sensor == (346, 260)
    with pytest.raises(ValueError, match="tick_ns=0"):
        read_cochlea(path, tick_ns=0)
    with pytest.raises(ValueError, match=r"event 0 has x=40 at byte offset 0; expected x in 0 \.\. 31"):
        read_cochlea(written(tmp_path, pack_cochlea([(1, 40, 0, 1)])))


def test_chips():
    assert chip_size("eu.seebetter.ini.chips.davis.Davis346red") == (346, 260)
    assert chip_size("ch.unizh.ini.jaer.chip.retina.DVS128") == (128, 128)
    assert chip_size("DAVIS240C") == (240, 180)
    assert chip_size("") is None
