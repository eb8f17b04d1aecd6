import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from rheobase.data import Augment, Dataset, EventDataset, Recordings, Split, load, registry
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
        ({"data": "digits", "T": 2, "frames_by": "count"}, "frames_by is 'count'; expected 'time': digits does not"),
        (
            {"data": "digits", "T": 2, "workers": 1},
            "workers is 1; expected 0: digits is no set of pictures on the disk",
        ),
        ({"data": "digits", "T": 2, "test_size": 8}, "test_size is 8; expected None"),
        ({"fold": 0, "augment": Augment(flip=0.5)}, r"flip needs images \[C, H, W\] or frames"),
    ],
)
def test_settings_that_do_not_fit_the_data_raise(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        train("toy", replace(SMALL, **change), tmp_path)
    assert list(tmp_path.iterdir()) == [] or "encoder" in change


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"test_resize": 223}, "test_resize is 223; expected at least the 224 pixels"),
        ({"size": 32, "test_size": 40, "test_resize": 39}, "at least the 40 pixels"),
        ({"workers": -1}, "workers is -1"),
        ({"test_size": 0}, "test_size is 0"),
        ({"frames_by": "events"}, "frames_by is 'events'"),
    ],
)
def test_settings_out_of_range(untyped, settings, says):
    with pytest.raises(ValueError, match=says):
        Classification(**settings)


def test_augmentation_is_of_training_batches_alone():
    config = Classification(
        model="test_ms_resnet", T=2, batch_size=30, augment=Augment(flip=1.0, mixup=1.0, erasing=1.0)
    )
    task, plain = build(config), build(replace(config, augment=None))
    for split in (task.validation, task.dataset.test):
        for (x, y), (same_x, same_y) in zip(task.source(split, False)(0), plain.source(split, False)(0), strict=True):
            assert torch.equal(x, same_x)
            assert torch.equal(y, same_y)
    task = build(replace(config, augment=Augment(flip=1.0)))
    drawn, stored = task.source(task.train, shuffle=True), plain.source(plain.train, shuffle=True)
    assert len(drawn) == len(stored)
    for (x, y), (same_x, same_y) in zip(drawn(3), stored(3), strict=True):
        assert torch.equal(x, same_x.flip(3))
        assert torch.equal(y, same_y)


def test_an_augmented_training_resumes_bit_equal(tmp_path):
    config = Classification(
        model="test_ms_resnet",
        T=2,
        batch_size=200,
        threads=1,
        augment=Augment(flip=0.5, crop=1, erasing=0.2, mixup=0.4, cutmix=1.0, mix_epochs=1),
        train=TrainConfig(epochs=2, label_smoothing=0.1, checkpoint_every_steps=1),
    )
    assert_resumes_bit_equal(config, tmp_path, stop_at=3)


def assert_resumes_bit_equal(config, tmp_path, stop_at):
    """Trained through, and stopped after so many steps and gone on with: the same weights and numbers."""
    whole, result = train("toy", config, tmp_path / "whole")

    def stop(done, total):
        if done == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("toy", config, tmp_path / "part", on_step=stop)
    (path,) = (tmp_path / "part/toy").iterdir()
    part = RunFolder.open(path)
    assert {**resume(part), "seconds": 0} == {**result, "seconds": 0}
    weights = [load_checkpoint(run, "last").weights for run in (whole, part)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    return whole


def test_pictures_on_the_disk_are_trained_resumed_reported_and_classified(tmp_path, monkeypatch):
    random = np.random.RandomState(0)
    for part, count in (("train", 8), ("val", 3)):
        for label in range(2):
            for k in range(count):
                path = tmp_path / "data/imagenet" / part / f"n{label:08}" / f"{k}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = random.randint(0, 256, (24 + k, 30, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(path)
    monkeypatch.setenv("RHEOBASE_DATA", str(tmp_path / "data"))
    config = Classification(
        data="imagenet",
        model="test_ms_resnet",
        T=2,
        size=12,
        test_size=16,
        test_resize=20,
        workers=2,
        batch_size=6,
        validation=0.25,
        threads=1,
        augment=Augment(flip=0.5, cutmix=1.0),
        train=TrainConfig(epochs=2, checkpoint_every_steps=1),
    )
    task = build(config)
    assert [len(task.train), len(task.validation), len(task.dataset.test)] == [12, 4, 6]
    assert {tuple(x.shape[1:]) for x, _ in task.source(task.train, True)(0)} == {(3, 12, 12)}
    for split in (task.validation, task.dataset.test):
        x, y = next(iter(task.source(split, False)(0)))
        assert torch.equal(x[1], split.centre_crop(1, 16, 20) / 255)
        assert torch.equal(y, split.y)
    alone = [x for x, _ in build(replace(config, workers=0)).source(task.train, True)(1)]
    assert all(torch.equal(a, b) for a, (b, _) in zip(alone, task.source(task.train, True)(1), strict=True))
    run = assert_resumes_bit_equal(config, tmp_path, stop_at=1)
    assert run.result()["train"]["steps"] == 4
    assert "n00000001" in report(run).read_text()
    assert len(classify(run, np.zeros((2, 3, 16, 16), np.float32))) == 2
    with pytest.raises(ValueError, match=r"N x \(3, 16, 16\)"):
        classify(run, np.zeros((2, 3, 12, 12), np.float32))
    with pytest.raises(ValueError, match="imagenet stays on the disk"):
        floors(config)


def test_frames_are_of_equal_time_or_of_equal_counts(monkeypatch):
    recordings = Recordings(lambda k: None, torch.arange(4) % 2, "none")
    events = EventDataset("moving", recordings, recordings, ("a", "b"), (4, 4), "", "", "")
    asked = []

    def frames(self, T, *, size, by):
        asked.append((T, size, by))
        split = Split(torch.zeros(4, T, 2, size, size), recordings.y)
        return Dataset("moving", split, split, ("a", "b"), (), (), "", "", "", T=T)

    monkeypatch.setattr(EventDataset, "frames", frames)
    monkeypatch.setattr(classification, "load", lambda *_, **__: events)
    config = Classification(data="moving", model="test_conv_snn", T=3, size=12, validation=0.5)
    for by in ("time", "count"):
        task = build(replace(config, frames_by=by, augment=Augment(flip=1.0, crop=2)))
        assert next(iter(task.source(task.train, True)(0)))[0].shape == (2, 3, 2, 12, 12)
    assert asked == [(3, 12, "time"), (3, 12, "count")]


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


@pytest.mark.usefixtures("folded")
def test_floors_are_of_plain_samples(monkeypatch):
    monkeypatch.setattr(Augment, "over", None)
    assert floors(replace(SMALL, fold=0, augment=Augment(mixup=1.0)))["count"] == 40


def test_the_linear_floor_is_linear_in_the_whole_sequence():
    model = LinearFrames(4, 6, 3, scale=2.0)
    torch.nn.init.normal_(model.weight)
    torch.nn.init.normal_(model.bias)
    x = torch.randn(4, 5, 2, 3)
    expected = x.transpose(0, 1).flatten(1) / 2 @ model.weight.flatten(0, 1) + model.bias
    assert torch.allclose(model(x).mean(0), expected, atol=1e-5)
