import math

import pytest
import torch
from torch import nn

from rheobase.models import create_model, imagenet_tdbn_resnet
from rheobase.neurons import IterativeLIF, Neuron
from rheobase.nn.norm import TdBN, fold_all
from rheobase.nn.residual import Conv, Residual

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("options", "count"),
    [({}, 12_630_858), ({"classes": 100}, 12_653_988), ({"in_channels": 2}, 12_630_282), ({"stem": 128}, 12_697_994)],
)
def test_parameters_of_resnet19(options, count):
    with torch.device("meta"):
        model = create_model("tdbn_resnet19", **options)
    assert sum(p.numel() for p in model.parameters()) == count
    assert sum(isinstance(m, Conv) and m.module.kernel_size == (3, 3) for m in model.modules()) == 17
    assert sum(isinstance(m, nn.Linear) for m in model.modules()) == 2


@pytest.mark.parametrize(("depth", "count"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032)])
def test_imagenet_nets_have_the_parameters_of_their_pattern(depth, count):
    with torch.device("meta"):
        model = create_model(f"imagenet_tdbn_resnet{depth}")
    assert sum(p.numel() for p in model.parameters()) == count
    with pytest.raises(ValueError, match="depth is 101; expected 18, 34 or 50"):
        imagenet_tdbn_resnet(101)


def test_sizes_of_the_smaller_nets():
    """ResNet-18 as usual on CIFAR, and the size that is quoted for ResNet-17 with the eleven gestures."""
    with torch.device("meta"):
        small, gestures = create_model("tdbn_resnet18"), create_model("imagenet_tdbn_resnet18", classes=11)
    assert [sum(p.numel() for p in model.parameters()) for model in (small, gestures)] == [11_173_962, 11_182_155]


def test_stages_of_resnet19_and_what_its_convolutions_read():
    model, sizes, read = create_model("test_tdbn_resnet19"), [], {}
    for name, module in model.named_modules():
        if isinstance(module, Residual):
            module.register_forward_hook(lambda _, __, y: sizes.append(tuple(y.shape[2:])))
        if isinstance(module, Conv):
            module.register_forward_hook(lambda m, x, _, name=name: read.update({name: (m.reads, x[0])}))
    assert model(torch.rand(3, 4, 3, 32, 32)).shape == (3, 4, 10)
    assert sizes == [(4, 32, 32)] * 3 + [(8, 16, 16)] * 3 + [(16, 8, 8)] * 2
    assert [name for name, (reads, _) in read.items() if reads != "binary"] == ["stem.0"]
    assert all(((x == 0) | (x == 1)).all() for name, (_, x) in read.items() if name != "stem.0")
    norms = {m.alpha for name, m in model.named_modules() if isinstance(m, TdBN) and "norm1" not in name}
    assert norms == {1.0, 1 / math.sqrt(2)}


def test_max_pooling_leaves_spikes():
    model, read = imagenet_tdbn_resnet(18, classes=3, width=4), []
    model.body[0].branch.conv1.register_forward_hook(lambda _, x, __: read.append(x[0]))
    assert model(torch.randn(2, 2, 3, 64, 64)).shape == (2, 2, 3)
    assert read[0].shape[-1] == 16
    assert set(read[0].unique().tolist()) == {0.0, 1.0}


def test_a_folded_net_fires_the_same_spikes():
    model = create_model("test_tdbn_resnet19").double()
    for module in model.modules():
        if isinstance(module, TdBN):
            module.momentum = 1.0
    x = torch.randn(4, 8, 3, 8, 8, dtype=torch.float64)
    model(x)

    def spikes(net):
        seen = []
        handles = [
            m.register_forward_hook(lambda _, __, y: seen.append(y)) for m in net.modules() if isinstance(m, Neuron)
        ]
        with torch.no_grad():
            y = net(x)
        for handle in handles:
            handle.remove()
        return y, seen

    (y, ours), (z, folded) = spikes(model.eval()), spikes(fold_all(model))
    assert not any(isinstance(module, TdBN) for module in fold_all(model).modules())
    assert len(ours) == len(folded) == 1 + 2 * 8 + 1
    assert all(torch.equal(a, b) for a, b in zip(ours, folded, strict=True))
    assert 0 < torch.stack([s.mean() for s in ours]).mean() < 1
    torch.testing.assert_close(y, z)


def chain(threshold, decay, layers=20, channels=32):
    """Gradient norms at the inputs of 20 layers of convolution, norm and neuron, under a random gradient on top."""
    torch.manual_seed(0)
    x = (torch.rand(4, 8, channels, 8, 8) < 0.159).float()
    inputs = []
    for _ in range(layers):
        x = x.detach().requires_grad_() if not inputs else x
        x.retain_grad()
        inputs.append(x)
        conv = Conv(channels, channels, 3, "binary")
        x = IterativeLIF(decay, threshold, detach_reset=False)(TdBN(channels, threshold)(conv(x)))
    x.backward(torch.randn_like(x))
    return torch.stack([each.grad.square().sum() for each in inputs])


def closed_form(threshold, width=1.0):
    """Expected squared gain of a layer without memory: of thresholds over widths of the surrogate alone."""
    normal = torch.distributions.Normal(0.0, 1.0)
    q = 1 - normal.cdf(torch.tensor(1.0))
    inside = normal.cdf(torch.tensor((threshold + width / 2) / threshold)) - normal.cdf(
        torch.tensor((threshold - width / 2) / threshold)
    )
    return float(inside / width**2 * threshold**2 / (q * (1 - q)))


@pytest.mark.parametrize("threshold", [0.2, 0.5, 1.0])
def test_the_gain_of_a_layer_is_that_of_the_closed_form(threshold):
    """phi is 0.280, 0.894 and 1.811; what matters is the threshold over the width of the surrogate."""
    assert closed_form(threshold) == pytest.approx({0.2: 0.280, 0.5: 0.894, 1.0: 1.811}[threshold], abs=2e-3)
    squares = chain(threshold, decay=1e-6)
    ratios = squares[:-1] / squares[1:]
    assert ratios.median().item() == pytest.approx(closed_form(threshold), rel=0.1)


@pytest.mark.parametrize("decay", [1e-6, 0.25, 0.5])
def test_twenty_layers_are_close_to_an_isometry_at_a_threshold_of_one_half(decay):
    squares = chain(0.5, decay)
    assert 0.2 < (squares[0] / squares[-1]).sqrt().item() < 3


@pytest.mark.parametrize(("deviation", "rate"), [(0.25, 0.0), (1.0, 0.159), (4.0, 0.401)])
def test_rates_of_normal_input(deviation, rate):
    """The paper's figure 4: inputs of variance 1/16, 1 and 16 at a threshold of 1, without memory."""
    x = torch.randn(2, 200_000) * deviation
    assert IterativeLIF(1e-6, 1.0)(x).mean().item() == pytest.approx(rate, abs=4e-3)
