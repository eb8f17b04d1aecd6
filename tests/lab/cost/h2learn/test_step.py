"""A real training step on the three engines: autograd's gradients, and those of the written equations."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rheobase.lab.cost.h2learn import backward_engine, forward_engine, operands, trace_step, weight_update_engine, work
from rheobase.models import MODELS, create_model
from rheobase.neurons import IterativeLIF
from rheobase.neurons.surrogate import Rectangle
from rheobase.nn import PerStep, TdBN

pytestmark = pytest.mark.usefixtures("one_thread")

T, B, DECAY, THRESHOLD = 5, 3, 0.5, 1.0
EVENTS = (2, 16, 16)


def loss(y):
    return F.cross_entropy(y.mean(0), torch.arange(B) % y.shape[-1])


def events():
    return (torch.rand(T, B, *EVENTS) < 0.4).float()


def network(norm=False, pool=False, width=1.0, detach=True):
    """Two convolutions and two linear layers, whose weights are multiples of 1/64: sums of them have no rounding."""

    def neuron():
        return IterativeLIF(DECAY, THRESHOLD, Rectangle(width), detach_reset=detach, strict=False)

    def after(channels):
        return [TdBN(channels)] * norm + [neuron()] + [PerStep(nn.MaxPool2d(2))] * pool

    torch.manual_seed(0)
    net = nn.Sequential(
        PerStep(nn.Conv2d(2, 8, 3, padding=1, bias=False)),
        *after(8),
        PerStep(nn.Conv2d(8, 6, 3, stride=2, dilation=1, padding=1, groups=2, bias=False)),
        *after(6),
        PerStep(nn.Flatten()),
        PerStep(nn.Linear(24 if pool else 384, 20, bias=False)),
        neuron(),
        PerStep(nn.Linear(20, 4, bias=False)),
    )
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight.copy_((layer.weight * 256).round() / 64)
    return net.train()


def settings_of(layer):
    return {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}


class OnEngines(torch.autograd.Function):
    """A layer whose three products are those of the engines."""

    @staticmethod
    def forward(ctx, x, weight, traced, counts):
        ctx.save_for_backward(x, weight)
        ctx.traced, ctx.counts = traced, counts
        return forward_engine(x, weight, mode="fp32", **settings_of(traced))

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        traced, settings = ctx.traced, settings_of(ctx.traced)
        back = None
        if traced.needed is not None:
            back = backward_engine(grad, weight, traced.needed, **settings)
            ctx.counts[traced.name] = back
        update = weight_update_engine(x, grad, weight.shape, mode="fp32", **settings)
        return None if back is None else back.gradient, update, None, None


class EngineLayer(nn.Module):
    def __init__(self, weight, traced, counts):
        super().__init__()
        self.weight, self.traced, self.counts = weight, traced, counts

    def forward(self, x):
        folded = x.unflatten(0, (T, B))
        y = OnEngines.apply(folded, self.weight, self.traced, self.counts)
        return y.flatten(0, 1)


def on_engines(net, step):
    """The same network with its layers on the engines, and what their backward engines did."""
    net, counts = copy.deepcopy(net), {}
    for traced in step.layers:
        owner, _, name = traced.name.rpartition(".")
        layer = net.get_submodule(traced.name)
        setattr(net.get_submodule(owner), name, EngineLayer(layer.weight, traced, counts))
    return net, counts


NETWORKS = [
    {"norm": norm, "pool": pool, "detach": detach}
    for norm in (False, True)
    for pool in (False, True)
    for detach in (False, True)
]


@pytest.mark.parametrize("options", NETWORKS, ids=lambda o: "-".join(k for k, on in o.items() if on) or "plain")
def test_a_training_step_on_the_engines_has_autograds_gradients(options):
    net, x = network(**options), events()
    step = trace_step(net, x, loss, values=True)
    assert not step.unmapped
    engines, counts = on_engines(net, step)
    plain, found = net(x), engines(x)
    assert torch.allclose(found, plain, rtol=0, atol=1e-6)
    expected = torch.autograd.grad(loss(plain), list(net.parameters()))
    gradients = torch.autograd.grad(loss(found), list(engines.parameters()))
    for a, b in zip(gradients, expected, strict=True):
        assert b.abs().max() > 1e-3
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)
    assert list(counts) == [layer.name for layer in reversed(step.layers[1:])]
    for layer in step.layers[1:]:
        back = counts[layer.name]
        assert torch.equal(back.work, work(layer))
        assert 0 < back.macs < back.dense
        assert back.dense == back.macs + back.skipped


@pytest.mark.parametrize("detach", [False, True])
def test_the_traced_gradients_are_those_of_the_equations(detach):
    """do = W^T du' - kappa u du[t+1], the second part only if the reset is not detached; du = do h + kappa (1 - o)
    du[t+1]; behind the last neurons, du' is that of the loss."""
    net, x = network(detach=detach), events()
    step = trace_step(net, x, loss, values=True)
    stem, middle, hidden, head = step.layers
    with torch.no_grad():
        logits = net(x)
    target = F.one_hot(torch.arange(B) % 4, 4)
    du = ((logits.mean(0).softmax(-1) - target) / B / T).expand(T, -1, -1)
    assert torch.allclose(head.gradient, du, atol=1e-6)
    for reader, writer in ((head, hidden), (hidden, middle), (middle, stem)):
        current = forward_engine(writer.input, writer.weight, mode="fp32", **settings_of(writer))
        u = [current[0]]
        o = [(u[0] >= THRESHOLD).float()]
        for t in range(1, T):
            u.append(DECAY * u[-1] * (1 - o[-1]) + current[t])
            o.append((u[-1] >= THRESHOLD).float())
        spikes, h = torch.stack(o), (torch.stack(u) - THRESHOLD).abs() < 0.5
        assert torch.equal(spikes.view(reader.input.shape), reader.input.float())
        assert torch.equal(h.view(reader.input.shape), reader.needed)
        product = backward_engine(du.contiguous(), reader.weight, reader.needed, **settings_of(reader)).gradient
        later, found = torch.zeros_like(u[0]), []
        for t in reversed(range(T)):
            do = product.view(spikes.shape)[t] - (0 if detach else DECAY * u[t] * later * h[t])
            later = do * h[t] + DECAY * (1 - o[t]) * later
            found.append(later)
        du = torch.stack(found[::-1])
        assert du.abs().max() > 1e-4
        assert torch.allclose(du, writer.gradient, rtol=1e-5, atol=1e-6)
        update = weight_update_engine(writer.input, du, writer.weight.shape, mode="fp32", **settings_of(writer))
        (expected,) = torch.autograd.grad(loss(net(x)), [net.get_submodule(writer.name).weight])
        assert torch.allclose(update, expected, rtol=1e-5, atol=1e-6)


def test_a_narrower_window_leaves_fewer_gradients_and_the_same_currents():
    x = events()
    steps = [trace_step(network(width=width), x, loss) for width in (2.0, 1.0, 0.5)]
    for of_layer in zip(*(step.layers for step in steps), strict=True):
        currents = [forward_engine(layer.input, layer.weight, **settings_of(layer)) for layer in of_layer]
        assert all(torch.equal(current, currents[0]) for current in currents)
        done = [int(work(layer).sum()) for layer in of_layer]
        if of_layer[0] is not steps[0].layers[0]:
            assert done == sorted(done, reverse=True)
            assert len(set(done)) == len(done)
        else:
            assert done == [0] * len(done)
        densities = [layer.nonzero.float().mean().item() for layer in of_layer]
        if of_layer[0] is not steps[0].layers[-1]:
            assert densities == sorted(densities, reverse=True)
            assert len(set(densities)) == len(densities)


def test_a_norm_in_training_leaves_output_sparsity_alone():
    x = events()
    for norm, mode, dense in ((False, True, False), (True, True, True), (True, False, False)):
        step = trace_step(network(norm=norm).train(mode), x, loss, values=True)
        stem, middle, *_ = step.layers
        assert (min(stem.nonzero.float().mean(), middle.nonzero.float().mean()) > 0.99) == dense
        every = torch.ones_like(middle.nonzero)
        outputs = operands(every, middle.needed, middle.weight.shape, **settings_of(middle)).sum()
        assert (work(middle).sum() > 0.99 * outputs) == dense
        assert middle.needed.float().mean() < 0.8


@pytest.mark.parametrize("name", ["test_ms_resnet", "test_tdbn_resnet19", "test_dvs_vgg_snn"])
def test_the_backward_engine_on_registered_models(name):
    """What it computes, dense products give too; what it does, the masks tell."""
    model = create_model(name)
    for norm in model.modules():
        if isinstance(norm, TdBN):  # some branches start at zero
            nn.init.ones_(norm.weight)
    step = trace_step(model.train(), torch.randn(4, B, *MODELS[name].example()) * 2, loss, values=True)
    needy = [layer for layer in step.layers if layer.needed is not None]
    assert needy
    for layer in needy:
        found = backward_engine(layer.gradient, layer.weight, layer.needed, **settings_of(layer))
        if layer.kind == "linear":
            dense = layer.gradient @ layer.weight
        else:
            size, flat = layer.input.flatten(0, 1).shape, layer.gradient.flatten(0, 1)
            dense = torch.nn.grad.conv2d_input(size, layer.weight, flat, **settings_of(layer)).view(layer.input.shape)
        scale = dense.abs().max()
        assert scale > 0
        assert torch.allclose(found.gradient / scale, dense * layer.needed / scale, rtol=1e-5, atol=1e-6)
        assert torch.equal(found.work, work(layer))
