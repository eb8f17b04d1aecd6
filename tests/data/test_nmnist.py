from dataclasses import replace

import pytest

from rheobase.data import data_root
from rheobase.data.nmnist import _ABOUT, _SOURCE, DigitFolders

EVENTS = [(5, 3, 4, 1), (7, 33, 0, 0), (1_000_000, 0, 33, 1)]


@pytest.fixture
def toy():
    """N-MNIST with two recordings per digit for training and one for testing."""
    return DigitFolders(_SOURCE, _ABOUT, train_size=20, test_size=10)


def lay(folder, write_bin):
    for digit in range(10):
        for number in (1, 2):
            write_bin(folder / f"Train/{digit}/{number:05}.bin", [(digit, number, 0, 1), *EVENTS[2:]])
        write_bin(folder / f"Test/{digit}/00001.bin", EVENTS)


@pytest.mark.parametrize("folder", ["nmnist", "NMNIST", "N-MNIST"])
def test_folders_are_read(tmp_path, write_bin, toy, folder):
    lay(tmp_path / folder, write_bin)
    data = toy.read(tmp_path)
    assert (data.name, data.sensor, data.classes) == ("nmnist", (34, 34), tuple("0123456789"))
    assert data.train.y.tolist() == [digit for digit in range(10) for _ in range(2)]
    assert data.test.y.tolist() == list(range(10))
    assert data.train.key != data.test.key


def test_events_are_those_of_the_file(tmp_path, write_bin, toy):
    lay(tmp_path / "nmnist", write_bin)
    data = toy.read(tmp_path)
    events = data.test[3]
    assert [events.t.tolist(), events.x.tolist(), events.y.tolist(), events.p.tolist()] == [
        [5, 7, 1_000_000],
        [3, 33, 0],
        [4, 0, 33],
        [True, False, True],
    ]
    assert (events.sensor, events.unit) == ((34, 34), "us")
    assert (data.train[7].t[0], data.train[7].x[0]) == (3, 2)


def test_a_real_recording_is_read(tmp_path, write_bin, toy):
    real = data_root() / "event_formats/sample_nmnist.bin"
    if not real.is_file():
        pytest.skip("event_formats is not below RHEOBASE_DATA")
    lay(tmp_path / "nmnist", write_bin)
    (tmp_path / "nmnist/Test/4/00001.bin").write_bytes(real.read_bytes())
    events = toy.read(tmp_path).test[4]
    assert (len(events), int(events.t[-1]), events.sensor) == (4325, 311175, (34, 34))


def test_damaged_file_is_one_error(tmp_path, write_bin, toy):
    lay(tmp_path / "nmnist", write_bin)
    path = tmp_path / "nmnist/Test/0/00001.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"00001\.bin"):
        toy.read(tmp_path).test[0]


def test_archives_are_checked_and_unpacked(tmp_path, write_bin, zip_folder, toy):
    made, root = tmp_path / "made", tmp_path / "root/nmnist"
    lay(made, write_bin)
    sums = {}
    root.mkdir(parents=True)
    for part in ("Train", "Test"):
        archive, sums[f"{part}.zip"] = zip_folder(made / part)
        archive.replace(root / f"{part.lower()}.zip")
    packed = replace(toy, source=replace(_SOURCE, files=sums))
    assert len(packed.read(tmp_path / "root").train) == 20
    assert (root / "Train/9/00002.bin").is_file()
    (root / "train.zip").unlink()
    assert len(packed.read(tmp_path / "root").test) == 10


def test_another_archive_raises(tmp_path, write_bin, zip_folder, toy):
    lay(tmp_path / "nmnist", write_bin)
    archive, _ = zip_folder(tmp_path / "nmnist/Train")
    archive.rename(tmp_path / "Train.zip")
    (tmp_path / "nmnist/Train").rename(tmp_path / "elsewhere")
    (tmp_path / "Train.zip").rename(tmp_path / "nmnist/Train.zip")
    with pytest.raises(ValueError, match=r"Train\.zip: .* expected MD5 20959b8e626244a1b502305a9e6e2031"):
        toy.read(tmp_path)


def test_missing_recordings_are_counted(tmp_path, write_bin, toy):
    lay(tmp_path / "nmnist", write_bin)
    (tmp_path / "nmnist/Train/4/00002.bin").unlink()
    with pytest.raises(ValueError, match="Train: holds 19 recordings, expected 20"):
        toy.read(tmp_path)
    (tmp_path / "nmnist/Train/4/00001.bin").unlink()
    with pytest.raises(ValueError, match=r"Train/4: holds no \.bin file"):
        toy.read(tmp_path)
