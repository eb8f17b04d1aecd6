r"""One layer of parallel spiking neurons against one of LIF neurons: what does it save to do without the reset?

The contestants, in fp32, from rest, inputs `[T, 1, N]` normal with mean 0.5 and deviation 1.5:

- rheobase: `PSN(T)`, the T x T matrix of the inputs and a threshold for each step.
- lif fused: `LIF(tau=2)`, its loop over time in one kernel.
- lif loop: the same equation as a loop of torch operations under autograd.
- lif compiled: that loop under `torch.compile`, compiled anew for each T, not timed; needs a C++ compiler.

The PSN is another neuron than the LIF: what is checked before anything is timed is that a PSN whose matrix is the LIF's
leak fires as the LIF without reset does, in fp64 exactly; that its own spikes and gradients are those of its reference
engine; and that the loops give the fused LIF's spikes and gradients.

Phases: "inference" builds no graph; "training" is forward and backward, with the gradients of the input and of the
PSN's parameters. A PSN does T products where a LIF does one step, so that its lead must fall with T and with N.

Method: figure 3 of Fang et al. 2023, arXiv:2304.12760.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import rheobase as rb
from benchmarks.agreement import Agreement, agree, attempt
from benchmarks.measure import Contest, Effort, compare
from benchmarks.rows import REFUSED, Facts, Row, Show, over_first
from rheobase.neurons import LIF, PSN, Atan

CASE = "PSN; LIF tau=2, threshold 1, reset to zero, detached; ATan 2"
STEPS = (2, 4, 8, 16, 32, 64)
SIZES = tuple((T, 2**power) for T in STEPS for power in (8, 11, 14, 17, 20))
QUICK = tuple((T, 2**power) for T in (4, 32) for power in (8, 14))
PHASES = ("inference", "training")
PSN_NAME, FUSED, LOOP, COMPILED = "rheobase", "lif fused", "lif loop", "lif compiled"

Run = Callable[[Tensor], Tensor]


def loop(x: Tensor) -> Tensor:
    """LIF with tau 2, threshold 1 and a detached reset to zero, in plain torch operations."""
    spike, v, spikes = Atan(), torch.zeros_like(x[0]), []
    for current in x:
        h = v + (current - v) / 2.0
        s = spike(h - 1.0)
        v = h * (1 - s.detach())
        spikes.append(s)
    return torch.stack(spikes)


def train(run: Run, parameters: list[Tensor], x: Tensor, g: Tensor) -> tuple[Tensor, ...]:
    """Spikes, and the gradients of the input and of the parameters under the cotangent g."""
    leaf = x.detach().requires_grad_()
    s = run(leaf)
    return s.detach(), *torch.autograd.grad(s, [leaf, *parameters], g)


@torch.no_grad()
def infer(run: Run, x: Tensor) -> Tensor:
    """Spikes without a graph."""
    return run(x)


def without_reset(x: Tensor) -> bool:
    """Whether a PSN that leaks as a LIF fires as the LIF without reset does, in fp64."""
    T = len(x)
    t = torch.arange(T, dtype=torch.float64)
    neuron = PSN(T).double()
    with torch.no_grad():
        neuron.weight.copy_((0.5 * 0.5 ** (t.unsqueeze(1) - t)).tril())
        return torch.equal(neuron(x.double()), LIF(tau=2.0, reset="none")(x.double()))


def check_psn(neuron: PSN, x: Tensor, g: Tensor) -> Agreement:
    """The PSN against the LIF without reset, and against its reference engine."""
    if not without_reset(x[:, :, :256]):
        return Agreement(False, "fires unlike a LIF without reset")
    parameters: list[Tensor] = list(neuron.parameters())
    found = train(neuron, parameters, x, g)
    with rb.engine("reference"):
        return agree(found, train(neuron, parameters, x, g))


def measure(T: int, N: int, effort: Effort, where: Facts) -> list[Row]:
    """Rows of one size: the PSN and every LIF in both phases, with their ratio to the PSN."""
    torch.manual_seed(0)
    x = torch.randn(T, 1, N) * 1.5 + 0.5
    g = torch.randn_like(x)
    psn = PSN(T)
    runs: dict[str, Run] = {PSN_NAME: psn, FUSED: LIF(tau=2.0), LOOP: loop, COMPILED: torch.compile(loop)}

    def check_lif(name: str) -> Agreement:
        found = train(runs[name], [], x, g)
        if not torch.equal(infer(runs[name], x), found[0]):
            return Agreement(False, "fires otherwise without a graph")
        return agree(found, train(runs[FUSED], [], x, g))

    checks: dict[str, Callable[[], Agreement]] = {name: partial(check_lif, name) for name in runs}
    checks[PSN_NAME] = partial(check_psn, psn, x, g)
    agreements = {name: attempt(check) for name, check in checks.items()}

    rows = []
    for phase in PHASES:
        contests = {}
        for name, run_ in runs.items():
            if agreements[name].holds:
                parameters: list[Tensor] = list(psn.parameters()) if name == PSN_NAME else []
                call = partial(infer, run_, x) if phase == PHASES[0] else partial(train, run_, parameters, x, g)
                contests[name] = Contest(call)
        times, note = compare(contests, effort)
        rows += [
            Row(
                benchmark="psn",
                contestant=name,
                version=where.commit if name in (PSN_NAME, FUSED) else torch.__version__,
                case=CASE,
                T=T,
                N=N,
                phase=phase,
                median_ms=times.get(name),
                ratio=over_first(times, name, PSN_NAME),
                agreement=agreements[name].text,
                facts=where,
                note=note if agreements[name].holds else f"{REFUSED}: does not agree",
            )
            for name in runs
        ]
    return rows


def run(effort: Effort, where: Facts, show: Show) -> list[Row]:
    """The whole comparison, size by size."""
    rows, before = [], 0
    for T, N in QUICK if effort.quick else SIZES:
        if before != T:
            torch.compiler.reset()  # else the compiler gives up after a few T
        before = T
        found = measure(T, N, effort, where)
        show(found)
        rows += found
    return rows
