"""Memory of a training step of the networks of `benchmarks.conv`, in Rheobase's memory modes and in SpikingJelly.

Phases:

- "saved for backward": storages that autograd keeps between forward and backward, each counted once, parameters not.
- "peak of a step": how far a training step raises the resident set of a fresh process above what it was before, in
  which the same network has trained on one sample already. Freed memory goes back to the system as it does by default.
- "training step": its time, for what the mode "bits" costs; as in `benchmarks.conv`.

Contestants: "rheobase", "rheobase-bits" (`rb.memory("bits")`: its gradients are compared with those of the first), and
"spikingjelly".
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import rheobase as rb
from benchmarks import nets
from benchmarks.agreement import Agreement, attempt
from benchmarks.conv import CASES, QUICK, Case, equal_nets, training_step
from benchmarks.measure import ROOT, Contest, Effort, compare
from benchmarks.nets import Kit, Rheobase, SpikingJelly
from benchmarks.rows import REFUSED, Facts, Row, Show, over_first

PHASES = ("saved for backward", "peak of a step", "training step")
CONTESTANTS = ("rheobase", "rheobase-bits", "spikingjelly")
MIB = 2**20
LONGEST = 120
"""Seconds after which a process that measures its peak is given up."""


def kit_of(contestant: str) -> Kit:
    return SpikingJelly() if contestant == "spikingjelly" else Rheobase()


def mode_of(contestant: str) -> AbstractContextManager[Any]:
    """The memory mode that a contestant trains in."""
    if contestant != "rheobase-bits":
        return nullcontext()
    bits: AbstractContextManager[Any] = rb.memory("bits")
    return bits


def saved_bytes(net: nn.Module, x: Tensor) -> int:
    """Bytes that a forward pass keeps for backward: whole storages, each once, without those of parameters."""
    parameters = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept: dict[int, int] = {}

    def see(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(see, lambda value: value):
        y = net(x)  # alive until the count is done, so that no memory is used twice
    del y
    return sum(kept.values())


def status(field: str) -> int:
    """Bytes of a field of /proc/self/status, such as VmRSS.

    Raises:
        OSError: the system has no such file.
    """
    for row in Path("/proc/self/status").read_text().splitlines():
        if row.startswith(f"{field}:"):
            return int(row.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def peak_here(case: Case, contestant: str) -> int:
    """Bytes that a training step adds to the resident set of this process at its peak."""
    kit = kit_of(contestant)
    net = case.build(kit)
    x, labels = case.batch()
    with mode_of(contestant):
        training_step(net, x[:, :1].contiguous(), labels[:1])  # kernels and threads are there
        kit.release(net)
        net.zero_grad(set_to_none=True)
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        training_step(net, x, labels)
    return status("VmHWM") - before


def peak(case: Case, contestant: str) -> int:
    """`peak_here` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", case.name, contestant, json.dumps(case.shape)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=LONGEST)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"rc {done.returncode}")
    return int(json.loads(done.stdout.splitlines()[-1]))


def in_mode(contestant: str, call: Callable[..., Any], *arguments: Any) -> Any:
    with mode_of(contestant):
        return call(*arguments)


def check_bits(case: Case, net: nn.Module) -> Agreement:
    """Gradients of `rb.memory("bits")` against the default mode's, bit for bit."""
    x, labels = case.batch()
    training_step(net, x, labels)
    expected = nets.gradients(net)
    in_mode("rheobase-bits", training_step, net, x, labels)
    found = nets.gradients(net)
    odd = [name for name, g in expected.items() if not torch.equal(g, found[name])]
    return Agreement(not odd, f"gradients of {odd[:3]} differ" if odd else "gradients equal bit for bit")


def measure(case: Case, effort: Effort, where: Facts) -> list[Row]:
    """Rows of one network."""
    x, labels = case.batch()
    ours, peer = Rheobase(), SpikingJelly()
    mine, theirs = equal_nets(case, ours, peer)
    networks = {name: (theirs, peer) if name == peer.name else (mine, ours) for name in CONTESTANTS}
    missing = {} if hasattr(rb, "memory") else {"rheobase-bits": "not here: rb.memory"}
    agreements = {}
    if not missing:
        agreements["rheobase-bits"] = attempt(partial(check_bits, case, mine))
        if not agreements["rheobase-bits"].holds:
            missing["rheobase-bits"] = f"{REFUSED}: does not agree"
    present = [name for name in CONTESTANTS if name not in missing]

    found: dict[str, dict[str, float]] = {phase: {} for phase in PHASES}
    notes = dict.fromkeys(PHASES, "")
    for name in present:
        net, kit = networks[name]
        found[PHASES[0]][name] = in_mode(name, saved_bytes, net, x) / MIB
        kit.release(net)
    try:
        for name in present:
            peaks = [peak(case, name) / MIB for _ in range(1 if effort.quick else 2)]
            found[PHASES[1]][name] = statistics.median(peaks)
    except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
        notes[PHASES[1]] = f"no peak: {error}"[:120]
    contests = {
        name: Contest(
            partial(in_mode, name, training_step, networks[name][0], x, labels),
            partial(networks[name][1].release, networks[name][0]),
        )
        for name in present
    }
    found[PHASES[2]], notes[PHASES[2]] = compare(contests, effort)

    N = nets.neurons(peer, theirs, x)
    return [
        Row(
            benchmark="memory",
            contestant=name,
            version=networks[name][1].version,
            case=case.name,
            T=case.shape[0],
            N=N,
            phase=phase,
            median_ms=found[phase].get(name) if phase == PHASES[2] else None,
            mib=found[phase].get(name) if phase != PHASES[2] else None,
            ratio=over_first(found[phase], name, CONTESTANTS[0]),
            agreement=agreements[name].text if name in agreements else "",
            facts=where,
            note=missing.get(name, notes[phase]),
        )
        for phase in PHASES
        for name in CONTESTANTS
    ]


def run(effort: Effort, where: Facts, show: Show) -> list[Row]:
    """The whole comparison, network by network."""
    rows = []
    for case in QUICK if effort.quick else CASES:
        found = measure(case, effort, where)
        show(found)
        rows += found
    return rows


def main(name: str, contestant: str, shape: str) -> None:
    """In a process of its own: print the peak of one training step."""
    for case in (*CASES, *QUICK):
        if case.name == name and case.shape == tuple(json.loads(shape)):
            print(peak_here(case, contestant))
            return
    sys.exit(f"there is no case {name!r} of shape {shape}")


if __name__ == "__main__":
    main(*sys.argv[1:])
