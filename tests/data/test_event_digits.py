import importlib

import numpy as np
import pytest
import torch

from rheobase.data import Dataset, MovingImageSensor, Split, about, batches, load

module = importlib.import_module("rheobase.data.event_digits")


@pytest.fixture
def few_digits(monkeypatch, tmp_path):
    """Six images in the place of MNIST, and a cache of their own."""
    drawn = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 1, 28, 28), dtype=np.uint8))
    splits = [Split(drawn[part], torch.arange(10)[part], 255) for part in (slice(0, 4), slice(4, 6))]
    few = Dataset("mnist", *splits, tuple("0123456789"), (0.1,), (0.3,), "", "", "")
    monkeypatch.setattr(module, "mnist", lambda root, download: few)
    monkeypatch.setenv("RHEOBASE_CACHE", str(tmp_path))
    return few


def test_digits_become_sequences(few_digits):
    seen = []
    made = load("event_digits", T=4, on_progress=lambda done, count: seen.append((done, count)))
    assert (made.T, made.sample_shape, made.mean) == (4, (2, 34, 34), ())
    assert (made.train.x.dtype, made.train.x.shape) == (torch.uint8, (4, 4, 2, 34, 34))
    assert seen[-1] == (2, 2)
    assert (4, 4) in seen
    for split, digits, seed in ((made.train, few_digits.train, 0), (made.test, few_digits.test, 60000)):
        seeds = range(seed, seed + len(digits))
        expected = MovingImageSensor().frames(digits.x[:, 0].numpy(), 4, seeds)
        assert (split.x.numpy() == expected).all()
        assert torch.equal(split.y, digits.y)


def test_they_are_kept_by_their_number_of_steps(few_digits, tmp_path):
    first = load("event_digits", T=2)
    load("event_digits", T=3)
    assert len(list(tmp_path.glob("*.npy"))) == 4
    again = load("event_digits", T=2, on_progress=lambda done, count: pytest.fail("made again"))
    assert torch.equal(again.train.x, first.train.x)


def test_a_batch_has_time_first(few_digits):
    made = load("event_digits", T=5)
    x, _ = next(iter(batches(made.train, 3)))
    assert made.encode(x, 5).shape == (5, 3, 2, 34, 34)


def test_it_says_that_it_is_generated():
    known = about("event_digits")
    assert known.kind == "generated"
    assert "not a recording" in known.source


def test_without_mnist_it_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="mnist: 4 of 4 files are missing"):
        load("event_digits", root=tmp_path)
