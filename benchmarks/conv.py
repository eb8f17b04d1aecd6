"""A training step of convolutional networks: Rheobase and SpikingJelly on the CPU, fp32, train mode, equal weights.

Networks (`benchmarks.nets`), 32x32 inputs, T=4, batch 16: the 7-layer plain net, MS-ResNet-18 (3x3 stem of stride 1,
widths 64-512), VGG-11 (max-pooled, one linear layer). The input is normal and differs from step to step, so that
nobody may compute one image once. Rheobase's networks go through `rb.fuse`, with packed inputs as it sets them, and
give convolutions their input channels-last by themselves. SpikingJelly's run as they are built, and once more after
torch's `net.to(memory_format=torch.channels_last)`, which its user may add.

Before timing, a network whose neuron computes in SpikingJelly's order of operations is compared with SpikingJelly's:
spikes of all layers, output, gradients of all parameters. Both in the memory order of the input then: in another one
convolutions round otherwise, and MS-ResNet-18 at these weights makes a hundredth of all spikes of that.

Phases:

- "training step": clears gradients, runs forward, cross-entropy of the mean over time, backward. No optimizer, so that
  weights stay equal.
- "norm+neuron": the same without the products: every convolution and linear layer gives at no cost what it gave once.
  What is left are norms, neurons, sums and pooling.
- "products": every convolution and linear layer alone, forward and backward, on the input that it gets there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks import nets
from benchmarks.agreement import Agreement, Seen, agree_nets, attempt
from benchmarks.lif import spikingjelly_twin
from benchmarks.measure import Contest, Effort, compare
from benchmarks.nets import Kit, Rheobase, SpikingJelly, SpikingJellyChannelsLast
from benchmarks.rows import REFUSED, Facts, Row, Show, over_first

PHASES = ("training step", "products", "norm+neuron")
BATCH, T, SIDE = 16, 4, 32


@dataclass(frozen=True)
class Case:
    """A network to train for one step.

    Attributes:
        name: of the network.
        build: makes it from a kit.
        shape: of the input, `[T, B, ...]`.
        share: of the spikes may differ between libraries: their batch norms round differently.
        classes: that the network tells apart.
        binary: the input is spikes, one value in seven, instead of normal values.
    """

    name: str
    build: Callable[[Kit], nn.Module]
    shape: tuple[int, ...]
    share: float
    classes: int = nets.CLASSES
    binary: bool = False

    def batch(self) -> tuple[Tensor, Tensor]:
        """Input and labels, always the same."""
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(self.shape, generator=generator)
        return (x > 1.07).float() if self.binary else x, torch.arange(self.shape[1]) % self.classes


CASES = (
    Case("7-layer", nets.plain, (T, BATCH, 3, SIDE, SIDE), 1e-6),
    Case("MS-ResNet-18", nets.ms_resnet, (T, BATCH, 3, SIDE, SIDE), 1e-4),
    Case("VGG-11", nets.vgg, (T, BATCH, 3, SIDE, SIDE), 1e-6),
)
QUICK = (Case("7-layer", nets.plain, (T, 4, 3, SIDE, SIDE), 1e-6),)


def training_step(net: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """Gradients of all parameters; returns the loss without its graph."""
    net.zero_grad(set_to_none=True)
    loss = cross_entropy(net(x).mean(0), labels)
    loss.backward()
    return loss.detach()


def look(kit: Kit, net: nn.Module, x: Tensor, labels: Tensor) -> Seen:
    """One training step with everything that can be compared."""
    net.zero_grad(set_to_none=True)
    spikes, y = nets.spikes(kit, net, x)
    cross_entropy(y.mean(0), labels).backward()
    kit.release(net)
    return Seen(spikes, y.detach(), nets.gradients(net))


def equal_nets(case: Case, ours: Kit, peer: Kit) -> tuple[nn.Module, nn.Module]:
    """Both libraries' networks with the peer's weights."""
    torch.manual_seed(0)
    theirs = case.build(peer)
    mine = case.build(ours)
    nets.load(theirs, mine)
    return mine, theirs


def check(case: Case, twin: Kit, peer: Kit) -> Agreement:
    """Compare a network in the peer's order of operations with the peer's."""
    mine, theirs = equal_nets(case, twin, peer)
    with nets.as_given():
        return agree_nets(look(twin, mine, *case.batch()), look(peer, theirs, *case.batch()), case.share)


def contest(kit: Kit, net: nn.Module, case: Case, phase: str) -> Contest:
    """What is timed of one network in a phase; for "norm+neuron" the network is no good for others afterwards."""
    x, labels = case.batch()
    if phase == "products":
        found = nets.parts(net, kit.is_product, x)
        kit.release(net)

        def run() -> None:
            for part in found:
                part()

        return Contest(run, partial(kit.release, net))
    if phase == "norm+neuron":
        net = nets.without(net, kit.is_product, x)
        kit.release(net)
    return Contest(partial(training_step, net, x, labels), partial(kit.release, net))


def measure(
    benchmark: str, case: Case, twin: Kit, ours: Kit, peers: Sequence[Kit], effort: Effort, where: Facts
) -> list[Row]:
    """Rows of one network: all contestants in all phases; none is timed if our twin and the first peer do not agree."""
    agreement = attempt(partial(check, case, twin, peers[0]))
    kits = (ours, *peers)
    networks = [*equal_nets(case, ours, peers[0]), *(equal_nets(case, ours, peer)[1] for peer in peers[1:])]
    N = nets.neurons(peers[0], networks[1], case.batch()[0])
    rows = []
    for phase in PHASES:
        times: dict[str, float] = {}
        note = f"{REFUSED}: does not agree"
        if agreement.holds:
            pairs = zip(kits, networks, strict=True)
            times, note = compare({kit.name: contest(kit, net, case, phase) for kit, net in pairs}, effort)
        rows += [
            Row(
                benchmark=benchmark,
                contestant=kit.name,
                version=kit.version,
                case=case.name,
                T=case.shape[0],
                N=N,
                phase=phase,
                median_ms=times.get(kit.name),
                ratio=over_first(times, kit.name, ours.name),
                agreement=agreement.text,
                facts=where,
                note=note,
            )
            for kit in kits
        ]
    return rows


def measure_all(
    benchmark: str, cases: Sequence[Case], peers: Sequence[Kit], effort: Effort, where: Facts, show: Show
) -> list[Row]:
    """Rows of several networks."""
    rows = []
    for case in cases:
        found = measure(benchmark, case, Rheobase(spikingjelly_twin), Rheobase(), peers, effort, where)
        show(found)
        rows += found
    return rows


def run(effort: Effort, where: Facts, show: Show) -> list[Row]:
    """The whole comparison, network by network."""
    peers = (SpikingJelly(), SpikingJellyChannelsLast())
    return measure_all("conv", QUICK if effort.quick else CASES, peers, effort, where, show)
