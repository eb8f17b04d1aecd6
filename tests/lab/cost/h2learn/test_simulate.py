"""The simulator: sizes that are given come out, and what must hold for any design does."""

from dataclasses import fields, replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rheobase.lab.cost.h2learn import (
    PRESETS,
    PUBLISHED,
    REF_L,
    REF_S,
    UNITS,
    Design,
    Gpu,
    LayerWork,
    NeuronWork,
    Silicon,
    ablation,
    cifarnet,
    measured,
    network,
    preset,
    ratios,
    sensitivity,
    simulate,
    trace_step,
    works_of,
)
from rheobase.models import MODELS, create_model, list_models
from rheobase.neurons import IterativeLIF, Rectangle
from rheobase.nn import OnGraph, PerStep, TdBN

pytestmark = pytest.mark.usefixtures("one_thread")

BUFFERS = [field.name for field in fields(Design) if field.name.endswith("_KB")]


def ms(found):
    return [found.cycles[engine] / 1e6 for engine in ("forward", "backward", "update")]


@pytest.mark.parametrize(
    ("design", "expected"), [(REF_S, (1.312, 1.819, 0.730)), (REF_L, (0.689, 1.213, 0.730))], ids=PRESETS
)
def test_cifarnet_takes_what_the_sheet_says(design, expected):
    assert ms(simulate(cifarnet(), design)) == pytest.approx(expected, rel=0.001)


@pytest.mark.parametrize(("design", "expected"), [(REF_S, "5.6"), (REF_L, "8.4")], ids=PRESETS)
def test_speed_against_the_gpu_model_to_the_digit(design, expected):
    work = cifarnet()
    assert f"{ratios(work, simulate(work, design)).speed:.1f}" == expected


def test_tables_that_are_not_hidden():
    work, seen = cifarnet(), {}
    for builds in ("overlapped", "exposed"):
        found = simulate(work, replace(REF_L, builds=builds))
        seen[builds] = (found.cycles["update"] / 1e6, ratios(work, found).speed)
    assert seen["overlapped"] == pytest.approx((1.243, 8.17), abs=5e-3)
    assert seen["exposed"] == pytest.approx((1.433, 7.09), abs=5e-3)
    one_by_one = simulate(work, replace(REF_L, builds="regrouped")).cycles["update"] / 1e6
    assert 0.730 < one_by_one < 1.243


def by_hand(work, design):
    """F, B and W one tile and one position group after the other."""
    forward = update = 0
    groups = range(0, work.reduction, design.fused)
    for _ in range(0, len(groups), design.forward_rows):
        for _ in range(0, work.c_out, design.forward_columns):
            forward += max(work.positions / design.positions, design.build)
    for _ in range(0, work.reduction, design.update_rows):
        for _ in range(0, work.c_out, design.update_columns):
            for _ in range(0, work.positions, design.fused):
                update += (1 - work.silent) / design.update_positions
    return forward, work.macs * work.d_in * work.d_out / (design.macs * design.balance), update


def test_engines_tile_by_tile():
    work = LayerWork("l", 20, 70, 9, 60, 60, 4, d_in=0.5, d_out=0.25, silent=0.5)
    design = Design(forward_rows=4, forward_columns=16, update_rows=8, update_columns=32, macs=16, positions=2)
    found = simulate(([work], NeuronWork(0)), design)
    cycles = [found.cycles[engine] for engine in ("forward", "backward", "update")]
    assert cycles == pytest.approx(by_hand(work, design))


def test_groups_of_a_convolution_are_mapped_one_by_one():
    whole = LayerWork("l", 64, 64, 9, 100, 100)
    parts = replace(whole, groups=2)
    half = LayerWork("l", 32, 32, 9, 100, 100)
    cycles = [simulate(([work], NeuronWork(0)), REF_S).cycles for work in (parts, half)]
    for engine in ("forward", "backward", "update"):
        assert cycles[0][engine] == pytest.approx(2 * cycles[1][engine])


class Net(nn.Sequential):
    """Three convolutions with pooling and a linear layer, on spikes."""

    def __init__(self, norm=False, width=1.0, detach=True):
        def cell(channels):
            norms = [TdBN(channels)] if norm else []
            return [*norms, IterativeLIF(0.5, 0.5, Rectangle(width), detach_reset=detach)]

        super().__init__(
            *(PerStep(nn.Conv2d(2, 8, 3, padding=1)), PerStep(nn.MaxPool2d(2)), *cell(8)),
            *(PerStep(nn.Conv2d(8, 12, 3, padding=1)), *cell(12), PerStep(nn.MaxPool2d(2))),
            *(PerStep(nn.Conv2d(12, 6, 3, stride=2, padding=1, groups=2)), *cell(6)),
            *(PerStep(nn.Flatten()), PerStep(nn.Linear(24, 10))),
        )


def loss(y):
    return F.cross_entropy(y.mean(0), torch.arange(y.shape[1]) % y.shape[2])


def traced(**options):
    torch.manual_seed(2)
    net = Net(**options)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(1.5)
    return trace_step(net, (torch.rand(3, 2, 2, 12, 12) < 0.4).float(), loss)


def lengths_by_hand(layer, b):
    """Non-zero gradients under every needed one of a sample, in raster order: by autograd of a plain convolution."""
    found = []
    ones = torch.ones_like(layer.weight)
    for t in range(len(layer.input)):
        x = torch.zeros(1, *layer.input.shape[2:], requires_grad=True)
        if layer.kind == "linear":
            y = F.linear(x, ones)
        else:
            y = F.conv2d(x, ones, None, layer.stride, layer.padding, layer.dilation, layer.groups)
        (counts,) = torch.autograd.grad(y, x, layer.nonzero[t, b][None].float())
        found += [int(n) for n, wanted in zip(counts.flatten(), layer.needed[t, b].flatten(), strict=True) if wanted]
    return found


@pytest.mark.parametrize("design", [Design(macs=12, lane_macs=3), Design(macs=8, lane_macs=8), REF_S])
def test_lanes_one_by_one(design):
    """Lock-step lanes and pairs, against a count output by output."""
    for layer in traced().layers[1:]:
        work, rounds, pairs = measured(layer, design), 0, 0
        for b in range(2):
            lengths = lengths_by_hand(layer, b)
            pairs += sum(lengths)
            for k in range(0, len(lengths), design.lanes):
                rounds += max(-(-n // design.lane_macs) for n in lengths[k : k + design.lanes])
        assert work.pairs == pairs / 2
        found = simulate(([work], NeuronWork(0)), design)
        assert found.cycles["backward"] == pytest.approx(rounds / 2)


def test_silent_groups_one_by_one():
    step = traced()
    for layer in step.layers:
        silent = total = 0
        for b in range(2):
            rows = layer.nonzero[:, b]
            for c in range(len(layer.weight)):
                places = rows[:, c].flatten().tolist() if layer.kind == "convolution" else rows[:, c].tolist()
                for k in range(0, len(places), 8):
                    total += 1
                    silent += not any(places[k : k + 8])
        assert measured(layer, REF_S).silent == pytest.approx(silent / total)


def test_lanes_that_share_a_pixel_are_better_balanced():
    (_, layer, *_) = traced().layers
    raster, pixel = (measured(layer, Design(macs=64, lane_macs=8, dealt=dealt)) for dealt in ("raster", "pixel"))
    assert pixel.pairs == raster.pairs
    assert pixel.balance > raster.balance


def test_the_spike_rate_plays_no_part_in_the_forward_engine():
    layers, cells = network(4, [("a", 3, 8, 3, 8, 8), ("b", 8, 8, 3, 8, 8)], d_in=1.0, d_out=1.0, silent=0.0)
    found = [
        simulate(([replace(work, rate=rate) for work in layers], cells), REF_S).cycles["forward"]
        for rate in (0.05, 0.5, 1.0)
    ]
    assert len(set(found)) == 1


def test_the_backward_engine_by_densities_is_proportional_to_both():
    def cycles(d_in, d_out):
        return simulate(network(4, [("a", 3, 8, 3, 8, 8)] * 2, d_in=d_in, d_out=d_out, silent=0.0), REF_S).cycles[
            "backward"
        ]

    assert cycles(0.2, 0.3) == pytest.approx(cycles(1.0, 1.0) * 0.06)


def test_cycle_by_cycle_is_never_faster_than_the_pairs_on_all_macs():
    layers, cells = works_of(traced(), REF_S)
    found = simulate((layers, cells), REF_S)
    assert any(work.backward for work in layers)
    for layer in found.layers:
        if layer.backward is not None:
            assert 0 < layer.work.balance <= 1
            assert layer.backward.compute >= layer.work.pairs / REF_S.macs
    by_densities = simulate(([work.by_densities() for work in layers], cells), REF_S)
    for layer, other in zip(found.layers, by_densities.layers, strict=True):
        if layer.backward is not None:
            expected = other.work.macs * other.work.d_in * other.work.d_out / (REF_S.macs * REF_S.balance)
            assert other.backward.compute == pytest.approx(expected)


def test_norms_in_training_make_the_gradient_dense():
    """With a batch norm nothing but output sparsity is left of what the backward engine saves."""
    without, with_norm = traced(), traced(norm=True)
    for step, dense in ((without, False), (with_norm, True)):
        layer = step.layers[2]  # its norm sees every value, the one before it only what was pooled
        rows = ablation(lambda design, step=step: works_of(step, design), REF_S)
        gain = rows["tables of 8"].layers[2].backward.useful / rows["input sparsity"].layers[2].backward.useful
        assert (layer.nonzero.float().mean() > 0.99) == dense
        assert (gain < 1.01) == dense
        assert rows["dual sparsity"].layers[2].backward.useful < rows["input sparsity"].layers[2].backward.useful


def test_every_part_brings_something():
    step = traced()
    for source in (lambda _: cifarnet(), lambda design: works_of(step, design)):
        for before, after in pairwise(ablation(source, REF_S).values()):
            assert after.seconds < before.seconds


def test_the_pipeline_gains_at_most_what_its_slowest_engine_allows():
    work = cifarnet()
    before = 0.0
    for samples in (1, 2, 8, 64, 1024):
        fast, slow = (
            simulate(work, replace(REF_S, minibatch=samples, pipelined=pipelined)).minibatch_cycles
            for pipelined in (True, False)
        )
        F_, B, W = ms(simulate(work, REF_S))
        assert before <= slow / fast <= (F_ + B + W) / max(F_, B, W) <= 3
        before = slow / fast
    assert before > 0.99 * (F_ + B + W) / max(F_, B, W)


@pytest.mark.parametrize("slowest", ["forward", "backward", "update"])
@pytest.mark.parametrize("samples", [1, 2, 9])
def test_the_pipeline_sample_by_sample(slowest, samples):
    """A sample goes backward when it went forward; its weights are updated from then on, the first layer at the end."""
    layers, cells = network(2, [("a", 8, 16, 3, 8, 8), ("b", 16, 16, 3, 8, 8)], d_in=0.5, d_out=0.5, silent=0.5)
    design = {
        "forward": replace(REF_S, forward_rows=1, minibatch=samples),
        "backward": replace(REF_S, macs=8, minibatch=samples),
        "update": replace(REF_S, update_rows=1, update_columns=1, minibatch=samples),
    }[slowest]
    found = simulate((layers, cells), design)
    F_, B, W = (found.cycles[engine] for engine in ("forward", "backward", "update"))
    assert max(F_, B, W) == found.cycles[slowest]
    forward = backward = update = 0.0
    for _ in range(samples):
        forward += F_
        begin = max(forward, backward)
        backward = begin + B
        update = max(max(begin, update) + W, backward + found.layers[0].update.compute)
    assert found.minibatch_cycles == pytest.approx(update)


@pytest.mark.parametrize("late", [0.1, 10.0])
def test_the_pipeline_ends_when_the_update_engine_does(late):
    """Also where that is the slowest."""
    layers, cells = cifarnet()
    design = replace(REF_S, macs=4096)
    layers = [replace(work, silent=1 - late / 10) for work in layers]
    found = simulate((layers, cells), design)
    assert found.minibatch_cycles >= design.minibatch * max(found.cycles.values())


@pytest.mark.parametrize("name", list_models("test_*"))
def test_any_model_can_be_simulated(name):
    torch.manual_seed(1)
    model = create_model(name, **({} if MODELS[name].any_T else {"T": 4}))
    x, *graph = MODELS[name].inputs(4, 2)
    step = trace_step(OnGraph(model, *graph) if graph else model, x * 2, loss)
    if not step.layers:
        assert step.unmapped
        return
    for design in (REF_S, replace(REF_L, stem="macs", stalls=True, builds="regrouped")):
        work = works_of(step, design)
        found = simulate(work, design)
        assert all(0 <= share <= 1 for share in found.utilisation.values()), found.utilisation
        for roof in found.roofline:
            assert roof.reached <= roof.peak * (1 + 1e-9) or roof.engine != "forward"
        for layer in found.layers:
            for phase in layer.phases:
                assert phase.cycles(design) >= phase.compute >= phase.useful * (1 - 1e-9)
                assert all(count >= 0 for count in phase.counts.values())
            if layer.forward.engine == "forward":
                peak = design.forward_rows * design.forward_columns * design.positions * design.fused
                assert layer.forward.compute >= layer.work.macs / peak
            if layer.backward is not None:
                assert layer.backward.compute >= layer.work.pairs / design.macs
        assert found.joules * 1e12 == pytest.approx(sum(found.energy_pJ.values()))
        assert ratios(work, found).speed > 0


@pytest.mark.parametrize("units", UNITS)
def test_energy_adds_up(units):
    found = simulate(cifarnet(), REF_S, units)
    table = UNITS[units]
    expected = sum(count * getattr(table, unit) for phase in found.phases for unit, count in phase.counts.items())
    leakage = Silicon().leakage_mW(REF_S) * found.seconds * 1e9
    assert sum(found.energy_pJ.values()) == pytest.approx(expected + leakage)
    assert min(found.energy_pJ.values()) > 0


def test_area_adds_up_and_grows_with_every_engine():
    silicon = Silicon()
    area = silicon.area_mm2(REF_S)
    assert simulate(cifarnet(), REF_S).area_mm2 == pytest.approx(sum(area.values()))
    assert area["buffers"] == pytest.approx(REF_S.buffer_KB * 0.9024 * 0.582666 / 144)
    assert area["backward"] == pytest.approx(256 * (441.504 + 90.72 + 135.07 + 2 * 68.04) / 1e6)
    for name, engine in (("forward_rows", "forward"), ("update_columns", "update"), ("macs", "backward")):
        larger = silicon.area_mm2(replace(REF_S, **{name: 2 * getattr(REF_S, name)}))
        assert larger[engine] == pytest.approx(2 * area[engine])


@pytest.mark.parametrize("scale", [1 / 4096, 1 / 64, 1.0, 64.0])
def test_larger_buffers_never_cause_traffic(scale):
    design = replace(REF_S, **{name: scale * getattr(REF_S, name) for name in BUFFERS})
    before = simulate(cifarnet(), design).dram_bits
    for names in (BUFFERS, *([name] for name in BUFFERS)):
        doubled = replace(design, **{name: 2 * getattr(design, name) for name in names})
        assert simulate(cifarnet(), doubled).dram_bits <= before
    assert simulate(cifarnet(), replace(design, minibatch=128)).dram_bits <= before


def test_a_slow_dram_makes_engines_wait():
    work = cifarnet()
    fast, slow = (simulate(work, replace(REF_S, stalls=True, dram_GBps=rate)) for rate in (1e9, 9.0))
    assert fast.cycles == simulate(work, REF_S).cycles
    assert slow.stage == pytest.approx(slow.dram_bits / 8 / 9.0)
    assert all(roof.bound == "memory" for roof in slow.roofline)
    assert all(roof.bound == "compute" for roof in fast.roofline)


def test_a_stem_that_reads_no_spikes_runs_as_planes_or_on_macs():
    stem = LayerWork("stem", 3, 16, 9, 64, 64, binary=False, backward=False)
    spikes = replace(stem, binary=True)
    as_spikes, planes, on_macs = (
        simulate(([work], NeuronWork(0)), replace(REF_S, stem=how))
        for work, how in ((spikes, "planes"), (stem, "planes"), (stem, "macs"))
    )
    for engine in ("forward", "update"):
        assert planes.cycles[engine] == 8 * as_spikes.cycles[engine]
    assert on_macs.cycles["forward"] == on_macs.cycles["update"] == 0
    assert on_macs.cycles["backward"] == 2 * stem.macs / 256


def test_the_gpu_model_by_hand():
    work = ([LayerWork("a", 4, 8, 9, 100, 100, 4, backward=False)], NeuronWork(800))
    gpu = Gpu()
    expected = 2 * 2 * 4 * 9 * 8 * 100 / 6.28e12 + 800 * 20 * 4 / 630e9 + 12 * 4 * 8e-6 / 64
    assert gpu.seconds(work) == pytest.approx(expected)
    assert gpu.joules(work) == pytest.approx(240 * expected)


def test_every_assumption_is_halved_and_doubled():
    work = cifarnet()
    found = simulate(work, REF_S)
    rows = {name: (value, low, high) for name, value, low, high in sensitivity(work, found)}
    for part in ("design.dram_GBps", "design.minibatch", "units.dram_bit", "silicon.buffer_mm2", "gpu.power_W"):
        assert part in rows
    base = ratios(work, found)
    value, low, high = rows["gpu.area_mm2"]
    assert value == 815
    assert (low.area, high.area) == pytest.approx((base.area / 2, base.area * 2))
    assert rows["design.balance"][1].speed < base.speed < rows["design.balance"][2].speed
    assert rows["units.dram_bit"][2].energy < base.energy < rows["units.dram_bit"][1].energy
    assert set(PUBLISHED) == {field.name for field in fields(base)}


@pytest.mark.parametrize(
    "design", [Design(fused=4), Design(fused=1, table_bits=1), Design(fused=6, table_bits=3), Design(macs=8)]
)
def test_any_design_can_be_varied(design):
    work = cifarnet()
    rows = list(sensitivity(work, simulate(work, design)))
    assert all(ratio.speed > 0 and ratio.energy > 0 for _, _, *pair in rows for ratio in pair)


def test_a_lookup_costs_its_multiplexers():
    work = ([LayerWork("a", 8, 32, 1, 100, 100)], NeuronWork(0))
    tables4, tables8 = (
        simulate(work, replace(REF_S, table_bits=bits)).layers[0].forward.counts["lookup"] for bits in (4, 8)
    )
    assert tables4 == 100 * 32 * 2
    assert tables8 == pytest.approx(100 * 32 * 255 / 15)


def test_building_tables_reads_no_spikes():
    work = cifarnet()
    hidden, exposed = (simulate(work, replace(REF_S, builds=builds)) for builds in ("hidden", "exposed"))
    assert exposed.cycles["update"] > hidden.cycles["update"]
    assert exposed.energy_pJ["buffers"] == pytest.approx(hidden.energy_pJ["buffers"])


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="no design 'ref-M'; expected one of ref-S, ref-L"):
        preset("ref-M")
    with pytest.raises(ValueError, match="no units '7nm'"):
        simulate(cifarnet(), REF_S, "7nm")
    with pytest.raises(ValueError, match="no layer that the engines can take"):
        simulate(([], NeuronWork(0)), REF_S)
    with pytest.raises(ValueError, match="8 operands do not fall into tables of 3"):
        Design(table_bits=3)
    with pytest.raises(ValueError, match="4 MACs make no lane of 8"):
        Design(macs=4)
    with pytest.raises(ValueError, match="minibatch is 0; expected a number above zero"):
        Design(minibatch=0)
    with pytest.raises(ValueError, match=r"balance is 1\.5; expected the share"):
        Design(balance=1.5)
    assert simulate(cifarnet(), Design(spike_KB=0.0)).dram_bits > simulate(cifarnet(), REF_S).dram_bits
