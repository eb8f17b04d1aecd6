import pytest
import torch

from rheobase.models import SpikingPoolNet, create_model
from rheobase.neurons import IterativeLIF
from rheobase.nn import Conv2d, Linear


def test_the_victim_has_the_constants_of_the_paper(outputs):
    model = create_model("pooled_snn")
    cells = [module for module in model.modules() if isinstance(module, IterativeLIF)]
    assert len(cells) == 6  # two convolutions, two poolings, a hidden and the last layer
    for cell in cells:
        assert (cell.decay, cell.threshold) == (0.25, 0.3)
        assert cell.scan.constants["strict"]
        assert not cell.scan.constants["detach_reset"]
    x = (torch.rand(2, 3, 1, 28, 28) > 0.5).float()
    y, seen = outputs(model, x, IterativeLIF)
    assert [tuple(each.shape[2:]) for each in seen.values()] == [
        (32, 28, 28), (32, 14, 14), (32, 14, 14), (32, 7, 7), (128,), (10,),
    ]  # fmt: skip
    assert y.shape == (2, 3, 10)
    assert set(y.unique().tolist()) <= {0.0, 1.0}


def test_a_layer_is_the_published_update():
    """u = 0.25 u (1 - o) + W o, fired above 0.3, and pooling fires too."""
    torch.manual_seed(1)
    model = create_model("test_pooled_snn").double()
    x = (torch.rand(5, 2, 1, 8, 8) > 0.5).double()
    weights = [layer for layer in model.modules() if isinstance(layer, Conv2d | Linear)]
    state = [torch.zeros(()).double()] * 12

    def fire(k, current):
        state[k] = 0.25 * state[k] * (1 - state[k + 6]) + current
        state[k + 6] = (state[k] > 0.3).double()
        return state[k + 6]

    expected = []
    for now in x:
        o = fire(0, torch.nn.functional.conv2d(now, weights[0].weight, weights[0].bias, padding=1))
        o = fire(1, torch.nn.functional.avg_pool2d(o, 2))
        o = fire(2, torch.nn.functional.conv2d(o, weights[1].weight, weights[1].bias, padding=1))
        o = fire(3, torch.nn.functional.avg_pool2d(o, 2)).flatten(1)
        o = fire(4, torch.nn.functional.linear(o, weights[2].weight, weights[2].bias))
        expected.append(fire(5, torch.nn.functional.linear(o, weights[3].weight, weights[3].bias)))
    assert torch.equal(model(x), torch.stack(expected))


def test_the_gradient_passes_where_the_membrane_is_within_a_half():
    cell = create_model("test_pooled_snn").head[1]
    x = torch.tensor([-0.21, -0.19, 0.29, 0.31, 0.79, 0.81]).view(1, 1, 6).requires_grad_()
    y = cell(x)
    assert y.flatten().tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.autograd.grad(y.sum(), x)[0].flatten().tolist() == [0, 1, 1, 1, 1, 0]


def test_the_network_of_the_paper_has_its_shapes():
    with torch.device("meta"):
        model = create_model("wide_pooled_snn")
    weights = [layer.weight for layer in model.modules() if isinstance(layer, Conv2d | Linear)]
    assert [tuple(each.shape) for each in weights] == [
        (128, 1, 3, 3), (256, 128, 3, 3), (512, 256, 3, 3), (1024, 512, 3, 3), (512, 1024, 3, 3),
        (1024, 512 * 49), (512, 1024), (10, 512),
    ]  # fmt: skip
    dropped = [layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)]
    assert dropped == [0.25, 0.25, 0.25, 0.5, 0.25, 0.25]


def test_dropped_spikes_are_no_longer_binary():
    model = create_model("test_wide_pooled_snn")
    reading = [layer.binary_input for layer in model.modules() if isinstance(layer, Conv2d | Linear)]
    assert reading == [False, False, False, False, False, False, False, True]
    plain = [layer.binary_input for layer in create_model("pooled_snn").modules() if isinstance(layer, Conv2d | Linear)]
    assert plain == [False, True, True, True]


def test_the_network_with_relu_has_as_many_parameters():
    count = [sum(p.numel() for p in create_model(name).parameters()) for name in ("pooled_snn", "pooled_ann")]
    assert count[0] == count[1]
    assert not [m for m in create_model("pooled_ann").modules() if isinstance(m, IterativeLIF)]


@pytest.mark.usefixtures("untyped")
def test_what_cannot_be_built_raises():
    with pytest.raises(ValueError, match="2 times 2x2 pooling leaves no pixel"):
        create_model("pooled_snn", side=3)
    with pytest.raises(ValueError, match=r"the share 1\.5 is dropped"):
        SpikingPoolNet([4, 1.5], [4], 1, 10, 8, "iterative_lif")


def test_frames_of_events_have_two_channels_of_34_pixels():
    model = create_model("event_pooled_snn", in_channels=2, classes=10)
    assert model((torch.rand(2, 1, 2, 34, 34) > 0.9).float()).shape == (2, 1, 10)
