"""What a training step hands to the engines, on every registered model."""

import pytest
import torch
from torch.nn import functional as F

from rheobase.lab.cost.h2learn import trace_step
from rheobase.models import MODELS, create_model, list_models

pytestmark = pytest.mark.usefixtures("one_thread")


def loss(y):
    return F.cross_entropy(y.mean(0), torch.arange(y.shape[1]) % y.shape[2])


def made(name, T=4, B=2):
    torch.manual_seed(1)
    model = create_model(name, **({} if MODELS[name].any_T else {"T": T}))
    return model, torch.randn(T, B, *MODELS[name].example()) * 2


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


@pytest.mark.parametrize("name", list_models("test_*"))
def test_gradients_that_are_not_needed_change_nothing(name):
    """Every gradient for an input is zeroed where it is not needed; those of the parameters keep their bits."""
    model, x = made(name)
    needed = {t.name: t.needed for t in trace_step(model, x, loss).layers if t.needed is not None}

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
