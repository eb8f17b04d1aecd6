import struct

import pytest

from rheobase.data.formats.evt import read_evt

from .conftest import columns, pack_evt2, pack_evt3

HEAD = b"% evt 3.0\n% end\n"
HIGH, LOW, Y, X, BASE, VECT12, VECT8 = 8 << 12, 6 << 12, 0, 2 << 12, 3 << 12, 4 << 12, 5 << 12


def written(tmp_path, *words, head=HEAD, kind="H"):
    path = tmp_path / "a.raw"
    path.write_bytes(head + struct.pack(f"<{len(words)}{kind}", *words))
    return path


def test_vectors_and_state(tmp_path):
    path = written(
        tmp_path,
        *(HIGH | 1, LOW | 2, Y | 5, BASE | 1 << 11 | 10, VECT12 | 0b100000000001, VECT8 | 0b10000010, Y | 6, VECT8 | 1),
        *(LOW | 3, X | 7, 7 << 12, 10 << 12, 14 << 12, 15 << 12),
    )
    t = 4096 + 2
    assert columns(read_evt(path)) == [
        (t, 10, 5, 1),
        (t, 21, 5, 1),
        (t, 23, 5, 1),
        (t, 29, 5, 1),
        (t, 30, 6, 1),
        (t + 1, 7, 6, 0),
    ]


def test_events_before_the_time_and_the_row_are_left_out(tmp_path):
    path = written(tmp_path, Y | 1, X | 1, VECT8 | 255, HIGH | 1, X | 2, VECT8 | 255)
    assert columns(read_evt(path)) == [(4096, 2, 1, 0)]
    assert len(read_evt(written(tmp_path, HIGH | 1, X | 1))) == 0


def test_times_go_on_after_24_bits_and_are_sorted(tmp_path):
    path = written(
        tmp_path, Y, HIGH | 0xFFF, LOW | 9, X | 1, HIGH, X | 2, HIGH | 0xFFF, LOW | 8, X | 3, HIGH | 1, X | 4
    )
    base = 0xFFF << 12
    assert [(t, x) for t, x, _, _ in columns(read_evt(path))] == [
        (base + 8, 3),
        (base + 9, 1),
        (2**24, 2),
        (2**24 + 4096, 4),
    ]


def test_34_bits_of_evt2_are_unwrapped(tmp_path):
    rows = [(2**34 - 1, 1, 2, 1), (2**34 + 70, 3, 4, 0)]
    path = tmp_path / "a.raw"
    path.write_bytes(pack_evt2(rows))
    assert columns(read_evt(path)) == rows


@pytest.mark.parametrize(
    ("head", "sensor"),
    [
        (b"% evt 3.0\n% geometry 640x480\n% end\n", (640, 480)),
        (b"% format EVT3;height=480;width=640\n% end\n", (640, 480)),
        (b"% evt 3.0\n% width 99\n% height 77\n", (99, 77)),
        (b"% evt 3.0\n", (320, 320)),
    ],
)
def test_sizes(tmp_path, head, sensor):
    assert read_evt(written(tmp_path, HIGH, Y, X | 1, head=head)).sensor == sensor


@pytest.mark.parametrize(
    ("head", "words", "message"),
    [
        (b"% date 1\n", [], "no encoding in the header that begins at byte offset 0; expected % evt 2.0"),
        (b"% evt 2.1\n", [], "encoding 'evt 2.1' in the header"),
        (b"% evt 3.0\n% endianness big\n", [], "big-endian words"),
        (HEAD, [HIGH, 9 << 12], "a word 0x9000 of a reserved type at byte offset 18"),
        (
            b"% evt 3.0\n% geometry 10x10\n% end\n",
            [HIGH, Y | 1, X | 10],
            "0x200a of an event outside 10 x 10 at byte offset 37",
        ),
        (b"% evt 3.0\n% geometry 10x10\n% end\n", [HIGH, Y, BASE | 8, VECT8 | 4], "0x5004 of an event outside 10 x 10"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, head, words, message):
    with pytest.raises(ValueError, match=message):
        read_evt(written(tmp_path, *words, head=head))


def test_part_of_a_word_raises(tmp_path, rows):
    path = tmp_path / "a.raw"
    for data in (pack_evt2(rows), pack_evt3(rows)):
        path.write_bytes(data[:-1])
        with pytest.raises(ValueError, match=rf"bytes of an event at byte offset {len(data) - 1}"):
            read_evt(path)
    with pytest.raises(ValueError, match="a word 0x90000000 of a reserved type at byte offset 10"):
        read_evt(written(tmp_path, 9 << 28, head=b"% evt 2.0\n", kind="I"))
