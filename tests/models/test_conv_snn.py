import pytest
import torch

from rheobase.models import ConvSNN, create_model
from rheobase.nn import Conv2d


def test_each_layer_halves_the_side_and_reads_spikes():
    model = create_model("conv_snn", width=4)
    sides = []
    for layer in model.blocks():
        layer.register_forward_hook(lambda _, __, y: sides.append(tuple(y.shape[2:])))
    assert model(torch.rand(3, 2, 2, 34, 34)).shape == (3, 2, 10)
    assert sides == [(4, 17, 17), (8, 9, 9), (16, 5, 5)]
    assert [m.binary_input for m in model.modules() if isinstance(m, Conv2d)] == [False, True, True]


def test_learns_which_half_moves():
    torch.manual_seed(0)
    model = ConvSNN([(8, 3, 2)], 2, 2, 2, "lif")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        y = torch.arange(16) % 2
        x = torch.zeros(4, 16, 2, 8, 8)
        x[:, y == 0, :, :, :4] = (torch.rand(4, 8, 2, 8, 4) > 0.5).float()
        x[:, y == 1, :, :, 4:] = (torch.rand(4, 8, 2, 8, 4) > 0.5).float()
        loss = torch.nn.functional.cross_entropy(model(x).mean(0), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.2


@pytest.mark.usefixtures("untyped")
def test_no_layer_or_no_neuron_raises():
    with pytest.raises(ValueError, match="the plan has no layer"):
        ConvSNN([], 2, 10, 1, "lif")
    with pytest.raises(ValueError, match="a layer of the plan ends in 'average'; expected 'max' or nothing"):
        ConvSNN([(8, 3, 1, "average")], 2, 10, 1, "lif")
    with pytest.raises(ValueError, match="kernel is 4; expected an odd side"):
        ConvSNN([(8, 4, 1)], 2, 10, 1, "lif")
    with pytest.raises(ValueError, match="liff"):
        create_model("conv_snn", neuron="liff")


def test_seven_convolutions_pool_three_times_before_the_norm():
    model, sides = create_model("cifar_conv7", width=2), []
    for layer in model.blocks():
        layer.register_forward_hook(lambda _, __, y: sides.append((y.shape[2], y.shape[3])))
    assert model(torch.rand(2, 2, 3, 32, 32)).shape == (2, 2, 10)
    assert sides == [(2, 32), (4, 16), (4, 16), (8, 8), (8, 8), (16, 4), (16, 4)]
    kinds = [[type(part).__name__ for part in layer] for layer in model.blocks()]
    assert kinds[0] == kinds[2] == ["Conv", "TdBN", "IterativeLIF"]
    assert kinds[1] == ["Conv", "PerStep", "TdBN", "IterativeLIF"]
    assert [m.binary_input for m in model.modules() if isinstance(m, Conv2d)] == [False] + [True] * 6
