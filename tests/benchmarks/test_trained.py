import pytest
import torch
from benchmarks.measure import Contest, Effort, facts
from benchmarks.nets import Rheobase

from benchmarks import measure as measuring
from benchmarks import nets, trained

QUICK = Effort(quick=True, loaded=True)


class Peer(Rheobase):
    """Stands in for SpikingJelly: ours under its name."""

    name = "spikingjelly"


@pytest.fixture(autouse=True)
def brief(monkeypatch, one_thread):
    short = measuring.alternate
    monkeypatch.setattr(measuring, "alternate", lambda contests, *_: short(contests, 0.0, 1, 1))
    monkeypatch.setattr(trained, "BATCH", 2)


def case(steps=3):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2 * steps, 3, 8, 8, generator=generator)
    build = lambda kit: nets.plain(kit, ((8, 1), (8, 2), (8, 1)))  # noqa: E731
    return trained.Trained("small", build, (4, 2, 3, 8, 8), 1e-6, images=images, labels=torch.arange(2 * steps) % 3)


def test_every_step_has_a_copy_of_the_image():
    x, labels = case().batch()
    assert x.shape == (4, 2, 3, 8, 8)
    assert torch.equal(x[0], x[3])
    assert x.stride(0) > 0
    assert labels.tolist() == [0, 1]


def test_training_changes_the_weights_and_densities_are_told():
    one, three = (trained.train(case(steps)) for steps in (1, 3))
    assert not torch.equal(next(one.parameters()), next(three.parameters()))
    text = trained.densities(three, case().batch()[0])
    assert text.startswith("2 layers read spikes, density mean ")
    assert "by multiplications" in text


def test_half_is_autocast():
    seen = []
    trained.in_half(Contest(lambda: seen.append(torch.is_autocast_enabled("cpu")))).call()
    assert seen == [True]


def test_a_network_has_all_its_rows():
    rows = trained.measure(case(), (Peer(),), QUICK, facts())
    assert {(row.contestant, row.phase) for row in rows} == {
        *((name, phase) for name in ("rheobase", "spikingjelly") for phase in ("products", "norm+neuron")),
        *(
            (name, phase)
            for name in ("rheobase", "rheobase bf16", "spikingjelly", "spikingjelly bf16")
            for phase in ("training step", "inference")
        ),
        *((name, f"{phase}, best") for name in trained.LIBRARIES for phase in ("training step", "inference")),
    }
    assert all(row.median_ms and "layers read spikes" in row.note for row in rows)
    best = {row.contestant: row for row in rows if row.phase == "inference, best"}
    times = {row.contestant: row.median_ms for row in rows if row.phase == "inference"}
    assert best["rheobase"].median_ms == min(times["rheobase"], times["rheobase bf16"])
    assert best["spikingjelly"].ratio == pytest.approx(best["spikingjelly"].median_ms / best["rheobase"].median_ms)


def test_without_the_images_it_says_which_files(monkeypatch, tmp_path):
    monkeypatch.setenv("RHEOBASE_DATA", str(tmp_path))
    assert "train.npz" in trained.missing()
