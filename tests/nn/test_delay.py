import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from rheobase.nn import Delay, DelayedLinear, delay_sigma, sharpen


def spikes(*shape):
    return (torch.rand(shape) < 0.4).double()


def integers(layer):
    """The layer with whole weights, so that sums are exact in any order."""
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-4, 5, layer.weight.shape))
    return layer


@pytest.mark.parametrize("bias", [True, False])
def test_eval_is_a_gather_of_past_inputs(bias):
    layer, x = integers(DelayedLinear(5, 4, 6, bias=bias).double().eval()), spikes(9, 3, 5)
    expected = torch.zeros(9, 3, 4, dtype=torch.float64)
    for o in range(4):
        for i in range(5):
            d = int(layer.steps()[o, i])
            expected[d:, :, o] += layer.weight[o, i].detach() * x[: 9 - d, :, i]
    if bias:
        expected += layer.bias.detach()
        torch.testing.assert_close(layer(x), expected)
    else:
        assert torch.equal(layer(x), expected)
    assert layer.steps().unique().numel() > 2


def test_delays_of_channels_move_values_and_do_not_change_them():
    layer, x = Delay(5, 4).eval(), torch.randn(9, 3, 5, 2, 3)
    y = layer(x)
    for c, d in enumerate(layer.steps().tolist()):
        assert torch.equal(y[d:, :, c], x[: 9 - d, :, c])
        assert torch.equal(y[:d, :, c], torch.zeros(d, 3, 2, 3))


def test_training_weighs_past_inputs_by_a_gaussian():
    D, sigma, layer = 6, 0.8, DelayedLinear(2, 3, 6, sigma=0.8).double()
    x, y = spikes(8, 1, 2), 0
    n = torch.arange(D)
    for o in range(3):
        for i in range(2):
            bell = torch.exp(-((n - layer.delay[o, i].detach()) ** 2) / (2 * sigma**2))  # by delay, not by tap
            bell = bell / bell.sum() * layer.weight[o, i].detach()
            y = sum(bell[d] * (x[5 - d, 0, i] if d <= 5 else 0) for d in range(D)) + (y if i else 0)
        torch.testing.assert_close(layer(x)[5, 0, o], y)


def test_taps_sum_to_one_and_become_whole_delays():
    layer = DelayedLinear(4, 3, 7).double()
    with torch.no_grad():
        layer.delay.copy_(layer.delay.round() + 0.3).clamp_(0, 6)
    for sigma in (3.5, 0.5, 0.01, 1e-6):
        layer.sigma.fill_(sigma)
        assert layer.taps().isfinite().all()
        torch.testing.assert_close(layer.taps().sum(-1), torch.ones(3, 4, dtype=torch.float64))
    sharp = layer.taps()
    torch.testing.assert_close(sharp, layer.eval().taps())


@pytest.mark.parametrize("make", [lambda: DelayedLinear(3, 2, 4, bias=True), lambda: Delay(3, 4)])
def test_gradients_of_weights_and_delays_are_exact(make):
    layer = make().double()
    with torch.no_grad():
        layer.delay.clamp_(0.2, 2.8)
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    state = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    names, values = zip(*layer.named_parameters(), strict=True)

    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x, s):
            y, (last,) = self.layer.sequence(x, (s,))
            return y, last

    module = Sequence()

    def run(x, s, *values):
        given = dict(zip([f"layer.{n}" for n in names], values, strict=True))
        return torch.func.functional_call(module, given, (x, s))

    assert gradcheck(run, (x, state, *values))


def test_a_delay_outside_counts_as_the_bound_and_comes_back():
    layer = Delay(2, 5, sigma=1.0).double()
    with torch.no_grad():
        layer.delay.copy_(torch.tensor([-1.0, 9.0]))
    taps = layer.taps()
    assert taps.argmax(-1).tolist() == [4, 0]
    assert layer.steps().tolist() == [0, 4]
    for sign, moves in ((1.0, [True, False]), (-1.0, [False, True])):
        # the mean delay falls with the loss for sign 1: only the delay above the range may follow it, and vice versa
        layer.delay.grad = None
        mean = (layer.taps() * torch.arange(4, -1, -1)).sum(-1)
        (sign * mean).sum().backward()
        assert (layer.delay.grad != 0).tolist() == moves[::-1]


def test_the_width_falls_over_a_quarter_of_the_epochs():
    found = [delay_sigma(e, 40, 25) for e in range(40)]
    assert found[0] == 12.5
    assert found[10:] == [0.5] * 30
    ratios = [b / a for a, b in pairwise(found[:11])]
    assert ratios == pytest.approx([(0.5 / 12.5) ** 0.1] * 10)
    assert delay_sigma(5, 10, 25, last=0.23, share=1.0) == pytest.approx(math.sqrt(12.5 * 0.23))
    assert delay_sigma(0, 10, 1) == 0.5


def test_sharpen_sets_every_layer():
    net = nn.Sequential(DelayedLinear(3, 4, 5), nn.Sequential(Delay(4, 9)))
    assert (float(net[0].sigma), float(net[1][0].sigma)) == (2.5, 4.5)
    sharpen(net, 3, 10)
    assert (float(net[0].sigma), float(net[1][0].sigma)) == (0.5, 0.5)
    assert "0.sigma" in net.state_dict()
    with pytest.raises(ValueError, match="Linear has no layer with delays"):
        sharpen(nn.Linear(1, 1), 0, 10)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="max_delay is 0; expected at least 1"):
        Delay(3, 0)
    with pytest.raises(ValueError, match=r"sigma is 0\.0; expected above 0"):
        DelayedLinear(3, 2, 4, sigma=0.0)
    with pytest.raises(ValueError, match=r"shape \(5, 2, 4\); expected .* with c_in = 3"):
        DelayedLinear(3, 2, 4)(torch.zeros(5, 2, 4))
    with pytest.raises(ValueError, match=r"shape \(5, 2, 4\); expected .* with C = 3 channels"):
        Delay(3, 4)(torch.zeros(5, 2, 4))
    with pytest.raises(ValueError, match=r"the state holds inputs of shape \(2, 3, 3\).*expected \(4, 3, 3\)"):
        Delay(3, 4).sequence(torch.zeros(5, 4, 3), (torch.zeros(2, 3, 3),))
    with pytest.raises(ValueError, match="epoch -1 of 10"):
        delay_sigma(-1, 10, 5)
