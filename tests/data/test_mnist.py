import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from rheobase.data import load
from rheobase.data.fetch import Source
from rheobase.data.mnist import FASHION_MNIST_ADDRESSES, MNIST_ADDRESSES, IdxImages

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
TRAIN_SIZE, TEST_SIZE, SIDE = 12, 5, 4
REAL_SUMS = {"mnist": (1567298545, 264923200), "fashion_mnist": (3431114169, 573469082)}


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (size, SIDE, SIDE)) for size in (TRAIN_SIZE, TEST_SIZE)]
    labels = [np.arange(size) % 3 for size in (TRAIN_SIZE, TEST_SIZE)]
    return dict(zip(NAMES, (images[0], labels[0], images[1], labels[1]), strict=True))


@pytest.fixture
def toy(tmp_path, write_idx, arrays):
    """A tiny data set of the MNIST kind whose official files lie in a local mirror."""
    mirror = tmp_path / "mirror"
    written = {f"{name}.gz": write_idx(mirror / f"{name}.gz", array) for name, array in arrays.items()}
    files = {name: hashlib.md5(content).hexdigest() for name, content in written.items()}
    return IdxImages(
        source=Source("toy", files, ("toy/TOY/raw", "TOY/raw"), (f"{mirror.as_uri()}/",)),
        classes=("a", "b", "c"),
        mean=0.5,
        std=0.25,
        licence="none",
        citation="nobody",
        train_size=TRAIN_SIZE,
        test_size=TEST_SIZE,
        side=SIDE,
    )


def check(dataset, arrays):
    for split, images, labels in ((dataset.train, NAMES[0], NAMES[1]), (dataset.test, NAMES[2], NAMES[3])):
        assert split.x.dtype == torch.uint8
        assert (split.x.squeeze(1).numpy() == arrays[images]).all()
        assert split.y.tolist() == arrays[labels].tolist()
        assert torch.equal(split.intensities(), split.x.float() / 255)


@pytest.mark.parametrize("folder", ["toy/TOY/raw", "TOY/raw"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_every_layout_is_read(tmp_path, write_idx, arrays, toy, folder, suffix):
    for name, array in arrays.items():
        write_idx(tmp_path / folder / f"{name}{suffix}", array)
    check(toy.read(tmp_path), arrays)


def test_download_then_read_offline(tmp_path, arrays, toy):
    check(toy.read(tmp_path / "root", download=True), arrays)
    offline = replace(toy, source=replace(toy.source, addresses=("file:///nowhere/",)))
    check(offline.read(tmp_path / "root", download=True), arrays)


def test_packed_file_with_other_bytes_raises(tmp_path, write_idx, arrays, toy):
    toy.read(tmp_path, download=True)
    changed = arrays[NAMES[0]].copy()
    changed[0, 0, 0] ^= 1
    write_idx(tmp_path / f"toy/TOY/raw/{NAMES[0]}.gz", changed)
    with pytest.raises(ValueError, match=f"{NAMES[0]}.gz: .* MD5"):
        toy.read(tmp_path)


def test_unpacked_file_of_another_size_raises(tmp_path, write_idx, arrays, toy):
    for name, array in arrays.items():
        write_idx(tmp_path / "TOY/raw" / name, array[:-1])
    with pytest.raises(ValueError, match=f"{NAMES[0]}: the length of axis 0 .* is {TRAIN_SIZE - 1}"):
        toy.read(tmp_path)


def test_label_outside_the_classes_raises(tmp_path, write_idx, arrays, toy):
    for name, array in arrays.items():
        write_idx(tmp_path / "TOY/raw" / name, array + 1 if name == NAMES[3] else array)
    with pytest.raises(ValueError, match="toy: test has label 3, but the labels of 3 classes are 0 to 2"):
        toy.read(tmp_path)


@pytest.mark.parametrize(("name", "inner"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_absent_files_are_asked_for_by_name(tmp_path, name, inner):
    with pytest.raises(FileNotFoundError) as caught:
        load(name, root=tmp_path)
    for part in NAMES:
        for path in (tmp_path / name / inner / "raw", tmp_path / inner / "raw"):
            assert f"{path / part}.gz\n" in str(caught.value)
            assert f"{path / part}\n" in str(caught.value)


def test_official_addresses_are_encrypted_folders():
    for address in MNIST_ADDRESSES + FASHION_MNIST_ADDRESSES:
        assert address.startswith("https://")
        assert address.endswith("/")


@pytest.fixture(scope="module", params=sorted(REAL_SUMS))
def real(request):
    try:
        return load(request.param)
    except FileNotFoundError:
        pytest.skip(f"{request.param} is not below RHEOBASE_DATA; rheobase.data.load can download it")


def test_real_files_hold_what_they_should(real):
    assert real.train.x.shape == (60000, 1, 28, 28)
    assert real.test.x.shape == (10000, 1, 28, 28)
    sums = tuple(int(split.x.sum(dtype=torch.int64)) for split in (real.train, real.test))
    assert sums == REAL_SUMS[real.name]
    assert len(real.classes) == 10
    if real.name == "mnist":
        assert real.train.y[:4].tolist() == [5, 0, 4, 1]
    else:
        assert real.train.y.bincount().tolist() == [6000] * 10
        assert real.test.y.bincount().tolist() == [1000] * 10


def test_constants_are_the_statistics_of_the_real_train_split(real):
    mean, std = real.train.statistics()
    assert real.mean == pytest.approx(mean.tolist(), abs=5e-7)
    assert real.std == pytest.approx(std.tolist(), abs=5e-7)
