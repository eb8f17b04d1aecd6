from dataclasses import replace

import pytest
import torch
from torch import nn

from rheobase.lab.cost import RULES, NeuronLayer, Operand, Product, Report, Rule, activity, energy, spike_driven, trace
from rheobase.nn import PerStep
from rheobase.nn.residual import Conv
from rheobase.scan import Temporal

T = 4


class Emitter(Temporal):
    """Puts out a pattern whatever it reads: a neuron whose rate is forced."""

    emits = "binary"

    def __init__(self, pattern):
        super().__init__()
        self.pattern = pattern

    def sequence(self, x, state):
        return x * 0 + self.pattern, ()


def pattern(rate, *shape):
    """Exactly so many ones, spread evenly."""
    n = torch.Size(shape).numel()
    x = torch.zeros(n)
    x[torch.linspace(0, n - 1, round(rate * n)).long()] = 1
    assert x.mean() == rate
    return x.view(shape)


def toy(bias=False):
    """Stem 2 -> 4 on 8x8, neurons at 1/4, convolution 4 -> 8 of stride 2, neurons at 1/8, linear layer to 10."""
    return nn.Sequential(
        PerStep(nn.Conv2d(2, 4, 3, padding=1, bias=bias)),
        Emitter(pattern(1 / 4, T, 1, 4, 8, 8)),
        PerStep(nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=bias)),
        Emitter(pattern(1 / 8, T, 1, 8, 4, 4)),
        PerStep(nn.Sequential(nn.Flatten(), nn.Linear(128, 10, bias=bias))),
    )


STEM, BODY, HEAD = 2 * 4 * 9 * 64, 4 * 8 * 9 * 16, 128 * 10


def image(x=None):
    return (torch.rand(1, 1, 2, 8, 8) if x is None else x).expand(T, -1, -1, -1, -1)


@pytest.mark.parametrize(
    ("rule", "macs", "acs"),
    [
        ("papers", STEM, T * BODY / 4 + T * HEAD / 8),
        ("papers-T", T * STEM, T * BODY / 4 + T * HEAD / 8),
        ("strict", STEM, T * BODY / 4 + T * HEAD / 8),
        ("spikingformer-tool", T * STEM, T * BODY / 4 + HEAD / 8),
    ],
)
def test_forced_rates_give_the_formula_to_the_last_digit(rule, macs, acs):
    found = energy(trace(toy(), image()), rule)
    assert (found.macs, found.acs) == (macs, acs)
    assert found.total_pJ == pytest.approx(4.6 * macs + 0.9 * acs, rel=1e-15)
    assert found.total_pJ == sum(layer.energy_pJ for layer in found.layers)


def test_the_tool_adds_biases():
    plain, biased = (energy(trace(toy(bias), image()), "spikingformer-tool") for bias in (False, True))
    assert biased.macs - plain.macs == T * 4 * 64
    assert biased.acs - plain.acs == T * 8 * 16 / 4 + 10 / 8


def test_an_image_copied_over_time_costs_a_stem_a_step_by_the_strict_rule():
    once, copied = trace(toy(), image()), trace(toy(), image().contiguous())
    assert energy(copied, "strict").macs - energy(once, "strict").macs == (T - 1) * STEM
    assert energy(copied, "papers") == energy(once, "papers")


def test_rules_part_where_a_layer_reads_no_spikes():
    model = toy()
    model[3] = nn.Identity()
    found = trace(model, image())
    assert energy(found, "strict").macs == STEM + T * HEAD
    assert energy(found, "papers").macs == STEM
    assert found.exceptions == ("0.module", "4.module.1")
    assert found.mac_share == pytest.approx((STEM + HEAD) / (STEM + BODY + HEAD))


def test_events_in_the_stem_multiply_in_papers_alone():
    found = trace(toy(), image((torch.rand(1, 1, 2, 8, 8) < 0.5).float()))
    assert found.spike_driven
    assert energy(found, "papers").macs == STEM
    assert energy(found, "strict").macs == 0


def binary(density, *shape):
    return Operand(shape, False, "binary", density)


def of(product):
    return Report((product,), (), T, 1)


def test_attention_counts_its_least_dense_spikes():
    """Per block T h N d^2 (min(fr_K, fr_V) + fr_Q)."""
    h, n, d, q, k, v = 8, 196, 64, 0.125, 0.03125, 0.0625
    macs = h * n * d * d
    kv = Product("kv", "matmul", (binary(k, d, n), binary(v, n, d)), macs, 0, 1.0, T, T)
    graded = Operand((d, d), False, "graded", 0.9)
    qkv = Product("qkv", "matmul", (binary(q, n, d), graded), macs, 0, 1.0, T, T)
    found = energy(Report((kv, qkv), (), T, 1), "spikingformer-tool")
    assert found.acs == T * h * n * d * d * (min(k, v) + q)
    assert found.macs == 0
    assert (kv.strict, qkv.strict, qkv.spike_driven) == (True, False, True)
    both = replace(qkv, operands=(graded, graded))
    assert energy(of(both), "strict").macs == T * macs


@pytest.mark.parametrize(("macs", "acs", "expected"), [(0.347329512, 6.5175, 7.4635), (0.520993768, 12.5137, 13.6589)])
def test_published_counts_give_published_millijoules(macs, acs, expected):
    """arXiv:2304.11954: counts and energies of its logs, in G and mJ."""
    rule = RULES["spikingformer-tool"]
    assert rule.mac_pJ * macs + rule.ac_pJ * acs == pytest.approx(expected, abs=5e-5)


def test_a_rule_of_ones_own():
    rule = Rule(mac="values", stem="executed", readout="once", others="steps", mac_pJ=1.0, ac_pJ=0.5)
    found = energy(trace(toy(), image()), rule)
    assert found.total_pJ == STEM + 0.5 * (T * BODY / 4 + HEAD / 8)
    with pytest.raises(ValueError, match="there is no rule 'paper'; expected one of papers, papers-T"):
        energy(trace(toy(), image()), "paper")


def test_shapes_alone_have_no_price():
    with torch.device("meta"):
        found = trace(PerStep(nn.Linear(3, 2)), torch.empty(2, 1, 3))
    with pytest.raises(ValueError, match="what its operands hold is unknown"):
        energy(found, "strict")


def test_a_readout_is_the_last_layer_after_the_last_neuron():
    assert [product.readout for product in trace(toy(), image()).products] == [False, False, True]
    assert [product.stem for product in trace(toy(), image()).products] == [True, False, False]
    assert not any(product.readout for product in trace(toy()[:4], image()).products)


def test_activity_is_spikes_per_neuron_and_sample():
    found = activity(trace(toy(), image()))
    assert found.rates == {"1": 1 / 4, "3": 1 / 8}
    assert found.spikes_per_neuron == (T * 256 / 4 + T * 128 / 8) / (256 + 128)
    graded = NeuronLayer("g", 5, 10.0, 0.5, "graded", 20)
    assert activity(Report((), (graded,), T, 1)).spikes_per_neuron is None


def test_declarations_are_held_against_values():
    layer = nn.Sequential(Conv(2, 3, 3, "binary"))
    x = (torch.rand(2, 1, 2, 4, 4) < 0.5).float()
    assert spike_driven(layer, x).mismatches == ()
    assert spike_driven(layer, x * 2).mismatches == ("0.module",)
    assert "no, not as declared" in str(spike_driven(layer, x * 2))
    assert spike_driven(nn.Sequential(Conv(2, 3, 3, "graded")), x).mismatches == ()
    assert spike_driven(nn.Sequential(Conv(2, 3, 3, "graded")), x / 2).mismatches == ("0.module",)


def test_a_layer_that_read_zeros_alone_is_named():
    found = spike_driven(PerStep(nn.Linear(3, 2)), torch.zeros(2, 1, 3))
    assert found.silent == ("module",)
    assert "their verdict says nothing" in str(found)


def test_the_report_and_the_price_read_as_tables():
    report = trace(toy(), image())
    lines = str(report).splitlines()
    assert lines[0].split() == [
        "layer",
        "kind",
        "shape",
        "MACs/step",
        "steps",
        "holds",
        "density",
        "declared",
        "spikes",
        "only",
    ]
    assert "2x8x8 * 4x2x3x3" in lines[1]
    assert "1 of 4" in lines[1]
    assert lines[-1].endswith("not spike-driven: 0.module")
    assert str(energy(report, "papers")).splitlines()[-1].startswith("sum (papers)")
