import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rheobase.lab.cost.h2learn import REF_S, simulate, trace_step, works_of
from rheobase.lab.cost.h2learn.baselines import (
    dense_array,
    event_driven,
    parallel_time_batching,
    row_parallel,
    spike_matrix,
)
from rheobase.neurons import IterativeLIF
from rheobase.nn import PerStep

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def step():
    net = nn.Sequential(
        *(PerStep(nn.Conv2d(2, 12, 3, padding=1)), IterativeLIF(), PerStep(nn.Conv2d(12, 20, 3, 2, 1)), IterativeLIF()),
        *(PerStep(nn.Flatten()), PerStep(nn.Linear(320, 10))),
    )
    x = torch.randn(6, 3, 2, 8, 8) * 2
    return trace_step(net, x, lambda y: F.cross_entropy(y.mean(0), torch.arange(3)))


def test_the_matrix_times_the_weights_is_the_layer(step):
    for layer in step.layers[1:]:
        S = spike_matrix(layer)
        y = S.float() @ layer.weight.flatten(1).T
        if layer.kind == "linear":
            expected = F.linear(layer.input.float(), layer.weight)
        else:
            whole = F.conv2d(layer.input.flatten(0, 1).float(), layer.weight, None, layer.stride, layer.padding)
            expected = whole.unflatten(0, (6, 3)).flatten(3).transpose(2, 3).flatten(1, 2)
        torch.testing.assert_close(y, expected)


def test_arrays_one_row_and_one_step_after_the_other():
    S = torch.rand(10, 7, 30) < 0.2
    S[:, 3] = False
    rows = S.flatten(0, 1)
    assert dense_array(70, 30, 25) == 3 * 30 * 70 / 14
    assert event_driven(S, 200) == 2 * sum(int(row.sum()) for row in rows)
    units = [0] * 4
    for load in sorted((int(row.sum()) for row in rows), reverse=True):
        units[min(range(4), key=units.__getitem__)] += load
    assert row_parallel(S, 25, units=4) == 25 * max(units)
    cycles = 70 * 32
    for first in range(0, 10, 4):
        for place in range(7):
            for k in range(30):
                cycles += 2 * 4 * any(bool(S[t, place, k]) for t in range(first, min(first + 4, 10)))
    assert parallel_time_batching(S, 25) == cycles


def test_what_no_array_can_beat(step):
    """Rows dealt out are at least the mean; a union of steps is at most their sum and at least the busiest of them."""
    for layer in step.layers[1:]:
        S, N = spike_matrix(layer), len(layer.weight)
        spikes = int(S.sum())
        assert row_parallel(S, N) >= spikes * N / 128
        packed = parallel_time_batching(S, N, packing=0) / (-(-N // 16) * 4)
        assert spikes / 4 <= packed <= spikes
        assert event_driven(S, N) <= dense_array(S[..., 0].numel(), S.shape[-1], N, 1, 1)


def test_silence_makes_events_free_and_leaves_look_ups_as_they_are(step):
    layer = step.layers[1]
    S = spike_matrix(layer)
    assert event_driven(torch.zeros_like(S), 20) == row_parallel(torch.zeros_like(S), 20) == 0
    found = simulate(works_of(step, REF_S), REF_S)
    assert found.layers[1].forward.compute == -(-108 // 8 // 32) * max(6 * 16, 16)


def test_a_matrix_of_spikes_is_wanted(step):
    with pytest.raises(ValueError, match=r"0\.module: reads real in 1 groups; expected spikes in one group"):
        spike_matrix(step.layers[0])
