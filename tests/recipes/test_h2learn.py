"""A run on the accelerator: from the command line to its page, and the study of densities."""

import csv
import json
import shutil

import pytest
import torch

from rheobase.cli import main
from rheobase.data import Split
from rheobase.lab.cost.h2learn import PRESETS
from rheobase.recipes import h2learn_densities as study
from rheobase.recipes.h2learn_page import h2learn_sections
from rheobase.report import Grid
from rheobase.train import RunFolder

TINY = ["--epochs", "1", "--T", "2", "--batch-size", "100", "--warmup-epochs", "0", "--threads", "1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    assert main(["train", "digits", "--model", "test_spikformer", *TINY, "--runs", str(root)]) == 0
    (path,) = (root / "digits").iterdir()
    return path


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


@pytest.mark.parametrize("design", PRESETS)
def test_a_step_of_a_run_is_simulated(copy, design, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["cost", str(copy), "--h2learn", design, "--samples", "7", "--report", "--json"]) == 0
    shown = capsys.readouterr().out
    found = json.loads(shown.strip().splitlines()[-1])
    assert (found["design"], found["samples"], found["T"], found["units"]) == (design, 7, 2, "45nm")
    for said in ("published", "gpu.efficiency", "design.dram_GBps", "a roofline", "not mapped: body.0", "simulated"):
        assert said in shown
    with (copy / "h2learn.csv").open() as file:
        rows = list(csv.DictReader(file))
    mapped, unmapped = ([row for row in rows if bool(row["unmapped"]) == lost] for lost in (False, True))
    for engine in ("forward", "backward", "update"):
        assert sum(float(row[engine] or 0) for row in mapped) == pytest.approx(found["cycles"][engine])
    reasons = {row["unmapped"] for row in unmapped}
    assert {"reads sums of spikes", "a product of two activations, or of computed weights"} <= reasons
    assert found["dense"]
    assert found["open"]
    assert 0 < found["unmapped_share"] < 1
    assert set(found["ratios"]) == {"tables hidden", "tables exposed", "tables of each group, and waits for the DRAM"}
    run = RunFolder.open(copy)
    assert run.result()["h2learn"]["ratios"] == found["ratios"]
    (section,) = h2learn_sections(run)
    grids = {part.heading: part for part in section.parts if isinstance(part, Grid)}
    (ratios,) = (grid for heading, grid in grids.items() if "GPU" in heading)
    assert ratios.rows[-1][1:] == ("5.74 to 10.20", "5.25 to 7.12", "7.38")
    assert len(grids["What the engines cannot take"].rows) == len(unmapped)
    page = (copy / "report.html").read_text()
    assert section.title in page
    assert "design.dram_GBps" in page
    with (copy / "h2learn_assumptions.csv").open() as file:
        assert {row["assumption"].partition(".")[0] for row in csv.DictReader(file)} == {
            "design",
            "units",
            "silicon",
            "gpu",
        }


def test_a_run_that_was_not_simulated_has_no_section(copy):
    assert h2learn_sections(RunFolder.open(copy)) == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--h2learn", "ref-S", "--samples", "0"], "samples is 0"), (["--h2learn", "ref-M"], "ref-M")],
)
def test_what_cannot_be_simulated_is_said(copy, arguments, message, capsys):
    try:
        code = main(["cost", str(copy), *arguments])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (copy / "h2learn.csv").exists()


def test_densities_by_hand(one_thread):
    """Without training: windows, spikes and gradients as plain autograd has them."""
    torch.manual_seed(1)
    model = study.network(1.0)
    x, y = torch.rand(3, 1, 28, 28).expand(4, 3, 1, 28, 28), torch.tensor([1, 2, 3])
    seen, step = study.densities(model, x, y)
    with torch.no_grad():
        s = model[2](model[1](model[0](x)))
    assert seen.rate[0] == pytest.approx(s.mean().item())
    octets = s.flatten(3).unflatten(3, (98, 8)).sum(-1)
    assert seen.empty[0] == pytest.approx((octets == 0).float().mean().item())
    assert [cell.units for cell in step.neurons] == [16 * 784, 32 * 196, 32 * 49]
    assert 0 < seen.du[0] < 1
    assert seen.do[0] <= 0.25 < 0.9 < seen.do[2]
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_the_study_says_every_number_it_compares_with(monkeypatch, one_thread):
    x = torch.rand(40, 1, 28, 28)

    class Images:
        train = test = Split(x, torch.arange(40) % 10)

    monkeypatch.setattr(study, "load", lambda _: Images())
    monkeypatch.setattr(study, "Dataset", Images)
    monkeypatch.setattr(study, "hold_out", lambda split, share, seed: (split, split))
    rows = list(study.h2learn_densities(0))
    compared = [row for row in rows if row.published and row.size]
    assert len(compared) == 3 * 3 * 5
    assert all(0 <= row.value <= 1 for row in rows)
    assert [row.metric for row in rows if not row.size] == ["test accuracy"] * 3
