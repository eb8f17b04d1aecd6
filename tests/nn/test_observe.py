import pytest
import torch
from torch import nn

import rheobase as rb
from rheobase.neurons import LIF
from rheobase.nn import PerStep


def network():
    return nn.Sequential(PerStep(nn.Linear(5, 6)), LIF(), PerStep(nn.Linear(6, 4)), LIF())


def test_every_temporal_layer_is_seen_inside_and_none_outside():
    net, seen = network(), {}
    with rb.observe(net, lambda name, layer, y: seen.update({name: (layer, y)})):
        out = net(torch.randn(3, 2, 5))
    assert list(seen) == ["1", "3"]
    assert seen["3"][1] is out
    assert seen["1"][0] is net[1]
    seen.clear()
    net(torch.randn(3, 2, 5))
    assert not seen


def test_check_names_the_first_layer_that_breaks():
    net = network()
    with torch.no_grad():
        net[2].module.weight[0, 0] = float("inf")
    with pytest.raises(ValueError, match=r"2.module \(Linear\) put out .* NaN or Inf of 24"), rb.check(net):
        net(torch.full((3, 2, 5), 9.0))
    net(torch.randn(3, 2, 5))


def test_check_is_silent_on_a_sound_model():
    net = network()
    with rb.check(net):
        assert net(torch.randn(3, 2, 5)).isfinite().all()
