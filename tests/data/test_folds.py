import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rheobase.data import folds_of, list_datasets, register, stratified_folds
from rheobase.data.folds import check_fold


@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=40), count=st.integers(2, 6), seed=st.integers(0, 9))
def test_every_sample_is_in_one_fold_and_classes_are_even(labels, count, seed):
    labels = labels + [0, 1, 2, 3] * count
    folds = stratified_folds(torch.tensor(labels), count, seed)
    assert len(folds) == count
    assert sorted(np.concatenate(folds).tolist()) == list(range(len(labels)))
    for label in range(4):
        sizes = [int((np.array(labels)[fold] == label).sum()) for fold in folds]
        assert max(sizes) - min(sizes) <= 1


def test_the_draw_is_fixed():
    folds = stratified_folds(torch.arange(12) % 3, 4)
    assert [fold.tolist() for fold in folds] == [[1, 6, 11], [2, 7, 9], [3, 4, 8], [0, 5, 10]]


def test_what_cannot_be_folded_raises():
    with pytest.raises(ValueError, match="expected 2 to 2, the size of the smallest class"):
        stratified_folds(torch.tensor([0, 0, 0, 1, 1]), 3)
    with pytest.raises(ValueError, match="fold is 5; expected 0 to 4"):
        check_fold("toy", 5, 5)


def test_data_sets_say_how_many_folds_they_have():
    assert (folds_of("digits"), folds_of("nas_tones"), folds_of("dvs_sign_v2e")) == (0, 13, 5)

    def no_fold(*, root=None, download=False): ...

    with pytest.raises(ValueError, match=r"'no_fold' lacks the keyword.* fold"):
        register(about=None, folds=3)(no_fold)
    assert "no_fold" not in list_datasets()
