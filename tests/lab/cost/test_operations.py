import pytest
import torch
from torch import nn

import rheobase as rb
from rheobase.lab.cost import Operations, operations, trace
from rheobase.models import create_model
from rheobase.neurons import LIF, create_neuron
from rheobase.nn import PerStep, Recurrent
from rheobase.nn.fuse import NormNeuron


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("if", {}, Operations(add=1, compare=1, select=1)),
        ("if", {"reset": "subtract"}, Operations(add=2, compare=1, select=1)),
        ("if", {"reset": "none"}, Operations(add=1, compare=1)),
        ("lif", {}, Operations(add=2, multiply=1, compare=1, select=1)),
        ("iterative_lif", {}, Operations(add=1, multiply=1, compare=1, select=1)),
        ("psn", {"T": 4}, Operations(compare=1)),
    ],
)
def test_what_an_update_computes(name, options, expected):
    """LIF: two sums, the leak, the threshold, the reset, which chooses by the spike."""
    assert operations(create_neuron(name, **options).scan.text()) == expected


def test_every_kind_of_operation_is_told():
    @rb.step(state={"v": 0.0})
    def odd(x, v, *, tau, spike):
        h = torch.where(x > v, x / tau, torch.exp(-v) / (x * x + 1.0))
        s = spike(h - 0.5)
        return s, (torch.minimum(h, x) + s,)

    from rheobase.neurons.surrogate import Atan
    from rheobase.scan import Scan

    found = operations(Scan(odd, spike=Atan()).text())
    # x/tau, x*x | x*x + 1, + s | x > v, spike, minimum | where | / | exp; the sign is free, h - 0.5 is the comparison
    assert found == Operations(add=2, multiply=2, compare=3, select=1, divide=1, function=1)
    assert found.total == 10


def test_layers_carry_what_their_neurons_compute():
    model = nn.Sequential(PerStep(nn.Linear(3, 4)), LIF(), Recurrent(LIF(), nn.Linear(4, 4)))
    for layer in trace(model, torch.randn(5, 2, 3)).neurons:
        assert layer.operations == Operations(add=2, multiply=1, compare=1, select=1)
        assert (layer.states, layer.updates) == (1, 20)


def test_what_is_a_product_of_its_own_is_no_operation_of_the_neuron():
    (layer,) = trace(rb.neurons.SlidingPSN(3), torch.randn(6, 2, 5)).neurons
    assert layer.operations == Operations(compare=1)


@pytest.mark.parametrize("name", ["test_ms_resnet", "test_sew_resnet", "test_spikingformer"])
def test_norms_and_sums_of_branches_are_seen_alike_by_every_engine(name):
    """The fused engine runs them inside of kernels, the reference engine one by one."""
    model, x = create_model(name).eval(), torch.rand(3, 2, 3, 8, 8)
    found = {}
    for engine in ("cpu", "reference"):
        with rb.engine(engine):
            rows = trace(model, x).elementwise
        found[engine] = [sum(getattr(row, key) for row in rows) for key in ("scaled", "shifted", "added", "multiplied")]
    assert found["cpu"] == found["reference"]
    assert all(count > 0 for count in found["cpu"][:3])


def test_a_norm_scales_and_shifts_each_value_once():
    model = nn.Sequential(PerStep(nn.Conv2d(2, 3, 1, bias=False)), NormNeuron(rb.nn.TdBN(3), LIF()))
    x = torch.rand(4, 2, 2, 5, 5)
    assert [(r.scaled, r.shifted, r.added) for r in trace(model, x).elementwise] == [(300, 300, 0)]
    static = x[:1].expand(4, -1, -1, -1, -1)
    assert [(r.scaled, r.shifted) for r in trace(model, static).elementwise] == [(75, 75)]
