import pytest
import torch

from rheobase.scan.norm import moments


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "rows"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_moments_are_mean_and_biased_variance(dtype, layout):
    x = (torch.randn(12, 6, 9, 7) * torch.rand(6, 1, 1) * 4 + torch.randn(6, 1, 1)).to(dtype)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "rows":
        x = x[:, :, 0, 0]
    mean, var = moments(x)
    axes = [0, *range(2, x.dim())]
    expected_var, expected_mean = torch.var_mean(x.double(), axes, correction=0)
    assert mean.dtype == var.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(mean.double(), expected_mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(var.double(), expected_var, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("offset", [1e3, 1e4])
def test_a_large_mean_costs_no_accuracy(offset):
    """Values of deviation 1 far from zero: their squares would drown it in fp32."""
    x = torch.randn(40, 4, 8, 8) + offset
    _, var = moments(x)
    torch.testing.assert_close(var.double(), x.double().var([0, 2, 3], correction=0), rtol=1e-3, atol=0)


def test_a_constant_channel_has_no_variance():
    x = torch.full((5, 3, 4), 7.25)
    mean, var = moments(x)
    assert torch.equal(mean, torch.full((3,), 7.25))
    assert torch.equal(var, torch.zeros(3))


def test_bits_do_not_depend_on_the_number_of_threads():
    x, before, found = torch.randn(16, 8, 40, 40), torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(moments(x))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *found))
