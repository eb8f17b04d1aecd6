import numpy as np
import pytest

from rheobase.data import EVENT, Events
from rheobase.data.rows import contiguous, copy_rows, join_rows, sort_rows, take_rows


def array(N=7):
    return Events.of(range(N), range(N), [2] * N, np.arange(N) % 2, (N, 3)).array


def test_rows_are_those_of_numpy():
    rows = array()
    mask = rows["t"] % 3 > 0
    assert copy_rows(rows[::-2]).tolist() == rows[::-2].tolist()
    assert join_rows(rows[:2], rows[::3]).tolist() == rows[:2].tolist() + rows[::3].tolist()
    assert take_rows(rows, mask).tolist() == rows[mask].tolist()
    assert take_rows(rows, np.array([3, 0, 3])).tolist() == rows[[3, 0, 3]].tolist()
    assert take_rows(rows, mask).dtype == EVENT
    assert take_rows(rows[:0], mask[:0]).tolist() == []
    assert sort_rows(rows[[5, 0, 3]]).tolist() == rows[[0, 3, 5]].tolist()


def test_a_mask_of_another_length_raises():
    with pytest.raises(IndexError, match=r"the mask is \[6\]; expected \[7\]"):
        take_rows(array(), np.ones(6, bool))


def test_copies_are_the_callers_own():
    rows = array()
    copy_rows(rows)["t"] = 0
    take_rows(rows, np.ones(7, bool))["t"] = 0
    assert rows.tolist() == array().tolist()
    assert contiguous(rows) is rows
    apart = contiguous(rows[::2])
    assert apart.flags.c_contiguous
    assert apart.tolist() == rows[::2].tolist()
