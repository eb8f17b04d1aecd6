import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheobase.train import constant, cosine, schedule, step_decay

lengths = st.integers(1, 300).flatmap(lambda total: st.tuples(st.just(total), st.integers(0, total)))


@given(lengths, st.sampled_from([constant, cosine, step_decay]))
def test_warm_up_is_linear_and_reaches_one(length, function):
    total, warmup = length
    assert [function(at, total, warmup) for at in range(warmup)] == [(at + 1) / warmup for at in range(warmup)]


@pytest.mark.parametrize("function", [constant, cosine, step_decay])
def test_warm_up_rises_from_its_start(function):
    assert [function(at, 9, 4, start=0.2) for at in range(5)] == pytest.approx([0.4, 0.6, 0.8, 1.0, 1.0])


def test_cosine_ends_at_its_floor_and_stays_there():
    factors = [cosine(at, 8, 1, floor=0.1, cooldown=3) for at in range(8)]
    plain = [cosine(at, 5, 1) for at in range(5)]
    assert factors[:5] == pytest.approx([1.0] + [0.1 + 0.9 * factor for factor in plain[1:]])
    assert factors[5:] == [0.1] * 3
    assert cosine(9, 10, 10) == 1
    for cooldown in (-1, 8):
        with pytest.raises(ValueError, match=f"a cool-down of {cooldown} steps does not fit 8 steps"):
            cosine(0, 8, 1, cooldown=cooldown)


@given(lengths)
def test_cosine_falls_from_one_towards_zero(length):
    total, warmup = length
    factors = [cosine(at, total, warmup) for at in range(warmup, total)]
    assert all(0 < factor <= 1 for factor in factors)
    assert all(later < earlier for earlier, later in itertools.pairwise(factors))
    if factors:
        assert factors[0] == 1
        mirrored = [1 - f for f in factors[:0:-1]]  # cos is odd about the middle
        assert factors[1:] == pytest.approx(mirrored, abs=1e-9)


def test_cosine_by_hand():
    assert [cosine(at, 6, 2) for at in range(6)] == pytest.approx(
        [0.5, 1.0, 1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]
    )


@given(lengths)
def test_constant_stays(length):
    total, warmup = length
    assert {constant(at, total, warmup) for at in range(warmup, total)} <= {1.0}


def test_step_decays_at_each_milestone():
    factors = [step_decay(at, 6, 0, milestones=(2, 4), gamma=0.5) for at in range(6)]
    assert factors == [1, 1, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("function", [constant, cosine, step_decay])
@pytest.mark.parametrize(
    ("at", "warmup", "says"), [(-1, 0, "step -1"), (10, 0, "outside 0 .. 9"), (0, 11, "11 steps"), (0, -1, "-1 steps")]
)
def test_rejects_what_lies_outside(function, at, warmup, says):
    with pytest.raises(ValueError, match=says):
        function(at, 10, warmup)


def test_lookup():
    assert [schedule(name) for name in ("constant", "cosine", "step")] == [constant, cosine, step_decay]
    with pytest.raises(ValueError, match="'linear'; choose one of constant, cosine, step"):
        schedule("linear")
