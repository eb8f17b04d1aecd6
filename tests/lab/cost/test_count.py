"""Pairs that meet, counted one by one."""

from itertools import product as every

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rheobase.lab.cost import trace
from rheobase.lab.cost.count import look, selects, values_of
from rheobase.nn import PerStep

CONVOLUTIONS = [
    nn.Conv2d(4, 6, 3, padding=1, bias=False),
    nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 0), groups=2, bias=False),
    nn.Conv2d(4, 2, 3, padding=2, dilation=2, bias=False),
    nn.Conv1d(4, 3, 4, stride=3, padding=2, bias=False),
    nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, bias=False),
]


def brute_force(x, conv, value):
    """Sum of `value(x)` over every pair of a value of `[N, C, ...]` and a non-zero weight that meet."""
    transposed = isinstance(conv, (nn.ConvTranspose1d, nn.ConvTranspose2d))
    y, w, groups = conv(x), conv.weight, conv.groups
    C, K = x.shape[1] // groups, y.shape[1] // groups
    found = 0.0
    for n, o, c in every(range(len(x)), range(y.shape[1]), range(C)):
        g = o // K
        taps = w[g * C + c, o % K] if transposed else w[o, c]
        for at in every(*map(range, taps.shape)):
            if taps[at] == 0:
                continue
            for place in every(*map(range, (x if transposed else y).shape[2:])):
                there = tuple(
                    p * s - q + d * a
                    for p, s, q, d, a in zip(place, conv.stride, conv.padding, conv.dilation, at, strict=True)
                )
                inside = all(0 <= t < size for t, size in zip(there, (y if transposed else x).shape[2:], strict=True))
                if inside:
                    found += value(float(x[(n, g * C + c, *(place if transposed else there))]))
    return found


def sample(conv, kind):
    shape = (2, 4, *(6, 5)[: conv.weight.dim() - 2])
    x = (torch.rand(2, *shape) < 0.4).float()
    if kind == "graded":
        x *= torch.randint(-2, 4, x.shape)
    return x * torch.rand(x.shape) if kind == "real" else x


@pytest.mark.parametrize("conv", CONVOLUTIONS, ids=lambda conv: type(conv).__name__ + str(conv.stride))
@pytest.mark.parametrize("kind", ["binary", "graded", "real"])
def test_every_pair_counts_once(conv, kind):
    torch.manual_seed(0)
    with torch.no_grad():
        conv.weight.uniform_(-1, 1)
        conv.weight[torch.rand_like(conv.weight) < 0.3] = 0
        x = sample(conv, kind)
        (product,) = trace(PerStep(conv), x).products
        flat = x.flatten(0, 1)
        runs = len(flat)
        assert product.effective * runs == brute_force(flat, conv, lambda v: v != 0)
        if kind == "real":
            assert product.additions is None
        else:
            assert product.additions * runs == brute_force(flat, conv, abs)
        conv.weight[conv.weight == 0] = 1
        assert product.inside * runs == brute_force(flat, conv, lambda v: 1)
        assert product.inside <= product.macs
        assert product.outputs == conv(flat)[0].numel()
        assert [operand.size for operand in product.operands] == [flat[0].numel(), conv.weight.numel()]


def test_a_linear_layer_leaves_out_zero_weights():
    torch.manual_seed(0)
    layer = nn.Linear(5, 4)
    with torch.no_grad():
        layer.weight[torch.rand(4, 5) < 0.5] = 0
    x = torch.randint(0, 4, (3, 2, 5)).float()
    (product,) = trace(layer, x).products
    kept = (layer.weight != 0).float()
    assert product.effective * 6 == float(((x != 0).float() @ kept.t()).sum())
    assert product.additions * 6 == float((x @ kept.t()).sum())
    assert product.operands[1].density == pytest.approx(float(kept.mean()))
    assert product.operands[0].peak == 3
    assert product.bias_adds == 4


class Run(nn.Module):
    def __init__(self, run, *layers):
        super().__init__()
        self.run, self.layers = run, nn.ModuleList(layers)

    def forward(self, x):
        return self.run(self, x)


def test_a_batch_of_products_with_weights_counts_sums_of_spikes_too():
    torch.manual_seed(0)
    weight = nn.Linear(4, 3, bias=False)
    model = Run(lambda m, x: torch.bmm(x.flatten(0, 1), m.layers[0].weight.t().expand(6, 4, 3)), weight)
    x = torch.randint(0, 3, (3, 2, 5, 4)).float()
    (product,) = trace(model, x).products
    assert product.kind == "linear"
    assert product.effective * 6 == 3 * int((x != 0).sum())
    assert product.additions * 6 == 3 * float(x.sum())


def test_two_activations_add_where_one_of_them_is_spikes():
    torch.manual_seed(0)
    spikes, sums = (torch.rand(3, 2, 4, 5) < 0.5).float(), torch.randint(0, 3, (3, 2, 5, 4)).float()

    def times(other):
        return Run(lambda m, x: x @ (other + 0 * x.sum()))  # an activation: it depends on the input

    for other in (sums, sums / 3):
        (product,) = trace(times(other), spikes).products
        met = float((spikes @ (other != 0).float()).sum())
        assert product.effective * 6 == product.additions * 6 == met
    (product,) = trace(times(sums), spikes * 2).products
    assert product.additions is None


def test_steps_with_spikes_alone_are_told_from_others():
    layer = PerStep(nn.Linear(4, 3, bias=False))
    x = torch.ones(3, 2, 4)
    x[1, 0, 0] = 2
    x[2] = -1
    (product,) = trace(layer, x).products
    assert product.effective * 6 == 3 * 24
    assert product.selected * 6 == 3 * 16
    (product,) = trace(layer, x[:1]).products
    assert product.selected == product.effective


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("order", ["rows", "channels_last", "strided"])
def test_a_look_does_not_depend_on_memory(dtype, order):
    torch.manual_seed(0)
    x = torch.randint(-1, 4, (5, 3, 4, 6)).to(dtype)
    x = {"rows": x, "channels_last": x.contiguous(memory_format=torch.channels_last), "strided": x[:, :, ::2]}[order]
    seen = look(x)
    assert seen.holds == "graded"
    assert torch.equal(seen.nonzero, (x != 0).sum(0).double())
    assert torch.equal(seen.sizes, x.double().abs().sum(0))
    assert seen.peak == 3
    assert look((x > 0).to(dtype)).holds == "binary"
    assert torch.equal(look((x > 0).to(dtype)).nonzero, (x > 0).sum(0).double())
    assert look(x / 2).holds == "real"


@pytest.mark.parametrize("value", [0.5, float("nan"), float("inf"), -float("inf")])
def test_one_value_at_the_end_is_enough(value):
    x = torch.zeros(9000)
    x[-1] = value
    assert values_of(x) == "real"
    assert not selects(x)
    assert values_of(x[:-1]) == "binary"


def test_minus_one_selects_and_two_does_not():
    assert selects(torch.tensor([0.0, -1.0, 1.0]))
    assert not selects(torch.tensor([0.0, 2.0]))
    assert values_of(torch.tensor([0.0, -1.0])) == "graded"


def test_a_bias_counts_where_it_is_added():
    layer = nn.Linear(4, 3)
    x = torch.rand(2, 5, 4)
    without = Run(lambda m, x: F.linear(x, m.layers[0].weight), layer)
    apart = Run(lambda m, x: F.linear(x, m.layers[0].weight) + m.layers[0].bias, layer)
    assert trace(without, x).products[0].bias_adds == 0
    assert trace(apart, x).products[0].bias_adds == 3
    assert trace(apart, x).elementwise == ()


def test_as_many_samples_as_steps_are_no_steps():
    model = Run(lambda m, x: m.layers[1](m.layers[0](x).mean(0)), PerStep(nn.Linear(4, 4)), nn.Linear(4, 3))
    for samples in (3, 4, 5):
        body, head = trace(model, torch.rand(4, samples, 4)).products
        assert (body.executed, head.executed) == (4, 1)
