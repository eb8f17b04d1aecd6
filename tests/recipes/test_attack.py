"""Attacks on a run end to end, on the offline digits with a tiny network."""

import csv
import json
import shutil
from dataclasses import asdict, replace

import pytest
import torch

from rheobase.cli import main
from rheobase.models import create_model
from rheobase.recipes import Classification, attack, attack_studies, report, train
from rheobase.recipes.attack import FRACTIONS, Settings, first_of_each, samples_of
from rheobase.recipes.attack_page import attack_sections
from rheobase.recipes.studies import list_studies, study
from rheobase.recipes.task import build
from rheobase.report import Curves, Grid
from rheobase.train import RunFolder, TrainConfig

QUICK = Settings(iterations=3, smoothed=2)


def config(**changes):
    plain = {
        "data": "digits",
        "model": "test_pooled_snn",
        "encoder": "poisson",
        "T": 4,
        "threads": 1,
        "train": TrainConfig(epochs=3, optimizer="adam", lr=5e-3, checkpoint_every_epochs=3),
    }
    return Classification(**{**plain, **changes})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run on spikes and one on images with ReLU, attacked."""
    root = tmp_path_factory.mktemp("runs")
    spiking, _ = train("spiking", config(), root)
    plain, _ = train("plain", config(model="test_pooled_ann", encoder="direct", T=1), root)
    return {
        name: (run, *attack(run, samples=10, settings=QUICK)) for name, run in (("coded", spiking), ("direct", plain))
    }


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_the_first_of_each_class_by_turns():
    y = torch.tensor([2, 0, 0, 1, 1, 2, 0])
    assert first_of_each(y, 2, 3).tolist() == [1, 3, 0, 2, 4, 5]


def test_samples_have_targets_of_every_offset():
    samples = samples_of(build(config()), 95)
    assert samples.kind == "coded"
    assert torch.bincount(samples.y).tolist() == [9] * 10
    offsets = (samples.target - samples.y) % 10
    assert torch.bincount(offsets, minlength=10).tolist() == [0] + [10] * 9


def test_rows_of_spikes(runs):
    run, rows, path = runs["coded"]
    written = table(path)
    assert len(written) == len(rows)
    names = {row.attack for row in rows}
    for name in (
        "flips",
        "flips, threshold 1",
        "flips, adaptive",
        "flips, adaptive, threshold 1",
        "flips within the events, adaptive",
        "image",
    ):
        assert name in names
    assert {row.goal for row in rows if row.attack == "flips"} == {"untargeted", "targeted"}
    counts = {row.share.count for row in rows if row.attack.startswith("flips")}
    assert len(counts) == 1
    curve = [row.share.hits for row in rows if row.attack == "flips" and row.goal == "untargeted" and row.at]
    assert len(curve) == len(FRACTIONS)
    assert curve == sorted(curve)
    worst = {row.attack: row.share.hits for row in rows if row.attack.startswith("worst of flips")}
    for row in rows:
        if row.attack.startswith("flips") and row.goal == "untargeted":
            bound = "worst of flips within the events" if "within" in row.attack else "worst of flips"
            assert row.share.hits <= worst[bound]
    noted = run.result()["attack"]
    assert noted["kind"] == "coded"
    assert noted["headline"]["attack"] == "worst on images"
    assert noted["headline"]["low"] <= noted["headline"]["success"] <= noted["headline"]["high"]
    thresholds = [float(row["threshold"]) for row in table(path.with_name("attack_trap.csv"))]
    assert thresholds == sorted(thresholds)
    assert 1.0 in thresholds


def test_rows_of_images(runs):
    run, rows, path = runs["direct"]
    assert {row.attack for row in rows} == {"fgsm", "pgd", "mi_fgsm", "square", "worst in the box"}
    for epsilon in {row.at for row in rows}:
        worst = next(row for row in rows if row.attack == "worst in the box" and row.at == epsilon)
        assert worst.share.hits >= max(row.share.hits for row in rows if row.at == epsilon)
        assert all(
            row.perturbation is None or row.perturbation <= epsilon**2 + 1e-9 for row in rows if row.at == epsilon
        )
    assert run.result()["attack"]["headline"]["at"] == pytest.approx(64 / 255)
    assert table(path.with_name("attack_trap.csv")) == []


def test_the_same_seed_gives_the_same_rows(runs):
    run, rows, _ = runs["coded"]
    assert attack(run, samples=10, settings=QUICK)[0] == rows


def test_the_page_shows_curves_and_a_table(runs):
    for name in ("coded", "direct"):
        run = runs[name][0]
        (section,) = attack_sections(run)
        kinds = [type(part) for part in section.parts]
        assert kinds[0] is Curves
        assert Grid in kinds
        assert "named rightly and attacked" in section.text
        text = report(run).read_text()
        assert "How robust it is" in text
        assert ("The trap" in text) == (name == "coded")


def test_a_run_that_was_not_attacked_has_no_section(tmp_path, runs):
    copy = tmp_path / "run"
    shutil.copytree(runs["coded"][0].path, copy)
    (copy / "result.json").write_text("{}")
    assert attack_sections(RunFolder.open(copy)) == ()


def test_events_and_transfer(tmp_path, runs, monkeypatch):
    """Sequences of counts are attacked as spikes where they are read so; what was found is tried on another run."""
    from rheobase.data import Dataset, Split
    from rheobase.recipes import classification

    counts = torch.randint(0, 3, (40, 4, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    split = Split(counts, torch.arange(40) % 10)
    made = Dataset("made up", split, split, tuple("0123456789"), (), (), "", "", "", T=4)
    monkeypatch.setattr(classification, "load", lambda *_, **__: made)
    short = config(encoder="presence", validation=0.25, train=TrainConfig(epochs=1, lr=1e-3))
    one, _ = train("one", short, tmp_path)
    two, _ = train("two", short, tmp_path)
    rows, _ = attack(one, samples=10, settings=Settings(iterations=1), other=two)
    assert one.result()["attack"]["kind"] == "events"
    assert not [row for row in rows if row.attack.startswith("image")]
    assert [row for row in rows if row.attack == "transfer, flips, threshold 1"]
    raw, _ = train("raw", config(validation=0.25, encoder="direct", train=TrainConfig(epochs=1)), tmp_path)
    with pytest.raises(ValueError, match="train it with --encoder presence"):
        attack(raw, samples=10)
    with pytest.raises(ValueError, match="reads other input; to transfer"):
        attack(one, samples=10, other=raw)
    with pytest.raises(ValueError, match="samples is 5; expected at least 10"):
        attack(one, samples=5)


def test_the_verb(runs, tmp_path, capsys):
    copy, rows = tmp_path / "run", tmp_path / "rows.csv"
    shutil.copytree(runs["coded"][0].path, copy)
    arguments = ["--samples", "10", "--iterations", "1", "--results", str(rows), "--report", "--json"]
    assert main(["attack", str(copy), *arguments]) == 0
    said = capsys.readouterr().out.splitlines()
    found = json.loads(said[-1])
    assert found["samples"] == 10
    assert found["csv"].endswith("attack.csv")
    assert "How robust it is" in (copy / "report.html").read_text()
    (row,) = table(rows)
    assert row["metric"] == "success of attack: worst on images"
    assert row["model"] == "test_pooled_snn"
    assert "95 % in" in row["tag"]
    assert main(["attack", str(copy), "--samples", "3"]) == 2
    assert "expected at least 10" in capsys.readouterr().err


def test_studies_of_every_data_set():
    assert {f"attack-{kind}-{data}" for kind in ("curves", "threshold") for data in attack_studies.SETS} <= set(
        list_studies()
    )


def test_a_victim_is_trained_once(tmp_path, monkeypatch):
    made = []

    def trained(name, config, runs):
        made.append(config.train.loss)
        run = RunFolder.create(runs, name, {"recipe": name, **json.loads(json.dumps(asdict(config)))})
        run.add_result("eval", {})
        return run, {}

    monkeypatch.setattr(attack_studies, "RUNS", tmp_path)
    monkeypatch.setattr(attack_studies, "train", trained)
    first = attack_studies.victim_run("attacked-mnist", 3)
    assert attack_studies.victim_run("attacked-mnist", 3).path == first.path
    assert attack_studies.victim_run("attacked-mnist", 3, "mse").path != first.path
    assert made == ["cross_entropy", "mse"]


def test_chance_is_held_against_the_attack(runs):
    _, rows, _ = runs["coded"]
    found = list(attack_studies.beside_chance(rows, "digits"))
    held = {row.attack for row in rows if row.attack.startswith("flips within") and row.share.hits}
    assert {each.subject for each in found} == {f"digits, {name}" for name in held}
    assert held
    for each in found:
        assert each.tag.startswith("at most half" if each.value <= 0.5 else "more than half")


def test_measurements_carry_their_interval(runs):
    _, rows, _ = runs["coded"]
    row = next(row for row in rows if row.attack == "image" and row.goal == "targeted")
    found = list(attack_studies.measured(row, "digits", ".5"))
    assert found[0].metric == "success"
    assert found[0].tag.startswith("95 % in ")
    assert found[0].published == ".5"
    assert found[0].value == row.share.value


def test_every_defence_is_trained_and_attacked(monkeypatch):
    small = config(train_samples=60, train=TrainConfig(epochs=1, optimizer="adam", lr=5e-3))
    monkeypatch.setattr(attack_studies, "build", lambda _: build(small))
    monkeypatch.setattr(
        attack_studies, "create_model", lambda _, width, neuron: create_model("test_pooled_snn", neuron=neuron)
    )
    monkeypatch.setattr(attack_studies, "samples_of", lambda task, _: samples_of(task, 10))
    monkeypatch.setattr(attack_studies, "Settings", lambda seed: replace(QUICK, seed=seed))
    rows = list(study("attack-defences")(0))
    before = {row.subject for row in rows if row.metric == "named rightly before"}
    assert before == {
        "none",
        "attacked spikes",
        "threshold 0.4",
        "wide surrogate",
        "wide surrogate, penalty on gradients",
    }
    assert not any(row.value < 0 or row.value > 1 for row in rows)  # no number where none was named rightly
    assert {row.subject.rpartition(", flips")[0] for row in rows if ", flips" in row.subject} <= before
