"""The same networks in Rheobase and SpikingJelly, layer by layer, and how to look into them.

A kit makes one library's layers; a network is written once, over kits. Parameters have the same names in both but for
the `module.` of `PerStep`: loading one's weights into the other also checks that it is the same network. The neuron is
LIF with tau 2, threshold 1, reset to zero, detached, ATan 2 (see `benchmarks.lif`), statistics are over time, batch and
space, and convolutions have no bias.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

import rheobase as rb
from rheobase.models import ResNet
from rheobase.neurons import LIF
from rheobase.nn import PerStep, TdBN
from rheobase.scan import Temporal
from rheobase.scan.spikes import Spikes

CLASSES = 10
PLAIN = ((64, 1), (64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1))
RESNET18 = tuple((width, stride) for width, first in ((64, 1), (128, 2), (256, 2), (512, 2)) for stride in (first, 1))
VGG11 = ((64, True), (128, True), (256, False), (256, True), (512, False), (512, True), (512, False), (512, True))
DENSE = (700, 256, 256, 20)


class Kit(Protocol):
    """One library's layers on `[T, B, ...]`.

    A convolution takes channels in and out, kernel and stride; a linear layer its inputs, outputs, and whether the
    network itself is fed with spikes there.
    """

    name: str
    version: str

    def conv(self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> nn.Module: ...
    def linear(self, inputs: int, outputs: int, binary: bool = False) -> nn.Module: ...
    def blocks(self, blocks: Sequence[nn.Module]) -> nn.Module: ...
    def norm(self, channels: int) -> nn.Module: ...
    def neuron(self) -> nn.Module: ...
    def max_pool(self) -> nn.Module: ...
    def space_mean(self) -> nn.Module: ...
    def ms_resnet(self, plan: Sequence[tuple[int, int]]) -> nn.Module: ...
    def finish(self, net: nn.Module) -> nn.Module:
        """The last touch of a whole network."""
        ...

    def release(self, net: nn.Module) -> None:
        """Let go of the state that a network keeps."""
        ...

    def is_product(self, module: nn.Module) -> bool:
        """Whether it is a convolution or a linear layer."""
        ...

    def fires(self, module: nn.Module) -> bool:
        """Whether it emits spikes."""
        ...


class Rheobase:
    """Rheobase's layers; another neuron may be given, to compute in a peer's order of operations."""

    name, version = "rheobase", rb.__version__

    def __init__(self, neuron: Callable[[], nn.Module] = LIF) -> None:
        self.neuron = neuron

    def conv(self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> nn.Module:
        return PerStep(nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False))

    def linear(self, inputs: int, outputs: int, binary: bool = False) -> nn.Module:
        if binary and hasattr(rb.nn, "Linear"):
            return PerStep(rb.nn.Linear(inputs, outputs, binary_input=True))
        return PerStep(nn.Linear(inputs, outputs))

    def blocks(self, blocks: Sequence[nn.Module]) -> nn.Module:
        return getattr(rb.nn, "Blocks", nn.Sequential)(*blocks)

    def norm(self, channels: int) -> nn.Module:
        return TdBN(channels)

    def max_pool(self) -> nn.Module:
        return PerStep(nn.MaxPool2d(2))

    def space_mean(self) -> nn.Module:
        return PerStep(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))

    def ms_resnet(self, plan: Sequence[tuple[int, int]]) -> nn.Module:
        return ResNet("ms", plan, 3, CLASSES, 1, self.neuron, last_gamma=1.0)

    def finish(self, net: nn.Module) -> nn.Module:
        fused: nn.Module = rb.fuse(net) if hasattr(rb, "fuse") else net
        return fused

    def release(self, net: nn.Module) -> None:
        pass

    def is_product(self, module: nn.Module) -> bool:
        inner = module.module if isinstance(module, PerStep) else module
        return isinstance(inner, nn.Conv2d | nn.Linear)

    def fires(self, module: nn.Module) -> bool:
        return isinstance(module, Temporal) and getattr(module, "emits", "") == "binary"


class SpikingJelly:
    """SpikingJelly's layers, all in `step_mode="m"`."""

    name = "spikingjelly"

    def __init__(self) -> None:
        from spikingjelly.activation_based import functional, layer, neuron, surrogate

        self.version = version("spikingjelly")
        self._layer, self._neuron, self._atan, self._reset = layer, neuron, surrogate.ATan, functional.reset_net

    def conv(self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> nn.Module:
        found: nn.Module = self._layer.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False, step_mode="m")
        return found

    def linear(self, inputs: int, outputs: int, binary: bool = False) -> nn.Module:  # noqa: ARG002
        found: nn.Module = self._layer.Linear(inputs, outputs, step_mode="m")
        return found

    def blocks(self, blocks: Sequence[nn.Module]) -> nn.Module:
        return nn.Sequential(*blocks)

    def norm(self, channels: int) -> nn.Module:
        found: nn.Module = self._layer.BatchNorm2d(channels, step_mode="m")
        return found

    def neuron(self) -> nn.Module:
        found: nn.Module = self._neuron.LIFNode(
            tau=2.0, surrogate_function=self._atan(), detach_reset=True, step_mode="m"
        )
        return found

    def max_pool(self) -> nn.Module:
        found: nn.Module = self._layer.MaxPool2d(2, step_mode="m")
        return found

    def space_mean(self) -> nn.Module:
        return nn.Sequential(self._layer.AdaptiveAvgPool2d(1, step_mode="m"), self._layer.Flatten(step_mode="m"))

    def ms_resnet(self, plan: Sequence[tuple[int, int]]) -> nn.Module:
        return MSResNet(self, plan)

    def finish(self, net: nn.Module) -> nn.Module:
        return net

    def release(self, net: nn.Module) -> None:
        self._reset(net)

    def is_product(self, module: nn.Module) -> bool:
        return isinstance(module, nn.Conv2d | nn.Linear)

    def fires(self, module: nn.Module) -> bool:
        return isinstance(module, self._neuron.BaseNode)


class SpikingJellyChannelsLast(SpikingJelly):
    """The same with torch's switch for the memory order in which its convolutions are faster on the CPU."""

    name = "spikingjelly-channels-last"

    def finish(self, net: nn.Module) -> nn.Module:
        return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@contextmanager
def as_given() -> Iterator[None]:
    """Inside, `PerStep` leaves a convolution's input in the memory order that it has, as SpikingJelly does."""
    before = PerStep._ordered
    PerStep._ordered = lambda _, x: x  # type: ignore[method-assign]
    try:
        yield
    finally:
        PerStep._ordered = before  # type: ignore[method-assign]


class Sum(nn.Module):
    """`branch(x) + shortcut(x)`."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch, self.shortcut = branch, shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.branch(x) + self.shortcut(x)
        return y


class MSResNet(nn.Module):
    """The network of `rheobase.models.ResNet("ms", ...)` from a kit's layers, under the same names."""

    def __init__(self, kit: Kit, plan: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        width = plan[0][0]
        self.stem = nn.Sequential(kit.conv(3, width), kit.norm(width))
        self.body = nn.Sequential()
        for (c_in, _), (c_out, stride) in pairwise([(width, 1), *plan]):
            branch = OrderedDict(
                neuron1=kit.neuron(),
                conv1=kit.conv(c_in, c_out, 3, stride),
                norm1=kit.norm(c_out),
                neuron2=kit.neuron(),
                conv2=kit.conv(c_out, c_out),
                norm2=kit.norm(c_out),
            )
            shortcut: nn.Module = nn.Identity()
            if stride != 1 or c_in != c_out:
                shortcut = nn.Sequential(OrderedDict(conv=kit.conv(c_in, c_out, 1, stride), norm=kit.norm(c_out)))
            self.body.append(Sum(nn.Sequential(branch), shortcut))
        self.head = nn.Sequential(kit.neuron(), kit.space_mean(), kit.linear(plan[-1][0], CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.body(self.stem(x)))
        return y


def plain(kit: Kit, plan: Sequence[tuple[int, int]] = PLAIN) -> nn.Module:
    """3x3 convolutions of (channels, stride), each with norm and LIF; mean over space; linear."""
    blocks, c_in = [], 3
    for c_out, stride in plan:
        blocks.append(nn.Sequential(kit.conv(c_in, c_out, 3, stride), kit.norm(c_out), kit.neuron()))
        c_in = c_out
    return kit.finish(nn.Sequential(kit.blocks(blocks), kit.space_mean(), kit.linear(c_in, CLASSES)))


def vgg(kit: Kit, plan: Sequence[tuple[int, bool]] = VGG11) -> nn.Module:
    """VGG: 3x3 convolutions of (channels, pooled after), each with norm and LIF, max-pooled; mean; linear."""
    blocks, c_in = [], 3
    for c_out, pooled in plan:
        block = nn.Sequential(kit.conv(c_in, c_out), kit.norm(c_out), kit.neuron())
        blocks.append(block.append(kit.max_pool()) if pooled else block)
        c_in = c_out
    return kit.finish(nn.Sequential(kit.blocks(blocks), kit.space_mean(), kit.linear(c_in, CLASSES)))


def conv7(kit: Kit, width: int = 32) -> nn.Module:
    """The network of `rheobase.models.cifar_conv7`: max-pooling between convolution and norm; mean; linear."""
    blocks, c_in = [nn.Sequential(kit.conv(3, width), kit.norm(width), kit.neuron())], width
    for c_out in (2 * width, 4 * width, 8 * width):
        blocks.append(nn.Sequential(kit.conv(c_in, c_out), kit.max_pool(), kit.norm(c_out), kit.neuron()))
        blocks.append(nn.Sequential(kit.conv(c_out, c_out), kit.norm(c_out), kit.neuron()))
        c_in = c_out
    return kit.finish(nn.Sequential(kit.blocks(blocks), kit.space_mean(), kit.linear(c_in, CLASSES)))


def ms_resnet(kit: Kit, plan: Sequence[tuple[int, int]] = RESNET18) -> nn.Module:
    """MS-ResNet with a 3x3 stem of stride 1 and blocks of (channels, stride)."""
    return kit.finish(kit.ms_resnet(plan))


def dense(kit: Kit, widths: Sequence[int] = DENSE) -> nn.Module:
    """Linear layers of these widths, each with LIF, at weights that let every layer fire."""
    net = nn.Sequential()
    for inputs, outputs in pairwise(widths):
        net.extend([kit.linear(inputs, outputs, binary=True), kit.neuron()])
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            # About one input in seven is a spike, so currents have deviation 1.5 around 0.5.
            if name.endswith("weight"):
                parameter.normal_(0.0, 1.5 / (parameter.shape[1] / 7) ** 0.5)
            else:
                parameter.fill_(0.5)
    return kit.finish(net)


def plain_name(name: str) -> str:
    """The name of a parameter without the `module.` of `PerStep`."""
    return name.replace("module.", "")


def load(source: nn.Module, target: nn.Module) -> None:
    """Give `target` the parameters and buffers of `source`, the same network from another kit.

    Raises:
        ValueError: it is another network.
    """
    values = {plain_name(name): value for name, value in source.state_dict().items()}
    names = {name: plain_name(name) for name in target.state_dict()}
    if odd := values.keys() ^ set(names.values()):
        raise ValueError(f"not the same network: only one has {', '.join(sorted(odd)[:5])}")
    target.load_state_dict({name: values[plain] for name, plain in names.items()})


def gradients(net: nn.Module) -> dict[str, Tensor]:
    """Gradients by the parameters' plain names."""
    return {plain_name(name): p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def topmost(net: nn.Module, wanted: Callable[[nn.Module], bool]) -> Iterator[nn.Module]:
    """The wanted modules that are not inside another wanted one."""
    for child in net.children():
        if wanted(child):
            yield child
        else:
            yield from topmost(child, wanted)


@contextmanager
def watch(
    net: nn.Module, wanted: Callable[[nn.Module], bool], see: Callable[[nn.Module, tuple[Any, ...], Any], None]
) -> Iterator[None]:
    """Inside, call `see(module, arguments, output)` each time a wanted module has run."""
    handles = [module.register_forward_hook(see) for module in topmost(net, wanted)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def spikes(kit: Kit, net: nn.Module, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """What each layer of neurons emits, in the order in which they run, and the net's output, with its graph."""
    found: list[Tensor] = []
    with watch(net, kit.fires, lambda _m, _a, output: found.append(_tensors(output)[0].detach())):
        y = net(x)
    return found, y


def neurons(kit: Kit, net: nn.Module, x: Tensor) -> int:
    """Neurons of one step that the network has for x, all samples counted."""
    with torch.no_grad():
        found, _ = spikes(kit, net, x[:1, :1])
    kit.release(net)
    return sum(layer[0].numel() for layer in found) * x.shape[1]


class Part:
    """A module of a network with the input that it gets there, to be run alone, forward and backward."""

    def __init__(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        self.module = module
        self.arguments = tree_map(_leaf, arguments)
        inputs = [value for value in _tensors(self.arguments) if value.requires_grad]
        self._wanted = [*inputs, *(p for p in module.parameters() if p.requires_grad)]
        self._cotangents: list[Tensor] | None = None

    def __call__(self) -> None:
        outputs = [value for value in _tensors(self.module(*self.arguments)) if value.requires_grad]
        if self._cotangents is None:
            self._cotangents = [torch.randn_like(value) for value in outputs]
        torch.autograd.grad(outputs, self._wanted, self._cotangents, allow_unused=True)


def parts(net: nn.Module, wanted: Callable[[nn.Module], bool], x: Tensor) -> list[Part]:
    """The wanted modules of a network with what they get when it runs on x."""
    seen: list[tuple[nn.Module, tuple[Any, ...]]] = []
    with watch(net, wanted, lambda module, arguments, _: seen.append((module, arguments))):
        net(x)
    return [Part(module, arguments) for module, arguments in seen]


class Recorded(torch.autograd.Function):
    """Gives out y and takes in x, whatever they are; dx is the gradient of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, start: Tensor, y: Tensor, dx: Tensor) -> Tensor:  # noqa: ARG004
        ctx.save_for_backward(dx)
        return y.detach()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:  # noqa: ARG004
        (dx,) = ctx.saved_tensors
        return dx if ctx.needs_input_grad[0] else None, None, None, None


def without(net: nn.Module, wanted: Callable[[nn.Module], bool], x: Tensor) -> nn.Module:
    """The network itself, but its wanted modules give what they gave for x from now on, and cost no time.

    All else runs as in the network, forward and backward, fused where it is fused there.
    """
    seen: list[tuple[nn.Module, tuple[Any, ...], Any]] = []
    with watch(net, wanted, lambda *what: seen.append(what)):
        net(x)
    generator = torch.Generator().manual_seed(2)
    for module, arguments, output in seen:
        (given,) = _tensors(arguments)
        dx = torch.empty_like(given.detach()).normal_(0.0, 1e-3, generator=generator)
        # Starts the graph where the input has none.
        start = torch.zeros((), requires_grad=True)
        y = output.detach()
        module.forward = partial(_replay, start, y, dx)  # type: ignore[method-assign]
    return net


def _replay(start: Tensor, y: Tensor, dx: Tensor, x: Tensor | Spikes) -> Tensor:
    found: Tensor = Recorded.apply(x.carrier if isinstance(x, Spikes) else x, start, y, dx)
    return found


def _leaf(value: Any) -> Any:
    return value.detach().requires_grad_(value.requires_grad) if isinstance(value, Tensor) else value


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor) and value.is_floating_point()]
