import hashlib

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from rheobase.data import load

# SHA-256 of the samples and labels, as bytes, of either side of the split. They may never change.
TRAIN = "151bddcf39a5206c38c8634f7917cb8df705285a79e68b720566adc0abe6f67c"
TEST = "43f545ecdb20c77f73c03838a7cbc49ec64b1a4b280920c63de2c7c92375311b"


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def digest(split):
    labels = split.y.numpy().astype("<i8")
    return hashlib.sha256(split.samples().numpy().tobytes() + labels.tobytes()).hexdigest()


def rows(split):
    return {(*image.flatten().tolist(), label) for image, label in zip(split.samples(), split.y.tolist(), strict=True)}


def test_split_is_fixed(digits):
    assert (digest(digits.train), digest(digits.test)) == (TRAIN, TEST)


def test_split_ignores_the_global_random_state(digits):
    np.random.seed(1)
    torch.manual_seed(1)
    assert digest(load("digits").test) == digest(digits.test)


def test_train_and_test_share_nothing_and_miss_nothing(digits):
    bunch = load_digits()
    everything = {
        (*image.ravel().astype(int).tolist(), int(label))
        for image, label in zip(bunch.images, bunch.target, strict=True)
    }
    assert len(everything) == 1797
    train, test = rows(digits.train), rows(digits.test)
    assert (len(train), len(test)) == (1300, 497)
    assert not train & test
    assert train | test == everything


def test_split_is_stratified(digits):
    counts = np.bincount(load_digits().target)
    held = digits.test.y.bincount().numpy()
    assert (np.abs(held - counts * 497 / 1797) < 1).all()


def test_intensities_and_classes(digits):
    x = digits.train.intensities()
    assert (x.dtype, x.shape) == (torch.float32, (1300, 1, 8, 8))
    assert (float(x.min()), float(x.max())) == (0.0, 1.0)
    assert digits.classes == tuple("0123456789")


def test_standardised_with_train_statistics(digits):
    train = digits.standardise(digits.train.intensities())
    assert float(train.mean()) == pytest.approx(0, abs=1e-6)
    assert float(train.std(correction=0)) == pytest.approx(1, abs=1e-6)
    assert abs(float(digits.standardise(digits.test.intensities()).mean())) > 1e-4
