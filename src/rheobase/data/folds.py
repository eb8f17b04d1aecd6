"""Sets without an official split are measured by cross-validation: every sample is tested once, by a network that did
not see it."""

import numpy as np
from jaxtyping import Int64
from torch import Tensor


def stratified_folds(y: Int64[Tensor, " N"], count: int, seed: int = 0) -> list[np.ndarray]:
    """The samples of each fold, in rising order: every class is shared out evenly, in an order drawn from `seed`.

    Raises:
        ValueError: fewer than two folds, or a class with fewer samples than folds.
    """
    labels = y.numpy()
    fewest = np.unique(labels, return_counts=True)[1].min()
    if not 2 <= count <= fewest:
        raise ValueError(f"stratified_folds: got {count} folds; expected 2 to {fewest}, the size of the smallest class")
    random = np.random.RandomState(seed)
    fold = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        fold[members] = np.arange(len(members)) % count
    return [np.flatnonzero(fold == k) for k in range(count)]


def check_fold(caller: str, fold: int, count: int) -> None:
    """Do nothing if there is such a fold.

    Raises:
        ValueError: there is none.
    """
    if not 0 <= fold < count:
        raise ValueError(f"{caller}: fold is {fold}; expected 0 to {count - 1}")
