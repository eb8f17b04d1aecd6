"""Two processes on the CPU, which talk by gloo through localhost, against one."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rheobase.train import RunFolder

DRIVER = Path(__file__).with_name("distributed_driver.py")


def launch(verb, root):
    """Exit code, standard output and standard error of each of two processes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(DRIVER), verb, str(root)],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        said = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def report(verb, root):
    """What process 0 prints, when both end well."""
    (code, out, err), (other_code, other_out, other_err) = launch(verb, root)
    assert (code, other_code) == (0, 0), err + other_err
    assert other_out == ""
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    return report("compare", tmp_path_factory.mktemp("compare"))


@pytest.mark.parametrize("training", ["resnet", "bits", "unfused", "dense", "small", "soft"])
def test_two_processes_train_as_one(compared, training):
    """Losses, accuracies, rates of every epoch and all weights and running statistics, in fp64."""
    assert compared[training] < 1e-9


def test_in_fp32_they_agree_to_rounding(compared):
    assert compared["float"] < 1e-5


def test_dropout_differs_between_processes_and_repeats_itself(compared):
    assert compared["draws differ"]
    assert compared["repeats"]
    assert compared["same bits again"] == []


def test_the_first_process_alone_reads_and_writes_the_run(compared):
    assert compared["nowhere"] == []


def test_errors_of_the_first_are_raised_in_all(compared):
    assert compared["errors of the first are everybody's"]


def test_killed_and_resumed_is_bit_equal(tmp_path):
    (code, _, err), (killed, _, _) = launch("die", tmp_path)
    assert killed == -signal.SIGKILL
    assert code == 1
    assert "process 0 of 2 lost another" in err
    assert RunFolder(tmp_path / "killed").result() == {}
    assert report("resume", tmp_path) == {"different": []}


def test_an_error_in_one_process_ends_all(tmp_path):
    (code, _, err), (other_code, _, other_err) = launch("fail", tmp_path)
    assert (code, other_code) == (1, 1)
    assert "process 0 of 2 lost another, which stopped or was stopped: see its message" in err
    assert "ValueError: the labels at epoch 1, step 1 lie in 7 .. 7 but the model has 3 outputs" in other_err


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="accelerate is not installed: make test")
def test_the_launcher_trains_a_recipe_as_one_process_does(tmp_path):
    recipe = ["digits", "--model", "test_ms_resnet", "--epochs", "1", "--T", "2", "--warmup-epochs", "0"]
    options = ["--device", "cpu", "--threads", "1", "--results", "rows.csv", "--report", "--json"]
    command = ["-m", "rheobase", "train", *recipe, *options]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    settings = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    found = []
    for start, runs in (([sys.executable], "alone"), ([*launcher, *settings, "--main_process_port", "0"], "together")):
        done = subprocess.run(
            [*start, *command, "--runs", runs], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert sum(line.startswith("epoch ") for line in lines) == 1
        (run,) = (tmp_path / runs / "digits").iterdir()
        assert (run / "report.html").is_file()
        found.append({**json.loads(lines[-1]), "processes": RunFolder.open(run).env()["processes"]})
    one, two = found
    assert (one["processes"], two["processes"]) == (1, 2)
    assert two["test_count"] == one["test_count"]
    assert two["test_loss"] == pytest.approx(one["test_loss"], abs=1e-4)
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 3
