"""MNIST seen by the moving-image sensor: a generated set of events, 60000 + 10000 sequences of frames."""

import os
from functools import partial

import numpy as np
import torch

from rheobase.data.cache import Progress, cached_array
from rheobase.data.dataset import Dataset, Split
from rheobase.data.mnist import mnist
from rheobase.data.provenance import sequence_dataset
from rheobase.data.registry import About, about, register
from rheobase.data.simulate import MovingImageSensor

_TEST_SEED = 60000
"""The images are numbered through both splits; the number is the seed of the noise."""

_ABOUT = About(
    title="MNIST digits moved before a simulated event camera in three saccades, as frames [T, 2, 34, 34]",
    kind="generated",
    source="made from MNIST by rheobase.data.simulate.MovingImageSensor; not a recording, and not N-MNIST",
    licence="CC BY-SA 3.0, as commonly stated for MNIST",
    citation=(
        "Y. LeCun, L. Bottou, Y. Bengio, P. Haffner. Gradient-based learning applied to document recognition. "
        "Proceedings of the IEEE 86(11), 2278-2324, 1998. doi:10.1109/5.726791. Motion after G. Orchard, A. Jayawant, "
        "G. K. Cohen, N. Thakor. Converting static image datasets to spiking neuromorphic datasets using saccades. "
        "Frontiers in Neuroscience 9, 437, 2015. doi:10.3389/fnins.2015.00437"
    ),
    split="as MNIST: 60000 for training, 10000 for testing",
    size="11.6 MB (MNIST); the frames take 1.6 GB on the disk at T=10",
    layout=about("mnist").layout,
    checksums=about("mnist").checksums,
    made_from="mnist",
)


@register(about=_ABOUT)
def event_digits(
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    T: int = 10,
    on_progress: Progress | None = None,
) -> Dataset:
    """Return MNIST as events: sequences `[T, 2, 34, 34]` of counts, OFF and ON, of 0.3 s in T equal windows.

    The frames are made once, in one minute of one core, and kept in the folder of `cache_folder`; `on_progress` hears
    of rows done and rows in all, first of the training split.
    """
    digits = mnist(root=root, download=download)
    sensor = MovingImageSensor()
    train, test = (
        _frames(sensor, split, T, first_seed, on_progress)
        for split, first_seed in ((digits.train, 0), (digits.test, _TEST_SEED))
    )
    return sequence_dataset("event_digits", _ABOUT, digits.classes, train, test, T)


def _frames(sensor: MovingImageSensor, digits: Split, T: int, first_seed: int, on_progress: Progress | None) -> Split:
    images = digits.x[:, 0].numpy()
    key = f"{sensor.recordings(images, digits.y, first_seed).key}\nframes T={T}"
    width, height = sensor.sensor
    array = cached_array(
        key,
        len(images),
        (T, 2, height, width),
        np.uint8,
        partial(_rows, sensor, images, T, first_seed),
        on_progress=on_progress,
    )
    return Split(torch.from_numpy(array), digits.y)


def _rows(sensor: MovingImageSensor, images: np.ndarray, T: int, first_seed: int, start: int, stop: int) -> np.ndarray:
    return sensor.frames(images[start:stop], T, range(first_seed + start, first_seed + stop))
