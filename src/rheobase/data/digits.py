"""The 8x8 handwritten digits that come with scikit-learn: nothing to download, the default data set."""

import os

import torch

from rheobase.data.dataset import Dataset, Split, hold_out
from rheobase.data.provenance import image_dataset
from rheobase.data.registry import About, register

_LEVELS = 16
_TEST_SIZE = 497
_SPLIT_SEED = 0


_ABOUT = About(
    title="Optical Recognition of Handwritten Digits: 8 x 8 pictures in 17 grey levels, as scikit-learn ships them",
    kind="images",
    source="https://archive.ics.uci.edu/dataset/80",
    licence="CC BY 4.0",
    citation=(
        "E. Alpaydin, C. Kaynak. Optical Recognition of Handwritten Digits. UCI Machine Learning Repository, 1998. "
        "doi:10.24432/C50P49"
    ),
    split="drawn here, per class, with a fixed seed: 1300 train, 497 test",
    size="nothing",
)


@register(about=_ABOUT)
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
    return image_dataset("digits", _ABOUT, tuple(map(str, range(10))), train, test)
