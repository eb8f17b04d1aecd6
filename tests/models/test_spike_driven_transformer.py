import pytest
import torch

from rheobase.models import create_model, spike_driven_transformer
from rheobase.models.transformer import CIFAR_POOLS, IMAGENET_POOLS
from rheobase.nn.residual import Conv

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("imagenet_spike_driven_transformer_8_384", 16_816_024),
        ("imagenet_spike_driven_transformer_8_512", 29_689_384),
        ("imagenet_spike_driven_transformer_8_768", 66_338_632),
    ],
)
def test_parameters_are_those_of_spikingformer(name, count):
    """The layers of the official code less the convolution over heads that it does not use."""
    with torch.device("meta"):
        assert sum(p.numel() for p in create_model(name).parameters()) == count


@pytest.mark.parametrize(
    ("side", "pools", "tokens"), [(224, IMAGENET_POOLS, 14), (32, CIFAR_POOLS, 8), (8, (False,) * 4, 8)]
)
def test_sizes_of_the_tokens(side, pools, tokens):
    model = spike_driven_transformer(1, 8, pools)
    assert model.tokenizer(torch.randn(1, 1, 3, side, side)).shape == (1, 1, 8, tokens, tokens)


def test_every_layer_but_the_first_reads_spikes():
    model, seen = create_model("test_spike_driven_transformer"), {}
    for name, module in model.named_modules():
        if isinstance(module, Conv) or name == "head.linear":
            module.register_forward_hook(lambda _, args, __, name=name: seen.update({name: args[0]}))
    model(torch.randn(4, 4, 3, 8, 8) * 2)
    assert {name for name, x in seen.items() if not ((x == 0) | (x == 1)).all()} == {"tokenizer.0"}
    assert len(seen) == 5 + 2 * 6 + 1
    assert all(x.max() == 1 for name, x in seen.items() if name != "tokenizer.0")


def test_the_position_is_added_to_pooled_membrane_inputs():
    model = create_model("test_spike_driven_transformer")
    kinds = [type(layer).__name__ for layer in model.tokenizer]
    assert kinds == [*["Conv", "TdBN", "LIF"] * 3, "Conv", "TdBN", "PerStep", "Residual"]
    assert model.tokenizer[-1].emits == "real"


def test_convolutions_start_small():
    model = spike_driven_transformer(1, 64)
    weight = model.body[0].mlp.branch.conv1.module.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.body[0].mlp.branch.conv1.module.bias.abs().max() == 0


@pytest.mark.usefixtures("untyped")
def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"pools are \(True, True, True\); expected four"):
        spike_driven_transformer(pools=(True, True, True))
    with pytest.raises(ValueError, match="depth is 0 and width 512; expected at least one block"):
        spike_driven_transformer(0)
    with pytest.raises(ValueError, match=r"width 12; expected .* a multiple of 8"):
        spike_driven_transformer(width=12)
