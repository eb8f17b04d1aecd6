import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import rheobase as rb
from rheobase.neurons import LIF
from rheobase.scan import run_cpu

SCRIPT = """
import sys, torch
from rheobase.neurons import LIF, Rectangle
x = torch.linspace(-1, 3, 60).reshape(3, 2, 10).requires_grad_()
LIF(surrogate=Rectangle(0.75)) (x).sum().backward()
print(float(x.grad.sum()))
"""


def run(folder, code=SCRIPT, **env):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "RHEOBASE_KERNELS": str(folder), **env},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.slow
def test_a_second_process_compiles_nothing(tmp_path):
    first = run(tmp_path)
    kept = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    assert sum(p.suffix == ".py" for p in kept) == 2
    assert sum(p.suffix == ".nbc" for p in kept) == 2
    second = run(tmp_path)
    assert second.stdout == first.stdout
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == kept


@pytest.mark.slow
def test_processes_that_compile_at_once_agree(tmp_path):
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "RHEOBASE_KERNELS": str(tmp_path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    answers = {job.communicate()[0] for job in jobs}
    assert all(job.returncode == 0 for job in jobs)
    assert len(answers) == 1
    assert not list(tmp_path.glob(".rheobase*"))


def test_a_folder_that_cannot_be_written_is_said_once_and_works(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("RHEOBASE_KERNELS", str(blocked / "kernels"))
    monkeypatch.setattr(run_cpu, "_forward_kernel", run_cpu._forward_kernel.__wrapped__)
    for name in [name for name in sys.modules if name.startswith("rheobase_kernel_")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.warns(RuntimeWarning, match="set RHEOBASE_KERNELS to a folder that can be written"):
        y = LIF()(torch.full((2, 1, 3), 3.0))
    assert torch.equal(y, torch.ones(2, 1, 3))


def test_the_source_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setenv("RHEOBASE_KERNELS", str(tmp_path))
    monkeypatch.setattr(run_cpu, "_forward_kernel", run_cpu._forward_kernel.__wrapped__)
    for name in [name for name in sys.modules if name.startswith("rheobase_kernel_")]:
        monkeypatch.delitem(sys.modules, name)
    LIF()(torch.ones(2, 1, 3))
    (path,) = tmp_path.glob("*.py")
    text = Path(path).read_text()
    assert "leaky_integrate_and_fire" in text
    assert "for t in range(0, T):" in text


@pytest.mark.parametrize("tau", [2.0, 4.0, 0.5, 3.0, 1e-40])
def test_dividing_by_a_power_of_two_has_the_bits_of_a_division(tau):
    x = torch.randn(5, 2, 300) * torch.logspace(-44, 30, 300)
    found = []
    for engine in ("cpu", "reference"):
        with rb.engine(engine):
            found.append(LIF(tau=tau, threshold=1e20).sequence(x, None))
    assert torch.equal(found[0][1][0].nan_to_num(7.0), found[1][1][0].nan_to_num(7.0))
    assert torch.equal(found[0][0], found[1][0])
