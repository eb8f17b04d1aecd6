"""Whole networks at the firing rates that training gave them: Rheobase and SpikingJelly on the CPU, equal weights.

The 7-layer net and MS-ResNet-18 of `benchmarks.nets` (32x32, T=4, batch 16) are trained by Rheobase on CIFAR-10
(JPEG-75) for some hundred steps, with Adam; then all contestants get these weights and a batch of real images, an own
copy for every step. The rows' notes tell the density of the spikes that layers read: mean, least and largest over the
layers, and the mean weighted by the layers' multiplications.

Contestants: each library in fp32, and under autocast in bf16; SpikingJelly also after
`net.to(memory_format=torch.channels_last)`. Rheobase packs, and its layers that read spikes multiply bits where that
pays (`rheobase.nn.products`).

Before timing, spikes, output and gradients of our twin and SpikingJelly are compared in fp32, as in `benchmarks.conv`.

Phases:

- "training step": as in `benchmarks.conv`; "inference": forward alone, in eval mode, without gradients.
- "training step, best", "inference, best": each library's fastest of these, which its version names.
- "products", "norm+neuron": of the training step in fp32, as in `benchmarks.conv`.

Last, in the case "7-layer, rectangular", what a surrogate with a window gains: the net is trained with one, and a
training step is timed with it and, of equal weights and spikes, with the arctangent, whose gradient reaches every
neuron.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks import nets
from benchmarks.agreement import Agreement, agree_nets, attempt
from benchmarks.conv import BATCH, SIDE, Case, T, contest, look, training_step
from benchmarks.lif import spikingjelly_twin
from benchmarks.measure import Contest, Effort, compare
from benchmarks.nets import Kit, Rheobase, SpikingJelly, SpikingJellyChannelsLast
from benchmarks.rows import REFUSED, Facts, Row, Show, over_first
from rheobase.data import load
from rheobase.neurons import LIF, Rectangle

STEPS, QUICK_STEPS, RATE = 400, 20, 1e-3
HALF = " bf16"


@dataclass(frozen=True)
class Trained(Case):
    """A case with real images."""

    images: Tensor = field(default_factory=lambda: torch.empty(0), kw_only=True)
    labels: Tensor = field(default_factory=lambda: torch.empty(0), kw_only=True)

    def batch(self) -> tuple[Tensor, Tensor]:
        """The first images, each step with a copy of its own."""
        return frames(self.images[: self.shape[1]]), self.labels[: self.shape[1]]


def frames(images: Tensor) -> Tensor:
    """Images at every step."""
    return images.repeat(T, 1, 1, 1, 1)


def missing() -> str:
    """Why nothing can be measured here, or nothing."""
    try:
        load("cifar10_jpeg")
    except FileNotFoundError as error:
        return str(error)
    return ""


def cases(effort: Effort) -> list[Trained]:
    """What is trained and timed."""
    if effort.quick:
        return [on_images("7-layer", nets.plain, QUICK_STEPS)]
    return [on_images("7-layer", nets.plain, STEPS), on_images("MS-ResNet-18", nets.ms_resnet, STEPS, 1e-4)]


def on_images(name: str, build: Callable[[Kit], nn.Module], steps: int, share: float = 1e-6) -> Trained:
    """A case with the images of so many steps."""
    data = load("cifar10_jpeg")
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[: BATCH * steps]
    images = data.standardise(data.train.intensities(order))
    return Trained(name, build, (T, BATCH, 3, SIDE, SIDE), share, images=images, labels=data.train.y[order])


def train(
    case: Trained,
    neuron: Callable[[], nn.Module] = spikingjelly_twin,
    net: nn.Module | None = None,
    after: Callable[[nn.Module, float], None] = lambda _net, _done: None,
) -> nn.Module:
    """The network after one pass over the case's images.

    Args:
        case: builds the network.
        neuron: of the network.
        net: is trained further, instead of a new one.
        after: is called after each step with the network and the share of steps that are done.
    """
    torch.manual_seed(0)
    net = case.build(Rheobase(neuron)) if net is None else net.train()
    optimiser = torch.optim.Adam(net.parameters(), RATE)
    for k in range(0, len(case.images), BATCH):
        optimiser.zero_grad(set_to_none=True)
        loss = cross_entropy(net(frames(case.images[k : k + BATCH])).mean(0), case.labels[k : k + BATCH])
        loss.backward()
        optimiser.step()
        after(net, (k + BATCH) / len(case.images))
    return net


def densities(net: nn.Module, x: Tensor) -> str:
    """The densities of the spikes that layers read, in words."""
    found: list[tuple[float, int]] = []

    def see(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        if getattr(module, "binary_input", False):
            weight = module.weight
            found.append((float(arguments[0].mean()), output.numel() // len(weight) * weight.numel()))  # type: ignore[arg-type]

    handles = [module.register_forward_hook(see) for module in net.modules()]
    with torch.no_grad():
        net(x)
    for handle in handles:
        handle.remove()
    shares = [share for share, _ in found]
    weighted = sum(share * work for share, work in found) / sum(work for _, work in found)
    return (
        f"{len(found)} layers read spikes, density mean {sum(shares) / len(shares):.1%}, "
        f"{min(shares):.1%} to {max(shares):.1%}, by multiplications {weighted:.1%}"
    )


def inference(net: nn.Module, x: Tensor) -> Tensor:
    """Forward alone."""
    net.eval()
    with torch.no_grad():
        y: Tensor = net(x)
    net.train()
    return y


def in_half(call: Contest) -> Contest:
    """The same under autocast."""

    def run() -> object:
        with torch.autocast("cpu", torch.bfloat16):
            return call.call()

    return replace(call, call=run)


def timed(kit: Kit, net: nn.Module, case: Trained, phase: str) -> Contest:
    """What is timed of one network in a phase."""
    x, labels = case.batch()
    run = partial(training_step, net, x, labels) if phase == "training step" else partial(inference, net, x)
    return Contest(run, partial(kit.release, net))


def copy_of(net: nn.Module, kit: Kit, case: Case) -> nn.Module:
    """A kit's network with the weights of another."""
    made = case.build(kit)
    nets.load(net, made)
    return made


def check(case: Trained, net: nn.Module, twin: Kit, peer: Kit) -> Agreement:
    """Compare a network in the peer's order of operations with the peer's."""
    with ExitStack() as stack:
        stack.enter_context(nets.as_given())
        found = [look(kit, copy_of(net, kit, case), *case.batch()) for kit in (twin, peer)]
        return agree_nets(found[0], found[1], case.share)


def measure(case: Trained, peers: Sequence[Kit], effort: Effort, where: Facts) -> list[Row]:
    """Rows of one network."""
    ours = Rheobase()
    trained = train(case)
    read = densities(trained, case.batch()[0])
    agreement = attempt(partial(check, case, trained, Rheobase(spikingjelly_twin), peers[0]))
    kits: tuple[Kit, ...] = (ours, *peers)
    N = nets.neurons(peers[0], copy_of(trained, peers[0], case), case.batch()[0])
    rows: list[Row] = []

    def add(phase: str, times: dict[str, float], versions: dict[str, str], note: str) -> None:
        rows.extend(
            Row(
                benchmark="trained",
                contestant=name,
                version=version,
                case=case.name,
                T=case.shape[0],
                N=N,
                phase=phase,
                median_ms=times.get(name),
                ratio=over_first(times, name, ours.name),
                agreement=agreement.text,
                facts=where,
                note="; ".join(part for part in (note, read) if part),
            )
            for name, version in versions.items()
        )

    refused = f"{REFUSED}: does not agree"
    for phase in ("training step", "inference"):
        networks = [(kit, copy_of(trained, kit, case)) for kit in kits]
        calls = {kit.name: timed(kit, net, case, phase) for kit, net in networks}
        calls |= {name + HALF: in_half(call) for name, call in calls.items()}
        versions = {kit.name + half: kit.version for half in ("", HALF) for kit in kits}
        times, note = compare(calls, effort) if agreement.holds else ({}, refused)
        add(phase, times, versions, note)
        if times:
            best = {kind: min((t, name) for name, t in times.items() if name.startswith(kind)) for kind in LIBRARIES}
            add(
                f"{phase}, best",
                {kind: t for kind, (t, _) in best.items()},
                {kind: f"{versions[name]} as {name}" for kind, (_, name) in best.items()},
                note,
            )
    for phase in ("products", "norm+neuron"):
        networks = [(kit, copy_of(trained, kit, case)) for kit in kits]
        times, note = {}, refused
        if agreement.holds:
            times, note = compare({kit.name: contest(kit, net, case, phase) for kit, net in networks}, effort)
        add(phase, times, {kit.name: kit.version for kit in kits}, note)
    return rows


LIBRARIES = ("rheobase", "spikingjelly")


def windowed(case: Trained, effort: Effort, where: Facts) -> list[Row]:
    """A training step with a surrogate that closes, and with one that does not."""
    case = replace(case, name=f"{case.name}, rectangular")
    kits = {"rheobase": Rheobase(lambda: LIF(surrogate=Rectangle())), "rheobase, arctangent": Rheobase()}
    trained = train(case, kits["rheobase"].neuron)
    x, _ = case.batch()
    networks = {name: copy_of(trained, kit, case) for name, kit in kits.items()}
    with torch.no_grad():
        outputs = [net.train()(x) for net in networks.values()]
    agreement = Agreement(torch.equal(*outputs), "outputs are equal" if torch.equal(*outputs) else "outputs differ")
    times, note = {}, f"{REFUSED}: does not agree"
    if agreement.holds:
        times, note = compare(
            {name: timed(kits[name], net, case, "training step") for name, net in networks.items()}, effort
        )
    read = densities(trained, x)
    return [
        Row(
            benchmark="trained",
            contestant=name,
            version=Rheobase.version,
            case=case.name,
            T=case.shape[0],
            N=0,
            phase="training step",
            median_ms=times.get(name),
            ratio=over_first(times, name, "rheobase"),
            agreement=agreement.text,
            facts=where,
            note="; ".join(part for part in (note, read) if part),
        )
        for name in kits
    ]


def run(effort: Effort, where: Facts, show: Show) -> list[Row]:
    """The whole comparison, network by network."""
    peers = (SpikingJelly(), SpikingJellyChannelsLast())
    rows = []
    for case in cases(effort):
        found = measure(case, peers, effort, where)
        show(found)
        rows += found
    found = windowed(cases(effort)[0], effort, where)
    show(found)
    return rows + found
