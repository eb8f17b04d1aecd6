"""The frame, and what all its families share."""

from functools import partial

import pytest
import torch
from torch import nn

import rheobase as rb
from rheobase.models import MODELS, SpikingTransformer, TransformerBlock, create_model, event_lif, list_models
from rheobase.models.transformer import classifier, convolutions, eighths, tiny_lif, transformer_block, transformer_lif
from rheobase.neurons import LIF, Neuron, Sigmoid
from rheobase.nn import Attention, SelfAttention
from rheobase.nn.norm import TdBN, fold_all
from rheobase.nn.residual import Conv

TINY = list_models("test_*former")

pytestmark = pytest.mark.usefixtures("one_thread")


def settled(name):
    """A tiny model in double precision and eval mode that has seen data."""
    model = create_model(name).double()
    for module in model.modules():
        if isinstance(module, TdBN):
            module.momentum = 1.0
    model(example(name, 4, 4).double())
    return model.eval()


def example(name, T=3, B=2):
    return torch.randn(T, B, *MODELS[name].example())


def test_the_tiny_ones_are_all_there():
    assert TINY == ["test_qkformer", "test_spike_driven_transformer", "test_spikformer", "test_spikingformer"]


@pytest.mark.parametrize("name", list_models("*former*"))
def test_every_name_can_be_built_and_takes_its_example(name):
    entry = MODELS[name]
    with torch.device("meta"):
        model = create_model(name, in_channels=5, classes=7)
    assert isinstance(model, SpikingTransformer)
    assert entry.example(in_channels=5)[0] == 5
    assert next(model.parameters()).shape[1] == 5
    assert model.head.linear.module.out_features == 7
    channels = 2 if name.startswith("dvs") else 1 if name.startswith("digits") else 3
    with torch.device("meta"):
        assert next(create_model(name).parameters()).shape[1] == entry.example()[0] == channels


@pytest.mark.parametrize("name", TINY)
def test_a_folded_model_fires_the_same_spikes(name, outputs):
    model, x = settled(name), example(name).double()
    folded = fold_all(model)
    assert not [module for module in folded.modules() if isinstance(module, TdBN)]
    expected, spikes = outputs(model, x, Neuron)
    found, folded_spikes = outputs(folded, x, Neuron)
    assert spikes.keys() == folded_spikes.keys()
    assert all(torch.equal(folded_spikes[key], s) for key, s in spikes.items())
    assert all(0 < s.mean() < 1 for s in spikes.values())
    torch.testing.assert_close(found, expected)
    _, read = outputs(folded, x, Conv)
    assert read.keys() == outputs(model, x, Conv)[1].keys()


@pytest.mark.parametrize("name", TINY)
def test_time_in_the_batch_equals_step_by_step(name):
    model, x = settled(name), example(name, T=5).double()
    with torch.no_grad(), rb.stream(model, exact=True) as run:
        torch.testing.assert_close(model(x), run(x))


@pytest.mark.parametrize("name", ["test_spikingformer", "test_spikformer"])
def test_an_expanded_image_is_as_good_as_copies(name):
    source, image = create_model(name).double(), torch.randn(2, *MODELS[name].example(), dtype=torch.float64)
    found = []
    for copied in (False, True):
        model = create_model(name).double()
        model.load_state_dict(source.state_dict())
        x = image.expand(4, *image.shape)
        y = model(x.contiguous() if copied else x)
        y.square().sum().backward()
        found.append([y.detach(), *(p.grad for p in model.parameters()), *model.buffers()])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", TINY)
def test_layers_keep_the_channels_of_a_pixel_side_by_side(name, outputs):
    """Convolutions on the CPU want it so, and no layer between them copies it into another order.

    Exception: shortcuts of few channels, see PerStep.
    """
    _, seen = outputs(create_model(name), example(name), Neuron | Conv | Attention)
    inner = "attention.neuron"  # of masks: one value a head, not a map of channels
    maps = {key: y for key, y in seen.items() if y.dim() == 5 and not key.endswith(inner)}
    assert {key for key, y in maps.items() if y.stride(2) != 1 and ".shortcut." not in key} == set()
    assert len(maps) > 10


def test_the_mean_of_logits_is_the_logit_of_means():
    head = classifier(6, 3).double()
    x = torch.randn(4, 2, 6, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(head(x).mean(0), head.linear.module(x.mean((0, 3, 4))))
    assert (head.linear.module.bias == 0).all()
    assert not head.linear.module.binary_input
    spiking = classifier(6, 3, LIF())
    assert spiking.linear.module.binary_input
    assert spiking(x.float()).shape == (4, 2, 3)


def test_the_neurons_are_those_of_the_papers():
    still, events = transformer_lif(), event_lif()
    assert (still.tau, events.tau, still.threshold, events.threshold) == (2.0, 1.5, 1.0, 1.0)
    expected = {"spike": Sigmoid(4.0), "reset": "zero", "detach_reset": True, "strict": False}
    assert still.scan.constants == events.scan.constants == expected
    for name, tau in (("dvs_spikingformer_2_256", 1.5), ("dvs_spikformer_2_256", 2.0), ("cifar_qkformer_4_384", 2.0)):
        with torch.device("meta"):
            neurons = [module for module in create_model(name).modules() if isinstance(module, LIF)]
        assert {neuron.tau for neuron in neurons} == {tau}
        assert {neuron.threshold for neuron in neurons} == {1.0, 0.5}


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2)])
def test_pooling_of_spikes_is_a_logical_or(kernel, stride):
    x = (torch.rand(2, 3, 9, 9) < 0.2).float()
    pool = nn.MaxPool2d(kernel, stride, kernel // 2)
    windows = nn.functional.unfold(x, kernel, padding=kernel // 2, stride=stride).unflatten(1, (3, kernel**2))
    assert torch.equal(pool(x).flatten(2), windows.bool().any(2).float())


def test_where_the_tokenizer_pools():
    x = torch.randn(1, 1, 3, 16, 16)
    for pools, side in (((False, False), 16), ((True, False), 8), ((True, True), 4)):
        assert convolutions(3, (4, 6), pools, LIF)(x).shape == (1, 1, 6, side, side)
    kinds = [type(layer).__name__ for layer in convolutions(3, (4,), (True,), LIF)]
    assert kinds == ["Conv", "TdBN", "LIF", "PerStep"]
    kinds = [type(layer).__name__ for layer in convolutions(3, (4,), (True,), LIF, pool_first=True)]
    assert kinds == ["Conv", "TdBN", "PerStep", "LIF"]
    with pytest.raises(ValueError, match=r"widths \(4, 6\) and pools \(True,\)"):
        convolutions(3, (4, 6), (True,), LIF)
    assert eighths(64) == (8, 16, 32, 64)


def gradient_at_the_input(order, blocks, gain):
    """2-norm of the gradient that white noise at the output sends to the input, through blocks of 32 channels."""
    torch.manual_seed(0)
    x = torch.randn(4, 4, 32, 4, 4)
    reads, net = "real", nn.Sequential()
    if order != "ms":
        x, reads = transformer_lif()(x * 1.5), "binary"
    for _ in range(blocks):
        block = transformer_block(order, partial(SelfAttention, 32, 2, tiny_lif), 32, tiny_lif, reads)
        nn.init.constant_(block.attention.branch.norm.weight, gain)
        nn.init.constant_(block.mlp.branch.norm2.weight, gain)
        net.append(block)
        reads = block.emits
    x = x.detach().requires_grad_()
    y = net(x)
    torch.manual_seed(1)
    (y * torch.randn_like(y)).sum().backward()
    return x.grad.norm().item()


def test_the_gradient_reaches_the_input_of_many_ms_blocks():
    """No neuron sits on the identity path; where one does ("vanilla"), the gradient is gone after 16 blocks."""
    ms = [gradient_at_the_input("ms", blocks, 1.0) for blocks in (1, 4, 16)]
    vanilla = [gradient_at_the_input("vanilla", blocks, 1.0) for blocks in (1, 4, 16)]
    assert ms == sorted(ms)
    assert ms[-1] < 5 * ms[0]
    assert vanilla == sorted(vanilla, reverse=True)
    assert vanilla[-1] < 1e-3 * vanilla[0]


def test_silent_ms_blocks_are_the_identity():
    assert gradient_at_the_input("ms", 8, 0.0) == gradient_at_the_input("ms", 1, 0.0)


def test_blocks_are_those_of_the_body():
    model = create_model("test_spikingformer")
    assert model.blocks() == list(model.body)
    assert all(isinstance(block, TransformerBlock) for block in model.blocks())


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore")
def test_compiled_gradients_equal_eager():
    torch.compiler.reset()
    model, other, x = create_model("test_spikingformer"), create_model("test_spikingformer"), torch.randn(3, 2, 3, 8, 8)
    other.load_state_dict(model.state_dict())
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    model(x).square().sum().backward()
    compiled(x).square().sum().backward()
    for (key, a), b in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=key)
