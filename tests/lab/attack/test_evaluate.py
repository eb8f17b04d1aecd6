import pytest
import torch
from scipy.stats import binomtest

from rheobase.lab.attack import (
    Share,
    SpikeAttack,
    attack_events,
    fooled,
    fooled_by_chance,
    random_flips,
    success_curve,
    transferred,
    wilson,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (10, 10), (3, 10), (480, 500)])
def test_intervals_are_those_of_scipy(hits, count):
    found = binomtest(hits, count).proportion_ci(method="wilson")
    assert wilson(hits, count) == pytest.approx((found.low, found.high))


def test_intervals_at_the_edges():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 5)[0] == 0
    with pytest.raises(ValueError, match="4 hits of 3"):
        wilson(4, 3)
    share = Share.of(torch.tensor([True, True, False]), torch.tensor([True, False, True]))
    assert (share.hits, share.count, share.value) == (1, 2, 0.5)
    assert share.interval == wilson(1, 2)


def test_random_flips_are_as_many_as_asked_for():
    x = (torch.rand(5, 3, 2, 4) < 0.2).float()
    counts = torch.tensor([0, 7, 40])
    found = random_flips(x, counts, seeded())
    assert torch.equal((found != x).sum((0, 2, 3)), counts)
    assert ((found == 0) | (found == 1)).all()
    other = random_flips(x, counts, seeded(1))
    assert not torch.equal(found[:, 1], other[:, 1])


def test_the_curve_rises_to_the_success(victim, events):
    x, y = events
    found = attack_events(victim, x, y, generator=seeded())
    shares = [share.value for share in success_curve(found, [0.0, 0.05, 0.1, 0.2, 1.0])]
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert shares[-1] == Share.of(found.success, found.attacked).value


def test_chance_does_worse_than_the_attack(victim, events):
    x, y = events
    budget = (x.sum((0, 2, 3, 4)) / 2).long()
    found = attack_events(victim, x, y, SpikeAttack(threshold=1.0), budget=budget, generator=seeded())
    once = fooled_by_chance(victim, x, y, found, generator=seeded())
    often = fooled_by_chance(victim, x, y, found, tries=5, generator=seeded())
    assert once.count == int(found.attacked.sum())
    assert once.hits <= often.hits
    assert once.value < Share.of(found.success, found.attacked).value


def test_transfer_counts_what_the_other_model_knew(victim, events):
    x, y = events
    found = attack_events(victim, x, y, generator=seeded())
    share = transferred(victim, x, found.x, y)
    assert share.count == int(found.attacked.sum())
    assert share.hits >= int(found.success.sum())
    assert fooled(victim, x, y).sum() <= found.wrong.sum()
    assert transferred(victim, x, x, y).hits == 0
