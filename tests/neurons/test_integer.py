import pytest
import torch
from torch import nn
from torch.nn import functional as F

import rheobase as rb
from rheobase.neurons import IntegerLIF, expand_integer, sum_substeps


def test_output_is_rounded_and_clipped():
    x = torch.tensor([-1.0, 0.4, 0.6, 1.2, 3.7, 4.2, 99.0]).reshape(1, 1, -1)
    y, (v,) = IntegerLIF(decay=0.5).sequence(x, None)
    assert y.flatten().tolist() == [0, 0, 1, 1, 4, 4, 4]
    torch.testing.assert_close(v, 0.5 * (x[0] - y[0]))


@pytest.mark.parametrize("engine", ["cpu", "reference"])
def test_gradient_is_one_from_zero_to_the_last_level(engine):
    x = torch.tensor([-0.1, 0.0, 0.6, 2.5, 4.0, 4.1]).reshape(1, 1, -1).requires_grad_()
    with rb.engine(engine):
        IntegerLIF()(x).sum().backward()
    assert x.grad.flatten().tolist() == [0, 1, 1, 1, 1, 0]


def test_detached_reset_takes_no_gradient_through_the_output():
    """Then the gradient through time is that of the decay alone."""
    x = torch.full((2, 1, 1), 0.3).requires_grad_()
    IntegerLIF(decay=0.25)(x)[1].sum().backward()
    assert x.grad.flatten().tolist() == [0.25, 1]
    x.grad = None
    IntegerLIF(decay=0.25, detach_reset=False)(x)[1].sum().backward()
    assert x.grad.flatten().tolist() == [0, 1]


def test_sub_steps_are_binary_and_sum_to_the_output():
    y = IntegerLIF(levels=3)(torch.randn(5, 2, 40) * 3)
    assert y.unique().tolist() == [0, 1, 2, 3]
    parts = expand_integer(y, 3)
    assert parts.shape == (15, 2, 40)
    assert parts.unique().tolist() == [0, 1]
    assert torch.equal(sum_substeps(parts, 3), y)


@pytest.mark.parametrize("layer", ["linear", "convolution"])
def test_a_layer_on_sub_steps_gives_what_it_gives_on_integers(layer):
    """Exactly, where the weights are whole numbers, so that no sum is rounded; to rounding else; bias shared out."""
    y = IntegerLIF()(torch.randn(4, 3, 5, 8, 8) * 3)
    make = {"linear": lambda: nn.Linear(8, 6), "convolution": lambda: nn.Conv2d(5, 6, 3, padding=1)}[layer]
    whole = rb.nn.PerStep(make())
    part = rb.nn.PerStep(make())
    for exact in (True, False):
        with torch.no_grad():
            for p, q in zip(whole.parameters(), part.parameters(), strict=True):
                if exact:
                    p.copy_(torch.randint(-8, 9, p.shape) * 4)
                else:
                    nn.init.normal_(p)
                q.copy_(p)
            part.module.bias /= 4
        got, expected = sum_substeps(part(expand_integer(y, 4)), 4), whole(y)
        if exact:
            assert torch.equal(got, expected)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_wrong_values_are_refused():
    with pytest.raises(ValueError, match=r"got the value 0\.5; expected whole numbers 0\.\.4"):
        expand_integer(torch.tensor([[0.5]]), 4)
    with pytest.raises(ValueError, match="got the value 5"):
        expand_integer(torch.tensor([[5.0]]), 4)
    with pytest.raises(ValueError, match="got 5 steps; expected a multiple of levels, 4"):
        sum_substeps(torch.zeros(5, 1, 2), 4)
    with pytest.raises(ValueError, match="levels is 0"):
        IntegerLIF(levels=0)
    with pytest.raises(ValueError, match=r"decay is 1\.5"):
        IntegerLIF(decay=1.5)


def test_rounding_without_gradient_tricks_is_differentiable():
    def same(h):
        return h

    x = torch.linspace(-1, 5, 13).reshape(1, 1, -1)
    assert torch.equal(IntegerLIF(rounding=same)(x), F.hardtanh(x, 0, 4))
