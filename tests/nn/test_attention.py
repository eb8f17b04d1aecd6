import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rheobase.neurons import GLIF, IF, LIF, PSN, SlidingPSN
from rheobase.nn import ATTENTIONS, SelfAttention, attend
from rheobase.nn.attention import halved
from rheobase.nn.values import emits

pytestmark = pytest.mark.usefixtures("one_thread")


def spikes(*shape, rate=0.4):
    return (torch.rand(shape) < rate).float()


def side_by_side(x):
    """The same values with the channels of a pixel side by side in memory."""
    return x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2])


def by_hand(q, k, v, heads):
    """Q K^T V, one head, step and sample at a time."""
    T, B, D = q.shape[:3]
    d = D // heads
    y = torch.zeros(T, B, D, q[0, 0, 0].numel())
    for t in range(T):
        for b in range(B):
            for h in range(heads):
                own = slice(h * d, (h + 1) * d)
                a, c, e = (x[t, b, own].flatten(1).t() for x in (q, k, v))  # [N, d]
                y[t, b, own] = torch.stack(
                    [sum((a[n] @ c[m]) * e[m] for m in range(len(c))) for n in range(len(a))]
                ).t()
    return y.view(q.shape)


def masks(kind, heads):
    """An attention whose last neuron fires on anything above zero, and what its projections put out."""
    made = ATTENTIONS[kind](8, heads, lambda: LIF(threshold=0.02))
    seen = {}
    for name in made.projections:
        made.get_submodule(name).register_forward_hook(lambda _, __, y, name=name: seen.update({name: y}))
    return made, seen


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("order", [None, "kv", "qk"])
def test_the_product_is_that_of_each_head(heads, order):
    q, k, v = spikes(2, 3, 8, 2, 3), spikes(2, 3, 8, 2, 3), spikes(2, 3, 8, 2, 3)
    assert torch.equal(attend(q, k, v, heads, order), by_hand(q, k, v, heads))


@pytest.mark.parametrize("space", [(196,), (14, 14), (3,)])
def test_both_orders_are_equal_in_whole_numbers(space):
    q, k, v = (spikes(2, 2, 64, *space) for _ in range(3))
    found = attend(q, k, v, 2, "kv")
    assert torch.equal(found, attend(q, k, v, 2, "qk"))
    assert torch.equal(found, found.round())
    assert torch.equal((found * 0.125) % 0.125, torch.zeros_like(found))
    assert found.max() > 8


def test_ones_count_places_times_channels():
    ones = torch.ones(1, 1, 16, 5, 7)
    assert (attend(ones, ones, ones, 1) * 0.125).unique().tolist() == [35 * 16 * 0.125]
    assert attend(ones, ones, ones, 4).unique().tolist() == [35 * 4]


@pytest.mark.parametrize(("D", "N", "cheaper"), [(8, 32, "kv"), (32, 8, "qk")])
def test_the_cheaper_order_is_taken(D, N, cheaper):
    q, count = spikes(1, 1, D, N), {}
    for order in (None, "kv", "qk"):
        with FlopCounterMode(display=False) as counter:
            attend(q, q, q, 1, order)
        count[order] = counter.get_total_flops()
    assert count[None] == count[cheaper] == min(count.values()) < max(count.values())


@pytest.mark.parametrize("order", ["kv", "qk"])
def test_the_result_lies_in_memory_as_the_query_does(order):
    q, k, v = (spikes(2, 3, 8, 4, 5) for _ in range(3))
    found = attend(side_by_side(q), side_by_side(k), side_by_side(v), 2, order)
    assert found.stride() == side_by_side(q).stride()
    assert attend(q, k, v, 2, order).stride() == q.stride()
    assert torch.equal(found, attend(q, k, v, 2, order))


def test_gradients_of_both_orders_are_equal():
    x = [spikes(2, 2, 4, 3, 2).double().requires_grad_() for _ in range(3)]
    w = torch.randn(2, 2, 4, 3, 2, dtype=torch.float64)
    found = [torch.autograd.grad((attend(*x, 2, order) * w).sum(), x) for order in ("kv", "qk")]
    torch.testing.assert_close(*found)
    assert all(g.abs().sum() > 0 for g in found[0])


def test_wrong_arguments():
    q = spikes(1, 1, 6, 4)
    with pytest.raises(ValueError, match="attend: 4 heads do not divide 6 channels"):
        attend(q, q, q, 4)
    with pytest.raises(ValueError, match="SelfAttention: 0 heads do not divide 8 channels"):
        SelfAttention(8, 0, LIF)


def test_an_unknown_order_is_refused(untyped):
    q = spikes(1, 1, 6, 4)
    with pytest.raises(ValueError, match="order is 'vk'; expected 'kv', 'qk' or None"):
        attend(q, q, q, 2, "vk")


def test_half_the_threshold():
    assert halved(LIF).threshold == 0.5
    assert halved(lambda: IF(torch.tensor([0.5, 3.0]))).threshold.tolist() == [0.25, 1.5]
    learned = halved(lambda: IF(nn.Parameter(torch.tensor(0.8))))
    assert isinstance(learned.threshold, nn.Parameter)
    assert learned.threshold.item() == pytest.approx(0.4)
    for made in (halved(lambda: PSN(T=3)), halved(SlidingPSN), halved(GLIF)):
        assert torch.allclose(made.threshold, torch.full_like(made.threshold, 0.25 if isinstance(made, GLIF) else 0.5))
    shared = torch.tensor(1.0)
    assert [halved(lambda: LIF(threshold=shared)).threshold.item() for _ in range(2)] == [0.5, 0.5]
    assert shared.item() == 1
    assert isinstance(halved(nn.ReLU), nn.ReLU)


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_spikes_come_out_unless_a_neuron_emits_something_else(kind):
    made, x = ATTENTIONS[kind](8, 2, LIF), spikes(3, 2, 8, 4, 4)
    y = made(x)
    assert y.shape == x.shape
    assert emits(made) == "binary"
    assert set(y.unique().tolist()) <= {0, 1}
    assert emits(ATTENTIONS[kind](8, 2, nn.ReLU)) == "real"
    assert made.neuron.threshold == made.q.neuron.threshold / 2 == 0.5


@pytest.mark.parametrize("order", [None, "kv", "qk"])
def test_self_attention_scales_the_product_for_its_neuron(order):
    made, seen = SelfAttention(8, 2, lambda: LIF(threshold=0.3), order=order, scale=0.25), {}
    for name in ("q", "k", "v", "neuron"):
        made.get_submodule(name).register_forward_hook(lambda _, x, y, name=name: seen.update({name: (x[0], y)}))
    y = made(spikes(3, 2, 8, 4, 4))
    q, k, v = (seen[name][1] for name in ("q", "k", "v"))
    assert torch.equal(seen["neuron"][0], by_hand(q, k, v, 2) * 0.25)
    assert torch.equal(y, seen["neuron"][1])
    assert 0 < y.mean() < 1


@pytest.mark.parametrize("heads", [1, 4])
def test_spike_driven_attention_masks_the_query_by_channel(heads):
    made, seen = masks("sdsa", heads)
    with torch.no_grad():
        made.v.norm.bias[:4] = -10  # these channels of V are silent
    y = made(spikes(1, 2, 8, 3, 3))
    q, k, v = (seen[name] for name in "qkv")
    fired = (k * v).flatten(3).any(3)
    assert torch.equal(y, q * fired[..., None, None])
    assert fired[:, :, :4].sum() == 0
    assert y.sum() > 0


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_token_attention_masks_the_key_by_token_and_head(heads):
    made, seen = masks("qkta", heads)
    y = made(spikes(1, 2, 8, 3, 3))
    d = 8 // heads
    for h in range(heads):
        own = slice(h * d, (h + 1) * d)
        fired = seen["q"][:, :, own].any(2, keepdim=True)
        assert torch.equal(y[:, :, own], seen["k"][:, :, own] * fired)
    assert 0 < y.sum() < seen["k"].sum() or heads == 1


def test_channel_attention_masks_the_key_by_channel():
    made, seen = masks("qkca", 2)
    with torch.no_grad():
        made.q.norm.bias[:4] = -10  # these channels of Q are silent
    y = made(spikes(1, 2, 8, 3, 3))
    fired = seen["q"].flatten(3).any(3)
    assert fired[:, :, :4].sum() == 0
    assert torch.equal(y, seen["k"] * fired[..., None, None])
    assert y.sum() > 0
