"""A run made smaller: from the command line to its page, also when it was killed on the way."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from rheobase import cli
from rheobase.cli import main
from rheobase.files import read_table
from rheobase.lab.compress import (
    Activity,
    AdmmPrune,
    Channels,
    GradualMagnitude,
    Lats,
    Magnitude,
    Quantise,
    load_packed,
)
from rheobase.recipes import Compression, build, compress_run, config_of, resume_compress
from rheobase.recipes import compression as studies
from rheobase.recipes.compress_page import compress_sections
from rheobase.train import RunFolder, TrainConfig, load_checkpoint

TINY = ["--model", "test_ms_resnet", "--epochs", "2", "--T", "2", "--batch-size", "50", "--warmup-epochs", "0"]
TINY += ["--train-samples", "200", "--threads", "1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    assert main(["train", "digits", *TINY, "--runs", str(root)]) == 0
    (path,) = (root / "digits").iterdir()
    return RunFolder.open(path)


@pytest.fixture(scope="module")
def small(trained, tmp_path_factory):
    config = Compression((Magnitude(2, sparsity=0.9), Quantise(2, bits=3)), lr=0.02)
    return compress_run(trained, config, tmp_path_factory.mktemp("small"), samples=50)


def test_a_run_is_compressed_and_every_verb_accepts_it(trained, tmp_path, capsys):
    arguments = ["--method", "lats", "--sparsity", "0.8", "--bits", "2", "--activity", "0.1", "--epochs", "6"]
    before = {path: path.read_bytes() for path in trained.path.rglob("*") if path.is_file()}
    rows = tmp_path / "rows.csv"
    where = ["--runs", str(tmp_path), "--results", str(rows), "--report", "--json", "--samples", "50"]
    assert main(["compress", str(trained.path), *arguments, *where]) == 0
    said = capsys.readouterr().out
    found = json.loads(said.strip().splitlines()[-1])
    assert found["compress"]["sparsity"] >= 0.8
    assert [stage["method"] for stage in found["compress"]["stages"]] == ["lats", "quantise", "activity"]
    assert "closing  epoch" not in said  # a tenth of 6 epochs is none
    assert "soft  epoch 1/" in said
    path = found["run"]
    for verb in (["eval"], ["report"], ["cost", "--samples", "50"]):
        assert main([verb[0], path, *verb[1:]]) == 0
    (row,) = read_table(rows)
    assert row["recipe"] == "digits"
    assert row["methods"] == "lats quantise activity"
    assert float(row["sparsity"]) >= 0.8
    assert float(row["D"]) > 0
    assert row["activity"] == "0.1"
    assert {path: path.read_bytes() for path in before} == before  # only read


def test_weights_are_plain_and_load_into_the_model(small):
    run, result = small
    model = build(config_of(run)).model
    model.load_state_dict(load_checkpoint(run, "best").weights)
    weights = [p for name, p in model.named_parameters() if p.dim() > 1 and name.endswith("module.weight")]
    assert sum(int((w == 0).sum()) for w in weights) == result["compress"]["zeros"]
    assert all(len(w.unique()) <= 7 for w in weights)
    assert result["compress"]["before"]["count"] == 497


def test_packed_weights_are_the_same_bits(small):
    run, result = small
    expected, found = load_checkpoint(run, "last").weights, load_packed(run.path / "packed.safetensors")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert found[name].numpy().tobytes() == value.contiguous().numpy().tobytes(), name
    assert result["compress"]["bytes"] < 0.6 * result["compress"]["dense_bytes"]


def test_codes_give_the_weights_back(small):
    run, _ = small
    beside, weights = load_file(run.path / "codes.safetensors"), load_checkpoint(run).weights
    names = [name.removesuffix(".codes") for name in beside if name.endswith(".codes")]
    assert len(names) > 3
    for name in names:
        codes, levels, scale = (beside[f"{name}.{part}"] for part in ("codes", "levels", "scale"))
        made = (scale * levels[codes.long()]).masked_fill(~beside[f"{name}.mask"], 0.0)
        assert torch.equal(made, weights[name])


def test_metrics_name_their_phases(small):
    run, _ = small
    lines = run.metrics()
    assert [line["phase"] for line in lines] == ["masked", "masked", "admm", "quantised"]
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3]
    assert not (run.path / "phases").exists()


def test_page_shows_what_was_done(small):
    run, result = small
    (section,) = compress_sections(run)
    heads = [part.heading for part in section.parts]
    assert heads == ["Before and after", "Methods", "Weights by layer", "Layers"]
    assert f"{result['compress']['zeros']:,} of" in section.text
    assert compress_sections(RunFolder(run.path.parent)) == ()


def test_operations_fall_with_the_weights(small):
    _, result = small
    found = result["compress"]
    assert found["operations_ratio"] < 0.6
    assert found["bit_operations_ratio"] < found["operations_ratio"] * 3 / 32 + 1e-9


class StopError(Exception):
    pass


@pytest.mark.parametrize(
    ("prune", "epoch"),
    [(Lats(6, 0.8), 1), (Lats(6, 0.8), 8), (GradualMagnitude(3, 0.8), 2), (AdmmPrune(4, 0.8), 1)],
    ids=["lats", "lats quantise", "gradual", "admm"],
)
def test_killed_compression_goes_on_to_equal_bits(trained, tmp_path, prune, epoch):
    config = Compression((prune, Quantise(2, bits=2), Activity(0, 0.05)), lr=0.02)
    whole, _ = compress_run(trained, config, tmp_path / "a", samples=10)
    seen = []

    def stop(line):
        seen.append(line)
        if len(seen) == epoch:
            raise StopError

    with pytest.raises(StopError):
        compress_run(trained, config, tmp_path / "b", samples=10, on_epoch=stop)
    (killed,) = (tmp_path / "b").glob("*/*")
    run = RunFolder.open(killed)
    with pytest.raises(ValueError, match="no checkpoint"):
        load_checkpoint(run)
    result = resume_compress(run)
    expected, found = load_checkpoint(whole).weights, load_checkpoint(run).weights
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert resume_compress(run)["compress"] == result["compress"]  # done: nothing is done again


def test_channels_of_a_run(trained, tmp_path):
    run, result = compress_run(trained, Compression((Channels(1, share=0.5),), lr=0.02), tmp_path, samples=10)
    assert result["compress"]["sparsity"] > 0.1
    assert compress_sections(run)


def test_training_does_not_go_on_with_a_compressed_run(small, trained, capsys):
    assert main(["train", "--resume", str(small[0].path)]) == 2
    assert "rheobase compress --resume" in capsys.readouterr().err
    assert main(["compress", "--resume", str(trained.path)]) == 2
    assert "was not made by compression" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name one run"),
        (["RUN"], "nothing to do"),
        (["RUN", "--sparsity", "0.5"], "without a method"),
        (["RUN", "--D", "0.5", "--method", "admm"], "without --method lats"),
        (["RUN", "--method", "admm", "--sparsity", "2"], "expected a share"),
        (["RUN", "--bits", "9"], "bits is 9"),
        (["RUN", "--method", "magnitude", "--exclude", "nothing*"], "fits no layer"),
    ],
)
def test_mistakes_end_in_one_message(trained, tmp_path, capsys, arguments, message):
    copy = shutil.copytree(trained.path, tmp_path / "run")
    given = [str(copy) if each == "RUN" else each for each in arguments]
    assert main(["compress", *given, "--runs", str(tmp_path)]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert said.count("\n") == 0
    assert not list(tmp_path.glob("digits-*"))


def test_phases_train_as_the_run_did():
    train = TrainConfig(
        epochs=20, optimizer="sgd", lr=0.1, schedule="step", milestones=(10, 15), warmup_epochs=2, patience=3
    )
    found = Compression((Magnitude(),), lr=0.01).phase(train, 4)
    assert (found.epochs, found.lr, found.optimizer, found.milestones) == (4, 0.01, "sgd", (2, 3))
    assert (found.warmup_epochs, found.patience) == (0, 0)


def test_config_survives_json():
    config = Compression((Lats(6, 0.8), Quantise(2)), ("head*",), 0.1, "adam", 1.0)
    assert Compression.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_grid_has_every_cell():
    config = studies.digits_dense()
    config = replace(config, train_samples=200, train=replace(config.train, epochs=1, checkpoint_every_epochs=1))
    rows = list(studies._grid(config, 0, (0.9,), (2,), ("LATS", "magnitude"), (6, 1, 1), 0.1))
    subjects = {row.subject for row in rows}
    assert subjects == {
        "dense", "LATS", "LATS, 2 bits", "magnitude", "magnitude, 2 bits", "dense, 2 bits", "activity",
        "LATS against magnitude",
    }  # fmt: skip
    zeros = {row.subject: row.value for row in rows if row.metric == "zeros, %"}
    assert zeros["magnitude"] == pytest.approx(90, abs=0.1)
    reached = {row.subject: row.value for row in rows if row.metric == "accuracy, %"}
    (compared,) = (row for row in rows if row.metric == "points")
    assert (compared.size, compared.value) == (90, pytest.approx(reached["LATS"] - reached["magnitude"]))


@pytest.mark.parametrize(("rival", "tag"), [(98.0, "LATS won"), (99.0, "neither won"), (99.5, "magnitude won")])
def test_the_row_says_who_won(rival, tag):
    assert studies.against(99.0, rival, "magnitude", 0.95).tag == tag


def test_the_scope_reaches_channels():
    given = cli.CompressArguments(method="channels", sparsity=0.5, scope="global")
    assert cli._compression(given).methods == (Channels(given.epochs, 0.5, scope="global"),)
