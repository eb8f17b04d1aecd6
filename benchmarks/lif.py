r"""The same leaky integrate-and-fire layer in every library, and Rheobase neurons that compute in each one's order.

The equation is $h_t = v_{t-1} + (x_t - v_{t-1})/2$, $s_t = H(h_t - 1)$, $v_t = h_t(1 - s_t)$, no gradient through the
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
- norse: `Lift(LIFBoxCell)` with a time constant of two steps: $h = v + 0.5 ((x + 0) - v)$, fires at $h > 1$, resets to
  $(1 - s) h + s 0$ with s detached by a reset function of ours. It has no ATan: its SuperSpike, $1/(1 + |h - 1|)^2$.
- sinabs: `LIF(tau_mem=1/ln 2, spike_fn=SingleSpike, reset_fn=MembraneReset())`: $h = 0.5 v + (1 - 0.5) x$, reset to
  $h (s = 0) + 0$. Batch comes first there; it is given a transposed view.
- spyx: `nn.LIF(beta=0.5)` under `nn.run` and `jax.jit`, one compilation for each shape, not timed; tensors are handed
  over and back without a copy. Its equation is another: $s_t = H(v_{t-1} - 1)$, from the membrane of the step before,
  and $v_t = 0.5 v_{t-1} + x_t - s_t$, gradient through the reset included.

Each is compared with a Rheobase neuron of exactly its own equation, in its order of operations: its twin.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

import rheobase as rb
from benchmarks.agreement import reason
from benchmarks.measure import nothing
from rheobase.neurons import LIF, Atan, FastSigmoid, Neuron

CASE = "LIF tau=2, threshold 1, reset to zero, detached, ATan 2"


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
        differs: how its equation differs from the common one.
    """

    name: str
    version: str
    run: Callable[[Tensor], Tensor]
    twin: Callable[[Tensor], Tensor]
    tensors: float
    scale: float = 1.0
    release: Callable[[], object] = nothing
    differs: str = ""


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


@rb.step(state={"v": 0.0})
def norse_lif_box(x: Any, v: Any, *, rate: Any, threshold: Any, spike: Any) -> Any:
    """Norse's, with leak and reset at 0."""
    h = v + rate * (x + 0.0 - v)
    s = spike(h - threshold, strict=True)
    fixed = s.detach()
    return s, ((1 - fixed) * h + fixed * 0.0,)


@rb.step(state={"v": 0.0})
def sinabs_lif(x: Any, v: Any, *, alpha: Any, threshold: Any, spike: Any) -> Any:
    """Sinabs': decay and input are weighted apart."""
    h = alpha * v + (1 - alpha) * x
    s = spike(h - threshold)
    return s, (h * (1 - s.detach()) + 0.0,)


@rb.step(state={"v": 0.0})
def spyx_lif(x: Any, v: Any, *, beta: Any, threshold: Any, spike: Any) -> Any:
    """Spyx's: fires from the membrane of the step before and subtracts the threshold."""
    s = spike(v - threshold, strict=True)
    return s, (beta * v + x - s * threshold,)


def spikingjelly_twin() -> Neuron:
    return Neuron(spikingjelly_lif, tau=2.0, threshold=1.0, spike=Atan(2.0))


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
    return Contestant(
        "spikingjelly",
        version("spikingjelly"),
        node,
        spikingjelly_twin(),
        tensors=11,
        release=lambda: functional.reset_net(node),
    )


def spikingjelly_inductor() -> Contestant:
    from spikingjelly.activation_based import functional, surrogate

    atan = surrogate.ATan()

    def run(x: Tensor) -> Tensor:
        rest = torch.zeros_like(x[0])
        spikes: Tensor = functional.lif_multi_step(x, rest, 2.0, True, 1.0, 0.0, atan, True)[0]
        return spikes

    torch.compiler.reset()
    compiled = torch.compile(run, dynamic=False, fullgraph=True)
    return Contestant("spikingjelly-inductor", version("spikingjelly"), compiled, spikingjelly_twin(), tensors=7)


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
    return Contestant("snntorch", version("snntorch"), run, twin, tensors=11, scale=0.5, release=leaky.reset_mem)


def norse() -> Contestant:
    from norse.torch import Lift
    from norse.torch.functional.lif_box import LIFBoxParameters
    from norse.torch.functional.reset import reset_value
    from norse.torch.module.lif_box import LIFBoxCell

    def reset(s: Tensor, h: Tensor, rest: Tensor, threshold: Tensor) -> Tensor:
        found: Tensor = reset_value(s.detach(), h, rest, threshold)
        return found

    parameters = LIFBoxParameters(tau_mem_inv=torch.tensor(0.5), method="super", reset_method=reset)
    cell = Lift(LIFBoxCell(parameters, dt=1.0))
    twin = Neuron(norse_lif_box, rate=0.5, threshold=1.0, spike=FastSigmoid(1.0))
    return Contestant(
        "norse", version("norse"), lambda x: cell(x)[0], twin, tensors=13, differs="surrogate 1/(1 + |h - 1|)^2"
    )


def sinabs() -> Contestant:
    from sinabs.activation import MembraneReset, SingleSpike
    from sinabs.layers import LIF as SinabsLIF  # noqa: N811

    def atan(h: Tensor, threshold: Tensor) -> Tensor:
        z = math.pi * (h - threshold)
        return 1 / (1 + z * z)

    layer = SinabsLIF(tau_mem=1 / math.log(2), spike_fn=SingleSpike, reset_fn=MembraneReset(), surrogate_grad_fn=atan)
    layer.requires_grad_(False)

    def run(x: Tensor) -> Tensor:
        spikes: Tensor = layer(x.transpose(0, 1))
        return spikes.transpose(0, 1)

    twin = Neuron(sinabs_lif, alpha=float(layer.alpha_mem_calculated), threshold=1.0, spike=Atan(2.0))
    # The membrane kept on the layer would be the start of the next call, and holds the graph.
    return Contestant("sinabs", version("sinabs"), run, twin, tensors=12, release=layer.reset_states)


def spyx() -> Contestant:
    import jax
    import jax.numpy as jnp
    from flax import nnx
    from spyx import axn
    from spyx import nn as spyx_nn

    atan = axn.custom(lambda u: 1 / (1 + jnp.square(jnp.pi * u)))
    layers: dict[int, Any] = {}

    def spikes_of(x: Any) -> Any:
        width = x.shape[2]
        if width not in layers:
            layers[width] = spyx_nn.LIF((width,), beta=0.5, threshold=1.0, activation=atan, rngs=nnx.Rngs(0))
        return spyx_nn.run(layers[width], x)[0]

    forward = jax.jit(lambda x: jax.vjp(spikes_of, x))
    backward = jax.jit(lambda pull, g: pull(g)[0])

    def torch_of(array: Any) -> Tensor:
        found: Tensor = torch.from_dlpack(jax.block_until_ready(array))
        return found

    class Run(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            found, ctx.pull = forward(jax.dlpack.from_dlpack(x.detach().contiguous()))
            return torch_of(found)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return torch_of(backward(ctx.pull, jax.dlpack.from_dlpack(g.contiguous())))

    twin = Neuron(spyx_lif, beta=0.5, threshold=1.0, spike=Atan(2.0))
    differs = "fires from the membrane of the step before, subtracts the threshold, gradient through the reset"
    return Contestant("spyx", version("spyx"), Run.apply, twin, tensors=6, scale=0.5, differs=differs)


CONTESTANTS: dict[str, Callable[[], Contestant]] = {
    "rheobase": rheobase,
    "spikingjelly": spikingjelly,
    "spikingjelly-inductor": spikingjelly_inductor,
    "snntorch": snntorch,
    "norse": norse,
    "sinabs": sinabs,
    "spyx": spyx,
}


def make(names: Sequence[str]) -> tuple[list[Contestant], dict[str, str]]:
    """The contestants that can be had here, and why the others cannot."""
    found, missing = [], {}
    for name in names:
        try:
            found.append(CONTESTANTS[name]())
        except Exception as error:  # whatever a peer raises, its row says so and the others go on
            missing[name] = reason(error)
    return found, missing
