"""Exact properties of the converter and the flipper, and what an attack keeps to."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rheobase as rb
from rheobase.data import direct, poisson
from rheobase.lab.attack import (
    SpikeAttack,
    attack_coded,
    attack_events,
    convert,
    flip,
    fooled,
    is_fooled,
    is_silent,
    update,
    within_budget,
)
from rheobase.lab.attack.trap import input_gradient
from rheobase.models import create_model

SHAPE = (3, 4, 2, 3, 3)
"""T, B and a sample."""


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def bits(seed, density=0.5):
    return (torch.rand(SHAPE, generator=seeded(seed)) < density).float()


def is_binary(x):
    return bool(((x == 0) | (x == 1)).all())


@given(st.integers(0, 10000), st.floats(0, 1), st.sampled_from([0.0, 0.05, 1.0]))
@settings(deadline=None, max_examples=40)
def test_changed_spikes_are_spikes(seed, density, turnover):
    x = bits(seed, density)
    gradient = torch.randn(SHAPE, generator=seeded(seed + 1)) * 10.0 ** (seed % 9 - 4)
    gradient[:, seed % 4] = 0
    delta = update(gradient, x, turnover, seeded(seed))
    assert set(delta.unique().tolist()) <= {-1.0, 0.0, 1.0}
    assert is_binary(x + delta)


def test_the_largest_gradient_is_always_taken_and_the_sign_is_kept():
    x = bits(0)
    for seed in range(50):
        gradient = torch.randn(SHAPE, generator=seeded(seed))
        delta = convert(gradient, x, seeded(seed))
        moved = delta != 0
        assert torch.equal(delta[moved], gradient.sign()[moved])
        for b in range(SHAPE[1]):
            peak = gradient[:, b].abs() == gradient[:, b].abs().max()
            free = (gradient[:, b] > 0) != (x[:, b] > 0)
            assert torch.equal(moved[:, b][peak & free], torch.ones_like(peak)[peak & free])
        assert not moved[(gradient > 0) & (x == 1)].any()  # they would overflow
        assert not moved[(gradient < 0) & (x == 0)].any()


def test_the_share_that_is_taken_is_the_share_of_the_largest_gradient():
    """Chi-square of the counts over 2000 draws; its 0.1 % quantile for eight cells is 26."""
    shares = torch.tensor([1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8, 1.0])
    gradient = -3.0 * shares.view(1, 1, 8).repeat(1, 2000, 1)  # a sample a draw
    hits = -convert(gradient, torch.ones_like(gradient), seeded(1))[0].sum(0)
    assert hits[-1] == 2000
    expected = 2000 * shares[:-1]
    assert ((hits[:-1] - expected).square() / (expected * (1 - shares[:-1]))).sum() < 26


def test_each_sample_has_its_own_maximum():
    gradient = torch.rand(2, 2, 50, generator=seeded())
    gradient[:, 1] *= 1e-6
    delta = convert(gradient, torch.zeros(2, 2, 50), seeded(1))
    assert delta[:, 0].sum() > 20
    assert delta[:, 1].sum() > 20


def test_the_flipper_turns_a_share_of_all_bits():
    x = (torch.rand(10, 40, 50, generator=seeded()) < 0.1).float()
    delta = flip(x, 0.05, seeded(1))
    assert is_binary(x + delta)
    n = 500
    counts = delta.abs().sum((0, 2))
    assert abs(counts.mean().item() - 0.05 * n) < 4 * math.sqrt(0.05 * 0.95 * n / 40)
    assert abs(counts.var().item() / (0.05 * 0.95 * n) - 1) < 4 * math.sqrt(2 / 39)
    assert torch.equal(x + flip(x, 1.0), 1 - x)
    assert not flip(x, 0.0).any()


def test_only_samples_without_any_gradient_are_flipped():
    x, gradient = torch.zeros(4, 3, 100), torch.zeros(4, 3, 100)
    gradient[2, 1, 7] = -1.0  # of a zero: nothing can follow it, and nothing is flipped
    gradient[2, 2, 7] = 1e-30
    assert is_silent(gradient).tolist() == [True, False, False]
    delta = update(gradient, x, 0.5, seeded())
    assert delta[:, 0].sum() > 100
    assert not delta[:, 1].any()
    assert delta[:, 2].sum() == delta[2, 2, 7] == 1
    assert not update(gradient, x, 0.0, seeded())[:, 0].any()


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_a_budget_is_kept_and_the_best_flips_stay(seed):
    clean, x = bits(seed), bits(seed + 1)
    gradient = torch.randn(SHAPE, generator=seeded(seed))
    budget = torch.tensor([0, 3, 7, 1000])
    kept = within_budget(x, clean, budget, gradient, seeded(seed))
    assert is_binary(kept)
    for b in range(4):
        was, now = x[:, b] != clean[:, b], kept[:, b] != clean[:, b]
        assert int(now.sum()) == min(int(was.sum()), int(budget[b]))
        assert not (now & ~was).any()
        liked = (x - clean)[:, b] * gradient[:, b]
        if now.any() and (was & ~now).any():
            assert liked[now].min() >= liked[was & ~now].max()


def test_a_budget_without_any_gradient_keeps_a_random_choice():
    clean, x = torch.zeros(5, 1, 20), torch.ones(5, 1, 20)
    nothing, budget = torch.zeros(5, 1, 20), torch.tensor([10])
    one, two = (within_budget(x, clean, budget, nothing, seeded(k)) for k in (0, 1))
    assert one.sum() == two.sum() == 10
    assert not torch.equal(one, two)


def test_success_needs_one_largest_output():
    outputs = torch.tensor([[0.2, 0.4, 0.4], [0.2, 0.5, 0.4], [0.5, 0.2, 0.4]])
    y = torch.zeros(3, dtype=torch.int64)
    assert is_fooled(outputs, y).tolist() == [False, True, False]
    assert is_fooled(outputs, y, torch.full((3,), 2)).tolist() == [False, False, False]


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(
    "how", [SpikeAttack(), SpikeAttack(threshold=1.0), SpikeAttack(surrogate=rb.neurons.Sigmoid(2.0))]
)
def test_an_event_input_stays_legal_and_the_victim_is_fooled(victim, events, how, targeted):
    x, y = events
    target = 1 - y if targeted else None
    state = {name: value.clone() for name, value in victim.state_dict().items()}
    found = attack_events(victim, x, y, replace(how, iterations=10), target=target, generator=seeded())
    assert found.x.shape == x.shape
    assert is_binary(found.x)
    assert found.success.float().mean() > 0.5
    assert torch.equal(fooled(victim, found.x, y, target) & found.attacked, found.success)
    assert torch.equal(found.x[:, found.wrong], x[:, found.wrong])
    flipped = (found.x != x).transpose(0, 1).flatten(1).float().mean(1)
    torch.testing.assert_close(found.perturbation, flipped)
    torch.testing.assert_close(found.length, (flipped * 384).sqrt() / 384)
    assert (found.iterations[found.attacked] >= 1).all()
    assert (found.silent <= found.iterations).all()
    assert all(torch.equal(value, state[name]) for name, value in victim.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in victim.parameters())


def test_each_iteration_is_legal(victim, events, monkeypatch):
    from rheobase.lab.attack import spikes

    seen, plain = [], spikes.update

    def watched(gradient, x, *rest):
        seen.append((x.clone(), plain(gradient, x, *rest)))
        return seen[-1][1]

    monkeypatch.setattr(spikes, "update", watched)
    x, y = events
    attack_events(victim, x, y, SpikeAttack(iterations=5), target=torch.full_like(y, 2), generator=seeded())
    assert len(seen) == 5
    for before, delta in seen:
        assert is_binary(before)
        assert is_binary(before + delta)
        assert set(delta.unique().tolist()) <= {-1.0, 0.0, 1.0}


def test_a_budget_holds_to_the_end(victim, events):
    x, y = events
    budget = (x.sum((0, 2, 3, 4)) / 4).long()
    found = attack_events(victim, x, y, SpikeAttack(threshold=1.0), budget=budget, generator=seeded())
    assert ((found.x != x).sum((0, 2, 3, 4)) <= budget).all()
    assert is_binary(found.x)
    assert found.success.any()


def test_a_sample_beyond_the_limit_has_failed(victim, events):
    x, y = events
    free = attack_events(victim, x, y, generator=seeded())
    limit = float(free.perturbation[free.success].median())
    found = attack_events(victim, x, y, SpikeAttack(limit=limit), generator=seeded())
    assert (found.perturbation[found.success] <= limit).all()
    assert 0 < int(found.success.sum()) < int(free.success.sum())


def test_equal_generators_give_equal_attacks(victim, events, images):
    x, y = events
    one, two, three = (attack_events(victim, x, y, generator=seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(one.x, two.x)
    assert not torch.equal(one.x, three.x)
    encode = partial(coded, T=6)
    one, two = (attack_coded(victim, *images, encode, generator=seeded(5)) for _ in "ab")
    assert torch.equal(one.x, two.x)
    assert torch.equal(one.success, two.success)


def coded(x, generator, T):
    return poisson(x, T, generator)


@pytest.mark.parametrize("how", [SpikeAttack(threshold=1.0), SpikeAttack(encodings=2, checks=3)])
def test_an_image_stays_an_image(victim, images, how):
    x, y = images
    found = attack_coded(victim, x, y, partial(coded, T=6), how, generator=seeded())
    assert found.x.shape == x.shape
    assert 0 <= float(found.x.min()) <= float(found.x.max()) <= 1
    assert found.success.float().mean() > 0.5
    torch.testing.assert_close(found.perturbation, (found.x - x).square().flatten(1).mean(1))


def test_the_pull_back_makes_the_change_smaller(victim, images):
    x, y = images
    target = torch.full_like(y, 2)
    hard = SpikeAttack(iterations=8, threshold=1.0)
    free, pulled = (
        attack_coded(victim, x, y, partial(coded, T=6), replace(hard, pull=c), target=target, generator=seeded())
        for c in (0.0, 0.3)
    )
    assert pulled.perturbation.mean() < free.perturbation.mean()


def test_one_image_step_is_the_mean_over_time_of_what_was_flipped(victim, images):
    x, y = images
    keep = []

    def encode(images, generator):
        keep.append(poisson(images, 6, generator))
        return keep[-1]

    found = attack_coded(victim, x, y, encode, SpikeAttack(iterations=1), generator=seeded())
    right = found.attacked
    change = (found.x - x)[right] * 6
    inside = (found.x > 0)[right] & (found.x < 1)[right]
    torch.testing.assert_close(change[inside], change[inside].round(), atol=1e-4, rtol=0)
    assert change.abs().max() >= 1


def test_gradients_are_those_of_the_plain_steps(victim, events):
    x, y = events
    with rb.engine("reference"), rb.packing(False):
        expected = input_gradient(victim, x, y)
    torch.testing.assert_close(input_gradient(victim, x, y), expected)
    assert expected.abs().sum() > 0


@pytest.mark.usefixtures("untyped")
def test_what_is_no_attack_raises(victim, events, images):
    x, y = events
    with pytest.raises(ValueError, match="x holds values from 0 to 2, not spikes alone"):
        attack_events(victim, x * 2, y)
    with pytest.raises(ValueError, match="a target is the class of its sample"):
        attack_events(victim, x, y, target=y)
    with pytest.raises(ValueError, match="images lie in 0"):
        attack_coded(victim, images[0] * 3, y, partial(coded, T=6))
    with pytest.raises(ValueError, match="which are no spikes; attack direct input by"):
        attack_coded(victim, images[0], y, lambda x, _: direct(x, 6))
    for name, value in (("iterations", 0), ("turnover", 2.0), ("threshold", 0.0), ("window", "x"), ("loss", "hinge"),
                        ("pull", -1.0), ("limit", 0.0), ("encodings", 0), ("checks", 0)):  # fmt: skip
        with pytest.raises(ValueError, match=f"SpikeAttack: {name} is"):
            SpikeAttack(**{name: value})


def test_the_network_of_the_paper_takes_one_batch():
    """A smoke test: one iteration on one sample, a network untrained."""
    model = create_model("wide_pooled_snn", width=8)
    x = (torch.rand(2, 2, 1, 28, 28, generator=seeded()) < 0.3).float()
    with torch.no_grad():
        y = model.eval()(x).mean(0).argmax(1)
    found = attack_events(model, x, y, SpikeAttack(iterations=1, threshold=1.0), generator=seeded())
    assert is_binary(found.x)
