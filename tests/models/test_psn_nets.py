import copy

import pytest
import torch
from torch import nn

import rheobase as rb
from rheobase.models import create_model
from rheobase.neurons import GLIF, LIF, PSN, MaskedPSN, Neuron, SlidingPSN
from rheobase.nn import Conv1d, Conv2d, PerChannel, PerStep, TdBN


def count(model):
    return sum(p.numel() for p in model.parameters())


def neurons(model):
    return [module for module in model.modules() if isinstance(module, Neuron)]


@pytest.mark.parametrize(
    ("neuron", "classes", "expected"),
    [
        (LIF, 10, 513_418),
        (LIF, 100, 536_548),
        (lambda: PSN(32), 10, 513_418 + 7_392),
        (lambda: MaskedPSN(32, 4), 10, 513_418 + 7_392),
        (lambda: SlidingPSN(32), 10, 513_418 + 231),
    ],
)
def test_parameters_of_the_net_for_sequential_cifar(neuron, classes, expected):
    model = create_model("sequential_cifar_snn", neuron=neuron, classes=classes)
    assert count(model) == expected
    assert len(neurons(model)) == 7


def test_parameters_of_the_net_for_still_images():
    with torch.device("meta"):
        assert count(create_model("static_cifar_snn", neuron="lif")) == 70_113_034
    narrow = count(create_model("static_cifar_snn", width=2, neuron="lif"))
    assert count(create_model("static_cifar_snn", width=2)) == narrow + 7 * 20
    assert count(create_model("static_cifar_snn", width=2, T=8)) == narrow + 7 * 72


@pytest.mark.parametrize("k", [1, 2, 3])
def test_parameters_of_the_net_for_events(k):
    assert count(create_model("dvs_vgg_snn", neuron=lambda: SlidingPSN(k))) == 9_271_498 + 8 * (k + 1)


@pytest.mark.parametrize(("depth", "plain", "extra"), [(18, 11_689_512, 400), (34, 21_797_672, 720)])
def test_parameters_of_the_nets_for_imagenet(depth, plain, extra):
    """Plain: those of a ReLU ResNet; one neuron for each of its norms, and four numbers for the steps."""
    name = f"imagenet_sew_resnet{depth}"
    with torch.device("meta"):
        assert count(create_model(name, neuron="lif", embedding=False)) == plain
    narrow, model = count(create_model(name, width=4, neuron="lif", embedding=False)), create_model(name, width=4)
    assert count(model) == narrow + extra + 4
    assert len(neurons(model)) == extra // 20
    assert all(module.threshold.shape == (4,) for module in neurons(model))
    with pytest.raises(ValueError, match="depth is 50; expected 18 or 34"):
        create_model("imagenet_sew_resnet", depth=50)


def lively(neuron):
    """A small net whose neurons fire in eval mode, in float64, and input of eight steps that differs from step 5 on."""
    torch.manual_seed(0)
    model = create_model("sequential_cifar_snn", width=8, neuron=neuron).double()
    x = torch.randn(8, 4, 3, 32, dtype=torch.float64) * 2
    with torch.no_grad():
        for module in neurons(model):
            module.bias.mul_(0.05)
        for module in model.modules():
            if isinstance(module, TdBN):
                module.momentum = 1.0
        model(x)
    other = x.clone()
    other[5:] += 1
    return model, x, other


def test_layers_of_the_net_for_sequential_cifar():
    model, sides = create_model("sequential_cifar_snn", width=4), []
    for layer in model.body:
        layer.register_forward_hook(lambda _, __, y: sides.append(tuple(y.shape[2:])))
    assert model(torch.randn(32, 2, 3, 32)).shape == (32, 2, 10)
    assert sides == [(4, 32)] * 3 + [(4, 16)] * 4 + [(4, 8)]
    # After pooling, spikes are shares.
    assert [m.binary_input for m in model.modules() if isinstance(m, Conv1d)] == [False, True, True] * 2
    assert {module.k for module in neurons(model)} == {32}
    assert all(m.bias is None for m in model.modules() if isinstance(m, Conv1d))
    assert [m.out_features for m in model.modules() if isinstance(m, nn.Linear)] == [8, 10]


def test_layers_of_the_net_for_events():
    model, sides = create_model("dvs_vgg_snn", width=2), []
    for layer in model.blocks():
        layer.register_forward_hook(lambda _, __, y: sides.append(tuple(y.shape[2:4])))
    assert model(torch.randn(3, 2, 2, 48, 48)).shape == (3, 2, 10)
    assert sides == [(2, 48), (4, 48), (8, 24), (8, 24), (16, 12), (16, 12), (16, 6), (16, 6)]
    convolutions = [m for m in model.modules() if isinstance(m, Conv2d)]
    assert all(m.bias is not None for m in convolutions)
    deviation = (2 / (convolutions[-1].weight[:, 0].numel())) ** 0.5
    assert convolutions[-1].weight.std().item() == pytest.approx(deviation, rel=0.05)
    assert [(module.k, module.weight.tolist()) for module in neurons(model)] == [(2, [0.5, 1.0])] * 8
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.25]


@pytest.mark.parametrize("neuron", ["lif", "glif"])
def test_norms_begin_with_a_gain_of_one_whatever_the_threshold(neuron):
    for name in ("sequential_cifar_snn", "static_cifar_snn", "dvs_vgg_snn"):
        norms = [m for m in create_model(name, width=2, neuron=neuron).modules() if isinstance(m, TdBN)]
        assert all((m.gain() == 1).all() for m in norms)


def test_average_pooling_of_the_stem_gives_shares_of_spikes():
    model, read = create_model("imagenet_sew_resnet", width=4, classes=3), []
    model.body[0].branch.conv1.register_forward_hook(lambda m, x, __: read.append((m.reads, x[0])))
    assert model(torch.randn(4, 2, 3, 64, 64) * 3).shape == (4, 2, 3)
    ((reads, x),) = read
    assert reads == "real"
    assert x.shape[-1] == 16
    assert torch.equal(x * 9, (x * 9).round())
    assert not torch.equal(x, x.round())


def test_the_temporal_embedding_tells_steps_apart():
    x = torch.randn(1, 2, 3, 32, 32).expand(4, 2, 3, 32, 32)
    for embedding in (False, True):
        model = create_model("imagenet_sew_resnet", width=4, neuron=lambda: MaskedPSN(4, 1), embedding=embedding)
        seen = []
        model.stem[0].register_forward_hook(lambda _, __, y, seen=seen: seen.append(y))
        model(x)
        assert (seen[0][0] == seen[0][1]).all() != embedding


def test_each_channel_has_parameters_of_its_own():
    model = create_model("sequential_cifar_snn", width=4, neuron=PerChannel(GLIF))
    assert [tuple(module.firing.shape) for module in neurons(model)] == [(4, 1)] * 6 + [(8,)]
    assert count(model) == count(create_model("sequential_cifar_snn", width=4, neuron="lif")) + 8 * (6 * 4 + 8)
    assert neurons(create_model("static_cifar_snn", width=2, neuron=PerChannel(GLIF)))[0].firing.shape == (2, 1, 1)
    with pytest.raises(ValueError, match="does not say how many channels"):
        create_model("ms_resnet8", neuron=PerChannel(GLIF))


CAUSAL = {"masked": lambda: MaskedPSN(8, 3), "sliding": lambda: SlidingPSN(3), "sliding of 8": lambda: SlidingPSN(8)}


@pytest.mark.parametrize("neuron", CAUSAL)
def test_the_whole_net_is_causal_in_eval_alone(neuron):
    model, x, other = lively(CAUSAL[neuron])
    with torch.no_grad():
        assert not torch.equal(copy.deepcopy(model)(x)[:5], copy.deepcopy(model)(other)[:5])  # norms see all steps
        model.eval()
        assert torch.equal(model(x)[:5], model(other)[:5])
        assert not torch.equal(model(x)[5:], model(other)[5:])
        with rb.stream(model) as run:
            torch.testing.assert_close(torch.cat([run(step) for step in x.split(1)]), model(x))


def test_a_net_of_psns_is_not_causal():
    model, x, other = lively(lambda: PSN(8))
    model.eval()
    assert not torch.equal(model(x)[:5], model(other)[:5])
    with pytest.raises(ValueError, match=r"body\.0\.2: PSN needs the whole sequence"), rb.stream(model) as run:
        run(x)


def test_pooling_averages_pairs_of_rows():
    pool = create_model("sequential_cifar_snn", width=4).body[3]
    assert isinstance(pool, PerStep)
    x = torch.arange(8.0).view(1, 1, 1, 8)
    assert pool(x).flatten().tolist() == [0.5, 2.5, 4.5, 6.5]
