import dataclasses
import json
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import torch

import rheobase.train.run  # noqa: F401  (the module; the package's attribute of that name is the same one)
from rheobase.train import RunFolder, environment

run_module = sys.modules["rheobase.train.run"]


@dataclasses.dataclass(frozen=True)
class Inner:
    rates: tuple[float, ...] = (0.5, 0.25)


@dataclasses.dataclass(frozen=True)
class Config:
    name: str = "tiny"
    root: Path = Path("data")
    inner: Inner = Inner()


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "runs", "tiny", Config())


def test_create_writes_config_and_environment(run):
    assert re.fullmatch(r"\d{8}-\d{6}", run.path.name)
    assert run.path.parent.name == "tiny"
    assert run.config() == {"name": "tiny", "root": "data", "inner": {"rates": [0.5, 0.25]}}
    assert run.env()["torch"] == torch.__version__
    assert sorted(p.name for p in run.path.iterdir()) == ["checkpoints", "config.json", "env.json"]
    assert RunFolder.open(run.path) == run
    assert RunFolder.open(str(run.path)) == run


def test_create_takes_a_mapping_that_holds_a_dataclass(tmp_path):
    assert RunFolder.create(tmp_path, "mixed", {"train": Inner()}).config() == {"train": {"rates": [0.5, 0.25]}}


def test_runs_of_the_same_second_get_a_suffix(tmp_path, monkeypatch):
    class Stopped(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr(run_module, "datetime", Stopped)
    names = [RunFolder.create(tmp_path, "tiny", {}).path.name for _ in range(3)]
    assert names == ["20260102-030405", "20260102-030405-2", "20260102-030405-3"]


@pytest.mark.parametrize("recipe", ["", "../up", "a/b", ".hidden", "with space"])
def test_create_rejects_a_recipe_that_is_no_plain_name(tmp_path, recipe):
    with pytest.raises(ValueError, match="recipe is"):
        RunFolder.create(tmp_path, recipe, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_create_rejects_a_config_without_json_form_and_leaves_no_folder(tmp_path, value):
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        RunFolder.create(tmp_path, "tiny", {"value": value})
    assert not list(tmp_path.iterdir())


def test_open_says_what_is_not_a_run_folder(tmp_path):
    with pytest.raises(ValueError, match="nowhere is not a folder; pass a run folder"):
        RunFolder.open(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is not a run folder: it has no config"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize(
    ("text", "says"), [("{", "is not valid JSON"), ("[1]", "holds a JSON list"), ("\xff", "valid")]
)
def test_broken_json_is_named(run, text, says):
    (run.path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=rf"config\.json.*{says}"):
        run.config()


def test_missing_json_is_named(run):
    (run.path / "env.json").unlink()
    with pytest.raises(ValueError, match=r"env\.json is missing"):
        run.env()


def test_environment_is_complete():
    env = environment()
    assert env.keys() == {
        *("python", "torch", "numpy", "rheobase", "platform"),
        *("cpu", "gpu", "threads", "processes", "commit", "command"),
    }
    assert env["cpu"]
    assert env["threads"] == torch.get_num_threads()
    assert env["commit"] is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", env["commit"])


def git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_commit_is_that_of_the_package_and_says_dirty(tmp_path, monkeypatch):
    source = tmp_path / "run.py"
    source.write_text("one\n")
    monkeypatch.setattr(run_module, "__file__", str(source))
    git(tmp_path, "init")
    assert environment()["commit"] is None  # not tracked: installed into somebody's repository
    git(tmp_path, "add", "run.py")
    git(tmp_path, "commit", "-m", "one")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert environment()["commit"] == head
    source.write_text("two\n")
    assert environment()["commit"] == f"{head}-dirty"


def test_no_git_is_no_error(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment()["commit"] is None


def test_metrics_are_appended_and_cut_back(run):
    assert run.metrics() == []
    for epoch in range(3):
        run.append_metrics({"epoch": epoch, "loss": 0.1 * epoch})
    assert [line["epoch"] for line in run.metrics()] == [0, 1, 2]
    run.keep_metrics(2)
    run.append_metrics({"epoch": "new"})
    assert [line["epoch"] for line in run.metrics()] == [0, 1, "new"]
    with pytest.raises(ValueError, match="has 3 whole lines but the checkpoint covers 4"):
        run.keep_metrics(4)


def test_a_torn_last_line_is_left_out_and_cut_off(run):
    run.append_metrics({"epoch": 0})
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"epoch": 1, "lo')
    assert run.metrics() == [{"epoch": 0}]
    run.keep_metrics(1)
    run.append_metrics({"epoch": 1})
    assert run.metrics() == [{"epoch": 0}, {"epoch": 1}]


def test_a_broken_line_within_the_metrics_is_named(run):
    (run.path / "metrics.jsonl").write_text('{"epoch": 0}\noops\n{"epoch": 2}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl line 2 is not valid JSON"):
        run.metrics()


def test_metrics_refuse_nan(run):
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        run.append_metrics({"loss": float("nan")})
    assert run.metrics() == []


def test_results_of_several_verbs_stand_side_by_side(run):
    assert run.result() == {}
    run.add_result("train", {"accuracy": 0.5})
    run.add_result("attack", {"accuracy": 0.25})
    run.add_result("train", {"accuracy": 0.75})
    assert run.result() == {"train": {"accuracy": 0.75}, "attack": {"accuracy": 0.25}}


def test_a_failing_write_leaves_the_old_file(run, monkeypatch):
    run.add_result("train", {"accuracy": 0.5})

    def broken(handle):
        raise OSError("disk full")

    monkeypatch.setattr(run_module.os, "fsync", broken)
    with pytest.raises(OSError, match="disk full"):
        run.add_result("train", {"accuracy": 0.75})
    monkeypatch.undo()
    assert json.loads((run.path / "result.json").read_text()) == {"train": {"accuracy": 0.5}}
