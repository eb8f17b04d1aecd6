import csv
from dataclasses import replace

import numpy as np
import pytest
import torch

from rheobase.data import Dataset, Split, load, registry
from rheobase.neurons import GLIF, PSN, MaskedPSN, SlidingPSN
from rheobase.recipes import (
    Classification,
    Task,
    build,
    classification,
    classify,
    floors,
    measure,
    recipe,
    record,
    record_floors,
    report,
    resume,
    train,
)
from rheobase.recipes.floors import LinearFrames
from rheobase.train import RunFolder, TrainConfig, load_checkpoint, load_weights


@pytest.mark.parametrize(("neuron", "kind"), [("psn", PSN), ("sliding_psn", SlidingPSN)])
def test_a_neuron_for_a_fixed_number_of_steps_is_made_for_those_of_the_config(neuron, kind):
    task = build(Classification(model="plain_stack", neuron=neuron, width=4, T=3))
    made = [module for module in task.model.modules() if isinstance(module, kind)]
    assert len(made) == 7
    if kind is PSN:
        assert {module.T for module in made} == {3}
    x = task.prepare(task.train.intensities(slice(0, 2)), None)
    assert task.model(x).shape == (3, 2, 10)


COLUMNS = Classification(
    model="sequential_cifar_snn",
    neuron="lif",
    width=4,
    encoder="columns",
    T=8,
    batch_size=40,
    train_samples=80,
    threads=1,
    train=TrainConfig(epochs=3, lr=1e-2),
)


def test_columns_of_images_are_the_steps():
    task = build(replace(COLUMNS, neuron="sliding_psn", neuron_options=(("k", 5), ("exp_init", False))))
    images = task.train.intensities(slice(0, 3))
    x = task.prepare(images, None)
    assert x.shape == (8, 3, 1, 8)
    assert torch.equal(x[2], task.dataset.standardise(images)[..., 2])
    assert task.model(x).shape == (8, 3, 10)
    assert {module.k for module in task.model.modules() if isinstance(module, SlidingPSN)} == {5}
    with pytest.raises(ValueError, match=r"T is 4 but x has 8 columns"):
        build(replace(COLUMNS, T=4)).prepare(images, None)
    with pytest.raises(
        ValueError, match=r"reads steps of 3 axes, but digits with encoder 'columns' has steps of shape"
    ):
        build(replace(COLUMNS, model="conv_snn"))
    assert build(replace(COLUMNS, model="feedforward_snn")).prepare(images, None).shape == (8, 3, 8)


def test_the_model_is_told_how_many_steps_it_is_for():
    task = build(Classification(model="static_cifar_snn", width=2, T=3))
    assert {module.T for module in task.model.modules() if isinstance(module, PSN)} == {3}


def test_options_reach_the_neurons():
    task = build(replace(COLUMNS, neuron="glif", neuron_options=(("shape", "channel"), ("threshold", 0.4))))
    made = [module for module in task.model.modules() if isinstance(module, GLIF)]
    assert [module.firing.shape[0] for module in made] == [4] * 6 + [8]
    assert made[0].threshold.mean().item() == pytest.approx(0.4)
    with pytest.raises(ValueError, match="'lif' takes no argument slope; its arguments are tau, threshold"):
        build(replace(COLUMNS, neuron_options=(("slope", 1.0),)))
    with pytest.raises(ValueError, match=r"neuron_options is .*; expected none where neuron is None"):
        Classification(neuron_options=(("k", 2),))


def test_a_part_of_the_training_samples_in_equal_shares():
    whole, part = build(replace(COLUMNS, train_samples=None)), build(COLUMNS)
    assert len(part.train) == 80
    assert part.train.y.bincount().tolist() == [8] * 10
    assert torch.equal(part.validation.rows, whole.validation.rows)
    assert set(part.train.rows.tolist()) <= set(whole.train.rows.tolist())
    assert len(build(replace(COLUMNS, train_samples=len(whole.train))).train) == len(whole.train)
    with pytest.raises(ValueError, match=f"train_samples is 5000; expected at most {len(whole.train)}"):
        build(replace(COLUMNS, train_samples=5000))


def test_what_follows_a_schedule_is_told_of_every_epoch_and_measured_as_it_was(tmp_path):
    config = replace(
        COLUMNS,
        neuron="masked_psn",
        neuron_options=(("k", 2), ("ramp", True)),
        train=TrainConfig(epochs=17, lr=1e-2),
    )
    seen = []
    run, _ = train(
        "toy",
        config,
        tmp_path,
        on_epoch=lambda line: seen.append(float(saved(run_of(tmp_path), "last")[0])),
    )
    assert seen == [0.0, 0.5] + [1.0] * 15
    best = run.result()["train"]["best"]["epoch"]
    assert set(saved(run, "best")) == {seen[best]}
    task = build(config)
    load_weights(task.model, run, "best")
    assert {module.lambda_.item() for module in task.model.modules() if isinstance(module, MaskedPSN)} == {seen[best]}


def run_of(folder):
    """The only run below a folder."""
    (path,) = (folder / "toy").iterdir()
    return RunFolder.open(path)


def saved(run, which):
    """The lambdas in a checkpoint."""
    weights = load_checkpoint(run, which).weights
    return [value.item() for name, value in weights.items() if name.endswith("lambda_")]


def sequences(folds, full_scale=1):
    """A registered set of sequences [T, 6] whose class is the half that is active, and the folds it has."""

    def load_folded(*, root=None, download=False, T=5, fold=0):
        random = torch.Generator().manual_seed(0)
        y = torch.arange(120) % 2
        x = torch.randint(0, 3, (120, T, 6), generator=random).byte()
        x[y == 0, :, :3] += 4
        x[y == 1, :, 3:] += 4
        tested = torch.arange(120) % (folds or 4) == fold
        train, test = (
            Split(x, y[rows], full_scale, rows) for rows in (torch.nonzero(~tested)[:, 0], torch.nonzero(tested)[:, 0])
        )
        return Dataset("folded", train, test, ("low", "high"), (), (), "", "", "", T=T)

    return load_folded


@pytest.fixture
def folded(monkeypatch):
    """Makes "folded" a data set of three folds, or "whole" one of none."""
    monkeypatch.setattr(registry, "_LOADERS", {**registry._LOADERS, "folded": sequences(3), "whole": sequences(0)})
    monkeypatch.setattr(registry, "_FOLDS", {**registry._FOLDS, "folded": 3, "whole": 0})


SMALL = Classification(
    data="folded",
    model="feedforward_snn",
    width=8,
    T=5,
    batch_size=10,
    validation=0.2,
    threads=1,
    train=TrainConfig(epochs=6, lr=2e-2, monitor="loss"),
)


@pytest.mark.usefixtures("folded")
def test_a_network_for_every_fold(tmp_path):
    lines = []
    run, result = train("toy", SMALL, tmp_path, on_epoch=lines.append)
    assert [(line["fold"], line["epoch"]) for line in lines] == [(k, e) for k in range(3) for e in range(6)]
    assert result["test_count"] == 120
    assert result["test_accuracy"] == pytest.approx(np.mean(result["folds"]))
    assert result["test_accuracy"] > 0.9
    assert run.result()["eval"] == result
    assert measure(run) == result
    assert resume(run) == result  # nothing is left to do
    page = report(run).read_text()
    assert "3 folds" in page
    path = tmp_path / "rows.csv"
    record(run, path)
    with path.open() as file:
        (row,) = csv.DictReader(file)
    assert (row["metric"], row["model"], row["data"]) == ("cross_validated_accuracy", "feedforward_snn", "folded")


@pytest.mark.usefixtures("folded")
def test_folds_that_were_stopped_are_gone_on_with(tmp_path):
    _, result = train("toy", SMALL, tmp_path / "whole")

    class StoppedError(Exception): ...

    def stop(line):
        if (line["fold"], line["epoch"]) == (1, 3):
            raise StoppedError

    with pytest.raises(StoppedError):
        train("toy", SMALL, tmp_path / "part", on_epoch=stop)
    (part,) = (tmp_path / "part/toy").iterdir()
    with pytest.raises(ValueError, match=r"lacks fold 2; finish it: rheobase train --resume"):
        measure(RunFolder.open(part))
    lines = []
    again = resume(RunFolder.open(part), on_epoch=lines.append)
    assert [(line["fold"], line["epoch"]) for line in lines] == [(1, 4), (1, 5)] + [(2, e) for e in range(6)]
    assert {**again, "seconds": 0} == {**result, "seconds": 0}


@pytest.mark.usefixtures("folded")
def test_folds_go_on_from_the_checkpoint_that_is_asked_for(tmp_path):
    class StoppedError(Exception): ...

    def stop(line):
        if (line["fold"], line["epoch"]) == (1, 3):
            raise StoppedError

    with pytest.raises(StoppedError):
        train("toy", SMALL, tmp_path, on_epoch=stop)
    (path,) = (tmp_path / "toy").iterdir()
    (fold,) = (path / "folds/fold1").iterdir()
    pointer = fold / "checkpoints/last.json"
    pointer.write_text("no checkpoint")
    with pytest.raises(ValueError, match=r"last\.json"):
        resume(RunFolder.open(path))
    assert resume(RunFolder.open(path), which="best")["test_count"] == 120


def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RHEOBASE_DATA", str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match="files are missing"):
        train("nas-tones", recipe("nas-tones")(), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("folded")
def test_sequences_are_classified_as_their_set_holds_them(tmp_path, monkeypatch):
    monkeypatch.setitem(registry._LOADERS, "whole", sequences(0, full_scale=50))
    run, result = train("toy", replace(SMALL, data="whole"), tmp_path)
    test = load("whole", T=5).test
    named = classify(run, test.samples().numpy().astype(np.float32))
    truth = [("low", "high")[label] for label in test.y.tolist()]
    assert np.mean([a == b for a, b in zip(named, truth, strict=True)]) == pytest.approx(result["test_accuracy"])
    seen = []
    monkeypatch.setattr(Task, "prepare", lambda self, x, generator: seen.append(x) or self.dataset.encode(x, 5))
    classify(run, test.samples().numpy().astype(np.float32))
    assert torch.equal(torch.cat(seen), test.intensities())


@pytest.mark.usefixtures("folded")
def test_one_fold_is_a_run_like_any_other(tmp_path):
    run, result = train("toy", replace(SMALL, fold=2), tmp_path)
    assert result["test_count"] == 40
    assert classify(run, np.zeros((2, 5, 6), np.float32)) == classify(run, np.zeros((2, 5, 6), np.float32))
    with pytest.raises(ValueError, match=r"networks read \[N, \.\.\.\] = N x \(5, 6\)"):
        classify(run, np.zeros((2, 6), np.float32))


@pytest.mark.usefixtures("folded")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fold": 3}, "fold is 3; expected 0 to 2: folded is cross-validated"),
        ({"data": "whole", "fold": 0}, "fold is 0; expected None: whole has a split of its own"),
        ({"fold": 0, "size": 3}, "size is 3; expected None: folded does not consist of recordings"),
        ({"fold": 0, "encoder": "poisson"}, "expected T=5 and 'direct'"),
        ({"data": "digits", "T": 2, "size": 4}, "digits does not consist of recordings"),
    ],
)
def test_settings_that_do_not_fit_the_data_raise(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        train("toy", replace(SMALL, **change), tmp_path)
    assert list(tmp_path.iterdir()) == [] or "encoder" in change


def test_graphs_are_not_classified_sample_by_sample(monkeypatch):
    monkeypatch.setattr(classification, "load", lambda *_, **__: object())
    with pytest.raises(ValueError, match="data is 'cora', a object; expected a set of samples with class labels"):
        build(Classification(data="cora", model="feedforward_snn"))


def test_a_network_of_vectors_reads_images_as_such():
    task = build(Classification(model="feedforward_snn", width=8, T=2))
    x = task.prepare(task.train.intensities(slice(0, 3)), None)
    assert x.shape == (2, 3, 64)
    assert task.model(x).shape == (2, 3, 10)


@pytest.mark.usefixtures("folded")
def test_floors_are_of_all_folds_together(tmp_path):
    found = floors(SMALL)
    assert found["count"] == 120
    assert {"linear", "nearest", "nearest_share", "count"} == set(found)
    assert found["nearest"] == found["nearest_share"] == 1
    assert found["linear"] == 1
    record_floors("toy", SMALL, found, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], row["value"], row["tag"]) for row in rows] == [
        ("linear", "1.0000", "floor"),
        ("nearest", "1.0000", "floor"),
        ("nearest_share", "1.0000", "floor"),
    ]


def test_the_linear_floor_is_linear_in_the_whole_sequence():
    model = LinearFrames(4, 6, 3, scale=2.0)
    torch.nn.init.normal_(model.weight)
    torch.nn.init.normal_(model.bias)
    x = torch.randn(4, 5, 2, 3)
    expected = x.transpose(0, 1).flatten(1) / 2 @ model.weight.flatten(0, 1) + model.bias
    assert torch.allclose(model(x).mean(0), expected, atol=1e-5)
