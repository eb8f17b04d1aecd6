import random

import numpy as np
import pytest

from rheobase.data import Events
from rheobase.data.formats.hdf5 import (
    read_hdf5,
    read_spike_labels,
    read_spikes,
    spike_recordings,
    write_spikes,
)

from .conftest import columns

h5py = pytest.importorskip("h5py")


@pytest.fixture
def cochlea():
    numbers = np.random.default_rng(0)
    counts = (20, 0, 35)
    return [
        Events.of(np.sort(numbers.integers(0, 900_000, n)), numbers.integers(0, 700, n), [0] * n, [1] * n, (700, 1))
        for n in counts
    ]


def test_layout_of_shd(tmp_path, cochlea):
    path = tmp_path / "shd.h5"
    write_spikes(path, cochlea, [0, 2, 1], ["null", "eins", "zwei"], [3, 4, 5])
    with h5py.File(path) as file:
        assert file["spikes/times"][0].dtype == np.float16
        assert file["spikes/units"][2].dtype == np.uint16
        assert file["spikes/units"][2].tolist() == cochlea[2].x.tolist()
        assert (file["labels"].dtype, file["extra/speaker"].dtype, file["extra/keys"][1]) == (
            np.uint16,
            np.uint16,
            b"eins",
        )
    labels = read_spike_labels(path)
    assert (labels.labels.tolist(), labels.keys, labels.speaker.tolist()) == (
        [0, 2, 1],
        ("null", "eins", "zwei"),
        [3, 4, 5],
    )
    recordings = spike_recordings(path)
    assert (len(recordings), recordings.y.tolist()) == (3, [0, 2, 1])
    for ours, read in zip(cochlea, recordings, strict=True):
        assert (read.sensor, read.unit, read.x.tolist()) == ((700, 1), "us", ours.x.tolist())
        assert (read.t == np.rint((ours.t / 1e6).astype(np.float16).astype(np.float64) * 1e6)).all()
        assert read.p.all()
    with pytest.raises(IndexError, match="there is no recording 3; there are 3"):
        read_spikes(path, 3)


def test_float32_keeps_microseconds(tmp_path, cochlea):
    path = tmp_path / "ssc.h5"
    write_spikes(path, cochlea, [0, 0, 0], ["a"], dtype=np.float32)
    assert read_spikes(path, 2).t.tolist() == cochlea[2].t.tolist()


@pytest.mark.parametrize("options", [{}, {"chunks": (2,)}, {"chunks": (2,), "compression": "gzip", "shuffle": True}])
def test_other_writers_of_shd(tmp_path, options):
    path = tmp_path / "shd.h5"
    with h5py.File(path, "w") as file:
        for name, kind in (("times", np.float32), ("units", np.int64)):
            ragged = file.create_dataset(f"spikes/{name}", (3,), h5py.vlen_dtype(kind), **options)
            for k in range(3):
                ragged[k] = np.arange(k * 1000) // 5
        file["labels"] = [0, 1, 0]
        file["extra/keys"] = ["one", "another"]
    assert [len(read_spikes(path, k)) for k in range(3)] == [0, 1000, 2000]
    assert read_spikes(path, 2).t[[0, -1]].tolist() == [0, 399_000_000]
    assert read_spike_labels(path).keys == ("one", "another")
    with pytest.raises(ValueError, match="event 500 has x=100 at byte offset"):
        read_spikes(path, 2, channels=100)


def test_damaged_heaps_neither_hang_nor_lie(tmp_path, cochlea):
    path = tmp_path / "shd.h5"
    write_spikes(path, cochlea, [0, 2, 1], ["null", "eins", "zwei"])
    whole = path.read_bytes()
    heap = whole.index(b"GCOL")
    draw = random.Random(0)
    places = [heap + 8, heap + 24, heap + 25, heap + 80, *(draw.randrange(len(whole)) for _ in range(150))]
    for place in places:
        data = bytearray(whole)
        data[place] ^= draw.randrange(1, 256)
        path.write_bytes(data)
        outcomes = []
        try:
            read_spike_labels(path)
            outcomes = [read_spikes(path, k) for k in range(3)]
        except IndexError:
            pass
        except ValueError as error:
            outcomes = [str(error)]
        for outcome in outcomes:
            assert isinstance(outcome, Events) or (outcome.startswith(f"{path}: ") and "byte" in outcome)
    data = bytearray(whole)
    data[heap + 24 + 1] = 1  # the first object is said to be longer: walking on from there would never end
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"entry \d of /spikes/(times|units) has its heap at byte offset \d+"):
        [read_spikes(path, k) for k in range(3)]


def test_records_and_offsets_of_other_makers(tmp_path):
    path = tmp_path / "a.h5"
    kind = [("x", "<u2"), ("y", "<u2"), ("p", "<i2"), ("t", "<i8")]
    with h5py.File(path, "w") as file:
        file.create_dataset("CD/events", data=np.array([(3, 4, 1, 9), (5, 6, 0, 10)], kind), chunks=(2,))
        file.attrs["geometry"] = np.bytes_("1280x720")
    events = read_hdf5(path)
    assert (columns(events), events.sensor) == ([(9, 3, 4, 1), (10, 5, 6, 0)], (1280, 720))
    with h5py.File(path, "w") as file:
        for name in "txyp":
            file[f"events/{name}"] = np.array([1, 2], np.uint32)
        file["t_offset"] = 10**15
    assert read_hdf5(path, sensor=(640, 480)).t.tolist() == [10**15 + 1, 10**15 + 2]
    for name, value, message in (
        ("t_offset", 2**63 - 2, "times too large for 64 bits"),
        ("t_offset", 0.5, r"times of uint32 and t_offset \[\] of float64"),
        ("t_offset", [1, 2], r"t_offset \[2\] of int64"),
        ("events/t", np.array([0.1, 0.2]), "times of float64 and t_offset"),
    ):
        with h5py.File(path, "a") as file:
            kept = {"t_offset": file["t_offset"][()], "events/t": file["events/t"][()]}
            for each, found in {**kept, name: value}.items():
                del file[each]
                file[each] = found
        with pytest.raises(ValueError, match=f"{message}.*at byte offset"):
            read_hdf5(path)
        with h5py.File(path, "a") as file:
            for each, found in kept.items():
                del file[each]
                file[each] = found


def test_what_is_wrong_is_said(tmp_path, cochlea):
    path = tmp_path / "a.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    with pytest.raises(ValueError, match=r"a damaged HDF5 file .* at byte offset 0; expected 20 bytes of one"):
        read_hdf5(path)
    with h5py.File(path, "w") as file:
        file["other"] = 1
    with pytest.raises(ValueError, match="'other', in the file that begins at byte offset 0; expected events/t"):
        read_hdf5(path)
    with pytest.raises(ValueError, match="no dataset labels"):
        read_spike_labels(path)
    with h5py.File(path, "w") as file:
        for name in "txyp":
            file.create_dataset(f"events/{name}", (2**40,), np.int64, chunks=(1024,))
    with pytest.raises(ValueError, match="/events/t says 8796093022208 bytes, stored in 0 at byte offset"):
        read_hdf5(path)
    write_spikes(path, cochlea, [0, 0, 0], ["a"])
    with pytest.raises(ValueError, match=r"recordings of SHD's layout .* read them one by one with rheobase\.data"):
        read_hdf5(path)
    with pytest.raises(ValueError, match="3 recordings, 2 labels, 3 speakers and 1 keys"):
        write_spikes(path, cochlea, [0, 0], ["a"])
