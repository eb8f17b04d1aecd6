import pytest
import torch
from benchmarks.agreement import Agreement, Seen, agree, agree_nets, attempt


@pytest.fixture
def run():
    generator = torch.Generator().manual_seed(3)
    return (torch.rand(12, 32, 4, generator=generator) < 0.2).float(), torch.randn(12, 32, 4, generator=generator)


def test_equal_runs_agree(run):
    assert agree(run, run) == Agreement(True, "spikes equal, gradient 0.0e+00")


def test_one_flipped_spike_is_a_tie_and_its_lane_is_left_out(run):
    spikes, gradient = run
    other, bent = spikes.clone(), gradient.clone()
    other[3, 1, 2] = 1 - other[3, 1, 2]
    bent[:, 1, 2] += 5.0
    assert agree((other, bent), run).holds
    other[4, 0, 0] = 1 - other[4, 0, 0]
    assert not agree((other, bent), run).holds


@pytest.mark.parametrize("wrong", [1e-3, float("nan")])
def test_a_wrong_gradient_disagrees(run, wrong):
    bent = run[1].clone()
    bent[2, 3, 1] += wrong
    assert not agree((run[0], bent), run).holds


@pytest.mark.parametrize("wrong", [1e-3, float("nan")])
def test_every_gradient_is_compared(run, wrong):
    weight = torch.linspace(-1, 1, 6)
    bent = weight.clone()
    bent[1] += wrong
    assert agree((*run, weight), (*run, weight)).holds
    assert not agree((*run, bent), (*run, weight)).holds
    assert not agree((run[0], bent, run[1]), (run[0], weight, run[1])).holds


def test_other_shapes_disagree(run):
    assert not agree((run[0][:3], run[1][:3]), run).holds


def seen(flip=0, gradient=0.0, output=0.0, names=("w",)):
    spikes = torch.zeros(4, 1000)
    spikes.view(-1)[:flip] = 1
    return Seen([spikes, spikes[:2]], torch.ones(3) + output, dict.fromkeys(names, torch.ones(5) + gradient))


def test_networks_agree_up_to_a_share_of_spikes():
    assert agree_nets(seen(), seen(), 0.0) == Agreement(True, "spikes equal, output 0.0e+00, gradient 0.0e+00")
    assert agree_nets(seen(flip=3), seen(), 1e-3).holds  # each of the two layers has 3 of 6000
    assert not agree_nets(seen(flip=4), seen(), 1e-3).holds
    assert "8 of 6000 spikes differ" in agree_nets(seen(flip=4), seen(), 1e-3).text


@pytest.mark.parametrize("wrong", [{"gradient": 1e-3}, {"output": 1e-3}, {"gradient": float("nan")}])
def test_networks_with_equal_spikes_have_equal_outputs_and_gradients(wrong):
    assert not agree_nets(seen(**wrong), seen(), 1e-3).holds


def test_where_spikes_differ_gradients_may_a_little():
    assert agree_nets(seen(flip=1, gradient=1e-3), seen(), 1e-3).holds
    assert not agree_nets(seen(flip=1, gradient=0.5), seen(), 1e-3).holds


def test_networks_with_other_layers_or_parameters_disagree():
    assert not agree_nets(seen(names=("w", "v")), seen(), 1e-3).holds
    one = Seen(seen().spikes[:1], seen().output, seen().gradients)
    assert not agree_nets(one, seen(), 1e-3).holds


def test_an_error_is_a_disagreement_in_one_line():
    def broken():
        raise RuntimeError("no C++ compiler\nand more")

    assert attempt(broken) == Agreement(False, "RuntimeError: no C++ compiler")
    assert attempt(lambda: Agreement(True, "fine")).holds
