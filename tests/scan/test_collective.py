"""With a process group of this process alone; two processes are in tests/train/test_distributed.py."""

import pytest
import torch

from rheobase.scan.collective import pooled, sum_over_processes


@pytest.fixture(autouse=True)
def _process_group(tmp_path):
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_sums_keep_shape_and_format_and_leave_the_tensors_alone():
    tensors = [torch.randn(2, 3).t(), torch.tensor(4.0), torch.randn(5, dtype=torch.float64)]
    sums = sum_over_processes(*tensors)
    torch.testing.assert_close(sums, tensors)
    sums[0].zero_()
    assert tensors[0].abs().sum() > 0


def test_the_statistics_of_one_are_its_own():
    mean, var, count = pooled(torch.tensor([1e4, -2.0]), torch.tensor([1e-3, 4.0]), 7)
    torch.testing.assert_close(mean, torch.tensor([1e4, -2.0]))
    torch.testing.assert_close(var, torch.tensor([1e-3, 4.0]))
    assert count == 7


def test_statistics_of_two_are_those_of_all_their_values(monkeypatch):
    """The other process is played: what it would send is put in its place."""
    x, other = torch.randn(3, 11) + 1e4, torch.randn(3, 4) - 1e4
    sent = torch.cat([other.mean(1).double(), other.var(1, correction=0).double(), torch.tensor([4.0]).double()])

    def gather(into, own):
        into[0].copy_(own)
        into[1].copy_(sent)

    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.all_gather", gather)
    mean, var, count = pooled(x.mean(1), x.var(1, correction=0), 11)
    values = torch.cat([x, other], 1).double()
    assert count == 15
    torch.testing.assert_close(mean.double(), values.mean(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(var.double(), values.var(1, correction=0), rtol=1e-6, atol=0)
