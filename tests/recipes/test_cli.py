"""The command line end to end, on the offline digits with a tiny network."""

import csv
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from rheobase.cli import main
from rheobase.data import Augment
from rheobase.recipes import config_of, record
from rheobase.recipes.record import append_row
from rheobase.train import RunFolder

TINY = ["--model", "test_ms_resnet", "--epochs", "2", "--T", "2", "--batch-size", "100", "--warmup-epochs", "0"]


def run(capsys, *arguments):
    """Exit code, last line as JSON if there is one, and standard error."""
    try:
        code = main([str(a) for a in arguments])
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr()
    lines = said.out.strip().splitlines()
    return code, json.loads(lines[-1]) if "--json" in arguments and lines and code == 0 else None, said.err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder with a finished training and its report."""
    root = tmp_path_factory.mktemp("runs")
    assert main(["train", "digits", *TINY, "--runs", str(root), "--report", "--results", str(root / "rows.csv")]) == 0
    (path,) = (root / "digits").iterdir()
    return path


def test_train_prints_accuracy_and_paths(tmp_path, capsys):
    code, found, _ = run(capsys, "train", "digits", *TINY, "--runs", tmp_path, "--json", "--report")
    assert code == 0
    assert 0 <= found["test_accuracy"] <= 1
    assert found["parameters"] > 0
    assert Path(found["run"]).is_dir()
    assert Path(found["report"]).is_file()


def test_augmentation_is_an_option_and_nothing_if_it_is_off(trained, tmp_path, capsys):
    assert json.loads((trained / "config.json").read_text())["augment"] is None
    code, found, _ = run(capsys, "train", "digits", *TINY, "--flip", 0.5, "--crop", 1, "--runs", tmp_path, "--json")
    assert code == 0
    assert config_of(RunFolder.open(Path(found["run"]))).augment == Augment(flip=0.5, crop=1)


def test_one_plain_line_an_epoch(tmp_path, capsys):
    main(["train", "digits", *TINY, "--runs", str(tmp_path)])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in lines] == ["1/2", "2/2"]


def test_eval_and_report_take_a_run(trained, capsys):
    code, found, _ = run(capsys, "eval", trained, "--json")
    assert code == 0
    assert found["test_accuracy"] == RunFolder.open(trained).result()["eval"]["test_accuracy"]
    (trained / "report.html").unlink()
    code, found, _ = run(capsys, "report", trained, "--json")
    assert code == 0
    text = (trained / "report.html").read_text()
    assert "stages" in text or "neuron" in text
    assert Path(found["report"]).samefile(trained / "report.html")


def test_list_says_what_there_is(capsys):
    code, found, _ = run(capsys, "list", "--json")
    assert code == 0
    assert "digits" in found["recipes"]
    assert "lif" in found["neurons"]
    assert run(capsys, "list", "models", "--json")[1]["models"]


def test_images_are_classified(trained, tmp_path, capsys):
    images = np.random.default_rng(0).random((3, 1, 8, 8), dtype=np.float32)
    np.save(tmp_path / "x.npy", images)
    code, found, _ = run(capsys, "eval", trained, "--images", tmp_path / "x.npy", "--json")
    assert code == 0
    assert len(found["predictions"]) == 3


def nan_images(tmp_path):
    x = np.zeros((2, 1, 8, 8), np.float32)
    x[1, 0, 0, 0] = np.nan
    return x


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (lambda t: np.zeros((2, 8, 8), np.float32), "have shape (2, 8, 8)"),
        (lambda t: np.zeros((2, 3, 8, 8), np.float32), "have shape (2, 3, 8, 8)"),
        (nan_images, "hold 1 NaN or Inf"),
        (lambda t: np.full((2, 1, 8, 8), 17.0, np.float32), "divide by the full scale"),
    ],
)
def test_bad_images_end_in_one_message(trained, tmp_path, capsys, images, message):
    np.save(tmp_path / "x.npy", images(tmp_path))
    code, _, error = run(capsys, "eval", trained, "--images", tmp_path / "x.npy")
    assert code == 2
    assert message in error
    assert error.count("\n") == 1


def test_a_file_that_is_no_array_ends_in_one_message(trained, tmp_path, capsys):
    (tmp_path / "x.npy").write_text("not an array")
    code, _, error = run(capsys, "eval", trained, "--images", tmp_path / "x.npy")
    assert code == 2
    assert "is not an .npy array" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "digit"], "there is no recipe 'digit'; did you mean 'digits'"),
        (["train", "digits", "--epoch", "3"], "--epochs"),
        (["train", "digits", "--epochs", "many"], "invalid"),
        (["train", "digits", "--epochs", "0"], "epochs is 0 but must be at least 1"),
        (["train", "digits", "--model", "resnet"], "resnet"),
        (["train", "digits", "--neuron", "liff"], "did you mean 'lif'"),
        (["train", "digits", "--T", "0"], "T"),
        (["train", "digits", "--encoder", "morse"], "morse"),
        (["eval", "nowhere"], "nowhere is not a folder"),
        (["report", "."], "is not a run folder"),
        (["train", "--resume", "nowhere"], "nowhere is not a folder"),
        (["dance"], "there is no verb 'dance'"),
        (["list", "pets"], "pets"),
    ],
)
def test_mistakes_end_in_a_message_and_exit_code_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = run(capsys, *arguments)
    assert code == 2
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "runs").exists()


def test_missing_data_says_where_to_put_which_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RHEOBASE_DATA", str(tmp_path / "empty"))
    code, _, error = run(capsys, "train", "fashion-mnist", "--runs", tmp_path / "runs")
    assert code == 2
    assert "train-images-idx3-ubyte" in error
    assert "--download" in error
    assert not (tmp_path / "runs").exists()


def test_a_corrupted_checkpoint_is_said_and_nothing_is_lost(trained, tmp_path, capsys):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    weights = next(path for path in copy.rglob("model.safetensors") if "best" in str(path))
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    code, _, error = run(capsys, "eval", copy)
    assert code == 2
    assert "model.safetensors" in error
    assert run(capsys, "eval", copy, "--checkpoint", "last")[0] == 0


def test_the_row_has_every_column_and_other_files_are_refused(trained, tmp_path):
    rows = (trained.parents[1] / "rows.csv").read_text().splitlines()
    assert len(rows) == 2
    assert rows[0].startswith("recipe,data,model")
    assert rows[1].startswith("digits,digits,test_ms_resnet,2,2,0,test_accuracy,0.")
    record(RunFolder.open(trained), trained.parents[1] / "rows.csv")
    assert len((trained.parents[1] / "rows.csv").read_text().splitlines()) == 3
    other = tmp_path / "other.csv"
    other.write_text("a,b\n")
    with pytest.raises(ValueError, match="has the columns a,b"):
        append_row(other, ("a",), {"a": 1})


@pytest.mark.slow
def test_kill_and_resume_gives_the_same_bits(tmp_path):
    """kill -9 in the middle of an epoch, from outside; the whole command line, twice."""
    command = [sys.executable, "-m", "rheobase.cli", "train"]
    arguments = ["digits", *TINY, "--checkpoint-every-steps", "3", "--epochs", "3"]
    subprocess.run([*command, *arguments, "--runs", tmp_path / "whole"], check=True, capture_output=True)
    victim = subprocess.Popen([*command, *arguments, "--runs", tmp_path / "killed"], stdout=subprocess.PIPE, text=True)
    with victim:
        victim.stdout.readline()  # the first epoch's line
        victim.send_signal(signal.SIGKILL)
    (killed,), (whole,) = ((tmp_path / part / "digits").iterdir() for part in ("killed", "whole"))
    lines = len((killed / "metrics.jsonl").read_text().splitlines())
    assert 1 <= lines < 3
    subprocess.run([*command, "--resume", killed], check=True, capture_output=True)
    weights = [
        next(path for path in folder.rglob("model.safetensors") if "last" in str(path)) for folder in (killed, whole)
    ]
    a, b = (load_file(path) for path in weights)
    assert a.keys() == b.keys()
    assert all((a[name] == b[name]).all() for name in a)
    metrics = [RunFolder.open(folder).metrics() for folder in (killed, whole)]
    assert [{k: v for k, v in m.items() if k != "seconds"} for m in metrics[0]] == [
        {k: v for k, v in m.items() if k != "seconds"} for m in metrics[1]
    ]


def test_cost_prices_a_run(trained, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    code, found, _ = run(capsys, "cost", copy, "--samples", "30", "--rule", "papers", "--json")
    assert code == 0
    assert (found["samples"], found["T"], found["rule"]) == (30, 2, "papers")
    assert "stem.0.module" in found["exceptions"]
    with Path(found["csv"]).open() as file:
        rows = list(csv.DictReader(file))
    assert [rows[0]["layer"], rows[0]["kind"], rows[0]["spike_driven"]] == ["stem.0.module", "convolution", "False"]
    assert {row["kind"] for row in rows} == {"convolution", "linear", "neurons", "between"}
    whole = found["rules"]["memory"]
    assert sum(float(row["computing_pJ"]) + float(row["moving_pJ"]) for row in rows) == pytest.approx(
        whole["energy_pJ"]
    )
    beside = found["quantised"]["with memory"]
    assert sum(float(row["quantised_pJ"]) for row in rows) == pytest.approx(beside["ann_pJ"])
    assert (beside["bits"], beside["ratio"]) == (2, pytest.approx(beside["snn_pJ"] / beside["ann_pJ"]))
    assert found["unpriced"] == []
    assert sum(float(row["energy_pJ"]) for row in rows) == pytest.approx(found["energy_pJ"])
    assert found["energy_pJ"] == pytest.approx(4.6 * found["macs"] + 0.9 * found["acs"])
    noted = RunFolder.open(copy).result()
    assert noted["cost"]["energy_pJ"] == found["energy_pJ"]
    assert noted["eval"] == RunFolder.open(trained).result()["eval"]
    rows = tmp_path / "rows.csv"
    whole = run(capsys, "cost", copy, "--results", rows, "--json")[1]
    recorded = {row["metric"]: row for row in csv.DictReader(rows.read_text().splitlines())}
    assert float(recorded["spikes_per_neuron"]["value"]) == pytest.approx(whole["spikes_per_neuron"], rel=1e-5)
    assert float(recorded["energy_nJ"]["value"]) == pytest.approx(whole["energy_pJ"] / 1e3, rel=1e-5)
    assert recorded["energy_nJ"]["tag"] == "counted by the rule strict"
    assert (whole["rule"], whole["samples"]) == ("strict", noted["eval"]["test_count"])
    assert RunFolder.open(copy).result()["cost"]["accuracy"] == noted["eval"]["test_accuracy"]


def test_the_page_of_a_priced_run_shows_what_it_costs(trained, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    run(capsys, "report", copy)
    assert "What it costs" not in (copy / "report.html").read_text()
    code, found, _ = run(capsys, "cost", copy, "--samples", "30", "--rule", "memory", "--report", "--json")
    assert (code, found["report"]) == (0, str(copy / "report.html"))
    priced = (copy / "report.html").read_text()
    assert "Counted on 30 test samples" in priced
    for part in ("One network, every rule", "2 bits, once, dense", "Energy by layer", "Density of what products read"):
        assert part in priced
    assert f"no, MAC share {100 * found['mac_share']:.2f} %" in priced
    run(capsys, "report", copy)
    assert "What it costs" in (copy / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rule", "cheap"], "there is no rule 'cheap'; expected one of papers"),
        (["--samples", "0"], "samples is 0"),
        (["--units", "sata"], "name one with --h2learn"),
        (["--h2learn", "ref-S", "--rule", "exact"], "leave them out with --h2learn"),
        (["--h2learn", "ref-S", "--results", "rows.csv"], "leave them out with --h2learn"),
    ],
)
def test_cost_says_what_is_wrong(trained, capsys, arguments, message):
    code, _, error = run(capsys, "cost", trained, *arguments)
    assert code == 2
    assert message in error
    assert not (trained / "cost.csv").exists()
