"""Products that read spikes: the kernels of packages/kernels-cpu and torch, on the CPU.

Convolutions 3x3 of 64 images of 32x32 with 64 and 256 channels, and a linear layer of 4096 rows, 1152 and 128 features,
this one on one thread too; random spikes at several densities. Then the spikes that 3x3 convolutions of 64 and 256
channels read in a network trained for some steps on CIFAR-10 (JPEG-75), 32x32 all through, at two thresholds; without
that data these cases are left out.

Contestants: "rheobase", what `rheobase_kernels.choose` names beside dense fp32 (its version says which); "events" or
"table", the kernel that it does not name; "torch fp32" and "torch bf16", dense and channels-last, on operands that are
in the format already. Times include laying the weights and adding partial sums; spikes are packed before. Threads are
torch's; the column says how many.

Phases: "forward", "weight gradient", "input gradient" (where a mask of the same density needs it). Last, in the case
"one process", a convolution by torch, one by these kernels and a LIF neuron, compiled by numba, are each timed "alone"
and in turns, "beside others": what they do to each other's threads would show.
"""

import ctypes
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from benchmarks import nets, trained
from benchmarks.agreement import Agreement, attempt
from benchmarks.measure import Contest, Effort, compare
from benchmarks.rows import REFUSED, Facts, Row, Show, over_first
from rheobase.neurons import LIF
from rheobase.nn.products import share
from rheobase.scan.bits import pack

OURS, EVENTS, TABLE, DENSE, DENSE_BF16 = "rheobase", "events", "table", "torch fp32", "torch bf16"
FORWARD, TO_WEIGHT, TO_INPUT = "forward", "weight gradient", "input gradient"
KINDS = {FORWARD: "forward", TO_WEIGHT: "weight_gradient", TO_INPUT: "input_gradient"}
DENSITIES = (0.05, 0.1, 0.2, 0.3, 0.5)
PLAN, THRESHOLDS, STEPS = ((64, 1), (64, 1), (256, 1), (256, 1)), (1.0, 0.5), 40
"""Of the networks whose spikes are traced: channels and strides, thresholds, steps of training."""
CLOSE = 1e-5
"""Largest difference from torch's fp32, over the largest value."""

Run = Callable[[], Tensor]


def missing() -> str:
    """Why nothing can be measured here, or nothing."""
    return "" if find_spec("rheobase_kernels") else "packages/kernels-cpu is not installed; run `make kernels`"


@dataclass(frozen=True)
class Layer:
    """A layer and the spikes that it reads.

    Attributes:
        x: `[N, C, H, W]` in channels-last memory, or `[rows, features]`.
        weight: of a 3x3 convolution with padding 1, or of a linear layer.
        threads: to run on; 0 for torch's.
    """

    name: str
    x: Tensor
    weight: Tensor
    threads: int = 0

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Inside, torch has the layer's threads."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    @property
    def is_linear(self) -> bool:
        """Whether it is a linear layer."""
        return self.x.dim() == 2

    @property
    def density(self) -> float:
        """The share of ones."""
        return float(self.x.mean())

    def shape(self) -> Any:
        """As the kernels want it."""
        import rheobase_kernels as rk

        if self.is_linear:
            return rk.linear(*self.x.shape, self.weight.shape[0])
        N, C, H, W = self.x.shape
        return rk.convolution(N, C, H, W, self.weight.shape[0], (3, 3), padding=(1, 1))


def convolution(name: str, x: Tensor) -> Layer:
    """A 3x3 convolution with as many channels as its input has."""
    C = x.shape[1]
    weight = torch.randn(C, C, 3, 3, generator=torch.Generator().manual_seed(1))
    return Layer(name, *(t.contiguous(memory_format=torch.channels_last) for t in (x, weight)))


def layers(effort: Effort) -> list[Layer]:
    """All cases: drawn spikes, then traced ones."""
    generator = torch.Generator().manual_seed(0)
    images, densities = (4, (0.1,)) if effort.quick else (64, DENSITIES)
    found = []
    for density in densities:
        for C in (64,) if effort.quick else (64, 256):
            drawn = (torch.rand(images, C, 32, 32, generator=generator) < density).float()
            found.append(convolution(f"3x3 {C} at {density:.0%}", drawn))
        rows = (torch.rand(4096, 1152, generator=generator) < density).float()
        weight = torch.randn(128, 1152, generator=generator)
        found.append(Layer(f"1152-128 at {density:.0%}", rows, weight))
        found.append(Layer(f"1152-128 at {density:.0%}, one thread", rows, weight, threads=1))
    return found if effort.quick or trained.missing() else found + traced()


def traced() -> list[Layer]:
    """What layers of 64 and of 256 channels read in trained networks."""
    maps = [x for threshold in THRESHOLDS for x in read_in_training(threshold) if x.shape[1:2] in ((64,), (256,))]
    return [convolution(f"traced 3x3 {x.shape[1]} at {float(x.mean()):.0%}", x) for x in maps]


def read_in_training(threshold: float) -> list[Tensor]:
    """What the layers that read spikes read in a network with neurons of this threshold, when it is trained."""
    case = trained.on_images(f"threshold {threshold}", partial(nets.plain, plan=PLAN), STEPS)
    net = trained.train(case, lambda: LIF(threshold=threshold))
    found: list[Tensor] = []
    readers = [module for module in net.modules() if getattr(module, "binary_input", False)]
    handles = [module.register_forward_pre_hook(lambda _, given: found.append(given[0])) for module in readers]
    with torch.no_grad():
        net(case.batch()[0])
    for handle in handles:
        handle.remove()
    return found


def dense(layer: Layer, phase: str, grad: Tensor, dtype: torch.dtype) -> Run:
    """Torch's product."""
    x, weight, grad = (t.to(dtype) for t in (layer.x, layer.weight, grad))
    if layer.is_linear:
        runs: dict[str, Run] = {
            FORWARD: lambda: x @ weight.t(),
            TO_WEIGHT: lambda: grad.t() @ x,
            TO_INPUT: lambda: grad @ weight,
        }
        return runs[phase]
    if phase == FORWARD:
        return lambda: torch.conv2d(x, weight, padding=1)
    which = [phase == TO_INPUT, phase == TO_WEIGHT, False]
    settings = (None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, which)
    return lambda: next(g for g in torch.ops.aten.convolution_backward(grad, x, weight, *settings) if g is not None)


def kernel(layer: Layer, phase: str, grad: Tensor, bits: Tensor, how: str) -> Run:
    """One of ours."""
    import rheobase_kernels as rk

    library, shape, weight = rk.load(), layer.shape(), layer.weight
    laid = torch.empty(rk.laid_size(shape))
    stride = (ctypes.c_int64 * 4)(*weight.stride(), *(1,) * (4 - weight.dim()))
    lay = library.call("lay", rk.Lay(shape, weight.data_ptr(), stride, 0, laid.data_ptr()))
    if phase == FORWARD:
        out = torch.empty_like(grad)
        name = f"forward_{how}"
        tile = rk.tile(name, shape, torch.get_num_threads())
        arguments = rk.Forward(shape, bits.data_ptr(), laid.data_ptr(), None, out.data_ptr(), tile)
        calls = (lay, library.call(name, arguments))
    elif phase == TO_WEIGHT:
        out, chunks = torch.empty_like(weight), rk.chunks(shape)
        laid = torch.empty(chunks * rk.laid_size(shape))
        places = (bits.data_ptr(), grad.data_ptr(), chunks, laid.data_ptr(), out.data_ptr())
        arguments = rk.WeightGradient(shape, *places, stride)
        calls = (library.call(f"weight_gradient_{how}", arguments), library.call("gather_weight", arguments))
    else:
        out = torch.empty_like(layer.x)
        places = (t.data_ptr() for t in (bits, grad, laid, out))
        calls = (lay, library.call("input_gradient", rk.InputGradient(shape, *places)))

    def run() -> Tensor:
        for call in calls:
            share(call)
        return out

    run.keeps = (laid, weight, bits, grad)  # type: ignore[attr-defined]
    return run


def contestants(layer: Layer, phase: str) -> tuple[dict[str, Run], str]:
    """Who is measured in a phase, what `choose` names first; and the version of that."""
    import rheobase_kernels as rk

    shape = layer.shape()
    size = (layer.x.shape[0], layer.weight.shape[0], *layer.x.shape[2:])
    grad = torch.randn(size, generator=torch.Generator().manual_seed(2))
    grad = grad if layer.is_linear else grad.contiguous(memory_format=torch.channels_last)
    bits = pack(layer.x)
    runs = {how: kernel(layer, phase, grad, bits, how) for how in ((EVENTS,) if phase == TO_INPUT else (EVENTS, TABLE))}
    runs |= {DENSE: dense(layer, phase, grad, torch.float32), DENSE_BF16: dense(layer, phase, grad, torch.bfloat16)}
    chosen = rk.choose(KINDS[phase], shape, layer.density)
    ours = runs[DENSE] if chosen == "dense" else runs.pop(chosen)
    return {OURS: ours, **runs}, f"{version('rheobase-kernels-cpu')} {chosen}"


def check(layer: Layer, phase: str, runs: Mapping[str, Run]) -> Agreement:
    """Compare ours with torch's fp32, of the input gradient where it is needed."""
    mask = layer.x if phase == TO_INPUT else 1.0
    expected = runs[DENSE]() * mask
    found = (runs[name]() * mask for name in (OURS, EVENTS, TABLE) if name in runs)
    worst = max(float((y - expected).abs().max() / expected.abs().max()) for y in found)
    return Agreement(worst <= CLOSE, f"differ by {worst:.0e} of the largest")


def measure(layer: Layer, phase: str, effort: Effort, where: Facts) -> list[Row]:
    """Rows of one layer and phase."""
    with layer.at_work():
        return _measured(layer, phase, effort, replace(where, threads=torch.get_num_threads()))


def _measured(layer: Layer, phase: str, effort: Effort, where: Facts) -> list[Row]:
    runs, chosen = contestants(layer, phase)
    versions = {OURS: chosen, DENSE: torch.__version__, DENSE_BF16: torch.__version__}
    agreement = attempt(partial(check, layer, phase, runs))
    times, note = {}, f"{REFUSED}: does not agree"
    if agreement.holds:
        times, note = compare({name: Contest(run) for name, run in runs.items()}, effort)
    shape = layer.shape()
    return [
        Row(
            benchmark="products",
            contestant=name,
            version=versions.get(name, chosen.split()[0]),
            case=layer.name,
            T=1,
            N=shape.positions * shape.out_channels,
            phase=phase,
            median_ms=times.get(name),
            ratio=over_first(times, name, OURS),
            agreement=agreement.text,
            facts=where,
            note=note,
        )
        for name in runs
    ]


def one_process(layer: Layer, effort: Effort, where: Facts) -> list[Row]:
    """Torch, these kernels and numba, each alone and in turns."""
    runs, _ = contestants(layer, FORWARD)
    neuron, x = LIF(), layer.x[None].expand(4, *layer.x.shape).contiguous()
    contests: dict[str, Contest] = {
        OURS: Contest(runs[OURS]),
        DENSE: Contest(runs[DENSE]),
        "numba": Contest(lambda: neuron(x)),
    }
    phases = {"alone": [compare({name: contest}, effort) for name, contest in contests.items()]}
    phases["beside others"] = [compare(contests, effort)]
    return [
        Row(
            benchmark="products",
            contestant=name,
            version="",
            case="one process",
            T=1,
            N=layer.x.numel(),
            phase=phase,
            median_ms=times[name],
            facts=where,
            note=note,
        )
        for phase, found in phases.items()
        for times, note in found
        for name in times
    ]


def run(effort: Effort, where: Facts, show: Show) -> list[Row]:
    """The whole comparison, layer by layer."""
    rows = []
    cases = layers(effort)
    for layer in cases:
        for phase in KINDS:
            with torch.no_grad():
                found = measure(layer, phase, effort, where)
            show(found)
            rows += found
    with torch.no_grad():
        found = one_process(cases[0], effort, where)
    show(found)
    return rows + found
