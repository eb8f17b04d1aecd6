"""What single neurons of the zoo are known for."""

import pytest
import torch

import rheobase as rb
from rheobase.neurons import (
    ALIF,
    BRF,
    CLIF,
    EIF,
    GLIF,
    KLIF,
    LIF,
    QIF,
    RF,
    TCLIF,
    AdEx,
    AdLIF,
    CubaLI,
    CubaLIF,
    Izhikevich,
)


def times(neuron, current, T):
    """Steps at which a neuron under constant current fires."""
    return neuron(torch.full((T, 1, 1), current)).flatten().nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("neuron", "current"), [(ALIF(), 0.3), (AdEx(), 2.0), (Izhikevich(), 10.0)], ids=["alif", "adex", "izhikevich"]
)
def test_adapting_neurons_fire_ever_more_slowly(neuron, current):
    gaps = torch.tensor(times(neuron, current, 600)).diff()
    assert len(gaps) >= 4
    assert gaps[1:].float().mean() > 1.2 * gaps[0]


def test_regular_spiking_and_fast_spiking_of_izhikevich():
    """Fast spiking cells (a = 0.1, d = 2) fire more often and hardly adapt."""
    regular, fast = times(Izhikevich(), 10.0, 500), times(Izhikevich(a=0.1, d=2.0), 10.0, 500)
    assert len(fast) > 2 * len(regular)


def test_rest_is_rest():
    """Without input nothing happens, and the membrane stays within a few percent of where it is."""
    for neuron in (QIF(), EIF(), AdEx(), CLIF(), TCLIF(), RF(), BRF(), ALIF(), AdLIF(), KLIF(), CubaLIF()):
        y, state = neuron.sequence(torch.zeros(50, 1, 3), None)
        assert not y.any()
        assert all(s.abs().max() < 0.05 for s in state)


def test_rheobase_of_the_exponential_neuron():
    """Constant current below rheobase - sharpness never fires it, above it does."""
    assert not times(EIF(tau=20.0), 0.55, 2000)
    assert times(EIF(tau=20.0), 0.65, 2000)


def test_a_quadratic_neuron_runs_away_from_the_critical_voltage():
    neuron, x = QIF(tau=10.0), torch.zeros(200, 1, 1)
    below, above = (neuron.sequence(x, (torch.full((1, 1), v),))[0] for v in (0.45, 0.55))
    assert not below.any()
    assert above.any()


@pytest.mark.parametrize(
    ("make", "omega"),
    [(lambda w: RF(damping=0.02, omega=w, threshold=1e9), 0.5), (lambda w: BRF(1.0, w, threshold=1e9), 20.0)],
    ids=["rf", "brf"],
)
def test_resonators_prefer_their_own_frequency(make, omega):
    neuron, t = make(omega), torch.arange(400.0).reshape(-1, 1, 1)
    step = 0.01 if isinstance(neuron, BRF) else 1.0

    def swing(w):
        x = torch.sin(w * step * t)
        return max(neuron.sequence(x[:n], None)[1][0].abs().max().item() for n in range(380, 400))

    assert swing(omega) > 2 * swing(omega / 2)
    assert swing(omega) > 2 * swing(omega * 2)


def test_balanced_resonator_neither_grows_nor_fires_on_after_its_input():
    y, (u, v, q) = BRF().sequence(torch.cat([torch.full((20, 1, 1), 50.0), torch.zeros(980, 1, 1)]), None)
    assert y[:20].any()
    assert not y[-500:].any()
    assert max(s.abs().max().item() for s in (u, v, q)) < 1e-3


def test_a_resonator_is_reset_to_i():
    y, (u, v) = RF(threshold=0.5).sequence(torch.tensor([3.0, 0.0]).reshape(2, 1, 1), None)
    assert y.flatten().tolist() == [0, 1]
    assert (u.item(), v.item()) == (0.0, 0.5)


def test_the_complementary_potential_deepens_the_reset():
    """After one spike m is one, so the membrane falls by threshold + sigmoid(1)."""
    _, (v, m) = CLIF().sequence(torch.full((1, 1, 1), 1.5), None)
    assert m.item() == 1
    assert v.item() == pytest.approx(1.5 - 1 - torch.tensor(1.0).sigmoid().item())


def test_symplectic_adaptation_reads_the_new_membrane():
    """The first step from rest already moves w: (1 - beta) a u, which the explicit Euler method leaves at zero."""
    _, (u, w) = AdLIF().sequence(torch.full((1, 1, 1), 0.5), None)
    assert w.item() == pytest.approx((1 - torch.tensor(-1 / 60).exp().item()) * 60 * u.item(), rel=1e-5)


def test_symplectic_adaptation_stays_bounded_where_explicit_euler_grows():
    """A stiff oscillation, a = 400: below threshold the symplectic step does not blow up."""
    x = torch.zeros(400, 1, 1)
    x[0] = 1.0
    _, (u, w) = AdLIF(tau=20.0, tau_w=60.0, a=400.0, threshold=1e9).sequence(x, None)
    assert max(u.abs().item(), w.abs().item()) < 1

    alpha, beta = torch.tensor(-1 / 20).exp().item(), torch.tensor(-1 / 60).exp().item()
    u = w = 0.0
    for drive in x.flatten().tolist():
        u, w = alpha * u + (1 - alpha) * (drive - w), beta * w + (1 - beta) * 400.0 * u
    assert max(abs(u), abs(w)) > 10


def test_gates_choose_the_kind_of_neuron():
    """All gates near one: exponential decay, the conductance, reset to zero. Near zero: linear leak, subtraction."""
    almost, x = 1e-6, torch.randn(8, 2, 30)
    one = GLIF(1 - almost, 1 - almost, 1 - almost, decay=0.5, conductance=0.7, threshold=0.4)
    v, expected = torch.zeros(2, 30), []
    for current in x:
        h = v + 0.7 * current
        expected.append((h >= 0.4).float())
        v = 0.5 * h * (1 - expected[-1])
    assert torch.equal(one(x), torch.stack(expected))
    zero = GLIF(almost, almost, almost, leak=0.1, drop=0.3, threshold=0.4)
    v, expected = torch.zeros(2, 30), []
    for current in x:
        h = v - 0.1 + current
        expected.append((h >= 0.4).float())
        v = h - 0.3 * expected[-1]
    assert torch.equal(zero(x), torch.stack(expected))


def test_klif_of_slope_one_is_a_rectified_lif():
    x = torch.rand(6, 2, 30) * 3
    assert torch.equal(KLIF(k=1.0)(x), LIF()(x))


def test_two_compartments_remember_longer_than_one():
    """An early input still raises the soma when that of a LIF is long forgotten."""
    x = torch.zeros(30, 1, 1)
    x[0] = 0.5
    (_, soma), (v,) = TCLIF(0.01, 0.02, threshold=10.0).sequence(x, None)[1], LIF(threshold=10.0).sequence(x, None)[1]
    assert soma.item() > 100 * v.item()


def test_a_readout_is_the_membrane_of_the_spiking_neuron():
    x = torch.randn(9, 2, 5)
    y, (_, v) = CubaLI().sequence(x, None)
    assert torch.equal(y[-1], v)
    assert torch.equal(CubaLIF(threshold=1e9).sequence(x, None)[1][1], v)
    assert CubaLI().emits == "real"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GLIF(leak_gate=1.0), "GLIF: leak_gate is 1.0; expected a number between 0 and 1"),
        (lambda: TCLIF(beta_soma=0.0), "TCLIF: beta_soma is 0.0"),
        (lambda: BRF(omega=200.0), "dt \\* omega is 2; expected below 1"),
        (lambda: BRF(omega=torch.tensor([1.0, 200.0])), "dt \\* omega is 2; expected below 1"),
        (lambda: EIF(sharpness=0.0), "EIF: sharpness is 0.0"),
        (lambda: KLIF(k=-1.0), "KLIF: k is -1.0"),
        (lambda: rb.neurons.StochasticLIF(width=0.0), "StochasticLIF: width is 0.0"),
    ],
)
def test_values_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
