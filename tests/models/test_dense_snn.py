import pytest
import torch
from torch.nn import functional as F

import rheobase as rb
from rheobase.models import MODELS, create_model, dense_snn
from rheobase.models.dense_snn import KINDS
from rheobase.neurons import LIF, PLIF
from rheobase.nn import DelayedLinear, Recurrent

pytestmark = pytest.mark.usefixtures("one_thread")


def order(count, T=20):
    """Two channels, one pulse each, 4 to 8 steps apart; the class is the channel that comes first."""
    y, n = torch.arange(count) % 2, torch.arange(count)
    first, gap = torch.randint(0, 6, (count,)), torch.randint(4, 9, (count,))
    x = torch.zeros(T, count, 2)
    x[first, n, y] = 1
    x[first + gap, n, 1 - y] = 1
    return x, y


def forgetful():
    """A neuron without memory: with a time constant of one step its membrane is its input."""
    return LIF(tau=1.0)


def learned(kind, steps=120):
    """A small network that has been taught the order of pulses."""
    model = dense_snn(kind, 2, 2, (64,), forgetful, max_delay=10)
    delays = [p for name, p in model.named_parameters() if name.endswith("delay")]
    others = [p for name, p in model.named_parameters() if not name.endswith("delay")]
    optimizer = torch.optim.Adam([{"params": others, "lr": 0.01}, {"params": delays, "lr": 0.1}])
    for step in range(steps):
        if delays:
            rb.nn.sharpen(model, step, steps, last=0.1, share=0.5)
        x, y = order(128)
        loss = F.cross_entropy(model(x).mean(0), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def accuracy(model):
    x, y = order(400)
    with torch.no_grad():
        return (model(x).mean(0).argmax(1) == y).double().mean().item()


@pytest.mark.parametrize("kind", ["recurrent", "delay"])
def test_what_remembers_learns_the_order_of_pulses(kind):
    assert accuracy(learned(kind)) > 0.9


def test_what_does_not_remember_cannot_learn_the_order_of_pulses():
    """A sample and its mirror image hold the same steps in another order, so their mean is the same at any weights."""
    model = learned("feedforward", steps=20).double()
    x, _ = order(50)
    with torch.no_grad():
        logits = model(x.double()).mean(0)
        torch.testing.assert_close(model(x.flip(-1).double()).mean(0), logits, rtol=0, atol=1e-12)
    assert model(x.double()).std(0).min() > 0


def test_sizes_of_the_net_for_spoken_digits():
    counts = {kind: sum(p.numel() for p in create_model(f"{kind}_snn").parameters()) for kind in KINDS}
    weights, others = 700 * 256 + 256 * 256 + 256 * 20, 2 * 2 * 256 + 20
    assert counts == {
        "feedforward": weights + others,
        "recurrent": weights + others + 2 * 256 * 256,
        "delay": 2 * weights + others,
    }
    for kind in KINDS:
        assert MODELS[f"{kind}_snn"].example() == (700,)
        assert MODELS[f"{kind}_snn"].example(in_channels=140) == (140,)


def test_layers_are_of_their_kind():
    for kind, layer in (("recurrent", Recurrent), ("delay", DelayedLinear)):
        model = create_model(f"test_{kind}_snn", neuron="plif")
        assert sum(isinstance(m, layer) for m in model.modules()) == {"recurrent": 2, "delay": 3}[kind]
        assert sum(isinstance(m, PLIF) for m in model.modules()) == 2
        assert all(any(isinstance(m, layer) for m in block.modules()) for block in model.blocks())


def test_wrong_arguments():
    with pytest.raises(ValueError, match="no kind 'dense'; expected one of feedforward, recurrent, delay"):
        dense_snn("dense")
    with pytest.raises(ValueError, match="at least one hidden layer"):
        dense_snn(hidden=())
    with pytest.raises(ValueError, match="no neuron is called 'life'"):
        dense_snn(neuron="life")
    with pytest.raises(ValueError, match="ReLU has no steps to feed back"):
        dense_snn("recurrent", neuron=torch.nn.ReLU)
