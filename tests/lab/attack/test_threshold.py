import pytest
import torch
from torch import nn

from rheobase.lab.attack import as_victim, firing_at, hidden_layer, spiking_layers, surrogates
from rheobase.lab.attack.trap import input_gradient
from rheobase.models import create_model
from rheobase.neurons import IF, LIF, IterativeLIF, Rectangle, Sigmoid


def test_the_last_hidden_layer():
    assert hidden_layer(create_model("test_pooled_snn")) == "body.5.1"  # before the last layer, which fires too
    assert hidden_layer(create_model("test_conv_snn")) == "body.2.2"  # the last layer puts out currents
    assert hidden_layer(nn.Sequential(LIF(), nn.Linear(2, 2))) == "0"
    with pytest.raises(ValueError, match="has 1 spiking layers with a surrogate and a threshold, none of them hidden"):
        hidden_layer(nn.Sequential(nn.Linear(2, 2), LIF()))
    with pytest.raises(ValueError, match="has 0 spiking layers"):
        hidden_layer(create_model("test_pooled_ann"))


def test_layers_with_a_surrogate_and_a_threshold():
    model = nn.Sequential(LIF(), nn.ReLU(), IF())
    assert list(spiking_layers(model)) == ["0", "2"]


def test_the_layer_fires_at_the_other_threshold(victim, events):
    x, _ = events
    layer = dict(victim.named_modules())[hidden_layer(victim)]
    seen = []
    handle = layer.register_forward_hook(lambda _, __, y: seen.append(y.mean().item()))
    with torch.no_grad():
        before = victim(x)
        with firing_at(victim, 1.0):
            assert layer.threshold == 1.0
            victim(x)
        after = victim(x)
    handle.remove()
    assert seen[1] < seen[0] == seen[2]
    assert torch.equal(before, after)


def slope(neuron, at):
    """What passes back through one spike of a membrane at these values."""
    x = torch.tensor(at).view(1, 1, -1).requires_grad_()
    y = neuron(x)
    return y.flatten().tolist(), torch.autograd.grad(y.sum(), x)[0].flatten().tolist()


@pytest.mark.parametrize(("window", "open_at"), [("original", [0, 1, 1, 0, 0]), ("moved", [0, 0, 1, 1, 0])])
def test_the_window_stays_or_moves(window, open_at):
    model = nn.Sequential(IterativeLIF(0.25, 0.3, Rectangle()), nn.Linear(1, 1))
    at = [-0.3, 0.4, 0.7, 1.2, 1.6]
    with firing_at(model, 1.0, window=window):
        assert slope(model[0], at) == ([0, 0, 0, 1, 1], open_at)
    assert slope(model[0], at) == ([0, 1, 1, 1, 1], [0, 1, 1, 0, 0])


@pytest.mark.parametrize("threshold", [0.3, torch.full((3,), 0.3), nn.Parameter(torch.tensor(0.3))])
def test_everything_is_put_back_after_an_exception(threshold):
    model = nn.Sequential(IterativeLIF(0.25, threshold), nn.Linear(3, 3))
    x = torch.rand(4, 2, 3)
    expected, scan = model(x), model[0].scan
    seen = []

    def stop():
        seen.append(torch.as_tensor(model[0].threshold).detach().clone())
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), firing_at(model, 1.0), surrogates(model, Sigmoid(1.0)):
        stop()
    assert seen[0].eq(1.0).all()
    assert torch.as_tensor(model[0].threshold).eq(0.3).all()
    assert model[0].scan is scan
    assert torch.equal(model(x), expected)


def test_another_surrogate_leaves_the_spikes(victim, events):
    x, y = events
    with torch.no_grad():
        expected = victim(x)
        with surrogates(victim, Sigmoid(1.0)):
            assert torch.equal(victim(x), expected)
            smooth = input_gradient(victim, x, y)
    assert bool((smooth != 0).flatten(2).any(2).all())
    assert not torch.equal(smooth, input_gradient(victim, x, y))


def test_none_changes_nothing(victim):
    scans = [layer.scan for layer in spiking_layers(victim).values()]
    with firing_at(victim, None), surrogates(victim, None):
        assert [layer.scan for layer in spiking_layers(victim).values()] == scans


def test_a_victim_is_in_eval_mode_and_learns_nothing():
    model = create_model("test_pooled_snn").train()
    model.head[0].module.weight.requires_grad_(False)
    model.body[0].eval()
    seen = []

    def stop():
        seen.append(any(module.training for module in model.modules()))
        seen.append(any(p.requires_grad for p in model.parameters()))
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), as_victim(model):
        stop()
    assert seen == [False, False]
    assert model.training
    assert not model.body[0].training
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["head.0.module.weight"]


@pytest.mark.usefixtures("untyped")
def test_what_cannot_be_set_raises():
    model = nn.Sequential(IterativeLIF(0.25, torch.tensor([0.3, 0.4])), nn.Linear(2, 2))
    for message, arguments in (
        ("threshold is -1", {"threshold": -1.0}),
        ("window is 'gone'", {"threshold": 1.0, "window": "gone"}),
        ("there is no spiking layer 'body'; there are 0", {"threshold": 1.0, "layer": "body"}),
        ("thresholds from 0.3 to 0.4", {"threshold": 1.0}),
    ):
        with pytest.raises(ValueError, match=message), firing_at(model, **arguments):
            pass
    with firing_at(model, 1.0, window="moved"):
        assert model[0].threshold.tolist() == [1.0, 1.0]
    assert model[0].threshold.tolist() == pytest.approx([0.3, 0.4])
