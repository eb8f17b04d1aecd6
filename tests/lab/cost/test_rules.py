"""Rules that count what met, what neurons compute and what memory moves, against the arithmetic by hand."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from rheobase.lab.cost import (
    HOROWITZ,
    RULES,
    Arithmetic,
    Elementwise,
    Level,
    Memory,
    NeuronLayer,
    Operand,
    Operations,
    Product,
    Report,
    Rule,
    energy,
    trace,
)
from rheobase.neurons import IF
from rheobase.nn import PerStep

T = 4
WEIGHT = Operand((8, 16), True, None, 1.0, 128)


def linear(holds="binary", density=0.25, **settings):
    """16 to 8, read by 16 values, with a bias."""
    peak = {"binary": 1.0, "graded": 5.0}.get(holds)
    read = Operand((16,), False, holds, density, 16, peak)
    counts = {"inside": 128, "outputs": 8, "additions": 60.0 if holds != "real" else None, "selected": 0.0}
    return Product("layer", "linear", (read, WEIGHT), 128, 8, 32.0, T, T, **{**counts, **settings})


NEURONS = NeuronLayer("fire", 8, 3.0, 0.1, "binary", 8 * T, Operations(add=1, multiply=2, compare=1, select=1), 2, 1.0)


def report(*products, neurons=(), elementwise=()):
    return Report(products, tuple(neurons), T, 1, tuple(elementwise))


def test_pairs_that_met_are_added_or_multiplied_and_biases_are_added():
    spikes, real = (energy(report(linear(holds)), "exact") for holds in ("binary", "real"))
    assert (spikes.macs, spikes.acs) == (0, T * (32 + 8))
    assert (real.macs, real.acs) == (T * 32, T * 8)
    assert real.total_pJ == pytest.approx(4.6 * T * 32 + 0.9 * T * 8)


def test_a_sum_of_k_spikes_multiplies_or_is_k_additions():
    graded = report(linear("graded"))
    multiplied, added = (energy(graded, rule) for rule in ("exact", "exact-spikes"))
    assert (multiplied.macs, multiplied.acs) == (T * 32, T * 8)
    assert (added.macs, added.acs) == (0, T * (60 + 8))
    assert energy(report(linear("real")), "exact-spikes").macs == T * 32
    with pytest.raises(ValueError, match="graded is 'add' with mac='stem'"):
        replace(RULES["papers"], graded="add")


def test_neurons_cost_what_their_steps_compute():
    found = energy(report(neurons=[NEURONS]), "exact")
    assert found.total_pJ == pytest.approx(8 * T * (0.9 + 2 * 3.7 + 0.9))
    assert energy(report(neurons=[NEURONS]), "strict").total_pJ == 0
    own = replace(RULES["exact"], arithmetic=Arithmetic(1.0, 0.0, 0.0, 10.0, 0.0, 0.0))
    assert energy(report(neurons=[NEURONS]), own).total_pJ == 8 * T * 11
    unknown = replace(NEURONS, operations=None, states=None)
    assert energy(report(neurons=[unknown]), "exact").unpriced == ("fire",)
    assert energy(report(neurons=[unknown]), "strict").unpriced == ()


def test_norms_fold_unless_all_between_counts():
    found = report(elementwise=[Elementwise("norm", 100, 50, 10, 1)])
    assert energy(found, "exact").total_pJ == pytest.approx(10 * 0.9 + 3.7)
    everything = replace(RULES["exact"], between="all")
    assert energy(found, everything).total_pJ == pytest.approx(60 * 0.9 + 101 * 3.7)
    assert energy(found, "strict").between == ()


SMALL = Memory(
    (Level("near", 8.0, 1.0), Level("far", 64.0, 10.0), Level("last", math.inf, 100.0)),
    weight_bits=4,
    value_bits=16,
    state_bits=8,
)


def test_each_operand_moves_once_a_step_at_the_level_where_it_fits():
    """16 bits of spikes and 64 of states fit near, 512 of weights and 128 of sums far."""
    rule = replace(RULES["exact"], memory=SMALL)
    found = energy(report(linear(), neurons=[NEURONS]), rule)
    moved = found.layers[0].traffic
    assert (moved.read, moved.written) == (T * (16 + 4 * 128), T * 16 * 8)
    assert moved.energy_pJ == pytest.approx(T * (16 / 64 * 1 + 512 / 64 * 10 + 128 / 64 * 10))
    assert moved.moved_bytes == T * (16 + 512 + 128) / 8
    layer = found.neurons[0].traffic
    assert (layer.read, layer.written) == (T * (8 * 16 + 2 * 8 * 8), T * (2 * 8 * 8 + 8))
    assert layer.energy_pJ == pytest.approx(T * (128 / 64 * 10 + 2 * 128 / 64 * 10 + 8 / 64 * 1))
    assert found.total_pJ == pytest.approx(
        energy(report(linear(), neurons=[NEURONS]), "exact").total_pJ + found.memory_pJ
    )
    assert found.layers[0].operations_pJ == pytest.approx(0.9 * T * 40)


def test_weights_may_be_read_once_for_all_steps():
    once = replace(RULES["exact"], memory=replace(SMALL, weights_once=True))
    moved = energy(report(linear()), once).layers[0].traffic
    assert moved.read == T * 16 + 4 * 128
    shared = energy(report(linear(once=2)), once).layers[0].traffic
    assert shared.read == T * 16 + 2 * 4 * 128


def test_bits_follow_what_was_held():
    assert [SMALL.bits(*held) for held in (("binary", 1.0), ("graded", 5.0), ("graded", 0.0), ("real", None))] == [
        1,
        3,
        1,
        16,
    ]


def test_larger_buffers_never_cost_more():
    model = nn.Sequential(PerStep(nn.Conv2d(2, 8, 3)), IF(), PerStep(nn.Conv2d(8, 8, 3)))
    found = trace(model, torch.rand(T, 2, 2, 12, 12))
    prices = []
    for factor in (1 / 64, 1 / 8, 1, 64):
        levels = tuple(replace(level, capacity=level.capacity * factor) for level in HOROWITZ.levels)
        prices.append(energy(found, replace(RULES["memory"], memory=replace(HOROWITZ, levels=levels))).memory_pJ)
    assert prices == sorted(prices, reverse=True)
    assert prices[-1] < prices[0]


def test_the_memory_rule_is_the_exact_one_with_memory():
    assert replace(RULES["memory"], memory=None) == RULES["exact"]
    assert [(level.capacity, level.word_pJ) for level in HOROWITZ.levels] == [
        (8192, 10),
        (32768, 20),
        (2**20, 100),
        (math.inf, 1300),
    ]


def test_parts_add_up_on_a_real_trace():
    model = nn.Sequential(PerStep(nn.Conv2d(2, 4, 3)), IF(), PerStep(nn.Sequential(nn.Flatten(), nn.Linear(64, 3))))
    found = energy(trace(model, torch.rand(T, 2, 2, 6, 6)), "memory")
    assert found.total_pJ == pytest.approx(sum(row.operations_pJ + row.traffic.energy_pJ for row in found.everything))
    assert str(found).splitlines()[-1].startswith("sum (memory)")
    assert len(str(found).splitlines()) == 2 + len(found.everything)


def test_rules_that_papers_use_ignore_neurons_and_memory():
    for name in ("papers", "papers-T", "strict", "spikingformer-tool"):
        rule = RULES[name]
        assert (rule.neurons, rule.between, rule.memory, rule.pairs) == (False, "free", None, "dense")
        assert rule == Rule(rule.mac, rule.stem, rule.readout, rule.others, rule.bias)
