r"""One layer of leaky integrate-and-fire neurons: Rheobase, SpikingJelly and snnTorch on the CPU.

Everybody solves $h_t = v_{t-1} + (x_t - v_{t-1})/2$, $s_t = H(h_t - 1)$, $v_t = h_t(1 - s_t)$, no gradient through the
reset, derivative of the spike $1/(1 + (\pi (h_t - 1))^2)$ (ATan, alpha 2), in fp32, from rest:

- rheobase: `LIF(tau=2)`, as written above.
- spikingjelly: `LIFNode(tau=2., surrogate_function=ATan(), detach_reset=True, step_mode="m")` in eager mode. On the CPU
  its one implementation is a loop of torch operations under autograd (its CUDA and Triton kernels need a GPU). It
  computes $v + (x - (v - 0))/2$ and resets to $0 s + (1 - s) h$.
- spikingjelly-inductor: the function behind that module, `functional.lif_multi_step`, under
  `torch.compile(dynamic=False)`, one compilation for each shape, not timed; needs a C++ compiler. Same equation.
- snntorch: `Leaky(beta=0.5, reset_mechanism="zero", spike_grad=atan())` called in a loop over time and stacked. It does
  not scale its input, so it is given $x/2$: $h = 0.5 ((1 - r) h_{t-1}) + x/2$ with $r = H(h_{t-1} - 1)$, fires at
  $h > 1$. Equal in exact arithmetic; the spikes differ where the rounding does.

Before anything is timed, spikes and input gradient are compared: those of a peer with a Rheobase neuron whose step is
written in the peer's order of operations, those of Rheobase with its reference engine (the plain step in a loop).

Phases: "forward" builds the graph for backward, as in training; "forward+backward" adds the gradient of the input.
Letting go of the graph, and of the state that a peer keeps on its module, is not timed. Inputs `[T, 32, N/32]` are
normal with mean 0.5 and deviation 1.5: one value in six is a spike.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

import rheobase as rb
from benchmarks.measure import Contest, Effort, compare, nothing
from benchmarks.rows import REFUSED, Facts, Row, Show
from rheobase.neurons import LIF, Atan, Neuron

PEERS = ("spikingjelly==2.0.0", "snntorch==1.0.0", "loguru==0.7.3")
"""loguru is all that SpikingJelly's neurons import beyond torch."""
CASE = "LIF tau=2, threshold 1, reset to zero, detached, ATan 2"
SIZES = tuple((T, N) for T in (4, 16, 64) for N in (2**15, 2**18, 2**21))
QUICK = tuple((T, N) for T in (4, 16) for N in (2**15, 2**18))
MEMORY = 10 * 2**30
HELD = 6
"""Tensors of the input's size that the comparison itself holds: inputs, cotangent, copy, results to compare."""
TOLERANCE = 1e-5
"""Largest difference of gradients, relative to the largest gradient."""


@dataclass(frozen=True)
class Contestant:
    """One library's way of running the layer.

    Attributes:
        name, version: of the library.
        run: input `[T, B, K]` to spikes.
        twin: what it must agree with, on the same input.
        tensors: tensors of the input's size alive at the peak of a training step, that of the input included
            (peak resident memory at T=64, N=2^18).
        scale: what the common input is multiplied with.
        release: lets go of state kept on a module; not timed.
    """

    name: str
    version: str
    run: Callable[[Tensor], Tensor]
    twin: Callable[[Tensor], Tensor]
    tensors: float
    scale: float = 1.0
    release: Callable[[], None] = nothing


@rb.step(state={"v": 0.0})
def spikingjelly_lif(x: Any, v: Any, *, tau: Any, threshold: Any, spike: Any) -> Any:
    """SpikingJelly's order of operations, with reset value 0."""
    h = v + (x - (v - 0.0)) / tau
    s = spike(h - threshold)
    fixed = s.detach()
    return s, (fixed * 0.0 + (1.0 - fixed) * h,)


@rb.step(state={"mem": 0.0})
def snntorch_leaky(x: Any, mem: Any, *, beta: Any, threshold: Any, spike: Any) -> Any:
    """snnTorch's: the reset of the last step comes first, from the membrane that was kept."""
    reset = spike(mem - threshold, strict=True).detach()
    mem = beta * ((1 - reset) * mem) + x
    return spike(mem - threshold, strict=True), (mem,)


def reference(x: Tensor) -> Tensor:
    """The plain step in a loop."""
    with rb.engine("reference"):
        spikes: Tensor = LIF(tau=2.0)(x)
    return spikes


def rheobase() -> Contestant:
    return Contestant("rheobase", rb.__version__, LIF(tau=2.0), reference, tensors=4)


def spikingjelly() -> Contestant:
    from spikingjelly.activation_based import functional, neuron, surrogate

    node = neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan(), detach_reset=True, step_mode="m")
    twin = Neuron(spikingjelly_lif, tau=2.0, threshold=1.0, spike=Atan(2.0))
    return Contestant(
        "spikingjelly", version("spikingjelly"), node, twin, tensors=14, release=lambda: functional.reset_net(node)
    )


def spikingjelly_inductor() -> Contestant:
    from spikingjelly.activation_based import functional, surrogate

    atan = surrogate.ATan()

    def run(x: Tensor) -> Tensor:
        rest = torch.zeros_like(x[0])
        spikes: Tensor = functional.lif_multi_step(x, rest, 2.0, True, 1.0, 0.0, atan, True)[0]
        return spikes

    torch.compiler.reset()
    twin = Neuron(spikingjelly_lif, tau=2.0, threshold=1.0, spike=Atan(2.0))
    compiled = torch.compile(run, dynamic=False, fullgraph=True)
    return Contestant("spikingjelly-inductor", version("spikingjelly"), compiled, twin, tensors=7)


def snntorch() -> Contestant:
    from snntorch import Leaky
    from snntorch.surrogate import atan

    leaky = Leaky(beta=0.5, reset_mechanism="zero", spike_grad=atan(alpha=2.0))

    def run(x: Tensor) -> Tensor:
        mem, found = leaky.reset_mem(), []
        for current in x:
            spikes, mem = leaky(current, mem)
            found.append(spikes)
        return torch.stack(found)

    twin = Neuron(snntorch_leaky, beta=0.5, threshold=1.0, spike=Atan(2.0))
    return Contestant("snntorch", version("snntorch"), run, twin, tensors=13, scale=0.5, release=leaky.reset_mem)


CONTESTANTS: tuple[Callable[[], Contestant], ...] = (rheobase, spikingjelly, spikingjelly_inductor, snntorch)


@dataclass(frozen=True)
class Agreement:
    """Whether two runs computed the same, and in words what was seen."""

    holds: bool
    text: str


def agree(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> Agreement:
    """Compare (spikes, input gradient), each `[T, ...]`.

    One spike in 10^7 may differ (a membrane within rounding of the threshold); the gradients of the other lanes must
    agree to `TOLERANCE` of the largest.
    """
    (spikes, gradient), (spikes_, gradient_) = found, expected
    if spikes.shape != spikes_.shape or gradient.shape != gradient_.shape:
        return Agreement(False, f"shapes {tuple(spikes.shape)} and {tuple(spikes_.shape)}")
    other = spikes != spikes_
    count, lanes = int(other.sum()), other.any(0)
    error = float((gradient - gradient_).abs_().masked_fill_(lanes, 0.0).max() / gradient_.abs().max())
    words = "spikes equal" if count == 0 else f"{count} of {spikes.numel()} spikes differ"
    return Agreement(count <= 1 + spikes.numel() / 1e7 and error <= TOLERANCE, f"{words}, gradient {error:.1e}")


def train(run: Callable[[Tensor], Tensor], x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Forward and backward: spikes and the gradient of x under the cotangent g."""
    y = run(x)
    return y.detach(), torch.autograd.grad(y, x, g)[0]


def forward(run: Callable[[Tensor], Tensor], x: Tensor, g: Tensor) -> Tensor:  # noqa: ARG001
    """Forward alone; x requires a gradient, so the graph is built."""
    return run(x)


PHASES = {"forward": forward, "forward+backward": train}


def check(contestant: Contestant, x: Tensor, g: Tensor) -> Agreement:
    """Run a contestant and its twin once; an error of the contestant is a disagreement."""
    try:
        found = train(contestant.run, x, g)
    except Exception as error:  # whatever a peer raises, its row says so and the others go on
        return Agreement(False, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:120])
    finally:
        contestant.release()
    return agree(found, train(contestant.twin, x, g))


def measure(contestants: Sequence[Contestant], T: int, N: int, effort: Effort, where: Facts) -> list[Row]:
    """Rows of one size: every contestant in both phases. The first contestant is the one that ratios refer to."""

    def row(c: Contestant, phase: str, agreement: str, note: str, times: dict[str, float]) -> Row:
        mine, first = times.get(c.name), times.get(contestants[0].name)
        ratio = mine / first if mine is not None and first is not None else None
        return Row(
            "neuron", c.name, c.version, CASE, T, N, phase, mine, ratio, agreement, times.get("copy"), where, note
        )

    greedy = max(contestants, key=lambda c: c.tensors)
    if (needed := (greedy.tensors + HELD) * T * N * 4) > memory():
        note = f"skipped: {greedy.name} would need {needed / 2**30:.1f} GiB, the limit is {memory() / 2**30:.1f}"
        return [row(c, phase, "", note, {}) for phase in PHASES for c in contestants]

    torch.manual_seed(0)
    common = torch.randn(T, 32, N // 32).mul_(1.5).add_(0.5)
    g, copy = torch.randn_like(common), torch.empty_like(common)
    inputs = {c.name: (common if c.scale == 1 else common * c.scale).requires_grad_() for c in contestants}
    agreements = {c.name: check(c, inputs[c.name], g) for c in contestants}
    sound = [c for c in contestants if agreements[c.name].holds]

    rows = []
    for phase in PHASES:
        contests = {c.name: Contest(partial(PHASES[phase], c.run, inputs[c.name], g), c.release) for c in sound}
        contests["copy"] = Contest(lambda: copy.copy_(common.detach()))
        times, note = compare(contests, effort)
        for c in contestants:
            holds, text = agreements[c.name].holds, agreements[c.name].text
            rows.append(row(c, phase, text, note if holds else f"{REFUSED}: does not agree", times))
    return rows


def memory() -> float:
    """Bytes that a case may need: 10 GiB, or 60 % of the machine's memory if that is less."""
    if not hasattr(os, "sysconf"):
        return MEMORY
    return min(MEMORY, 0.6 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def run(effort: Effort, where: Facts, show: Show) -> list[Row]:
    """The whole comparison, size by size."""
    rows = []
    for T, N in QUICK if effort.quick else SIZES:
        found = measure([make() for make in CONTESTANTS], T, N, effort, where)
        show(found)
        rows += found
    return rows
