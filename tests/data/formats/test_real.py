"""The shared real files, with what is known of them."""

import re
import zlib
from pathlib import Path

import numpy as np
import pytest

from rheobase.data import read_events
from rheobase.data.formats.aedat4 import _table


def test_nmnist(real):
    events = read_events(real("event_formats/sample_nmnist.bin"))
    assert (len(events), events.sensor, int(events.t[-1])) == (4325, (34, 34), 311175)


def test_slayer_clip_equals_its_other_copy(real):
    events = read_events(real("dvs_gesture_clips/clip01.bs2"))
    with np.load(real("dvs_gesture_clips/dvs_gesture_clips.npz")) as clips:
        first = slice(*clips["offsets"][:2])
        assert (events.t == np.cumsum(clips["dt"][first], dtype=np.int64)).all()
        assert all((getattr(events, name) == clips[name][first]).all() for name in "xyp")
    assert (len(events), events.sensor) == (63471, (128, 128))


def test_several_recordings_in_one_archive_raise(real):
    with pytest.raises(ValueError, match=r"10 recordings, whose offsets lie at byte offset .* expected one recording"):
        read_events(real("dvs_gesture_clips/dvs_gesture_clips.npz"))


def test_archive_of_steps(real):
    events = read_events(real("dvs_recordings/stripes.npz"))
    assert (len(events), int(events.t[-1]), events.sensor) == (340394, 1197752, (128, 128))


def test_ncars(real):
    events = read_events(real("event_formats/sample_ncars.dat"))
    assert (len(events), events.sensor, events.t[[0, -1]].tolist()) == (2009, (120, 100), [0, 99952])


def test_aedat2_header_without_events(real):
    events = read_events(real("event_formats/sample_aedat_header.aedat"))
    assert (len(events), events.sensor) == (0, (346, 260))


def test_aedat4_holds_as_many_events_as_its_own_table_says(real):
    lz4 = pytest.importorskip("lz4.frame")
    path = real("event_formats/sample.aedat4")
    events = read_events(path)
    data = path.read_bytes()
    table_at = _table(path, data, 14, "the header", b"IOHE").number(1, "<q", -1)
    table = lz4.decompress(data[table_at:])
    counts = _counts(table)
    assert counts[0] == len(events) == 111954
    assert events.sensor == (320, 240)
    assert int(events.t[0]) > 1605507430438338  # Unix time: after the start of the camera


def _counts(table):
    """Numbers of elements by stream in a FileDataTable: tables of range, packet header, count, first and last time."""
    root = int.from_bytes(table[4:8], "little") + 4
    field = root - int.from_bytes(table[root : root + 4], "little", signed=True)
    vector = root + int.from_bytes(table[field + 4 : field + 6], "little")
    vector += int.from_bytes(table[vector : vector + 4], "little")
    counts = {}
    for k in range(int.from_bytes(table[vector : vector + 4], "little")):
        at = vector + 4 + 4 * k
        at += int.from_bytes(table[at : at + 4], "little")
        places = at - int.from_bytes(table[at : at + 4], "little", signed=True)
        packet, count = (int.from_bytes(table[places + 4 + 2 * n : places + 6 + 2 * n], "little") for n in (1, 2))
        stream = int.from_bytes(table[at + packet : at + packet + 4], "little")
        counts[stream] = counts.get(stream, 0) + int.from_bytes(table[at + count : at + count + 8], "little")
    return counts


def test_evt3_equals_the_decoded_truth_but_for_time_that_the_file_does_not_hold(real):
    """Addresses, polarities and the low 12 bits of the time are equal; the truth adds 4096 us where the low bits fall.

    Eight times a low time is followed at once by a smaller one, under the same high time: the decoder that made the
    truth took that for a carry. The file has high times 0xb2d to 0xb2f only.
    """
    events = read_events(real("event_formats/evt3_sample.raw"))
    with np.load(real("event_formats/evt3_sample_decoded.npz")) as truth:
        t = truth["t0"] + np.cumsum(truth["dt"], dtype=np.int64)
        assert len(events) == len(t) == 219596
        assert all((getattr(events, name) == truth[name]).all() for name in "xyp")
    assert (events.t & 0xFFF == t & 0xFFF).all()
    assert (events.t[:20121] == t[:20121]).all()
    assert sorted(set((events.t >> 12).tolist())) == [0xB2D, 0xB2E, 0xB2F]
    assert events.sensor == (1280, 720)


def test_cochlea(real):
    events = read_events(real("event_formats/cochlea_sound_mono_32ch.aedat"), format="cochlea")
    assert (len(events), events.sensor, events.unit) == (49864, (32, 1), "ns")
    assert events.t[[0, -1]].tolist() == [573010 * 200, 6296705 * 200]
    assert events.seconds == pytest.approx(1.1447, abs=1e-4)


def test_st_mnist_as_scipy_reads_it(real):
    scipy = pytest.importorskip("scipy.io")
    path = real("event_formats/sample_stmnist.mat")
    events = read_events(path)
    train = scipy.loadmat(path)["spiketrain"]
    column, taxel = np.nonzero(train[:-1].T)
    assert len(events) == 2346
    assert (events.t == np.rint(train[-1, column] * 1e6)).all()
    assert (events.x + 10 * events.y.astype(int) == taxel).all()
    assert (events.p == (train[taxel, column] > 0)).all()
    assert zlib.crc32(events.array.tobytes()) == zlib.crc32(read_events(path).array.tobytes())


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("event_formats/sample_nmnist.bin", None),
        ("dvs_gesture_clips/clip01.bs2", None),
        ("dvs_recordings/stripes.npz", None),
        ("event_formats/sample_ncars.dat", None),
        ("event_formats/sample_aedat_header.aedat", None),
        ("event_formats/sample.aedat4", None),
        ("event_formats/evt3_sample.raw", None),
        ("event_formats/cochlea_sound_mono_32ch.aedat", "cochlea"),
        ("event_formats/sample_stmnist.mat", None),
    ],
)
def test_damaged_copies_raise_or_are_a_recording(real, tmp_path, name, format):
    if name.endswith("aedat4"):
        pytest.importorskip("lz4.frame")
    whole = real(name).read_bytes()
    path = tmp_path / Path(name).name

    def outcome(data):
        path.write_bytes(data)
        try:
            return read_events(path, format=format).array.tobytes()
        except ValueError as error:
            return str(error)

    said = rf"{re.escape(str(path))}: .*byte offset \d+; expected"
    cut = outcome(whole[:-1])
    assert cut == outcome(whole) or re.match(said, cut)  # AEDAT4 ends in a table of its own
    random = np.random.default_rng(0)
    for head in (min(300, len(whole)), len(whole)):
        for _ in range(10):
            data = bytearray(whole)
            for place in random.integers(head, size=3):
                data[place] = random.integers(256)
            for damaged in (whole[: random.integers(head)], bytes(data)):
                found = outcome(damaged)
                assert isinstance(found, bytes) or re.match(said, found), found
