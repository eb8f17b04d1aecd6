import pytest
import torch

from rheobase.nn import read_out


def test_what_is_taken_over_time():
    y = torch.tensor([[[1.0, 4.0]], [[5.0, 2.0]], [[3.0, 0.0]]])
    found = {how: read_out(y, how)[0].tolist() for how in ("mean", "sum", "last", "max")}
    assert found == {"mean": [3, 2], "sum": [9, 6], "last": [3, 0], "max": [5, 4]}
    assert torch.equal(read_out(y), y.mean(0))


def test_an_unknown_readout_is_refused():
    with pytest.raises(ValueError, match="no readout 'median'; expected one of mean, sum, last, max"):
        read_out(torch.zeros(1, 1, 1), "median")
