import importlib.util
from dataclasses import replace

import pytest
import torch
from benchmarks.measure import Effort
from benchmarks.products import (
    DENSE,
    EVENTS,
    KINDS,
    OURS,
    Layer,
    check,
    contestants,
    convolution,
    measure,
    missing,
    run,
    traced,
)

from benchmarks import measure as measuring
from benchmarks import products as benchmark
from benchmarks import trained

QUICK = Effort(quick=True, loaded=True)
installed = pytest.mark.skipif(
    importlib.util.find_spec("rheobase_kernels") is None, reason="rheobase-kernels-cpu is not installed"
)


@pytest.fixture(autouse=True)
def brief(monkeypatch, one_thread):
    short = measuring.alternate
    monkeypatch.setattr(measuring, "alternate", lambda contests, *_: short(contests, 0.0, 1, 1))
    monkeypatch.setattr(trained, "missing", lambda: "nothing is traced")


def small():
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(2, 32, 6, 5, generator=generator) < 0.2).float()
    rows = (torch.rand(70, 90, generator=generator) < 0.2).float()
    return [convolution("convolution", spikes), Layer("linear", rows, torch.randn(33, 90, generator=generator))]


@installed
@pytest.mark.parametrize("phase", KINDS)
@pytest.mark.parametrize("layer", small(), ids=lambda layer: layer.name)
def test_kernels_agree_with_torch(layer, phase):
    runs, _ = contestants(layer, phase)
    assert check(layer, phase, runs).holds


@installed
def test_a_wrong_kernel_is_noticed():
    layer = small()[0]
    runs, _ = contestants(layer, "forward")
    right = runs[EVENTS] if EVENTS in runs else runs[OURS]
    assert not check(layer, "forward", {OURS: lambda: right() + 0.1, DENSE: runs[DENSE]}).holds


@installed
def test_two_threads_share_the_work(monkeypatch):
    runs, _ = contestants(small()[0], "weight gradient")
    alone = {name: made().clone() for name, made in runs.items()}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    runs, _ = contestants(small()[0], "weight gradient")
    assert all(torch.equal(made(), alone[name]) for name, made in runs.items() if not name.startswith("torch"))


def test_spikes_of_trained_networks_are_traced(monkeypatch):
    def on_images(name, build, steps, share=0.0):
        images, labels = torch.randn(2 * steps, 3, 4, 4), torch.zeros(2 * steps, dtype=torch.int64)
        return trained.Trained(name, build, (4, 2, 3, 4, 4), share, images=images, labels=labels)

    monkeypatch.setattr(trained, "on_images", on_images)
    monkeypatch.setattr(trained, "BATCH", 2)
    monkeypatch.setattr(benchmark, "PLAN", ((64, 1), (64, 1), (64, 1)))
    monkeypatch.setattr(benchmark, "STEPS", 1)
    found = traced()
    assert len(found) == 4  # two of each of two networks
    for layer in found:
        assert layer.name.startswith("traced 3x3 64 at ")
        assert layer.x.shape == (8, 64, 4, 4)
        assert 0 < layer.density < 1
        assert set(layer.x.unique().tolist()) == {0.0, 1.0}


@installed
def test_a_layer_may_have_threads_of_its_own():
    from benchmarks.measure import facts

    layer, before = replace(small()[1], threads=2), torch.get_num_threads()
    rows = measure(layer, "forward", QUICK, facts())
    assert {row.facts.threads for row in rows} == {2}
    assert torch.get_num_threads() == before


def test_without_the_package_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr(benchmark, "find_spec", lambda name: None)
    assert "make kernels" in missing()


@installed
def test_every_case_has_its_rows(monkeypatch):
    from benchmarks.measure import facts

    monkeypatch.setattr(benchmark, "layers", lambda effort: small())
    shown = []
    rows = run(QUICK, facts(), shown.extend)
    assert rows == shown
    assert {row.phase for row in rows} == {*KINDS, "alone", "beside others"}
    assert {row.case for row in rows} == {"convolution", "linear", "one process"}
    assert all(row.median_ms for row in rows)
