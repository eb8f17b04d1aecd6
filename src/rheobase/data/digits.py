"""The 8x8 handwritten digits that come with scikit-learn: nothing to download, the default data set."""

import os

import torch

from rheobase.data.dataset import Dataset, Split, hold_out
from rheobase.data.registry import register

_LEVELS = 16
_TEST_SIZE = 497
_SPLIT_SEED = 0


@register
def digits(*, root: str | os.PathLike[str] | None = None, download: bool = False) -> Dataset:
    """Return 1797 images `[1, 8, 8]` in 17 grey levels, split into 1300 for training and 497 for testing.

    The split is drawn per class with a fixed seed and never changes. It mixes the 13 writers, so it is easier than
    a split by writer (scikit-learn's copy does not say who wrote what). `root` and `download` are not needed.
    """
    del root, download
    from sklearn.datasets import load_digits

    bunch = load_digits()
    everything = Split(
        torch.from_numpy(bunch.images).to(torch.uint8).unsqueeze(1), torch.from_numpy(bunch.target).long(), _LEVELS
    )
    train, test = hold_out(everything, _TEST_SIZE / len(everything), _SPLIT_SEED)
    mean, std = train.statistics()
    return Dataset(
        name="digits",
        train=train,
        test=test,
        classes=tuple(map(str, range(10))),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        source="scikit-learn load_digits: the test half of https://archive.ics.uci.edu/dataset/80",
        licence="CC BY 4.0",
        citation=(
            "E. Alpaydin, C. Kaynak. Optical Recognition of Handwritten Digits. UCI Machine Learning Repository, 1998. "
            "doi:10.24432/C50P49"
        ),
    )
