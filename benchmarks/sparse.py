"""Pruned networks in inference: where passing over zero weights pays, on the CPU.

Layers: 3x3 convolutions of 64 images of 32x32 with 64 and 256 channels, and a linear layer of 4096 rows, 1152 and 128
features, this one on one thread too; random weights of which a share is zero, random spikes. Contestants: "rheobase",
the kernel that reads spikes as bits and weights in CSR; "dense weights", the kernel on bits and all weights that
`rheobase_kernels` says is the faster (its version names it), the weights laid before; "loops", the numba product that
stands in where the library is not installed, on spikes as fp32; "torch fp32" and "torch bf16", dense and channels-last,
on operands in the format. Spikes are packed before. Then, in the phase "break-even", each rival's note says from which
share of zeros on "rheobase" was faster, between the shares that were measured along a line.

Networks: the 7-layer net of `benchmarks.nets` (T=4, batch 16), trained on CIFAR-10 (JPEG-75) as in
`benchmarks.trained`, and once more while its weights are pruned: after every step the least of every layer's are set to
zero, a share that rises to 90 % as 0.9 (1 - (1 - t)^3) in the first two thirds of the steps (arXiv:1710.01878). In
inference, in fp32 and under autocast in bf16:

- case "90% of weights": "rheobase" is the pruned net after `rb.nn.sparsify`, "not sparsified" the same without, "no
  bits" the same inside `rb.packing(False)`, whose products are torch's; "original" and "original, no bits" the net that
  was not pruned. Spikes and output of the first are compared with those of "no bits" before.
- case "50% of channels": "rheobase" is the original after `zero_channels`, by weights in every layer, and `shrink`;
  "not shrunk" is before `shrink`, with which it is compared; "retrained" the shrunk net after one more pass over the
  images; "original" as above.

Notes tell the density of the spikes that layers read and the accuracy on the first training images. Without that data
there are the layers alone.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version

import torch
from torch import Tensor, nn

import rheobase as rb
from benchmarks import nets, trained
from benchmarks.agreement import Agreement, Seen, agree_nets, attempt
from benchmarks.measure import Contest, Effort, compare
from benchmarks.nets import Rheobase
from benchmarks.products import CLOSE, DENSE, DENSE_BF16, FORWARD, OURS, Layer, convolution, dense, missing
from benchmarks.rows import REFUSED, Facts, Row, Show, over_first
from benchmarks.trained import HALF, Trained
from rheobase.lab.compress.channels import shrink, zero_channels
from rheobase.neurons import LIF
from rheobase.nn import products
from rheobase.scan.bits import pack

__all__ = ["missing", "run"]

ALL_WEIGHTS, LOOPS = "dense weights", "loops"
SHARES, DENSITIES = (0.5, 0.75, 0.9, 0.95, 0.98), (0.1, 0.2)
PRUNED, CHANNELS = 0.9, 0.5
JUDGED = 1024
"""Images on which accuracy is told."""

Run = Callable[[], Tensor]


@dataclass(frozen=True)
class Pruned:
    """A layer with zeros among its weights."""

    layer: Layer
    share: float

    @property
    def name(self) -> str:
        """With the share of zeros."""
        return f"{self.layer.name}, {self.share:.0%} zero"


def layers(effort: Effort) -> list[list[Pruned]]:
    """The layers, each with all shares of zeros."""
    generator = torch.Generator().manual_seed(0)
    images, densities, shares = (4, (0.1,), (0.5, 0.9)) if effort.quick else (64, DENSITIES, SHARES)
    found = []
    for density in densities:
        for C in (64,) if effort.quick else (64, 256):
            drawn = (torch.rand(images, C, 32, 32, generator=generator) < density).float()
            found.append(convolution(f"3x3 {C} at {density:.0%}", drawn))
        rows = (torch.rand(4096, 1152, generator=generator) < density).float()
        linear = Layer(f"1152-128 at {density:.0%}", rows, torch.randn(128, 1152, generator=generator))
        found += [linear, replace(linear, name=f"{linear.name}, one thread", threads=1)]
    return [[Pruned(with_zeros(layer, share), share) for share in shares] for layer in found]


def with_zeros(layer: Layer, share: float) -> Layer:
    """The layer with so many of its weights set to zero, at random."""
    there = torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(3)) >= share
    weight = torch.where(there, layer.weight, 0.0)
    return replace(layer, weight=weight.contiguous(memory_format=torch.channels_last) if weight.dim() == 4 else weight)


def contestants(layer: Layer) -> tuple[dict[str, Run], dict[str, str]]:
    """Who is measured, and their versions."""
    import rheobase_kernels as rk

    x, weight = (t[..., None, None] if layer.is_linear else t for t in (layer.x, layer.weight))
    settings = products.Settings() if layer.is_linear else products.Settings(padding=(1, 1))
    shape, bits, csr, kept = layer.shape(), pack(layer.x), products.Csr.of(weight), products.Kept()
    product = products.Product(shape, torch.float32)
    loops = products.loops(tuple(x.shape), tuple(weight.shape), settings)
    assert loops is not None
    found = rk.estimate("forward", shape, layer.density)
    how = "events" if found["events"] <= found["table"] else "table"
    like = torch.empty(0)
    runs: dict[str, Run] = {
        OURS: lambda: product.sparse(csr, None, bits=bits),
        ALL_WEIGHTS: lambda: product.forward(how, bits, weight, None, kept),  # type: ignore[arg-type]
        LOOPS: lambda: loops.sparse(csr, None, x=x),
        DENSE: dense(layer, FORWARD, like, torch.float32),
        DENSE_BF16: dense(layer, FORWARD, like, torch.bfloat16),
    }
    kernels = version("rheobase-kernels-cpu")
    versions = {OURS: f"{kernels} csr", ALL_WEIGHTS: f"{kernels} {how}", LOOPS: rb.__version__}
    return runs, {name: versions.get(name, torch.__version__) for name in runs}


def check(runs: Mapping[str, Run]) -> Agreement:
    """Compare ours with torch's fp32."""
    expected = runs[DENSE]().flatten()
    found = (runs[name]().flatten() for name in (OURS, ALL_WEIGHTS, LOOPS))
    worst = max(float((y - expected).abs().max() / expected.abs().max()) for y in found)
    return Agreement(worst <= CLOSE, f"differ by {worst:.0e} of the largest")


def measure_layer(pruned: Pruned, effort: Effort, where: Facts) -> list[Row]:
    """Rows of one layer."""
    layer = pruned.layer
    with layer.at_work():
        runs, versions = contestants(layer)
        agreement = attempt(partial(check, runs))
        times, note = {}, f"{REFUSED}: does not agree"
        if agreement.holds:
            times, note = compare({name: Contest(run) for name, run in runs.items()}, effort)
        facts = replace(where, threads=torch.get_num_threads())
    shape = layer.shape()
    return [
        Row(
            benchmark="sparse",
            contestant=name,
            version=versions[name],
            case=pruned.name,
            T=1,
            N=shape.positions * shape.out_channels,
            phase=FORWARD,
            median_ms=times.get(name),
            ratio=over_first(times, name, OURS),
            agreement=agreement.text,
            facts=facts,
            note=note,
        )
        for name in runs
    ]


def break_even(shares: list[float], ratios: list[float]) -> str:
    """From which share of zeros on a rival's time is ours or more, from its times over ours at rising shares."""
    if ratios[-1] < 1:
        return f"csr is slower, also with {shares[-1]:.0%} zeros"
    k = len(ratios) - 1
    while k and ratios[k - 1] >= 1:
        k -= 1
    if not k:
        return f"csr is faster, also with {shares[0]:.0%} zeros"
    part = (1 - ratios[k - 1]) / (ratios[k] - ratios[k - 1])
    return f"csr is faster from {shares[k - 1] + part * (shares[k] - shares[k - 1]):.0%} zeros on"


def break_evens(cases: list[Pruned], rows: list[list[Row]]) -> list[Row]:
    """One row for each rival of the CSR kernel in a layer; none where a time is missing."""
    found = []
    for several in zip(*rows, strict=True):
        ratios = [row.ratio for row in several]
        if several[0].contestant == OURS or None in ratios:
            continue
        text = break_even([case.share for case in cases], [ratio for ratio in ratios if ratio is not None])
        first = several[0]
        found.append(
            replace(first, case=cases[0].layer.name, phase="break-even", median_ms=None, ratio=None, note=text)
        )
    return found


def prune(net: nn.Module, done: float) -> None:
    """Set the least weights of every layer to zero, as many as are due when that share of the training is done."""
    share = PRUNED * (1 - (1 - min(1.0, 1.5 * done)) ** 3)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                size = layer.weight.abs().flatten()
                layer.weight.view(-1)[size.argsort()[: round(share * len(size))]] = 0.0


def accuracy(net: nn.Module, case: Trained) -> float:
    """On the first training images, in eval mode."""
    images, labels = case.images[:JUDGED], case.labels[:JUDGED]
    right = 0
    for k in range(0, len(images), 64):
        y = trained.inference(net, trained.frames(images[k : k + 64])).mean(0)
        right += int((y.argmax(1) == labels[k : k + 64]).sum())
    return right / len(images)


def seen(net: nn.Module, x: Tensor) -> Seen:
    """Spikes and output in eval mode."""
    with torch.no_grad():
        spikes, y = nets.spikes(Rheobase(), net.eval(), x)
    return Seen(spikes, y, {})


def without_bits(net: nn.Module, x: Tensor) -> Tensor:
    """Forward with torch's products."""
    with rb.packing(False):
        return trained.inference(net, x)


def describe(net: nn.Module, case: Trained) -> str:
    """What a network reads, how well it does, and how many of its weights are zero."""
    weights = [p for p in net.parameters() if p.dim() > 1]
    zeros = sum(int((p == 0).sum()) for p in weights) / sum(p.numel() for p in weights)
    read = trained.densities(net.eval(), case.batch()[0])
    return f"{read}; {accuracy(net, case):.1%} right; {zeros:.1%} of {sum(p.numel() for p in weights)} weights zero"


def measure_net(
    name: str,
    case: Trained,
    calls: Mapping[str, Run],
    notes: Mapping[str, str],
    agreement: Agreement,
    N: int,
    effort: Effort,
    where: Facts,
) -> list[Row]:
    """Rows of one comparison of whole networks, in both formats."""
    contests = {who: Contest(call) for who, call in calls.items()}
    contests |= {who + HALF: trained.in_half(contest) for who, contest in contests.items()}
    times, note = {}, f"{REFUSED}: does not agree"
    if agreement.holds:
        times, note = compare(contests, effort)
    return [
        Row(
            benchmark="sparse",
            contestant=who,
            version=rb.__version__,
            case=name,
            T=case.shape[0],
            N=N,
            phase="inference",
            median_ms=times.get(who),
            ratio=over_first(times, who, OURS),
            agreement=agreement.text,
            facts=where,
            note="; ".join(part for part in (note, notes[who.removesuffix(HALF)]) if part),
        )
        for who in contests
    ]


def measure_nets(case: Trained, effort: Effort, where: Facts) -> list[Row]:
    """Rows of the network with pruned weights, and of that with fewer channels."""
    x = case.batch()[0]
    original = trained.train(case, LIF)
    pruned = trained.train(case, LIF, after=prune)
    sparse = rb.nn.sparsify(pruned)
    N = nets.neurons(Rheobase(), original, x)
    dense_note, pruned_note = describe(original, case), describe(pruned, case)

    def of_weights() -> Agreement:
        with rb.packing(False):
            expected = seen(pruned, x)
        return agree_nets(seen(sparse, x), expected, 1e-4)

    calls: dict[str, Run] = {
        OURS: partial(trained.inference, sparse, x),
        "not sparsified": partial(trained.inference, pruned, x),
        "no bits": partial(without_bits, pruned, x),
        "original": partial(trained.inference, original, x),
        "original, no bits": partial(without_bits, original, x),
    }
    notes = {who: dense_note if who.startswith("original") else pruned_note for who in calls}
    rows = measure_net(f"{PRUNED:.0%} of weights", case, calls, notes, attempt(of_weights), N, effort, where)

    zeroed = zero_channels(original, CHANNELS, x)
    small = shrink(zeroed, x)

    def of_channels() -> Agreement:
        found, expected = seen(small, x), seen(zeroed, x)
        there = [a.flatten(0, 1).amax((0, 2, 3)) > 0 for a in expected.spikes]
        kept = [a[:, :, fires] for a, fires in zip(expected.spikes, there, strict=True)]
        mine = [a[:, :, a.flatten(0, 1).amax((0, 2, 3)) > 0] for a in found.spikes]
        return agree_nets(replace(found, spikes=mine), replace(expected, spikes=kept), 1e-4)

    retrained = trained.train(case, LIF, copy.deepcopy(small))
    of_net = {OURS: small, "not shrunk": zeroed, "retrained": retrained, "original": original}
    calls = {who: partial(trained.inference, net, x) for who, net in of_net.items()}
    notes = {who: dense_note if who == "original" else describe(net, case) for who, net in of_net.items()}
    return rows + measure_net(f"{CHANNELS:.0%} of channels", case, calls, notes, attempt(of_channels), N, effort, where)


def run(effort: Effort, where: Facts, show: Show) -> list[Row]:
    """The whole comparison: layers, then networks."""
    rows: list[Row] = []
    with torch.no_grad():
        for cases in layers(effort):
            several = []
            for pruned in cases:
                several.append(measure_layer(pruned, effort, where))
                show(several[-1])
                rows += several[-1]
            found = break_evens(cases, several)
            show(found)
            rows += found
    if not trained.missing():
        steps = trained.QUICK_STEPS if effort.quick else trained.STEPS
        found = measure_nets(trained.on_images("7-layer", nets.plain, steps), effort, where)
        show(found)
        rows += found
    return rows
