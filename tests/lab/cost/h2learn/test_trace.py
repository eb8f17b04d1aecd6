"""What a training step hands to the engines, on every registered model."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import rheobase as rb
from rheobase.lab.cost.h2learn import trace_step
from rheobase.models import MODELS, create_model, list_models
from rheobase.neurons import IF, LIF, NEURONS, IterativeLIF, Rectangle, StochasticLIF, create_neuron
from rheobase.nn import OnGraph, PerStep, Recurrent, TdBN
from rheobase.scan import Scan
from rheobase.scan.spike import Derivative

pytestmark = pytest.mark.usefixtures("one_thread")


def loss(y):
    return F.cross_entropy(y.mean(0), torch.arange(y.shape[1]) % y.shape[2])


def made(name, T=4, B=2):
    torch.manual_seed(1)
    model = create_model(name, **({} if MODELS[name].any_T else {"T": T}))
    x, *graph = MODELS[name].inputs(T, B)
    return OnGraph(model, *graph) if graph else model, x * 2


def layer_of(model, name):
    return model.get_submodule(name.partition("#")[0])


@pytest.mark.parametrize("name", list_models("test_*"))
def test_every_model_can_be_traced(name):
    model, x = made(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    step = trace_step(model, x, loss)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in model.parameters())
    assert (step.T, step.batch) == (4, 2)
    assert step.layers or step.unmapped
    for layer in step.layers:
        assert layer.gradient is None
        assert layer.input.shape[1] == layer.nonzero.shape[1] == 2, layer.name
        assert layer.input.shape[:1] == layer.nonzero.shape[:1], layer.name
        assert layer.nonzero.dtype == torch.bool
        assert (layer.holds == "binary") == (layer.input.dtype == torch.bool)
        if layer.kind == "convolution":
            y = F.conv2d(
                *(layer.input.flatten(0, 1).float(), layer.weight, None),
                *(layer.stride, layer.padding, layer.dilation, layer.groups),
            )
            assert y.shape[1:] == layer.nonzero.shape[2:], layer.name
        else:
            assert layer.nonzero.shape[-1] == len(layer.weight)
        assert layer.needed is None or layer.needed.shape == layer.input.shape
        assert layer.needed is not None or layer.holds != "binary" or layer is step.layers[0]
    assert all(unmapped.reason for unmapped in step.unmapped)


class Masked(torch.autograd.Function):
    """The identity, whose gradient is masked."""

    @staticmethod
    def forward(ctx, x, mask):
        ctx.save_for_backward(mask)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        (mask,) = ctx.saved_tensors
        return grad * mask, None


def narrow(model):
    """Surrogates whose windows close, whatever the model's own are."""
    for module in model.modules():
        scan = getattr(module, "scan", None)
        if isinstance(scan, Scan):
            narrowed = {k: Rectangle(1.0) if isinstance(v, Derivative) else v for k, v in scan.constants.items()}
            module.scan = Scan(scan.step, **narrowed)


@pytest.mark.parametrize("name", list_models("test_*"))
def test_gradients_that_are_not_needed_change_nothing(name):
    """Every gradient for an input is zeroed where it is not needed; those of the parameters keep their bits."""
    model, x = made(name)
    narrow(model)
    with rb.engine("reference"):
        check_that_gradients_stay(model, x)


def check_that_gradients_stay(model, x):
    torch.manual_seed(3)  # what dropout lets through below is what is needed
    needed = {t.name: t.needed for t in trace_step(model, x, loss).layers if t.needed is not None}
    assert not needed or any(not mask.all() for mask in needed.values())

    def gradients():
        torch.manual_seed(3)
        return torch.autograd.grad(loss(model(x)), list(model.parameters()), allow_unused=True)

    expected = gradients()
    handles = []
    for layer_name, mask in needed.items():
        if "#" in layer_name or "feedback" in layer_name:
            continue
        layer = layer_of(model, layer_name)

        def cut(layer, inputs, mask=mask):
            return (Masked.apply(inputs[0], mask.reshape(inputs[0].shape)),)

        handles.append(layer.register_forward_pre_hook(cut))
    for found, wanted in zip(gradients(), expected, strict=True):
        assert (found is None) == (wanted is None)
        assert found is None or torch.equal(found, wanted)
    for handle in handles:
        handle.remove()


class Two(nn.Sequential):
    """Convolution, neuron, pooling, convolution, neuron, linear."""

    def __init__(self, neuron=IterativeLIF, norm=None):
        norms = [] if norm is None else [norm]
        super().__init__(
            *(PerStep(nn.Conv2d(2, 4, 3, padding=1)), *norms, neuron(), PerStep(nn.MaxPool2d(2))),
            *(PerStep(nn.Conv2d(4, 4, 3, padding=1)), neuron()),
            *(PerStep(nn.Flatten()), PerStep(nn.Linear(64, 10))),
        )


def test_values_are_the_gradients_of_autograd():
    net, x = Two(), torch.randn(3, 2, 2, 8, 8)
    step = trace_step(net, x, loss, values=True)
    seen = {}

    def watch(layer, _, y):
        y.register_hook(partial(seen.__setitem__, layer))

    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(watch)
    found = loss(net(x))
    found.backward()
    assert step.loss == found.item()
    for layer in step.layers:
        expected = seen[layer_of(net, layer.name)]
        assert torch.equal(layer.gradient.reshape(expected.shape), expected)
        assert torch.equal(layer.nonzero, layer.gradient != 0)


def test_windows_are_those_of_the_surrogate():
    """Of the membrane itself, and through max-pooling that of the largest."""
    net, x = Two(lambda: IF(surrogate=Rectangle(1.0))), torch.randn(1, 2, 2, 8, 8) * 2
    step = trace_step(net, x, loss)
    current = net[0](x)[0]  # at rest before, so that the membrane is the current
    window = (current - 1).abs() < 0.5
    spikes = (current >= 1).float()
    _, index = F.max_pool2d(spikes, 2, return_indices=True)
    expected = window.flatten(2).gather(2, index.flatten(2)).view(index.shape)
    assert torch.equal(step.layers[1].needed[0], expected)
    second = net[3](net[2](net[1](net[0](x))))[0]
    assert torch.equal(step.layers[2].needed[0], ((second - 1).abs() < 0.5).flatten(1))
    assert step.neurons[0].open == pytest.approx(window.float().mean().item())


@pytest.mark.parametrize("name", sorted(NEURONS))
def test_any_neuron_can_be_traced(name):
    T = 3

    def make():
        return create_neuron(name, **({} if NEURONS[name].any_T else {"T": T}))

    step = trace_step(Two(make), torch.randn(T, 2, 2, 8, 8) * 4, loss)
    binary = make().emits == "binary"
    assert ("3.module" in [layer.name for layer in step.layers]) == binary
    assert [cell.units for cell in step.neurons] == [256, 64]
    assert all(0 < cell.open <= 1 for cell in step.neurons)


def test_noise_is_drawn_once():
    """Windows are those of the run itself, though the neuron runs twice; also from a generator of its own."""
    for generator in (None, torch.Generator()):

        def make(generator=generator):
            return StochasticLIF(surrogate=Rectangle(1.0), generator=generator)

        net, x = Two(make), torch.randn(3, 2, 2, 8, 8) * 2
        state = None if generator is None else generator.get_state()
        torch.manual_seed(5)
        step = trace_step(net, x, loss)
        torch.manual_seed(5)
        if generator is not None:
            assert not torch.equal(generator.get_state(), state)
            generator.set_state(state)
        mask = step.layers[1].needed
        torch.manual_seed(5)
        expected = torch.autograd.grad(loss(net(x)), net[0].module.weight)[0]
        if generator is not None:
            generator.set_state(state)
        net[3].register_forward_pre_hook(lambda _, inputs, mask=mask: (Masked.apply(inputs[0], mask),))
        torch.manual_seed(5)
        assert torch.equal(torch.autograd.grad(loss(net(x)), net[0].module.weight)[0], expected)
        assert not mask.all()


def test_engines_give_the_same_trace():
    net, x = Two(norm=TdBN(4)), torch.randn(3, 2, 2, 8, 8)
    seen = []
    for name in ("cpu", "reference"):
        with rb.engine(name):
            seen.append(trace_step(net, x, loss))
    for a, b in zip(seen[0].layers, seen[1].layers, strict=True):
        assert torch.equal(a.input, b.input)
        assert (a.nonzero == b.nonzero).float().mean() > 0.99
        assert a.needed is None or torch.equal(a.needed, b.needed)


def test_a_norm_in_training_makes_the_gradient_dense_and_a_frozen_one_does_not():
    net, x = Two(norm=TdBN(4)), torch.randn(3, 2, 2, 8, 8)
    for _ in range(20):
        net(x)  # running statistics
    dense = trace_step(net, x, loss).layers[0].nonzero.float().mean()
    net[1].eval()
    assert trace_step(net, x, loss).layers[0].nonzero.float().mean() < 0.6 < 0.99 < dense


def test_an_image_that_all_steps_share_is_one_step():
    net, x = Two(), torch.randn(1, 2, 2, 8, 8)
    first, *others = trace_step(net, x.expand(4, *x.shape[1:]), loss).layers
    assert len(first.input) == len(first.nonzero) == 1
    assert all(len(layer.input) == 4 for layer in others)


def test_feedback_is_one_sequence():
    class Fed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Recurrent(LIF(surrogate=Rectangle(1.0)), nn.Linear(6, 6, bias=False))
            self.out = PerStep(nn.Linear(6, 10))

        def forward(self, x):
            return self.out(self.inner(x))

    net, x = Fed(), torch.randn(5, 2, 6) * 3
    back, out = trace_step(net, x, loss).layers
    assert (back.name, out.name) == ("inner.feedback", "out.module")
    assert back.input.shape == back.nonzero.shape == (5, 2, 6)
    s = net.inner(x)
    assert torch.equal(back.input[1:].float(), s[:-1])
    assert torch.equal(out.input.float(), s)
    assert not back.needed[0].any()  # what the loop starts with is nobody's spike


def test_a_layer_that_runs_twice_is_two():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.neuron = PerStep(nn.Linear(6, 6)), LIF()

        def forward(self, x):
            return self.layer(self.neuron(self.layer(x)))

    names = [layer.name for layer in trace_step(Twice(), torch.randn(3, 2, 6), loss).layers]
    assert names == ["layer.module", "layer.module#1"]


class Product(nn.Module):
    def forward(self, x):
        return x @ x.transpose(-1, -2)


@pytest.mark.parametrize(
    ("layer", "shape", "reason"),
    [
        (PerStep(nn.AvgPool2d(2)), (4, 8, 8), "reads real numbers"),
        (PerStep(nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")), (4, 8, 8), "circular padding"),
        (PerStep(nn.Conv2d(4, 4, 2, padding="same")), (4, 8, 8), "padding that differs"),
        (PerStep(nn.ConvTranspose2d(4, 4, 2)), (4, 8, 8), "a transposed convolution"),
        (Product(), (4, 8, 8), "a product of two activations"),
    ],
)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_what_the_engines_cannot_take_is_named(layer, shape, reason):
    cell = IterativeLIF()
    net = nn.Sequential(PerStep(nn.Conv2d(4, 4, 1)), cell, layer, PerStep(nn.Flatten()), PerStep(nn.LazyLinear(10)))
    x = torch.randn(2, 2, *shape)
    net(x)
    step = trace_step(net, x, loss)
    assert any(reason in unmapped.reason and unmapped.macs > 0 for unmapped in step.unmapped)


def test_sums_of_spikes_are_named():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.out = LIF(), IF(), PerStep(nn.Linear(6, 10))

        def forward(self, x):
            return self.out(self.a(x) + self.b(x))

    x = (torch.rand(3, 2, 6) * 8).requires_grad_()
    (unmapped,) = trace_step(Sum(), x, loss).unmapped
    assert (unmapped.name, unmapped.reason) == ("out.module", "reads sums of spikes")


def test_what_is_no_step_is_said():
    net = Two()
    with pytest.raises(ValueError, match=r"x has shape \(3,\); expected \[T, B"):
        trace_step(net, torch.randn(3), loss)
    with pytest.raises(ValueError, match=r"the loss has shape \(3, 2, 10\); expected a scalar"):
        trace_step(net, torch.randn(3, 2, 2, 8, 8), lambda y: y)
    with pytest.raises(ValueError, match="no parameter of the model wants a gradient"):
        trace_step(net.requires_grad_(False), torch.randn(3, 2, 2, 8, 8), loss)
