r"""Attention between spikes: sums and masks in place of a softmax.

Q, K and V are spikes `[T, B, D, ...]`, $\mathrm{SN}(\mathrm{N}(W x))$ each. With N tokens and h heads of $d = D/h$
channels, at every step:

    ssa    S = SN'( s Q (K^T V) )                    each head: Q, K, V are N x d; integers, then one scale s = 0.125
    sdsa   S = SN'( sum over tokens of K * V ) * Q   channel by channel; heads play no part
    qkta   S = SN'( sum over channels of Q ) * K     each head: which tokens of K pass
    qkca   S = SN'( sum over tokens of Q ) * K       which channels of K pass

SN' has half the threshold of SN. Every product is of spikes with spikes or with sums of spikes: additions and masks.

Source: arXiv:2209.15425 (ssa), arXiv:2307.01694 (sdsa), arXiv:2403.16552 (qkta, qkca).
"""

from collections import OrderedDict
from typing import Any, Literal, cast

from jaxtyping import Float
from torch import Tensor, nn

from rheobase.nn.fuse import Sequential
from rheobase.nn.norm import TdBN
from rheobase.nn.residual import Conv, MakeNeuron
from rheobase.nn.values import Values, emits

Order = Literal["kv", "qk"]
"""Which product comes first: $Q(K^T V)$, or $(QK^T)V$."""


def attend(
    q: Float[Tensor, "T B D *space"],
    k: Float[Tensor, "T B D *space"],
    v: Float[Tensor, "T B D *space"],
    heads: int,
    order: Order | None = None,
) -> Float[Tensor, "T B D *space"]:
    r"""$Q K^T V$ of every head, step and sample, without softmax and without scale.

    Q, K and V of a head are `[N, d]`: its d = D / heads channels at the N places of `space`. Of spikes the result is
    whole numbers up to $N d$, and both orders give equal bits as long as sums stay below $2^{24}$ (fp32), $2^{11}$
    (fp16) or $2^8$ (bf16); larger ones are rounded. The result lies in memory as q does.

    Args:
        q, k, v: spikes.
        heads: divides D.
        order: "kv" is $Q(K^T V)$, of $2 N d^2$ additions; "qk" is $(QK^T)V$, of $2 N^2 d$; None takes the cheaper.

    Raises:
        ValueError: heads that do not divide D, or no such order.
    """
    D, space = q.shape[2], q.shape[3:]
    _check_heads("attend", D, heads)
    if order not in (None, "kv", "qk"):
        raise ValueError(f"attend: order is {order!r}; expected 'kv', 'qk' or None")
    rows, keys, values = (x.flatten(3).unflatten(2, (heads, -1)).transpose(3, 4) for x in (q, k, v))
    N, d = rows.shape[3:]
    if order == "kv" or (order is None and d <= N):
        y = rows @ (keys.transpose(3, 4) @ values)
    else:
        y = (rows @ keys.transpose(3, 4)) @ values
    if q.stride(2) == 1:  # channels side by side
        y = y.transpose(2, 3).flatten(3).transpose(2, 3)
    else:
        y = y.transpose(3, 4).flatten(2, 3)
    return y.unflatten(3, space)


def halved(neuron: MakeNeuron) -> nn.Module:
    """A neuron with half the threshold, which is its own from then on; one without a threshold stays as it is."""
    made: Any = neuron()
    threshold = getattr(made, "threshold", None)
    if isinstance(threshold, nn.Parameter):
        made.threshold = nn.Parameter(threshold.detach() * 0.5)
    elif isinstance(threshold, Tensor):
        made.threshold = threshold.detach() * 0.5
    elif threshold is not None:
        made.threshold = threshold / 2
    return cast(nn.Module, made)


class Attention(nn.Module):
    """Projections of x `[T, B, D, H, W]` to spikes, and a neuron of half the threshold; the kinds mix them.

    Args:
        width: D.
        heads: divides D.
        neuron: makes one neuron.
        reads: what x holds.

    Raises:
        ValueError: heads that do not divide the width.
    """

    projections: tuple[str, ...] = ("q", "k")

    def __init__(self, width: int, heads: int, neuron: MakeNeuron, reads: Values = "binary") -> None:
        super().__init__()
        _check_heads(type(self).__name__, width, heads)
        self.heads = heads
        for name in self.projections:
            layers = OrderedDict(conv=Conv(width, width, 1, reads), norm=TdBN(width), neuron=neuron())
            self.register_module(name, Sequential(layers))
        self.neuron = halved(neuron)

    @property
    def emits(self) -> Values:
        """Spikes, if all its neurons emit them: a mask of spikes by spikes is spikes."""
        binary = all(emits(layer) == "binary" for layer in self.children())
        return "binary" if binary else "real"

    def forward(self, x: Float[Tensor, "T B D H W"]) -> Float[Tensor, "T B D H W"]:
        """Attend."""
        return self.mix(*(self.get_submodule(name)(x) for name in self.projections))

    def mix(self, *spikes: Tensor) -> Tensor:
        """What comes out for the spikes of the projections."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """The heads."""
        return f"heads={self.heads}"


class SelfAttention(Attention):
    r"""Spiking self-attention, $S = \mathrm{SN}'(s\,Q(K^T V))$; see `Attention` and `attend`.

    Args:
        width, heads, neuron, reads: as of `Attention`.
        scale: s; fixed, and not $1/\sqrt d$.
        order: which product comes first; None takes the cheaper, of equal result.

    Source: Zhou et al. 2022, arXiv:2209.15425; the neuron in front of x is of arXiv:2304.11954 and not part of it.
    """

    projections = ("q", "k", "v")

    def __init__(
        self,
        width: int,
        heads: int,
        neuron: MakeNeuron,
        reads: Values = "binary",
        scale: float = 0.125,
        order: Order | None = None,
    ) -> None:
        super().__init__(width, heads, neuron, reads)
        self.scale, self.order = scale, order

    def mix(self, *spikes: Tensor) -> Tensor:
        """One neuron on the scaled product."""
        q, k, v = spikes
        s: Tensor = self.neuron(attend(q, k, v, self.heads, self.order) * self.scale)
        return s

    def extra_repr(self) -> str:
        """Heads and scale."""
        return f"{super().extra_repr()}, scale={self.scale:.4g}"


class SpikeDrivenAttention(Attention):
    r"""Spike-driven self-attention, $S = \mathrm{SN}'(\sum_n K_n \odot V_n) \odot Q$: one mask of channels a step.

    Linear in tokens and in channels. `heads` is there for the interface: each channel is a head of its own.

    Source: Yao et al. 2023, arXiv:2307.01694. Departures: the 3x3 max-pooling of K, V and both products that its code
    has for events is left out, and so is a convolution over heads that it makes and does not use.
    """

    projections = ("q", "k", "v")

    def mix(self, *spikes: Tensor) -> Tensor:
        """Q where the channel's neuron fired."""
        q, k, v = spikes
        return q * self.neuron((k * v).sum((-2, -1))).unsqueeze(-1).unsqueeze(-1)


class TokenAttention(Attention):
    r"""Q-K token attention: in each head $S_n = \mathrm{SN}'(\sum_c Q_{nc})\,K_n$, one mask of tokens a step.

    Source: Zhou et al. 2024, arXiv:2403.16552.
    """

    def mix(self, *spikes: Tensor) -> Tensor:
        """K where the token's neuron fired."""
        q, k = (x.unflatten(2, (self.heads, -1)) for x in spikes)
        return (k * self.neuron(q.sum(3)).unsqueeze(3)).flatten(2, 3)


class ChannelAttention(Attention):
    r"""Q-K channel attention: $S_{nc} = \mathrm{SN}'(\sum_m Q_{mc})\,K_{nc}$, one mask of channels a step.

    `heads` is there for the interface: each channel is a head of its own.

    Source: Zhou et al. 2024, arXiv:2403.16552.
    """

    def mix(self, *spikes: Tensor) -> Tensor:
        """K where the channel's neuron fired."""
        q, k = spikes
        return k * self.neuron(q.sum((-2, -1))).unsqueeze(-1).unsqueeze(-1)


ATTENTIONS: dict[str, type[Attention]] = {
    "ssa": SelfAttention,
    "sdsa": SpikeDrivenAttention,
    "qkta": TokenAttention,
    "qkca": ChannelAttention,
}


def _check_heads(owner: str, width: int, heads: int) -> None:
    if heads < 1 or width % heads:
        raise ValueError(f"{owner}: {heads} heads do not divide {width} channels; take a number that does")
