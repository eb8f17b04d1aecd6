import importlib.util

import pytest
import torch
from benchmarks.measure import Effort, facts
from benchmarks.products import DENSE, OURS, Layer, convolution
from benchmarks.sparse import LOOPS, Pruned, break_even, check, contestants, measure_nets, prune, run, with_zeros
from torch import nn

from benchmarks import measure as measuring
from benchmarks import nets, trained
from benchmarks import sparse as benchmark

QUICK = Effort(quick=True, loaded=True)
installed = pytest.mark.skipif(
    importlib.util.find_spec("rheobase_kernels") is None, reason="rheobase-kernels-cpu is not installed"
)


@pytest.fixture(autouse=True)
def brief(monkeypatch, one_thread):
    short = measuring.alternate
    monkeypatch.setattr(measuring, "alternate", lambda contests, *_: short(contests, 0.0, 1, 1))
    monkeypatch.setattr(trained, "BATCH", 2)


def small():
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(2, 32, 6, 5, generator=generator) < 0.2).float()
    rows = (torch.rand(70, 90, generator=generator) < 0.2).float()
    return [convolution("convolution", x), Layer("linear", rows, torch.randn(33, 90, generator=generator), threads=1)]


def case(steps=3):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2 * steps, 3, 8, 8, generator=generator)
    build = lambda kit: nets.plain(kit, ((8, 1), (8, 2), (8, 1)))  # noqa: E731
    return trained.Trained("small", build, (4, 2, 3, 8, 8), 1e-6, images=images, labels=torch.arange(2 * steps) % 3)


@installed
@pytest.mark.parametrize("layer", small(), ids=lambda layer: layer.name)
def test_all_products_of_a_pruned_layer_agree(layer):
    layer = with_zeros(layer, 0.9)
    assert float((layer.weight == 0).float().mean()) == pytest.approx(0.9, abs=0.03)
    runs, versions = contestants(layer)
    assert check(runs).holds
    assert versions.keys() == runs.keys()
    right = runs[LOOPS]
    assert not check({**runs, LOOPS: lambda: right() + 0.1}).holds


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([0.2, 0.5, 0.9], "csr is slower, also with 90% zeros"),
        ([1.2, 2.0, 4.0], "csr is faster, also with 50% zeros"),
        ([0.5, 0.75, 1.75], "csr is faster from 75% zeros on"),  # a quarter of the way from 70 to 90 %
        ([1.1, 0.5, 1.5], "csr is faster from 80% zeros on"),
    ],
)
def test_break_even_lies_on_the_line(ratios, expected):
    assert break_even([0.5, 0.7, 0.9], ratios) == expected


def test_pruning_follows_the_schedule():
    net = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Linear(20, 10))

    def share():
        return [float((layer.weight == 0).float().mean()) for layer in net]

    kept = net[1].weight.abs().flatten().sort().values
    for done, expected in ((0.0, 0.0), (1 / 3, 0.9 * (1 - 0.125)), (2 / 3, 0.9), (1.0, 0.9)):
        prune(net, done)
        assert share() == pytest.approx([expected] * 2, abs=0.01)
    assert net[1].weight.abs().flatten().sort().values[-20:].equal(kept[-20:])


def test_masks_are_applied_after_every_step():
    seen = []
    trained.train(case(), after=lambda net, done: seen.append(done))
    assert seen == pytest.approx([1 / 3, 2 / 3, 1.0])


@installed
def test_a_network_has_all_its_rows():
    rows = measure_nets(case(), QUICK, facts())
    names = {(row.case, row.contestant) for row in rows}
    weights, channels = "90% of weights", "50% of channels"
    whose = {
        weights: (OURS, "not sparsified", "no bits", "original", "original, no bits"),
        channels: (OURS, "not shrunk", "retrained", "original"),
    }
    assert names == {(c, who + half) for c, several in whose.items() for who in several for half in ("", " bf16")}
    assert all(row.median_ms and "layers read spikes" in row.note and "% right" in row.note for row in rows)
    notes = {(row.case, row.contestant): row.note for row in rows}
    assert "; 89.9% of 1448 weights zero" in notes[weights, OURS]
    assert "; 0.0% of 1448 weights zero" in notes[weights, "original"]


@installed
def test_every_case_has_its_rows(monkeypatch):
    cases = [[Pruned(with_zeros(layer, share), share) for share in (0.5, 0.9)] for layer in small()]
    monkeypatch.setattr(benchmark, "layers", lambda effort: cases)
    monkeypatch.setattr(trained, "missing", lambda: "no images")
    shown = []
    rows = run(QUICK, facts(), shown.extend)
    assert rows == shown
    assert {row.phase for row in rows} == {"forward", "break-even"}
    assert len([row for row in rows if row.phase == "break-even"]) == 2 * 4
    assert {row.contestant for row in rows if row.phase == "forward"} >= {OURS, LOOPS, DENSE}
    assert all(row.median_ms for row in rows if row.phase == "forward")
