import hashlib
import io
import pickle
import tarfile
from dataclasses import replace

import numpy as np
import pytest

from rheobase.data import load
from rheobase.data.cifar import _CIFAR10, _CIFAR100, _decode_jpegs
from rheobase.data.fetch import data_root

BATCH, TEST = 4, 3
NAMES = ("data_batch_1", "data_batch_2", "test_batch")


@pytest.fixture
def arrays():
    """Two train batches and a test batch: images [N, 3072] and labels."""
    random = np.random.default_rng(0)
    return [(random.integers(0, 256, (n, 3072), dtype=np.uint8), list(range(n))) for n in (BATCH, BATCH, TEST)]


def pickled(images, labels):
    return pickle.dumps({"data": images, "labels": labels, "batch_label": "a batch"}, 2)


def binary(images, labels):
    return b"".join(bytes([label]) + image.tobytes() for image, label in zip(images, labels, strict=True))


@pytest.fixture
def toy(arrays, tmp_path):
    """CIFAR-10 with two small batches, and the files it may lie in."""
    python = {name: pickled(*batch) for name, batch in zip(NAMES, arrays, strict=True)}
    sums = {name: hashlib.md5(data).hexdigest() for name, data in python.items()}
    files = {
        "cifar-10-batches-py": python,
        "cifar-10-batches-bin": {f"{name}.bin": binary(*batch) for name, batch in zip(NAMES, arrays, strict=True)},
    }
    for name, kind in (("cifar-10-python.tar.gz", "py"), ("cifar-10-binary.tar.gz", "bin")):
        with tarfile.open(tmp_path / name, "w:gz") as archive:
            for inner, data in files[f"cifar-10-batches-{kind}"].items():
                info = tarfile.TarInfo(f"cifar-10-batches-{kind}/{inner}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    packed = {name: (tmp_path / name).read_bytes() for name in ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz")}
    archives = {name: hashlib.md5(data).hexdigest() for name, data in packed.items()}
    test = sums.pop("test_batch")
    toy = replace(
        _CIFAR10,
        source=replace(
            _CIFAR10.source,
            files={"cifar-10-python.tar.gz": archives["cifar-10-python.tar.gz"]},
            addresses=(f"{tmp_path.as_uri()}/",),
        ),
        archives=archives,
        batches=sums,
        test_batch=("test_batch", test),
        binary_batches=("data_batch_1.bin", "data_batch_2.bin"),
        train_size=2 * BATCH,
        test_size=TEST,
    )
    return toy, {**files, **packed}


def lay(root, folder, form, files):
    """Write one form, a folder of files or an archive, below the root."""
    content = files[form]
    target = root / folder / form
    if isinstance(content, bytes):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    else:
        target.mkdir(parents=True)
        for name, data in content.items():
            (target / name).write_bytes(data)
    return target


FORMS = ("cifar-10-batches-py", "cifar-10-batches-bin", "cifar-10-python.tar.gz", "cifar-10-binary.tar.gz")


def check(dataset, arrays):
    images = np.concatenate([arrays[0][0], arrays[1][0]]).reshape(-1, 3, 32, 32)
    assert (dataset.train.x.numpy() == images).all()
    assert dataset.train.y.tolist() == arrays[0][1] + arrays[1][1]
    assert (dataset.test.x.numpy() == arrays[2][0].reshape(-1, 3, 32, 32)).all()
    assert dataset.mean == pytest.approx((images / 255).mean(axis=(0, 2, 3)).tolist())
    assert dataset.std == pytest.approx((images / 255).std(axis=(0, 2, 3)).tolist())


@pytest.mark.parametrize("folder", ["cifar10", "."])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read(tmp_path, toy, arrays, form, folder):
    dataset, files = toy
    lay(tmp_path / "root", folder, form, files)
    check(dataset.read(tmp_path / "root"), arrays)


def test_download_then_offline(tmp_path, toy, arrays):
    dataset, _ = toy
    check(dataset.read(tmp_path / "root", download=True), arrays)
    assert (tmp_path / "root/cifar10/cifar-10-python.tar.gz").is_file()
    check(dataset.read(tmp_path / "root"), arrays)


@pytest.mark.parametrize("form", FORMS)
def test_damage_is_one_error_with_the_path(tmp_path, toy, form):
    dataset, files = toy
    target = lay(tmp_path / "root", "cifar10", form, files)
    path = target if target.is_file() else sorted(target.iterdir())[1]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=path.name):
        dataset.read(tmp_path / "root")


def test_a_missing_batch_is_named(tmp_path, toy):
    dataset, files = toy
    (lay(tmp_path / "root", "cifar10", FORMS[0], files) / "data_batch_2").unlink()
    with pytest.raises(ValueError, match=r"cifar-10-batches-py: lacks .*; expected data_batch_1, data_batch_2"):
        dataset.read(tmp_path / "root")


def test_other_shapes_raise(tmp_path, toy):
    dataset, files = toy
    for wrong, message in (
        (np.zeros((4, 3071), np.uint8), r"data are \[4, 3071\]"),
        (np.zeros((4, 3072)), "expected a dict"),
        (np.zeros((5, 3072), np.uint8), r"\[5, 3072\] with 4 labels"),
    ):
        data = pickled(wrong, [0] * 4)
        folder = tmp_path / message[:5].strip()
        (lay(folder, "cifar10", FORMS[0], files) / "data_batch_1").write_bytes(data)
        changed = replace(dataset, batches={**dataset.batches, "data_batch_1": hashlib.md5(data).hexdigest()})
        with pytest.raises(ValueError, match=message):
            changed.read(folder)
    lay(tmp_path / "whole", "cifar10", FORMS[0], files)
    with pytest.raises(ValueError, match="holds 8 images in a split, expected 9"):
        replace(dataset, train_size=9).read(tmp_path / "whole")


def test_binary_cifar100_takes_the_fine_label(tmp_path):
    image = np.arange(3072).astype(np.uint8)
    records = b"".join(bytes([coarse, fine]) + image.tobytes() for coarse, fine in ((3, 70), (4, 80)))
    folder = tmp_path / "cifar100/cifar-100-binary"
    folder.mkdir(parents=True)
    for name in ("train.bin", "test.bin"):
        (folder / name).write_bytes(records)
    dataset = replace(_CIFAR100, train_size=2, test_size=2).read(tmp_path)
    assert dataset.train.y.tolist() == [70, 80]
    assert (dataset.test.x[1].numpy().ravel() == image).all()


def test_class_names():
    assert len(_CIFAR100.classes) == len(set(_CIFAR100.classes)) == 100
    assert list(_CIFAR100.classes) == sorted(_CIFAR100.classes)


def real(name):
    try:
        return load(name)
    except FileNotFoundError:
        pytest.skip(f"{name} is not below RHEOBASE_DATA")


def test_real_subset():
    dataset = real("cifar10_subset")
    assert (dataset.train.x.shape, dataset.test.x.shape) == ((2000, 3, 32, 32), (1000, 3, 32, 32))
    assert dataset.train.y[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert dataset.test.y[:4].tolist() == [3, 8, 8, 0]
    assert dataset.train.x[0, :, 0, 0].tolist() == [59, 62, 63]  # the frog that opens the batches of CIFAR-10


def test_real_jpegs_show_the_same_as_the_exact_subset():
    exact, path = real("cifar10_subset"), data_root() / "cifar10_jpeg/test_first1000.npz"
    if not path.is_file():
        pytest.skip("cifar10_jpeg is not below RHEOBASE_DATA")
    images, labels = _decode_jpegs(path)
    assert labels.tolist() == exact.test.y.tolist()
    difference = np.abs(images.transpose(0, 3, 1, 2) - exact.test.x.numpy().astype(float)).mean()
    assert 4 < difference < 8


def test_a_damaged_copy_of_the_subset_raises(tmp_path):
    real("cifar10_subset")
    source, copy = data_root() / "cifar10_lossless_subset", tmp_path / "cifar10_subset"
    copy.mkdir()
    for path in source.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "labels_test1000.npy").write_bytes((copy / "labels_test1000.npy").read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"labels_test1000\.npy: .* MD5"):
        load("cifar10_subset", root=tmp_path)
