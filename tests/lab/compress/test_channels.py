"""Channels without weights are left out, and the rest computes what it did: same spikes, same output up to rounding."""

import copy

import pytest
import torch
from torch import nn

import rheobase as rb
from rheobase.lab.compress.channels import Silent, shrink, silent_channels, zero_channels
from rheobase.models import ConvSNN, mobilenet_v1, resnet50
from rheobase.neurons import IF, LIF, PSN, IterativeLIF, SlidingPSN, StochasticLIF, create_neuron
from rheobase.nn import NormNeuron, PerChannel, PerStep, TdBN, observe

NETS = {
    "test_conv_snn": (2, 12, 12),
    "test_cifar_conv7": (3, 8, 8),
    "test_ms_resnet": (3, 8, 8),
    "test_vanilla_resnet": (3, 8, 8),
    "test_sew_resnet": (3, 8, 8),
    "test_tdbn_resnet19": (3, 8, 8),
    "test_tdbn_bottleneck": (3, 8, 8),
    "test_feedforward_snn": (12,),
}


@pytest.fixture(autouse=True)
def _brief(one_thread):
    pass


def lively(model, *size):
    """The model with statistics and gains that let it fire, and an example of two samples."""
    x = torch.randn(3, 2, *size)
    for norm in model.modules():
        if isinstance(norm, TdBN | nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0.2, 0.3)
    with torch.no_grad():
        for _ in range(3):
            model.train()(x)
    return model.eval(), x


def run(model, x):
    """The output, and how often each channel of each temporal layer fires."""
    seen = []
    with torch.no_grad(), observe(model, lambda name, layer, y: seen.append(y.flatten(3) if y.dim() > 3 else y)):
        y = model(x)
    return y, seen


def size(model):
    return sum(p.numel() for p in model.parameters())


def removed(found):
    return {s.layer: s.removable for s in found if s.removable}


@pytest.mark.parametrize("name", NETS)
def test_models_of_the_registry_shrink_and_compute_the_same(name):
    model, x = lively(rb.models.create_model(name), *NETS[name])
    zeroed = zero_channels(model, 0.5, x)
    rb.models.create_model(name).load_state_dict(zeroed.state_dict())
    small = shrink(zeroed, x)
    assert size(small) < size(model)
    assert [n for n, _ in small.named_parameters()] == [n for n, _ in model.named_parameters()]
    (y, spikes), (y_, spikes_) = run(zeroed, x), run(small, x)
    torch.testing.assert_close(y_, y, rtol=1e-4, atol=1e-5)
    assert y.any()
    for a, b in zip(spikes, spikes_, strict=True):
        assert float(a.sum()) == pytest.approx(float(b.sum()))
        assert b.shape[2] <= a.shape[2]
    assert any(b.shape[2] < a.shape[2] for a, b in zip(spikes, spikes_, strict=True))
    found = silent_channels(zeroed, x)
    assert all(s.removable == s.silent == s.channels // 2 for s in found)
    assert not silent_channels(small, x)


def test_shapes_after_shrinking_a_conv_net():
    model, x = lively(ConvSNN([(8, 3, 1), (6, 3, 1), "pool"], 2, 5, 2, LIF, hidden=4), 2, 8, 8)
    small = shrink(zero_channels(model, 0.5, x), x)
    shapes = {name: tuple(p.shape) for name, p in small.named_parameters()}
    assert shapes["body.0.0.module.weight"] == (4, 2, 3, 3)
    assert shapes["body.0.1.weight"] == (4,)
    assert shapes["body.1.0.module.weight"] == (3, 4, 3, 3)
    assert shapes["head.1.module.weight"] == (2, 3 * 4)  # 2x2 pixels of each of three channels
    assert shapes["head.3.module.weight"] == (5, 2)
    assert small.body[1][0].module.in_channels == 4
    assert small.body[1][0].module.binary_input


def test_inside_residual_blocks_only_the_middle_is_cut():
    model, x = lively(rb.models.create_model("test_ms_resnet"), 3, 8, 8)
    small = shrink(zero_channels(model, 0.5, x), x)
    for block, was in zip(small.blocks(), model.blocks(), strict=True):
        middle = was.branch.conv1.module.out_channels // 2
        assert block.branch.conv1.module.out_channels == block.branch.conv2.module.in_channels == middle
        assert block.branch.norm1.channels == middle
        assert block.branch.conv2.module.weight.shape[0] == was.branch.conv2.module.weight.shape[0]
    assert small.stem[0].module.weight.shape == model.stem[0].module.weight.shape


def test_what_must_stay_is_told_by_name():
    model, x = lively(rb.models.create_model("test_vanilla_resnet"), 3, 8, 8)
    with torch.no_grad():
        for layer in (
            model.stem[0].module,
            model.stem[1],
            model.body[0].branch.conv2.module,
            model.body[0].branch.norm2,
        ):
            for p in layer.parameters():
                p[:3] = 0.0
        for p in (*model.body[1].branch.conv1.parameters(), *model.body[1].branch.norm1.parameters()):
            p.zero_()
    found = {s.layer: s for s in silent_channels(model, x)}
    width = model.stem[1].channels
    assert found["stem.0.module"] == Silent("stem.0.module", width, 3, 0, "body.0 (Residual) needs them in their place")
    inner = found["body.0.branch.conv2.module"]
    assert (inner.silent, inner.removable) == (3, 0)
    assert "a sum, the output" in inner.reason
    whole = found["body.1.branch.conv1.module"]
    assert (whole.silent, whole.removable, whole.reason) == (
        whole.channels,
        whole.channels - 1,
        "a layer keeps one channel",
    )
    torch.testing.assert_close(run(shrink(model, x), x)[0], run(model, x)[0], rtol=1e-4, atol=1e-5)


def torch_net():
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
        *(nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout()),
        *(nn.Linear(24, 10), nn.ReLU(), nn.Linear(10, 4)),
    )


def test_plain_torch_networks_shrink_too():
    model = torch_net()
    x = torch.randn(5, 3, 8, 8)
    for _ in range(3):
        model(x)
    model.eval()
    zeroed = zero_channels(model, 0.5, x)
    small = shrink(zeroed, x)
    torch.testing.assert_close(small(x), zeroed(x), rtol=1e-4, atol=1e-5)
    assert [tuple(m.weight.shape) for m in small if hasattr(m, "weight")] == [
        *((4, 3, 3, 3), (4,), (4, 1, 3, 3), (4,)),
        *((3, 4, 1, 1), (3,), (5, 12), (4, 5)),
    ]
    assert small[4].groups == small[4].in_channels == 4
    assert not model.training
    assert all(p.all() for p in model[0].parameters())


class Block(nn.Module):
    """As torchvision writes them: layers as attributes, one rectifier for several places."""

    def __init__(self, taps=False):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.branch = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 6, 1))
        self.relu, self.taps = nn.ReLU(), taps

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.branch(y) + (y if self.taps else x))


@pytest.mark.parametrize("taps", [False, True])
def test_of_unknown_blocks_only_plain_branches_are_touched(taps):
    model, x = nn.Sequential(Block(taps), nn.Conv2d(6, 2, 1)).eval(), torch.randn(2, 6, 5, 5)
    with torch.no_grad():
        for p in (*model[0].conv1.parameters(), *model[0].bn1.parameters(), *model[0].branch[0].parameters()):
            p[:2] = 0.0
    assert removed(silent_channels(model, x)) == {"0.branch.0": 2}
    torch.testing.assert_close(shrink(model, x)(x), model(x))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(4, 4, 1), nn.ReLU()

    def forward(self, x):
        return self.relu(self.conv(self.relu(self.conv(x))))


class Peeks(nn.Sequential):
    """Someone else gets what the first layer puts out."""

    def forward(self, x):
        y = self[0](x)
        return self[1](y) + y.sum()


class Writes(nn.Sequential):
    """What the first layer puts out is changed before the second gets it."""

    def forward(self, x):
        y = self[0](x)
        y[:, 0] = 1.0
        return self[1](y)


def test_layers_that_are_shared_or_watched_stay():
    tied = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
    tied[2].weight = tied[0].weight
    x = torch.randn(2, 4, 3, 3)
    pair = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
    for model in (Twice(), tied, Peeks(*pair), Writes(*pair)):
        with torch.no_grad():
            for p in next(m for m in model.modules() if isinstance(m, nn.Conv2d)).parameters():
                p[:2] = 0.0
        assert not removed(silent_channels(model, x))
        assert torch.equal(shrink(model, x)(x), model(x))


def test_a_silent_channel_is_one_that_no_input_moves():
    """Zero weights are not enough before a shift or an activation that makes something of zero, and not needed before
    a norm without scale."""

    def net(activation=None, bias=True):
        return nn.Sequential(
            nn.Conv2d(2, 4, 1, bias=bias), nn.BatchNorm2d(4), activation or nn.ReLU(), nn.Conv2d(4, 2, 1)
        )

    x = torch.randn(2, 2, 3, 3)

    def count(model):
        return sum(s.removable for s in silent_channels(model.eval(), x))

    model = net()
    with torch.no_grad():
        model[0].weight[:2] = 0.0
    assert count(model) == 0  # the bias of the convolution
    with torch.no_grad():
        model[0].bias[:2] = 0.0
    assert count(model) == 2
    with torch.no_grad():
        model[1].running_mean[0] = 0.5
        model[1].bias[1] = -1.0  # below zero the rectifier is silent too, but only zero is known to be
    assert count(model) == 0
    model = net()
    with torch.no_grad():
        model[1].weight[3] = model[1].bias[3] = 0.0
    assert count(model) == 1
    for activation, expected in ((nn.Sigmoid(), 0), (nn.Tanh(), 2), (nn.LeakyReLU(), 2), (nn.Softmax(1), 0)):
        model = net(activation, bias=False)
        with torch.no_grad():
            model[0].weight[:2] = 0.0
        assert count(model) == expected


def test_what_only_silent_channels_feed_is_silent():
    model, x = nn.Sequential(*(nn.Conv2d(4, 4, 1, bias=False) for _ in range(3))), torch.randn(1, 4, 2, 2)
    with torch.no_grad():
        model[0].weight[:2] = 0.0
        model[1].weight[3, 2:] = 0.0  # reads nothing but what is silent
    assert removed(silent_channels(model, x)) == {"0": 2, "1": 1}
    torch.testing.assert_close(shrink(model, x)(x), model(x))


def spiking(neuron, T=3):
    model = nn.Sequential(PerStep(nn.Conv2d(2, 4, 1, bias=False)), neuron, PerStep(nn.Conv2d(4, 2, 1)))
    with torch.no_grad():
        model[0].module.weight[:2] = 0.0
    return model, torch.randn(T, 1, 2, 3, 3)


def by_itself():
    """A neuron that fires without input."""
    neuron = LIF()
    neuron.threshold = -0.1
    return neuron


@pytest.mark.parametrize(
    ("neuron", "silent"),
    [
        (LIF(), 2),
        (IterativeLIF(), 2),
        (IF(), 2),
        (by_itself(), 0),
        (PSN(3), 2),
        (SlidingPSN(2), 2),
        (create_neuron("masked_psn", T=3), 2),
        (create_neuron("izhikevich"), 0),
        (StochasticLIF(), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_which_neurons_stay_silent_is_found_by_running_them(neuron, silent):
    model, x = spiking(neuron)
    assert sum(s.removable for s in silent_channels(model, x)) == silent
    if silent:
        assert torch.equal(shrink(model, x)(x), model.eval()(x))


def test_a_neuron_that_fires_later_is_not_silent():
    """What is zero for as long as the example lasts is not zero for ever: the state must rest."""

    @rb.step(inputs=("x",), state={"v": 0.0})
    def drifting(x, v, *, spike):
        h = v + x + 0.01
        return spike(h - 1.0), (h,)

    model, x = spiking(rb.neurons.Neuron(drifting, spike=rb.neurons.Atan()))
    assert not model[1](torch.zeros(4, 1, 4, 3, 3)).any()
    assert not removed(silent_channels(model, x))


def test_parameters_by_channel_are_cut_with_it():
    make = PerChannel(lambda shape: LIF(tau=nn.Parameter(torch.rand(shape) + 1.5), threshold=torch.rand(shape) + 0.1))
    model, x = lively(ConvSNN([(6, 3, 1), (4, 3, 1)], 2, 3, 1, make), 2, 6, 6)
    zeroed = zero_channels(model, 0.5, x)
    small = shrink(zeroed, x)
    assert small.body[0][2].tau.shape == (3, 1, 1)
    assert isinstance(small.body[0][2].tau, nn.Parameter)
    assert small.body[0][2].threshold.shape == (3, 1, 1)
    torch.testing.assert_close(run(small, x)[0], run(zeroed, x)[0], rtol=1e-4, atol=1e-5)


def test_norm_and_neuron_as_one_layer_and_fused_models():
    model = nn.Sequential(PerStep(nn.Conv2d(2, 8, 3)), NormNeuron(TdBN(8), LIF()), PerStep(nn.Conv2d(8, 2, 1)))
    model, x = lively(rb.fuse(model), 2, 6, 6)
    zeroed = zero_channels(model, 0.25, x, criterion="scale")
    small = shrink(zeroed, x)
    assert small[1].norm.channels == 6
    with torch.no_grad():
        torch.testing.assert_close(small(x), zeroed(x))


@pytest.mark.parametrize("name", ["test_gcn", "test_spikingformer", "test_recurrent_snn", "test_delay_snn"])
def test_graphs_attention_recurrence_and_delays_are_left_alone(name):
    entry = rb.models.MODELS[name]
    model, given = rb.models.create_model(name).eval(), entry.inputs(4, 3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    small = shrink(model, given)
    y, y_ = (m(*given) for m in (model, small))
    torch.testing.assert_close(y_, y, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_channels_are_chosen_by_their_weights_or_by_their_norm():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1)
    )
    x = torch.randn(1, 1, 2, 2)
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([4.0, -1.0, 2.0, 3.0]).view(4, 1, 1, 1))
        model[1].weight.copy_(torch.tensor([0.1, 5.0, -4.0, 3.0]))
        model[3].weight.copy_(torch.tensor([[0.5] * 4, [-0.25] * 4]).view(2, 4, 1, 1))

    def zeros(found, layer):
        return (found[layer].weight.flatten(1) == 0).all(1).nonzero()[:, 0].tolist()

    by_layer = zero_channels(model, 0.5, x)
    assert (zeros(by_layer, 0), zeros(by_layer, 3)) == ([1, 2], [1])
    assert by_layer[1].weight.tolist() == pytest.approx([0.1, 0.0, 0.0, 3.0])
    whole = zero_channels(
        model, 0.5, x, scope="global"
    )  # 3 of 6: the weights of the last are 0.25, of the first 1 and 2
    assert (zeros(whole, 0), zeros(whole, 3)) == ([1, 2], [1])
    assert zeros(zero_channels(model, 0.34, x, scope="global"), 0) == [1]
    model[3], model[4] = nn.Conv2d(4, 2, 1), nn.Identity()
    plain = nn.Sequential(*model[:4])
    assert zeros(zero_channels(plain, 0.5, x, criterion="scale"), 0) == [0, 3]
    with pytest.raises(ValueError, match="no norm follows 3, so its channels have no scale"):
        zero_channels(model, 0.5, x, criterion="scale")


def test_one_channel_always_stays():
    model, x = torch_net().eval(), torch.randn(2, 3, 8, 8)
    for scope in ("layer", "global"):
        small = shrink(zero_channels(model, 0.999, x, scope=scope), x)
        assert all(len(m.weight) >= 1 for m in small if hasattr(m, "weight"))
        assert small(x).isfinite().all()
    assert torch.equal(zero_channels(model, 0.0, x)(x), model(x))


def test_what_cannot_be_asked_for_is_said(untyped):
    model, x = torch_net(), torch.randn(2, 3, 8, 8)
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="expected a share of the channels, from 0 to below 1"):
            zero_channels(model, share, x)
    with pytest.raises(ValueError, match="no criterion 'l3'"):
        zero_channels(model, 0.5, x, criterion="l3")
    with pytest.raises(ValueError, match="no scope 'block'"):
        zero_channels(model, 0.5, x, scope="block")
    with pytest.raises(ValueError, match="no two layers in a row"):
        zero_channels(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid(), nn.Conv2d(4, 2, 1)), 0.5, x)


def test_hooks_and_modes_are_as_before():
    model, x = torch_net().train(), torch.randn(2, 3, 8, 8)
    model[12].eval()
    zeroed = zero_channels(model, 0.5, x)
    assert [m.training for m in zeroed.modules()] == [m.training for m in model.modules()]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in zeroed.modules())
    assert copy.deepcopy(shrink(zeroed, x))(x).shape == (2, 4)


@pytest.mark.parametrize(("make", "layers"), [(resnet50, 32), (mobilenet_v1, 14)])
def test_networks_without_spikes_shrink(make, layers):
    """Of a bottleneck what lies between its convolutions; of a MobileNet everything before the last layer."""
    model, x = make(5).eval(), torch.randn(1, 3, 32, 32)
    zeroed = zero_channels(model, 0.5, x)
    small = shrink(zeroed, x)
    assert len(removed(silent_channels(zeroed, x))) == layers
    with torch.no_grad():
        torch.testing.assert_close(small(x), zeroed(x), rtol=1e-3, atol=1e-4)
    assert size(small) < 0.7 * size(model)
