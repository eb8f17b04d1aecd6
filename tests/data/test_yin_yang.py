import numpy as np
import pytest

from rheobase.data import load
from rheobase.data.fetch import data_root


@pytest.fixture(scope="module")
def real():
    try:
        return load("yin_yang")
    except FileNotFoundError:
        pytest.skip("yin_yang is not below RHEOBASE_DATA; rheobase.data.load can download it")


def test_published_draw(real):
    assert (real.train.x.shape, real.test.x.shape) == ((5000, 4), (1000, 4))
    assert real.train.y.bincount().tolist() == [1681, 1702, 1617]
    assert real.test.y.bincount().tolist() == [350, 316, 334]
    x = real.train.intensities()
    assert (x[:, 2:] - (1 - x[:, :2])).abs().max() < 1e-6
    validation = load("yin_yang", evaluate_on="validation")
    assert validation.test.y.bincount().tolist() == [316, 336, 348]


def test_only_two_parts_are_known(untyped):
    with pytest.raises(ValueError, match="evaluate_on is 'train'; expected 'test' or 'validation'"):
        load("yin_yang", evaluate_on="train")


def test_wrong_shapes_and_values_raise(tmp_path):
    path = tmp_path / "yin_yang/yin_yang.npz"
    path.parent.mkdir()
    good = {"train_x": np.zeros((5000, 4)), "train_y": np.zeros(5000)}
    good |= {"test_x": np.zeros((1000, 4)), "test_y": np.zeros(1000)}
    wrong = {"train_x": np.zeros((4999, 4)), "test_x": np.full((1000, 4), 1.5), "test_y": np.zeros(999)}
    for name, array in wrong.items():
        np.savez(path, **{**good, name: array})
        with pytest.raises(ValueError, match=r"yin_yang\.npz: holds points"):
            load("yin_yang", root=tmp_path)


def test_published_files_must_be_the_original(tmp_path):
    (tmp_path / "yin_yang/publication_data").mkdir(parents=True)
    for part in ("train", "validation", "test"):
        for kind in ("samples", "labels"):
            np.save(tmp_path / f"yin_yang/publication_data/{part}_{kind}.npy", np.zeros(1))
    with pytest.raises(ValueError, match=r"train_samples\.npy: .* expected MD5 3fae7547"):
        load("yin_yang", root=tmp_path)


def test_a_damaged_copy_raises(real, tmp_path):
    (tmp_path / "yin_yang").mkdir()
    data = (data_root() / "yin_yang/yin_yang.npz").read_bytes()
    (tmp_path / "yin_yang/yin_yang.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"yin_yang\.npz: not an npz"):
        load("yin_yang", root=tmp_path)
