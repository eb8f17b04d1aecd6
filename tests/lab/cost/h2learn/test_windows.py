"""Open windows of surrogates: from the fused engine, from nothing where none closes, else from plain code."""

import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

import rheobase as rb
from rheobase.lab.cost.h2learn import windows
from rheobase.lab.cost.h2learn.windows import noise_of, open_windows
from rheobase.neurons import (
    CLIF,
    EIF,
    IF,
    LIF,
    PSN,
    Atan,
    FastSigmoid,
    Gaussian,
    IterativeLIF,
    Neuron,
    Rectangle,
    Sigmoid,
    StochasticLIF,
    Triangle,
    create_neuron,
)
from rheobase.nn import Recurrent, TdBN
from rheobase.nn.fuse import run

pytestmark = pytest.mark.usefixtures("one_thread")

SURROGATES = [
    *(Rectangle(), Rectangle(0.25), Triangle(), Triangle(0.3)),
    *(Atan(), FastSigmoid(), Sigmoid(), Sigmoid(40.0), Gaussian(), Gaussian(0.01)),
]


def sequence(dtype=torch.float32, channels_last=True):
    x = (torch.randn(5, 3, 4, 6, 6) * 2).to(dtype)
    return x.movedim(2, -1).contiguous().movedim(-1, 2) if channels_last else x


def plainly(neuron, x, y):
    with torch.no_grad():
        return windows._plain(neuron, x, y)


def check(neuron, x, fused=True):
    """The windows of a neuron equal those of the plain code, bit for bit; returns them."""
    y = run(neuron, x)
    found = open_windows(neuron, x, y, [])
    assert (windows._watcher_of(neuron, y) is not None) == fused
    assert found.dtype == torch.bool
    assert found.shape == y.shape
    assert torch.equal(found, plainly(neuron, x, y))
    return found


@pytest.mark.parametrize("surrogate", SURROGATES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_windows_are_those_of_the_plain_code(surrogate, dtype):
    fused = not isinstance(surrogate, Sigmoid | Gaussian)
    found = check(IterativeLIF(surrogate=surrogate), sequence(dtype), fused)
    if isinstance(surrogate, Atan | FastSigmoid):
        assert found.all()
    elif surrogate not in (Gaussian(), Sigmoid()):
        assert 0.01 < found.float().mean() < 0.95


@pytest.mark.parametrize("name", ["adlif", "cuba_lif", "glif", "if", "plif", "tc_lif"])
@pytest.mark.parametrize("surrogate", [Rectangle(0.75), Triangle(0.5)], ids=str)
def test_windows_of_other_neurons(name, surrogate):
    neuron = create_neuron(name, surrogate=surrogate)
    found = check(neuron, sequence(), windows._watcher_of(neuron, torch.zeros(1)) is not None)
    assert found.any()
    assert not found.all()


def test_which_neurons_run_fused():
    """Those whose plain code rounds as the engine does; an exponential does not."""
    y = torch.zeros(1)
    for neuron, fused in (
        *((LIF(surrogate=Rectangle()), True), (IF(surrogate=Triangle()), True), (LIF(surrogate=Sigmoid()), False)),
        *((CLIF(), False), (EIF(surrogate=Rectangle()), False), (PSN(4, surrogate=Rectangle()), False)),
        (Recurrent(LIF(surrogate=Rectangle()), nn.Linear(4, 4)), False),
    ):
        assert (windows._watcher_of(neuron, y) is not None) == fused, neuron
        with rb.engine("reference"):
            assert windows._watcher_of(neuron, y) is None


@pytest.mark.parametrize("neuron", [CLIF(), EIF(surrogate=Rectangle()), PSN(5, surrogate=Rectangle())], ids=str)
def test_windows_of_neurons_that_do_not_run_fused(neuron):
    assert not check(neuron, sequence(), fused=False).all()


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_windows_behind_a_fused_norm(dtype, plus, channels_last):
    """In half formats the norm's value is not rounded before it enters the neuron, so plain code is given it whole."""
    norm, neuron = TdBN(4).to(torch.float64 if dtype == torch.float64 else torch.float32), IterativeLIF()
    x, other = sequence(dtype, channels_last), sequence(dtype, channels_last)

    def waiting(x, other):
        found = run(norm, x)
        return replace(found, plus=other) if plus else found

    normed = waiting(x, other)
    y = neuron(normed)
    found = open_windows(neuron, normed, y, [])
    whole = waiting(x, other) if dtype == torch.float64 else waiting(x.float(), other.float())
    assert torch.equal(found, plainly(neuron, whole, y))
    assert found.any()
    assert not found.all()


def test_windows_of_an_image_that_all_steps_share():
    image = torch.randn(1, 3, 4, 6, 6).expand(5, 3, 4, 6, 6)
    check(LIF(surrogate=Rectangle()), image)
    norm, neuron = TdBN(4), LIF(surrogate=Rectangle())
    check(neuron, norm.waiting(image))


def test_windows_with_parameters_for_each_channel():
    threshold = nn.Parameter(torch.tensor([0.5, 1.0, 1.5, 2.0]).view(4, 1, 1))
    neuron = LIF(tau=torch.tensor(3.0), threshold=threshold, surrogate=Rectangle(), reset="subtract")
    found = check(neuron, sequence())
    assert not found.requires_grad
    assert threshold.grad is None


def test_windows_follow_the_noise_of_the_run():
    neuron = StochasticLIF(surrogate=Rectangle(), generator=torch.Generator())
    x = sequence()
    noise = noise_of(neuron, x)
    y = neuron(x)
    after = neuron.generator.get_state()
    found = open_windows(neuron, x, y, noise)
    assert torch.equal(neuron.generator.get_state(), after)
    with rb.engine("reference"):
        assert torch.equal(found, open_windows(neuron, x, y, noise))
    assert not torch.equal(noise[0][1], after)


def test_the_neuron_stays_as_it_was():
    neuron, x = IterativeLIF(), sequence()
    scan, constants = neuron.scan, dict(neuron.scan.constants)
    y = neuron(x)
    open_windows(neuron, x, y, [])
    assert neuron.scan is scan
    assert scan.constants == constants
    assert torch.equal(neuron(x), y)


def test_a_window_is_open_if_one_of_two_surrogates_is():
    @rb.step(state={"v": 0.0})
    def two(x, v, *, narrow, wide):
        h = v + x
        return narrow(h - 1) * wide(h - 3), (h * 0.5,)

    found = check(Neuron(two, narrow=Rectangle(0.5), wide=Triangle(0.25)), sequence())
    h, v = [], 0.0
    torch.manual_seed(0)
    for x in sequence():
        h.append(v + x)
        v = h[-1] * 0.5
    h = torch.stack(h)
    assert torch.equal(found, ((h - 1).abs() < 0.25) | ((h - 3).abs() < 0.25))


def test_what_cannot_be_traced_runs_as_plain_code():
    @rb.step(state={"v": 0.0}, fallback="reference")
    def normalised(x, v, *, spike):
        h = v + x / (1 + x.abs().amax(-1, keepdim=True))
        s = spike(h - 0.5)
        return s, (h * (1 - s),)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        neuron = Neuron(normalised, spike=Rectangle(0.5))
    assert not neuron.scan.fused
    found = check(neuron, sequence(), fused=False)
    assert found.any()
    assert not found.all()


def test_a_surrogate_that_is_not_called_says_nothing():
    @rb.step(state={"v": 0.0})
    def silent(x, v, *, spike):
        return v + x, (v + x,)

    neuron, x = Neuron(silent, spike=Rectangle()), sequence()
    assert windows._watcher_of(neuron, x) is None
    assert open_windows(neuron, x, neuron(x), []) is None


class Flat:
    """A derivative that is no `Surrogate`, of one height up to the width."""

    def derivative(self, x):
        return torch.where(x.abs() <= 0.5, 0.5, 0.0).to(x.dtype)

    def __call__(self, x, strict=False):
        return rb.scan.spike(x, self, strict)


def test_any_derivative_has_windows():
    @rb.step(state={"v": 0.0})
    def integrate(x, v, *, spike):
        s = spike(v + x - 1)
        return s, ((v + x) * (1 - s),)

    found = check(Neuron(integrate, spike=Flat()), sequence())
    assert found.any()
    assert not found.all()


def test_open_everywhere_costs_no_memory():
    neuron, x = LIF(surrogate=Atan()), sequence()
    found = open_windows(neuron, x, neuron(x), [])
    assert found.untyped_storage().nbytes() == 1
    assert torch.equal(found, plainly(neuron, x, neuron(x)))
    flat = LIF(surrogate=Atan(0.0))
    assert not open_windows(flat, x, flat(x), []).any()
