import struct
from dataclasses import replace

import pytest

from rheobase.data.cifar10_dvs import _ABOUT, _SOURCE, ClassFolders

CLASSES = ("airplane", "automobile")


@pytest.fixture
def toy():
    """CIFAR10-DVS with two classes of twelve recordings, ten of them for training."""
    source = replace(_SOURCE, files={f"{name}.zip": _SOURCE.files[f"{name}.zip"] for name in CLASSES})
    return ClassFolders(source, _ABOUT, per_class=12, train_per_class=10)


def write_aedat2(path, count):
    """AEDAT 2: a header, then big-endian 32-bit address and 32-bit microseconds an event."""
    path.parent.mkdir(parents=True, exist_ok=True)
    words = (struct.pack(">II", (k % 128) << 8 | (k % 128) << 1 | k & 1, 10 * k) for k in range(count))
    path.write_bytes(b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n" + b"".join(words))


def lay(folder, suffix=".aedat"):
    for name in CLASSES:
        for number in range(12):
            write_aedat2(folder / name / f"cifar10_{name}_{number}{suffix}", number + 1)


@pytest.mark.parametrize("folder", ["cifar10_dvs", "CIFAR10DVS", "CIFAR10DVS/extract"])
@pytest.mark.parametrize("suffix", [".aedat", ".aedat4"])
def test_first_of_each_class_by_name_are_for_training(tmp_path, toy, folder, suffix):
    lay(tmp_path / folder, suffix)
    data = toy.read(tmp_path)
    assert data.train.y.tolist() == [0] * 10 + [1] * 10
    assert data.test.y.tolist() == [0, 0, 1, 1]
    assert [name.rpartition(".")[0] for name in data.train.read.names[:4]] == [
        f"airplane/cifar10_airplane_{number}" for number in (0, 1, 10, 11)
    ]
    assert data.test.read.names == tuple(
        f"{name}/cifar10_{name}_{number}{suffix}" for name in CLASSES for number in (8, 9)
    )


def test_events_are_read(tmp_path, toy):
    lay(tmp_path / "cifar10_dvs")
    data = toy.read(tmp_path)
    events = data.test[0]
    assert (len(events), events.sensor, events.t.tolist()) == (9, (128, 128), [10 * k for k in range(9)])


def test_damaged_recordings_are_one_error(tmp_path, toy):
    lay(tmp_path / "cifar10_dvs")
    path = tmp_path / "cifar10_dvs/airplane/cifar10_airplane_8.aedat"
    whole = path.read_bytes()
    changed = whole[:-8] + b"\0\1" + whole[-6:]  # an address of more than 16 bits
    for content in (whole[:-1], changed):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"airplane_8\.aedat: .* at byte offset"):
            toy.read(tmp_path).test[0]


def test_archives_are_unpacked(tmp_path, toy, zip_folder):
    lay(tmp_path / "made")
    sums = {}
    folder = tmp_path / "root/cifar10_dvs"
    folder.mkdir(parents=True)
    for name in CLASSES:
        archive, sums[f"{name}.zip"] = zip_folder(tmp_path / "made" / name)
        archive.replace(folder / archive.name)
    packed = replace(toy, source=replace(toy.source, files=sums))
    assert len(packed.read(tmp_path / "root").train) == 20
    assert (folder / "airplane/cifar10_airplane_0.aedat").is_file()


def test_incomplete_or_mixed_classes_raise(tmp_path, toy):
    lay(tmp_path / "cifar10_dvs")
    write_aedat2(tmp_path / "cifar10_dvs/airplane/cifar10_airplane_3.aedat4", 1)
    with pytest.raises(ValueError, match="airplane: holds 13 recordings under 12 names, expected 12"):
        toy.read(tmp_path)
    (tmp_path / "cifar10_dvs/airplane/cifar10_airplane_3.aedat4").unlink()
    (tmp_path / "cifar10_dvs/airplane/cifar10_airplane_3.aedat").unlink()
    with pytest.raises(ValueError, match="airplane: holds 11 recordings"):
        toy.read(tmp_path)


def test_classes_in_two_places_raise(tmp_path, toy):
    lay(tmp_path / "cifar10_dvs")
    (tmp_path / "CIFAR10DVS").mkdir()
    (tmp_path / "cifar10_dvs/automobile").rename(tmp_path / "CIFAR10DVS/automobile")
    with pytest.raises(ValueError, match="expected all in one folder"):
        toy.read(tmp_path)
