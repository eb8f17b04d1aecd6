from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import random_array

from rheobase.data.csr import coordinates, dense

PATH = Path("graph.npz")


def test_matrices_are_those_of_scipy():
    matrix = random_array((7, 5), density=0.3, format="csr", rng=np.random.default_rng(0))
    assert (
        dense(PATH, matrix.data, matrix.indices, matrix.indptr, matrix.shape) == matrix.todense().astype("f4")
    ).all()
    rows, columns = coordinates(PATH, matrix.indices, matrix.indptr, matrix.shape)
    assert sorted(zip(rows, columns, strict=True)) == sorted(zip(*matrix.nonzero(), strict=True))


@pytest.mark.parametrize(
    ("indices", "indptr", "shape"),
    [
        ([0, 5], [0, 1, 2], (2, 5)),
        ([0, -1], [0, 1, 2], (2, 5)),
        ([0, 1], [0, 2, 1], (2, 5)),
        ([0, 1], [0, 2, 1, 2], (3, 5)),
        ([0, 1], [0, 1, 2], (3, 5)),
        ([0, 1], [1, 1, 2], (2, 5)),
        ([0, 1], [0, 1, 1], (2, 5)),
    ],
)
def test_parts_that_do_not_fit_raise(indices, indptr, shape):
    with pytest.raises(ValueError, match=r"graph\.npz: a sparse matrix . x 5 of 2 numbers does not agree"):
        coordinates(PATH, np.array(indices), np.array(indptr), shape)


def test_a_number_too_many_raises():
    with pytest.raises(ValueError, match=r"graph\.npz: 3 numbers for 2 indices"):
        dense(PATH, np.ones(3), np.array([0, 1]), np.array([0, 1, 2]), (2, 5))
