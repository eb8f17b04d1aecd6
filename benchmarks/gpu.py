r"""The Triton engine on a GPU: is it right, how much of the memory's speed does it reach, and SpikingJelly beside it.

Three parts, in one run of under nine minutes (`DEADLINE` bounds it; what was left out has a row that says so):

1. Correctness: every registered neuron in fp32, bf16 and fp16, contiguous, channels-last, with a static input, with
   parameters per channel, over one chunk of steps and over many; on the GPU by Triton and on the CPU by the reference
   engine, which defines what is right. (Eager torch on a GPU divides by a number by multiplying with its inverse, so it
   cannot be the judge of bits.) Spikes are equal but for one in 10^6, and gradients to `TOLERANCE` of the largest.
   Where exp and its like take part, which libraries round in their own ways, values are equal to `NEAR` of the largest.
2. Bandwidth: LIF, forward and forward+backward. `copy_ms` is the time that a copy of as many bytes takes: forward reads
   the input and writes the spikes; backward reads input and cotangent and writes the gradient.
3. SpikingJelly's LIF in multi-step mode, in fp32 and on bf16 input under autocast, on whatever it chooses for the GPU:
   its Triton kernels, or where they do not take the input a loop over time.

LIF is $h = v + (x - v)/2$, fires at $h \ge 1$, resets to zero, no gradient through the reset, ATan surrogate. Times are
medians of rounds in which the contestants take turns; a round is some calls, timed together by the GPU's own events.
"""

import gc
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

import rheobase as rb
from benchmarks.measure import Effort
from benchmarks.rows import REFUSED, Facts, Row, Show, over_first
from rheobase.neurons import LIF, NEURONS, Neuron, create_neuron
from rheobase.scan.functions import FUNCTIONS
from rheobase.scan.ir import parse

DEADLINE = 500.0
"""Seconds after which nothing new is begun."""
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2**-7, torch.float16: 2**-10}
NEAR = 1e-3
"""Share of the largest value, and of the spikes, that may differ where functions like exp take part."""
SIZES = ((4, 2**15), (4, 2**18), (4, 2**22), (16, 2**22), (64, 2**20))
QUICK = ((4, 2**18), (16, 2**20))
CASE = "LIF tau=2, threshold 1, reset to zero, detached, ATan 2"


def missing() -> str:
    """Why this benchmark cannot run here; empty if it can."""
    if not torch.cuda.is_available():
        return "the benchmark 'gpu' needs an NVIDIA GPU and a torch built for CUDA; torch finds none here"
    if importlib.util.find_spec("triton") is None:
        return "the benchmark 'gpu' needs the package triton: pip install 'rheobase[triton]'"
    return ""


@dataclass(frozen=True)
class Case:
    """One correctness check.

    Attributes:
        neuron: registered name.
        make: white noise on the CPU, which is scaled so that the neuron fires.
        shape: of the learned parameters that are made anew; None leaves the neuron as it is.
    """

    neuron: str
    label: str
    dtype: torch.dtype
    make: Callable[[], Tensor]
    shape: tuple[int, ...] | None = None

    def build(self) -> Neuron:
        """The neuron, with parameters of the case's shape."""
        module = create_neuron(self.neuron)
        if self.shape is not None:
            for name, p in list(module.named_parameters(recurse=False)):
                spread = torch.rand(self.shape) * 0.2 + p.detach()
                setattr(module, name, torch.nn.Parameter(spread))
        return module


def cases(effort: Effort) -> Iterator[Case]:
    """All correctness checks."""
    shape = (9, 3, 6, 5, 7)

    def plain() -> Tensor:
        return torch.randn(shape)

    def channels_last() -> Tensor:
        return torch.randn(9, 3, 5, 7, 6).permute(0, 1, 4, 2, 3)

    def static() -> Tensor:
        return torch.randn(1, 3, 6, 5, 7).expand(shape)

    def large() -> Tensor:
        return torch.randn(4, 8, 64, 32, 32)

    for name in ["lif"] if effort.quick else sorted(name for name, entry in NEURONS.items() if entry.any_T):
        learned = any(True for _ in create_neuron(name).parameters())
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            yield Case(name, f"{name} {dtype} contiguous", dtype, plain)
        yield Case(name, f"{name} one step", torch.float32, lambda: torch.randn(1, 2, 33))
        yield Case(name, f"{name} channels-last", torch.float32, channels_last, (6, 1, 1) if learned else None)
        if learned:
            yield Case(name, f"{name} per channel", torch.float32, plain, (6, 1, 1))
            yield Case(name, f"{name} per neuron", torch.float32, plain, shape[2:])
    for name in ["lif"] if effort.quick else ["lif", "plif"]:
        yield Case(name, f"{name} static input", torch.float32, static)
        yield Case(name, f"{name} many steps", torch.float32, lambda: torch.randn(100, 2, 333))
        yield Case(name, f"{name} many lanes", torch.bfloat16, large)


def everything(module: Neuron, inputs: Sequence[Tensor], device: str, engine: str) -> list[Tensor]:
    """Output, final states, and the gradients of the first input and of the parameters, on the CPU."""
    x, *others = (t.to(device) for t in inputs)
    module, x = module.to(device), x.requires_grad_()
    with rb.engine(engine):
        y, last = module.sequence((x, *others), None)
        torch.manual_seed(1)
        upstream = [torch.randn(t.shape).to(t) for t in (y, *last)]
        grads = torch.autograd.grad((y, *last), [x, *module.parameters()], upstream)
    return [t.detach().cpu().float() for t in (y, *last, *grads)]


def is_exact(module: Neuron) -> bool:
    """Whether all that the loop over time takes, parameters included, is rounded alike everywhere."""
    program = parse(module.scan.text())
    return not any(node.op in FUNCTIONS for node in (*program.hoisted, *program.nodes))


def agree(
    found: list[Tensor], expected: list[Tensor], states: int, tolerance: float, exact: bool = True
) -> tuple[bool, str]:
    """Whether outputs and states have equal bits, but for a spike in 10^6, and gradients agree; in words too.

    A lane in which anything fired differently is left out of the comparison of states and input gradients. Where
    the bits are not `exact`, everything may differ by `NEAR`.
    """
    near, share = (0.0, 1e-6) if exact else (NEAR, NEAR)
    tolerance = max(tolerance, near)

    def differs(a: Tensor, b: Tensor) -> Tensor:
        return ~((a - b).abs() <= near * b.abs().max())

    y, y_ = found[0], expected[0]
    other = differs(y, y_)
    lanes = other.any(0)
    pairs = zip(found[1 : 1 + states], expected[1 : 1 + states], strict=True)
    bits = not any(differs(a, b)[~lanes].any() for a, b in pairs)
    dx, dx_ = (t[1 + states].masked_fill(lanes, 0.0) for t in (found, expected))
    error = float((dx - dx_).abs().max() / dx_.abs().max().clamp_min(1e-30))
    scale = float(dx_.abs().sum())
    sums = zip(found[2 + states :], expected[2 + states :], strict=True)
    worst = max((float((a - b).abs().max()) / max(scale, 1e-30) for a, b in sums), default=0.0)
    count = int(other.sum())
    holds = count <= y.numel() * share and bits and error <= tolerance and (worst <= tolerance or count > 0)
    alike = "equal" if exact else "close"
    words = f"spikes {alike}" if count == 0 else f"{count} of {y.numel()} spikes differ"
    return holds, f"{words}, states {alike if bits else 'differ'}, gradients {error:.0e} {worst:.0e}"


def check(case: Case, device: str = "cuda") -> tuple[bool, str]:
    """Run a case by Triton on the device and by the reference engine on the CPU."""
    torch.manual_seed(0)
    module, x = case.build(), (case.make() * NEURONS[case.neuron].drive).to(case.dtype)
    inputs, exact = (x, *module.noise(x)), is_exact(module)
    expected = everything(module, inputs, "cpu", "reference")
    try:
        found = everything(module, inputs, device, "triton")
    except Exception as error:  # one neuron that fails must not hide the others
        return False, f"{type(error).__name__}: {error}".splitlines()[0][:120]
    return agree(found, expected, len(module.scan.step.state), TOLERANCE[case.dtype], exact)


def milliseconds(calls: dict[str, Callable[[], Any]], seconds: float, rounds: int = 15) -> dict[str, float]:
    """Median time of a call of each, in rounds that take turns; a round lasts some milliseconds."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def timed(call: Callable[[], Any], repeats: int) -> float:
        start.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / repeats

    repeats = {}
    for name, call in calls.items():
        timed(call, 3)
        repeats[name] = max(1, min(200, round(5.0 / max(timed(call, 3), 1e-3))))
    times: dict[str, list[float]] = {name: [] for name in calls}
    until = time.perf_counter() + seconds
    gc.collect()
    gc.disable()
    try:
        for k in range(rounds):
            if k >= 3 and time.perf_counter() > until:
                break
            for name, call in calls.items():
                times[name].append(timed(call, repeats[name]))
    finally:
        gc.enable()
    return {name: statistics.median(found) for name, found in times.items()}


@dataclass(frozen=True)
class Contestant:
    """A layer, and how to let go of the state that it keeps."""

    name: str
    version: str
    run: Callable[[Tensor], Tensor]
    release: Callable[[], None] = lambda: None


def contestants(device: str) -> list[Contestant]:
    """Rheobase and, where it is installed, SpikingJelly."""
    found = [Contestant("rheobase", rb.__version__, LIF(tau=2.0).to(device))]
    try:
        from spikingjelly.activation_based import functional, neuron, surrogate
    except ImportError:
        return found
    node = neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan(), detach_reset=True, step_mode="m").to(device)
    return [*found, Contestant("spikingjelly", installed("spikingjelly"), node, lambda: functional.reset_net(node))]


def installed(name: str) -> str:
    """The version of a package, "?" if it is there without one."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "?"


def measure(T: int, N: int, dtype: torch.dtype, effort: Effort, where: Facts, device: str = "cuda") -> list[Row]:
    """Rows of one size and format: every contestant in both phases, against a copy of the same bytes."""
    torch.manual_seed(0)
    x = (torch.randn(T, 32, N // 32, device=device) * 1.5 + 0.5).to(dtype).requires_grad_()
    g = torch.randn(T, 32, N // 32, device=device).to(dtype)
    source, target = x.detach(), torch.empty_like(x)
    case = f"{CASE}, {str(dtype).removeprefix('torch.')}" + (", autocast" if dtype == torch.bfloat16 else "")
    seen, runs = {}, {}
    first: list[Tensor] = []

    def forward(c: Contestant) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
            y = c.run(x)
        c.release()
        return y

    def train(c: Contestant) -> tuple[Tensor, Tensor]:
        y = forward(c)
        return y.detach(), torch.autograd.grad(y, x, g.to(y.dtype))[0]

    everyone = contestants(device)
    for c in everyone:
        try:
            y, dx = train(c)
        except Exception as error:  # a peer that fails has a row that says so
            seen[c.name] = (False, f"{type(error).__name__}: {error}".splitlines()[0][:120])
            continue
        first = first or [y, dx]
        # Another order of operations rounds differently, so a membrane at the threshold may fall on the other side.
        share = float((y.float() != first[0].float()).float().mean())
        seen[c.name] = (share <= 1e-4, f"{share:.1e} of the spikes differ")
        runs[c.name] = c
    rows = []
    for phase, run, units in (("forward", forward, 2), ("forward+backward", train, 5)):
        calls: dict[str, Callable[[], Any]] = {c.name: (lambda c=c, run=run: run(c)) for c in runs.values()}
        calls["copy"] = lambda: target.copy_(source)
        times = milliseconds(calls, 0.5 if effort.quick else 3.0)
        copy = times["copy"] * units / 2
        for c in everyone:
            mine = times.get(c.name)
            holds, text = seen[c.name]
            note = f"{copy / mine:.0%} of the speed of a copy" if mine else f"{REFUSED}: {text}"
            agreement = text if holds else f"more than expected: {text}"
            rows.append(
                Row(
                    benchmark="gpu",
                    contestant=c.name,
                    version=c.version,
                    case=case,
                    T=T,
                    N=N,
                    phase=phase,
                    median_ms=mine,
                    ratio=over_first(times, c.name, "rheobase"),
                    agreement=agreement,
                    copy_ms=copy,
                    facts=where,
                    note=note,
                )
            )
    return rows


def untimed(case: str, T: int, N: int, phase: str, agreement: str, note: str, where: Facts) -> Row:
    """A row without a time."""
    return Row(
        benchmark="gpu",
        contestant="rheobase",
        version=rb.__version__,
        case=case,
        T=T,
        N=N,
        phase=phase,
        agreement=agreement,
        facts=where,
        note=note,
    )


def run(effort: Effort, where: Facts, show: Show) -> list[Row]:
    """Correctness, then bandwidth and comparison."""
    began, rows = time.perf_counter(), []
    where = replace(where, machine=f"{torch.cuda.get_device_name()}, {where.machine}")

    def late(share: float) -> bool:
        return time.perf_counter() - began > DEADLINE * share

    def keep(found: list[Row]) -> None:
        show(found)
        rows.extend(found)

    for case in cases(effort):
        if late(0.6):
            holds, text, note = True, "", "left out: the time was up"
        else:
            holds, text = check(case)
            note = "" if holds else f"{REFUSED}: does not agree with the reference on the CPU"
        T, N = (s := case.make().shape)[0], s[1:].numel()
        keep([untimed(case.label, T, N, "agreement", text, note, where)])
    for T, N in QUICK if effort.quick else SIZES:
        for dtype in (torch.float32, torch.bfloat16):
            if late(1.0):
                note = "left out: the time was up"
                keep([untimed(CASE, T, N, "forward", "", note, where)])
            else:
                keep(measure(T, N, dtype, effort, where))
    return rows
