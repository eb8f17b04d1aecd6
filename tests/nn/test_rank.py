import pytest
import torch

import rheobase as rb
from rheobase.nn import RankOrder, read_out


def test_first_spikes_are_weighed_by_who_fired_before():
    x = torch.tensor([[0, 1, 0, 0], [1, 1, 0, 1], [1, 0, 1, 0]]).float().unsqueeze(1)
    y = RankOrder(0.5)(x)
    assert y.squeeze(1).tolist() == [[0, 1, 0, 0], [0.5, 0, 0, 0.5], [0, 0, 0.125, 0]]
    weight = torch.randn(4)
    torch.testing.assert_close((y @ weight).sum(), (weight * torch.tensor([0.5, 1, 0.125, 0.5])).sum())


def test_chunks_give_the_whole():
    layer, x = RankOrder(), (torch.rand(7, 3, 5) < 0.3).float()
    with rb.stream(layer) as run:
        halves = torch.cat([run(x[:3]), run(x[3:])])
    assert torch.equal(halves, layer(x))


def test_the_gradient_takes_ranks_as_constants():
    x = torch.tensor([[0.0, 1.0], [1.0, 1.0]]).unsqueeze(1).requires_grad_()
    RankOrder(0.5)(x).sum().backward()
    assert x.grad.squeeze(1).tolist() == [[1, 1], [0.5, 0]]


def test_the_class_that_fires_first_wins():
    y = torch.tensor([[0, 0, 0], [0, 1, 0], [1, 1, 1], [1, 0, 1]]).float().unsqueeze(1)
    assert read_out(y, "first").tolist() == [[0.5, 0.75, 0.5]]


@pytest.mark.parametrize("r", [0.0, 1.0, -1.0])
def test_a_base_out_of_range_is_said(r):
    with pytest.raises(ValueError, match=f"r is {r}"):
        RankOrder(r)
