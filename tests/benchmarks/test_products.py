import importlib.util

import numpy as np
import pytest
import torch
from benchmarks.measure import Effort
from benchmarks.products import DENSE, EVENTS, KINDS, OURS, Layer, check, contestants, convolution, layers, missing, run

from benchmarks import measure as measuring
from benchmarks import products as benchmark

QUICK = Effort(quick=True, loaded=True)
installed = pytest.mark.skipif(
    importlib.util.find_spec("rheobase_kernels") is None, reason="rheobase-kernels-cpu is not installed"
)


@pytest.fixture(autouse=True)
def brief(monkeypatch, one_thread):
    short = measuring.alternate
    monkeypatch.setattr(measuring, "alternate", lambda contests, *_: short(contests, 0.0, 1, 1))
    monkeypatch.delenv("RHEOBASE_SPIKES", raising=False)


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


def test_spikes_of_a_trained_network_are_read(monkeypatch, tmp_path):
    path = tmp_path / "spikes.npz"
    np.savez(path, stage2=np.eye(6, dtype=np.uint8).reshape(1, 6, 1, 6))
    monkeypatch.setenv("RHEOBASE_SPIKES", str(path))
    last = layers(QUICK)[-1]
    assert last.name == "stage2 at 17%"
    assert last.x.shape == (1, 6, 6, 1)
    assert last.weight.shape == (6, 6, 3, 3)


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
