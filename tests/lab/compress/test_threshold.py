import math
from itertools import pairwise

import pytest

from rheobase.lab.compress import from_rates, lats, pgh, pressure, s_lats, thresholds


def cosine(n, per_epoch=1):
    return [(1 + math.cos(math.pi * (k // per_epoch) / (n // per_epoch))) / 2 for k in range(n)]


@pytest.mark.parametrize("epochs", [1, 2, 7, 100])
def test_lats_base_is_the_running_sum(epochs):
    for n in range(epochs + 1):
        running = math.fsum((1 + math.cos(k * math.pi / epochs)) / (epochs + 1) for k in range(n))
        assert lats(n, 0, epochs, 10) == pytest.approx(running, abs=1e-12)
    assert lats(0, 0, epochs, 10) == pytest.approx(0, abs=1e-12)
    assert lats(epochs, 0, epochs, 10) == pytest.approx(1, abs=1e-12)


def test_lats_has_no_jump_between_epochs():
    for n in range(10):
        assert lats(n, 25, 10, 25) == pytest.approx(lats(n + 1, 0, 10, 25), abs=1e-12)


def test_published_values_of_the_closed_forms():
    assert s_lats(0.5) == pytest.approx(0.8183, abs=5e-5)
    assert lats(50, 0, 100, 1) == pytest.approx(0.8151, abs=5e-5)
    assert max(abs(s_lats(n / 100) - lats(n, 0, 100, 1)) for n in range(101)) == pytest.approx(0.0036, abs=5e-5)
    assert [pgh(x, 0.1) for x in (0.1, 0.2, 0.3)] == pytest.approx([0.318, 0.558, 0.731], abs=5e-4)


@pytest.mark.parametrize("name", ["lats", "lats-closed", "s-lats", "pgh", "linear", "sine"])
def test_every_schedule_rises_from_0_to_1(name):
    found = thresholds(name, cosine(120, 10), 10)
    assert len(found) == 121
    assert found[0] == pytest.approx(0, abs=1e-12)
    assert found[-1] == pytest.approx(1, abs=1e-12)
    assert all(b >= a for a, b in pairwise(found))


def test_constant_stays_at_1():
    assert thresholds("constant", cosine(4), 1) == [1.0] * 5


def test_lats_keeps_the_pressure_constant_whatever_the_rates_do():
    rates = [0.1 * (k + 1) for k in range(5)] + cosine(50)[:-1] + [0.3] * 7
    found = pressure(from_rates(rates), rates, D=2.0)
    assert found == pytest.approx([2.0 / math.fsum(rates)] * len(rates), rel=1e-9)


def test_s_lats_keeps_it_constant_for_a_cosine_and_pgh_lets_it_fall():
    n = 4000
    rates = [(1 + math.cos(math.pi * (k + 0.5) / n)) / 2 for k in range(n)]
    inner = slice(0, int(0.95 * n))
    flat = pressure(thresholds("s-lats", rates, 1), rates, 1.0)[inner]
    assert max(flat) / min(flat) == pytest.approx(1, abs=1e-3)
    falling = pressure(thresholds("pgh", rates, 1, beta=0.1), rates, 1.0)[inner]
    scaled = [value / 0.1 ** ((k + 0.5) / n) for k, value in enumerate(falling)]
    assert max(scaled) / min(scaled) == pytest.approx(1, abs=1e-3)


def test_linear_lets_it_grow_without_bound():
    n = 4000
    rates = [(1 + math.cos(math.pi * k / n)) / 2 for k in range(n)]
    found = pressure(thresholds("linear", rates, 1), rates, float(n))
    assert found[int(0.05 * n)] == pytest.approx(1.0, abs=0.01)
    assert found[int(0.95 * n)] == pytest.approx(162, abs=1)


def test_beta_1_is_s_lats():
    assert pgh(0.4, 1.0) == s_lats(0.4)
    assert pgh(0.4, 1.0001) == pytest.approx(s_lats(0.4), abs=1e-4)


def test_bad_schedules_are_refused():
    with pytest.raises(ValueError, match="there is no schedule 'square'"):
        thresholds("square", [1.0], 1)
    with pytest.raises(ValueError, match="beta is 0"):
        pgh(0.5, 0.0)
    with pytest.raises(ValueError, match="add up to 0"):
        from_rates([0.0, 0.0])
