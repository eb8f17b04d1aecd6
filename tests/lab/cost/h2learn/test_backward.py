"""The backward engine: gradients of autograd where they are needed, and multiplications counted one by one."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from rheobase.lab.cost.h2learn import backward_engine, operands

pytestmark = pytest.mark.usefixtures("one_thread")


def counted(nonzero, needed, weight, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    """Multiplications for each needed element, found from the outputs' side: every product of the forward pass."""
    work = torch.zeros(needed.shape, dtype=torch.int32)
    every = 0
    N, C, KY, KX = weight
    for t, b, n, y, x in itertools.product(*map(range, nonzero.shape)):
        for c, ky, kx in itertools.product(range(C), range(KY), range(KX)):
            every += 1
            at = y * stride[0] - padding[0] + ky * dilation[0], x * stride[1] - padding[1] + kx * dilation[1]
            place = (t, b, n // (N // groups) * C + c, *at)
            inside = 0 <= at[0] < needed.shape[3] and 0 <= at[1] < needed.shape[4]
            if inside and nonzero[t, b, n, y, x] and needed[place]:
                work[place] += 1
    return work, every


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from([0.0, 0.2, 0.6, 1.0]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 2)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.integers(1, 2),
)
def test_what_is_left_out_is_not_missed(seed, d_in, d_out, kernel, stride, padding, dilation, groups):
    r = torch.Generator().manual_seed(seed)
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    x = torch.randn(4, 2 * groups, 5, 6, generator=r, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3 * groups, 2, *kernel, generator=r, dtype=torch.float64)
    y = F.conv2d(x, weight, None, **geometry)
    gradient = torch.randn(y.shape, generator=r, dtype=torch.float64) * (torch.rand(y.shape, generator=r) < d_in)
    needed = torch.rand(x.shape, generator=r) < d_out
    (dense,) = torch.autograd.grad(y, x, gradient)
    gradient, needed, dense = (t.unflatten(0, (2, 2)) for t in (gradient, needed, dense))
    found = backward_engine(gradient, weight, needed, **geometry)
    assert torch.allclose(found.gradient, dense * needed, rtol=1e-12, atol=1e-12)
    assert not found.gradient[~needed].any()
    work, every = counted(gradient != 0, needed, weight.shape, **geometry)
    assert torch.equal(found.work, work)
    assert torch.equal(operands(gradient != 0, needed, weight.shape, **geometry), work)
    assert (found.macs, found.dense, found.skipped) == (int(work.sum()), every, every - int(work.sum()))


@pytest.mark.parametrize("between", [(), (3,), (2, 3)])
def test_a_linear_layer_is_a_kernel_of_one_place(between):
    gradient = torch.randn(2, 3, *between, 5) * (torch.rand(2, 3, *between, 5) < 0.4)
    weight, needed = torch.randn(5, 7), torch.rand(2, 3, *between, 7) < 0.5
    found = backward_engine(gradient, weight, needed)
    assert found.gradient.dtype == torch.float32
    assert torch.allclose(found.gradient, gradient @ weight * needed, atol=1e-6)
    work = (gradient != 0).sum(-1, keepdim=True) * needed
    assert torch.equal(found.work.long(), work)
    assert torch.equal(operands(gradient != 0, needed, weight.shape).long(), work)
    assert found.dense == gradient.numel() * 7


def test_sums_are_in_fp32_unless_something_is_double():
    gradient, weight, needed = torch.randn(2, 1, 5), torch.randn(5, 7), torch.ones(2, 1, 7, dtype=torch.bool)
    assert backward_engine(gradient.half(), weight.half(), needed).gradient.dtype == torch.float32
    assert backward_engine(gradient, weight.double(), needed).gradient.dtype == torch.float64
    assert not backward_engine(gradient, weight.requires_grad_(), needed).gradient.requires_grad


def test_shapes_that_do_not_fit_are_said():
    weight, needed = torch.randn(5, 7), torch.ones(2, 1, 7, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"gradient has shape \(2, 1, 6\).* has \(2, 1, 5\)"):
        backward_engine(torch.randn(2, 1, 6), weight, needed)
    with pytest.raises(ValueError, match="input 7 channels; expected 8 channels"):
        operands(torch.ones(2, 1, 5).bool(), needed, (5, 8))
