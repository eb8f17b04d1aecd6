import hashlib
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from rheobase.data import load
from rheobase.data.heidelberg import _SHD, _SSC

WORDS = ("null", "eins")


def write_spikes(path, labels):
    """HDF5 as published: spikes/times in seconds and spikes/units by recording, labels, extra/keys."""
    h5py = pytest.importorskip("h5py")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, dtype in (("times", "f2"), ("units", "u2")):
            values = np.empty(len(labels), object)
            for k in range(len(labels)):
                column = [0.125, 0.0, 0.5] if name == "times" else [699, k, 0]
                values[k] = np.array(column, dtype)
            file.create_dataset(f"spikes/{name}", data=values, dtype=h5py.vlen_dtype(np.dtype(dtype)))
        file["labels"] = np.array(labels, "u2")
        file["extra/keys"] = np.array([word.encode() for word in WORDS])
        file["extra/speaker"] = np.zeros(len(labels), "u2")


@pytest.fixture
def toy():
    return replace(_SHD, sizes=(3, 2))


@pytest.mark.parametrize("folder", ["shd", "SHD", "heidelberg/shd"])
def test_files_are_read(tmp_path, toy, folder):
    write_spikes(tmp_path / folder / "shd_train.h5", [0, 1, 1])
    write_spikes(tmp_path / folder / "shd_test.h5", [1, 0])
    data = toy.read(0, 1, tmp_path)
    assert (data.classes, data.sensor) == (WORDS, (700, 1))
    assert (data.train.y.tolist(), data.test.y.tolist()) == ([0, 1, 1], [1, 0])
    events = pickle.loads(pickle.dumps(data.train.read))(2)
    assert (events.x.tolist(), events.t.tolist(), events.unit) == ([2, 699, 0], [0, 125_000, 500_000], "us")


def test_archives_are_unpacked(tmp_path, toy):
    sums = {}
    for name, labels in (("shd_train.h5", [0, 1, 1]), ("shd_test.h5", [1, 0])):
        write_spikes(tmp_path / "made" / name, labels)
    (tmp_path / "shd").mkdir()
    for name in ("shd_train.h5", "shd_test.h5"):
        archive = tmp_path / "shd" / f"{name}.zip"
        with zipfile.ZipFile(archive, "w") as opened:
            opened.write(tmp_path / "made" / name, name)
        sums[archive.name] = hashlib.md5(archive.read_bytes()).hexdigest()
    data = replace(toy, source=replace(toy.source, files=sums)).read(0, 1, tmp_path)
    assert len(data.test) == 2
    assert (tmp_path / "shd/shd_test.h5").is_file()


def test_another_number_of_recordings_raises(tmp_path, toy):
    for name in ("shd_train.h5", "shd_test.h5"):
        write_spikes(tmp_path / "shd" / name, [0, 1])
    with pytest.raises(ValueError, match=r"shd_train\.h5: holds 2 recordings, expected 3"):
        toy.read(0, 1, tmp_path)


def test_damaged_file_is_one_error(tmp_path, toy):
    for name in ("shd_train.h5", "shd_test.h5"):
        write_spikes(tmp_path / "shd" / name, [0, 1, 1])
    path = tmp_path / "shd/shd_train.h5"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"shd_train\.h5"):
        toy.read(0, 1, tmp_path)


def test_validation_takes_the_place_of_the_test_split(tmp_path):
    for part, count in (("train", 3), ("valid", 2), ("test", 4)):
        write_spikes(tmp_path / f"ssc/ssc_{part}.h5", [k % 2 for k in range(count)])
    small = replace(_SSC, sizes=(3, 2, 4))
    assert len(small.read(0, 1, tmp_path).test) == 2
    assert len(small.read(0, 2, tmp_path).test) == 4


def test_only_the_two_parts_are_known(untyped):
    with pytest.raises(ValueError, match="evaluate_on is 'train'; expected 'test' or 'valid'"):
        load("ssc", evaluate_on="train")


def test_another_archive_raises(tmp_path):
    (tmp_path / "shd").mkdir()
    for name in ("shd_train.h5.zip", "shd_test.h5.zip"):
        (tmp_path / "shd" / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"shd_train\.h5\.zip: 0 bytes with MD5"):
        load("shd", root=tmp_path)
