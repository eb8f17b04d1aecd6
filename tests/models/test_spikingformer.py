import pytest
import torch
from torch import nn

from rheobase.models import create_model, spikformer, spikingformer
from rheobase.models.transformer import CIFAR_POOLS, IMAGENET_POOLS
from rheobase.neurons import LIF
from rheobase.nn import SelfAttention, Sequential
from rheobase.nn.norm import TdBN, fold_all
from rheobase.nn.residual import Conv

pytestmark = pytest.mark.usefixtures("one_thread")

COUNTS = {
    "imagenet_{}_8_384": (16_816_024, 16_828_312),
    "imagenet_{}_8_512": (29_689_384, 29_705_768),
    "imagenet_{}_8_768": (66_338_632, 66_363_208),
    "cifar_{}_4_256": (4_152_106, 4_156_202),
    "cifar_{}_2_384": (5_762_746, 5_765_818),
    "cifar_{}_4_384": (9_320_122, 9_326_266),
    "dvs_{}_2_256": (2_566_666, 2_568_714),
}


class Always(nn.Module):
    """Fires all the time."""

    emits = "binary"

    def forward(self, x):
        return torch.ones_like(x) + 0 * x


def parameters(name, **options):
    with torch.device("meta"):
        return sum(p.numel() for p in create_model(name, **options).parameters())


def reads(model, x):
    """What each convolution declares and reads."""
    seen = {}
    for name, module in model.named_modules():
        if isinstance(module, Conv):
            module.register_forward_hook(lambda conv, args, _, name=name: seen.update({name: (conv.reads, args[0])}))
    model(x)
    return seen


@pytest.mark.parametrize("family", ["spikingformer", "spikformer"])
@pytest.mark.parametrize("name", COUNTS)
def test_parameters(name, family):
    without, with_unused = COUNTS[name]
    assert parameters(name.format(family)) == without
    assert parameters(name.format(family), unused_norms=True) == with_unused


def test_parameters_for_other_classes():
    assert parameters("cifar_spikingformer_4_384", classes=100) == 9_354_772
    assert parameters("cifar_spikingformer_4_384", classes=100, unused_norms=True) == 9_360_916
    assert parameters("dvs_spikingformer_2_256", classes=11) == 2_566_923
    assert parameters("dvs_spikingformer_2_256", classes=11, unused_norms=True) == 2_568_971


def test_unused_norms_change_nothing_but_the_count():
    plain, burdened = create_model("test_spikingformer"), create_model("test_spikingformer", unused_norms=True)
    assert not burdened.load_state_dict(plain.state_dict(), strict=False).unexpected_keys
    x = torch.randn(3, 2, 3, 8, 8)
    y = burdened(x)
    assert torch.equal(y, plain(x))
    y.sum().backward()
    silent = {name for name, p in burdened.named_parameters() if p.grad is None}
    assert silent == {f"body.{i}.norm{k}.{what}" for i in (0, 1) for k in (1, 2) for what in ("weight", "bias")}


def test_heads_change_what_is_computed_and_not_the_parameters():
    assert parameters("imagenet_spikingformer_8_768", heads=12) == parameters("imagenet_spikingformer_8_768")
    model, other = create_model("test_spikingformer", heads=2), create_model("test_spikingformer", heads=16)
    other.load_state_dict(model.state_dict())
    x = torch.randn(3, 2, 3, 8, 8)
    assert not torch.equal(model(x), other(x))
    for name, heads in (("imagenet_spikingformer_8_768", 8), ("cifar_spikingformer_4_384", 12), ("dvs_{}_2_256", 16)):
        with torch.device("meta"):
            made = create_model(name.format("spikingformer"))
        assert {module.heads for module in made.modules() if isinstance(module, SelfAttention)} == {heads}


@pytest.mark.parametrize("make", [spikingformer, spikformer])
@pytest.mark.parametrize(
    ("channels", "side", "pools", "tokens"),
    [(3, 224, IMAGENET_POOLS, 14), (3, 32, CIFAR_POOLS, 8), (2, 128, IMAGENET_POOLS, 8)],
)
def test_sizes_of_the_tokens(make, channels, side, pools, tokens):
    model = make(1, 8, 1, pools, channels)
    x = torch.randn(1, 1, channels, side, side)
    assert model.tokenizer(x).shape == (1, 1, 8, tokens, tokens)
    assert model(x).shape == (1, 1, 10)


@pytest.mark.parametrize("folded", [False, True])
def test_only_the_first_convolution_reads_anything_but_spikes(folded):
    model, x = create_model("test_spikingformer"), torch.randn(4, 4, 3, 8, 8) * 2
    if folded:
        for module in model.modules():
            if isinstance(module, TdBN):
                module.momentum = 1.0
        model(x)
        expected = model.eval()(x)
        model = fold_all(model)
        assert (model(x) - expected).abs().max() < 1e-5
    products = {}
    for name, module in model.named_modules():
        if isinstance(module, SelfAttention):
            for key in ("q", "k", "v"):
                module.get_submodule(key).register_forward_hook(
                    lambda _, __, y, key=f"{name}.{key}": products.update({key: y})
                )
            module.neuron.register_forward_hook(lambda _, args, __, key=name: products.update({key: args[0]}))
    seen = reads(model, x)
    other = {name for name, (_, x) in seen.items() if not ((x == 0) | (x == 1)).all()}
    assert other == {"tokenizer.0"} == {name for name, (declared, _) in seen.items() if declared != "binary"}
    assert len(seen) == 5 + 2 * 6
    for name, product in products.items():
        if name[-2:] in (".q", ".k", ".v"):
            assert product.unique().tolist() == [0, 1]
        else:
            assert torch.equal(product * 8, (product * 8).round())
            assert product.max() > 0


@pytest.mark.parametrize("change", ["removed", "behind"])
@pytest.mark.parametrize("branch", ["attention", "mlp"])
def test_a_neuron_that_is_not_before_its_convolution_is_noticed(branch, change):
    model = create_model("test_spikingformer")
    residual = model.body[1].get_submodule(branch)
    layers = dict(residual.branch.named_children())
    own = layers.pop("neuron")
    residual.branch = Sequential()
    for name, layer in layers.items():
        residual.branch.add_module(name, layer)
    if change == "behind":
        residual.branch.add_module("neuron", own)
    with pytest.raises(ValueError, match="neither 0 nor 1; only a layer that reads spikes may be declared binary"):
        model(torch.randn(3, 2, 3, 8, 8))


@pytest.mark.parametrize("depth", [1, 3, 8])
def test_spikformer_reads_integers_up_to_twice_its_depth_and_one(depth):
    model = spikformer(depth, 8, 1, CIFAR_POOLS, neuron=Always)
    seen = reads(model, torch.randn(1, 2, 3, 8, 8))
    declared = {name for name, (values, _) in seen.items() if values == "graded"}
    own = {f"attention.branch.attention.{key}.conv" for key in ("q", "k", "v")} | {"mlp.branch.conv1"}
    assert declared == {f"body.{i}.{name}" for i in range(depth) for name in own}
    largest = {name: x.max().item() for name, (_, x) in seen.items() if name != "tokenizer.0"}
    assert max(largest.values()) == 2 * depth + 1
    for i in range(depth):
        assert largest[f"body.{i}.mlp.branch.conv1"] == 2 * i + 3
        assert largest[f"body.{i}.attention.branch.attention.q.conv"] == 2 * i + 2
        assert largest[f"body.{i}.attention.branch.conv"] == largest[f"body.{i}.mlp.branch.conv2"] == 1


def test_spikformer_adds_spikes_that_it_really_has():
    seen = reads(create_model("test_spikformer"), torch.randn(4, 4, 3, 8, 8) * 2)
    for name, (declared, x) in seen.items():
        assert declared != "graded" or set(x.unique().tolist()) <= set(range(6)), name
    assert seen["body.1.mlp.branch.conv1"][1].max() >= 2


@pytest.mark.parametrize("product", ["kv", "qk"])
def test_the_order_of_the_product_does_not_change_a_bit(product):
    model, other = create_model("test_spikingformer"), create_model("test_spikingformer", product=product)
    other.load_state_dict(model.state_dict())
    x = torch.randn(4, 4, 3, 8, 8) * 2
    assert torch.equal(model(x), other(x))


def test_norms_start_with_gain_one():
    gains = {m.gain()[0].item() for m in create_model("test_spikingformer").modules() if isinstance(m, TdBN)}
    assert gains == {1.0}


def test_wrong_arguments():
    with pytest.raises(ValueError, match="spikingformer: depth is 0 and width 384; expected at least one block"):
        spikingformer(0)
    with pytest.raises(ValueError, match=r"spikformer: depth is 4 and width 20; expected .* a multiple of 8"):
        spikformer(width=20)
    with pytest.raises(ValueError, match="SelfAttention: 5 heads do not divide 384 channels"):
        spikingformer(heads=5)
    with pytest.raises(ValueError, match="no neuron is called 'life'"):
        spikingformer(neuron="life")


@pytest.mark.parametrize("neuron", ["plif", LIF, nn.ReLU])
def test_any_neuron(neuron):
    model = create_model("test_spikingformer", neuron=neuron)
    model(torch.randn(2, 2, 3, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
