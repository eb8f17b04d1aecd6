import pytest
import torch
from benchmarks.__main__ import main
from benchmarks.measure import Effort
from benchmarks.registry import BENCHMARKS

from benchmarks import gpu
from rheobase.neurons import NEURONS


def test_without_a_gpu_it_says_what_it_needs(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["gpu"]) == 2
    assert "needs an NVIDIA GPU and a torch built for CUDA" in capsys.readouterr().err


def test_without_triton_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'rheobase[triton]'" in BENCHMARKS["gpu"].missing()


def test_other_benchmarks_need_nothing():
    assert BENCHMARKS["neuron"].missing() == ""


def test_every_neuron_is_checked_in_every_format_and_layout():
    found = list(gpu.cases(Effort()))
    assert {case.neuron for case in found} == {name for name, entry in NEURONS.items() if entry.any_T}
    assert {case.dtype for case in found} == {torch.float32, torch.bfloat16, torch.float16}
    assert len({case.label for case in found}) == len(found)
    by_label = {case.label: case for case in found}
    assert by_label["lif static input"].make().stride(0) == 0
    assert not by_label["lif channels-last"].make().is_contiguous()
    assert by_label["plif per channel"].build().w.shape == (6, 1, 1)
    assert len(list(gpu.cases(Effort(quick=True)))) < len(found)


@pytest.mark.triton
@pytest.mark.parametrize(
    "label",
    [
        "lif torch.bfloat16 contiguous",
        "if channels-last",
        "lif one step",
        "plif per channel",
        "stochastic_lif one step",
    ],
)
def test_cases_run(label):
    """Where no GPU is, Triton's interpreter stands in for it."""
    (case,) = [case for case in gpu.cases(Effort()) if case.label == label]
    holds, text = gpu.check(case, "cpu")
    assert holds, text
    assert text.startswith(
        "spikes equal, states equal" if case.neuron in ("if", "lif") else "spikes close, states close"
    )


def found(spikes, state, dx, dw):
    return [torch.tensor(t) for t in (spikes, state, dx, dw)]


def test_agreement_looks_at_everything():
    right = found([[1.0, 0.0, 1.0]], [0.5, 0.5, 0.5], [[1.0, -2.0, 3.0]], 4.0)
    assert gpu.agree(right, right, 1, 1e-5)[0]
    for wrong in (
        found([[1.0, 1.0, 1.0]], [0.5, 0.5, 0.5], [[1.0, -2.0, 3.0]], 4.0),
        found([[1.0, 0.0, 1.0]], [0.5, 0.25, 0.5], [[1.0, -2.0, 3.0]], 4.0),
        found([[1.0, 0.0, 1.0]], [0.5, 0.5, 0.5], [[1.0, -2.1, 3.0]], 4.0),
        found([[1.0, 0.0, 1.0]], [0.5, 0.5, 0.5], [[1.0, -2.0, 3.0]], 4.1),
    ):
        assert not gpu.agree(wrong, right, 1, 1e-5)[0]


def test_a_kernel_that_fails_is_a_disagreement(monkeypatch):
    def fail(*arguments):
        if arguments[-1] == "triton":
            raise RuntimeError("no kernel image\nis available")
        return [torch.zeros(2, 2)]

    monkeypatch.setattr(gpu, "everything", fail)
    assert gpu.check(next(gpu.cases(Effort(quick=True)))) == (False, "RuntimeError: no kernel image")


def test_the_deadline_leaves_a_row_for_what_was_left_out(monkeypatch):
    from benchmarks.rows import Facts

    monkeypatch.setattr(gpu, "DEADLINE", -1.0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    shown = []
    rows = gpu.run(Effort(quick=True), Facts(1, "abc", "2026-01-01", "a CPU", "2.13"), shown.extend)
    assert rows == shown
    assert {row.note for row in rows} == {"left out: the time was up"}
    assert {row.facts.machine for row in rows} == {"a GPU, a CPU"}
    assert {(row.T, row.N) for row in rows if row.phase == "forward"} == {(T, N) for T, N in gpu.QUICK}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_a_size(dtype, monkeypatch):
    """On the CPU, with times made up: a contestant that is wrong says so, one that fails is not timed."""
    from benchmarks.rows import Facts

    def broken(x):
        raise RuntimeError("out of memory\nby far")

    right = gpu.Contestant("rheobase", "1", gpu.LIF(tau=2.0))
    others = [gpu.Contestant("wrong", "2", lambda x: x * 1.0), gpu.Contestant("broken", "3", broken)]
    timed = []

    def milliseconds(calls, seconds):
        timed.append({name: call() for name, call in calls.items()})
        return {"rheobase": 2.0, "wrong": 5.0, "copy": 1.0}

    monkeypatch.setattr(gpu, "contestants", lambda device: [right, *others])
    monkeypatch.setattr(gpu, "milliseconds", milliseconds)
    rows = gpu.measure(4, 64, dtype, Effort(), Facts(1, "abc", "2026-01-01", "a CPU", "2.13"), "cpu")
    table = {(row.contestant, row.phase): row for row in rows}
    assert set(timed[0]) == {"rheobase", "wrong", "copy"}
    assert timed[1]["rheobase"][1].shape == (4, 32, 2)
    assert table["rheobase", "forward"].note == "50% of the speed of a copy"
    assert table["rheobase", "forward+backward"].note == "125% of the speed of a copy"
    assert table["rheobase", "forward"].agreement == "0.0e+00 of the spikes differ"
    assert table["wrong", "forward"].ratio == 2.5
    assert table["wrong", "forward"].agreement.startswith("more than expected")
    assert table["broken", "forward"].median_ms is None
    assert table["broken", "forward"].note == "refused: RuntimeError: out of memory"
    assert ("autocast" in rows[0].case) == (dtype == torch.bfloat16)
