"""Normalisation over time, batch and space, and how it disappears into the weights for inference."""

import copy
import math
from itertools import pairwise
from typing import Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from rheobase.nn.time import PerStep
from rheobase.scan.collective import pooled, sum_over_processes
from rheobase.scan.engine import resolve
from rheobase.scan.norm import Normed, moments
from rheobase.scan.static import once

Form = Literal["merged", "explicit"]
Layer = TypeVar("Layer", bound=nn.Module)
Model = TypeVar("Model", bound=nn.Module)

_FOLDABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def affine(
    mean: Float[Tensor, " C"],
    var: Float[Tensor, " C"],
    gain: Float[Tensor, " C"],
    bias: Float[Tensor, " C"],
    eps: float,
) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    r"""Normalisation as scale and shift: $g(x-\mu)/\sqrt{\sigma^2+\epsilon}+\beta = ax+b$."""
    scale = gain / torch.sqrt(var + eps)
    return scale, bias - mean * scale


def _apply(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """`scale * x + shift` in two roundings and x's dtype: the same bits as a kernel that may not contract."""
    channel = (-1, *(1,) * (x.dim() - 2))
    return (x * scale.view(channel)).add_(shift.view(channel)).to(x.dtype)


class _Normalise(torch.autograd.Function):
    """`gain * (x - mean) / std + bias` with the statistics of x itself, or of the x of all processes where `share` is
    given (see `Normed`); keeps x and two numbers per channel."""

    @staticmethod
    def forward(
        x: Tensor,
        gain: Tensor,
        bias: Tensor,
        mean: Tensor,
        var: Tensor,
        eps: float,
        share: Tensor | None,  # noqa: ARG004
    ) -> Tensor:
        return _apply(x, *affine(mean, var, gain, bias, eps))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        x, gain, _, mean, var, ctx.eps, ctx.share = inputs
        ctx.save_for_backward(x, gain, mean, var)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, gain, mean, var = ctx.saved_tensors
        scale = torch.rsqrt(var + ctx.eps)
        if ctx.share is not None:
            return *_shared_backward(grad, x, gain, mean, scale, ctx.share), *(None,) * 4
        return *torch.ops.aten.native_batch_norm_backward(
            grad, x, gain, None, None, mean, scale, True, ctx.eps, ctx.needs_input_grad[:3]
        ), *(None,) * 4


def _shared_backward(
    grad: Tensor, x: Tensor, gain: Tensor, mean: Tensor, scale: Tensor, share: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, gain and bias; those of gain and bias are this process's part of the sum."""
    if torch.is_grad_enabled():
        raise RuntimeError("TdBN: synchronised statistics have no second derivative; switch them off")
    channel, axes = (-1, *(1,) * (x.dim() - 2)), [0, *range(2, x.dim())]
    g, hat = grad.to(mean.dtype), (x.to(mean.dtype) - mean.view(channel)).mul_(scale.view(channel))
    to_gain, to_bias = (g * hat).sum(axes), g.sum(axes)
    by_gain, by_bias = (share * total for total in sum_over_processes(to_gain, to_bias))
    inner = g - by_bias.view(channel) - hat.mul_(by_gain.view(channel))
    return inner.mul_((gain * scale).view(channel)).to(x.dtype), to_gain, to_bias


class TdBN(nn.Module):
    r"""Threshold-dependent batch norm: over time, batch and space of `[T, B, C, ...]`, scaled to the threshold ahead.

    $\hat x = (x - \mathrm{E}[x]) / \sqrt{\mathrm{Var}[x] + \epsilon}$, one E and Var (biased) per channel, then

    - "merged": $y = \gamma \hat x + \beta$, $\gamma$ starts at $\alpha V_{th}$;
    - "explicit": $y = \lambda\,\alpha V_{th}\,\hat x + \beta$, $\lambda$ starts at 1.

    Equal at the start; a plain gradient step moves the explicit scale $(\alpha V_{th})^2$ times as much. In eval the
    running statistics stand in: exponential averages, of the unbiased variance. Statistics are fp32 for half formats.
    An input that is expanded over time is normalised once; its statistics are those of the T copies.
    `rb.nn.synchronise` makes E and Var in training those of the batches of all processes together.

    Args:
        channels: C, the size of axis 2.
        threshold: $V_{th}$ of the neuron that comes next.
        alpha: 1 in a chain, $1/\sqrt n$ on each of n branches that are added.
        form: "merged" or "explicit".
        init: the gain at the start, in both forms; None is $\alpha V_{th}$. With 0 on the last norm of a residual
            branch the branch starts at zero.
        eps: $\epsilon$.
        momentum: weight of the newest batch in the running statistics.

    Raises:
        ValueError: a setting out of range; an input with other channels; one value per channel in training.

    Source: Zheng et al. 2021, arXiv:2011.05280, eq. 4-6 (explicit); the code of MS-ResNet, arXiv:2112.08954 (merged).
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        channels: int,
        threshold: float = 1.0,
        alpha: float = 1.0,
        form: Form = "merged",
        init: float | None = None,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        ranges = {
            "channels": (channels, channels >= 1, "at least 1"),
            "threshold": (threshold, 0 < threshold < math.inf, "above 0 and finite"),
            "alpha": (alpha, 0 < alpha < math.inf, "above 0 and finite"),
            "form": (form, form in ("merged", "explicit"), "'merged' or 'explicit'"),
            "eps": (eps, eps > 0, "above 0"),
            "momentum": (momentum, 0 < momentum <= 1, "in (0, 1]"),
        }
        for name, (value, fine, expected) in ranges.items():
            if not fine:
                raise ValueError(f"TdBN: {name} is {value!r}; expected {expected}")
        self.channels, self.threshold, self.alpha, self.form = channels, threshold, alpha, form
        self.eps, self.momentum = eps, momentum
        self.synchronised = False
        self.factor = alpha * threshold if form == "explicit" else 1.0
        gain = alpha * threshold if init is None else init
        self.weight = nn.Parameter(torch.full((channels,), gain / self.factor))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def gain(self) -> Tensor:
        r"""What the normalised value is multiplied with: $\gamma$, or $\lambda\,\alpha V_{th}$."""
        return self.weight if self.form == "merged" else self.weight * self.factor

    def running_affine(self) -> tuple[Tensor, Tensor]:
        """Scale and shift per channel in eval, from the running statistics."""
        return affine(self.running_mean, self.running_var, self.gain(), self.bias, self.eps)

    def forward(self, x: Float[Tensor, "T B *rest"]) -> Float[Tensor, "T B *rest"]:
        """Normalise x `[T, B, C, ...]`."""
        if self.can_wait(x):
            return self.waiting(x).value(resolve(x.device))
        mean, var, share = self._statistics(x)
        one = once(x)
        flat = one.flatten(0, 1)
        if self.training:
            y = cast(Tensor, _Normalise.apply(flat, self.gain().to(mean.dtype), self.bias, mean, var, self.eps, share))
        else:
            y = _apply(flat, *affine(mean, var, self.gain(), self.bias, self.eps))
        return y.unflatten(0, one.shape[:2]).expand(x.shape)

    def can_wait(self, x: Tensor) -> bool:
        """Whether a fused engine will run x. The compiler fuses by itself and is shown plain operations."""
        return not torch.compiler.is_compiling() and resolve(x.device) != "reference"

    def waiting(self, x: Float[Tensor, "T B *rest"]) -> Normed:
        """The normalisation of x before it is carried out, to be handed to a neuron."""
        mean, var, share = self._statistics(x)
        return Normed(x, mean, var, self.gain(), self.bias, self.eps, self.training, share=share)

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Mean and variance to normalise x with, in training its own, in eval the running ones; `share` of `Normed`."""
        if x.dim() < 3 or x.shape[2] != self.channels:
            raise ValueError(
                f"TdBN: x has shape {tuple(x.shape)}; expected [T, B, C, ...] with C = {self.channels} channels"
            )
        if not self.training:
            return self.running_mean, self.running_var, None
        one = once(x)
        return self._observe(one.flatten(0, 1), x.shape[0] // one.shape[0])

    def _observe(self, x: Tensor, copies: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Statistics of x `[N, C, ...]`, entered into the running ones as those of `copies` of each value."""
        n = x.numel() // self.channels
        if copies * n * (dist.get_world_size() if self.synchronised else 1) < 2:
            raise ValueError(
                "TdBN: training needs more than one value per channel, got one; "
                "use more samples or steps, or call model.eval()"
            )
        mean, var = moments(x)
        count: int | Tensor = copies * n
        share = None
        if self.synchronised:
            mean, var, total = pooled(mean, var, n)
            count, share = copies * total, (1 / total).to(mean.dtype)
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_((var * (count / (count - 1))).to(self.running_var.dtype), self.momentum)
            self.num_batches_tracked.add_(1)
        return mean, var, share

    def extra_repr(self) -> str:
        """The settings."""
        return f"{self.channels}, threshold={self.threshold:.4g}, alpha={self.alpha:.4g}, form={self.form!r}"


def synchronise(model: Model, on: bool = True) -> Model:
    """Let every `TdBN` of the model take its statistics over all processes, in training, forward and backward.

    For models of which each process of torch's default group trains on a part of the batch; `rheobase.train.fit` does
    it by itself. All processes must then run the same layers in the same order, on at least one sample each. Losses
    must be scaled so that they add up to the loss of the whole batch. There is no second derivative.

    Args:
        model: is changed and returned.
        on: False makes the statistics those of this process again.

    Raises:
        ValueError: there is no process group.
    """
    if on and not (dist.is_available() and dist.is_initialized()):
        raise ValueError(
            "synchronise: there is no process group; call torch.distributed.init_process_group in every process"
        )
    for module in model.modules():
        if isinstance(module, TdBN):
            module.synchronised = on
    return model


def fold(layer: Layer, norm: TdBN) -> Layer:
    r"""Put the norm after a layer into a copy of the layer: $W' = aW$, $B' = aB + b$ with the norm's scale and shift.

    The bias acts at every step. Exact for the norm in eval, up to rounding, whatever the layer's stride or padding.

    Args:
        layer: a convolution or nn.Linear that feeds the norm alone.
        norm: its running statistics and parameters are used, in whatever mode it is.

    Raises:
        ValueError: another kind of layer, or one with other output channels than the norm.

    Source: arXiv:2011.05280, eq. 9-10.
    """
    if not isinstance(layer, _FOLDABLE):
        raise ValueError(
            f"fold: got {type(layer).__name__}; expected one of {', '.join(kind.__name__ for kind in _FOLDABLE)}"
        )
    if len(layer.weight) != norm.channels:
        raise ValueError(
            f"fold: the layer puts out {len(layer.weight)} channels but the norm has {norm.channels}; "
            f"pass the norm that directly follows the layer"
        )
    folded = copy.deepcopy(layer)
    with torch.no_grad():
        scale, shift = norm.running_affine()
        folded.weight.mul_(scale.view(-1, *(1,) * (layer.weight.dim() - 1)))
        folded.bias = nn.Parameter(shift if layer.bias is None else layer.bias * scale + shift)
    return folded


def fold_all(model: Model) -> Model:
    """A copy of the model in eval mode whose norms are folded into the layers they follow.

    Folded are neighbours in an nn.Sequential: `PerStep(layer), TdBN`. The norm's place is taken by nn.Identity, so all
    other names stay. Other norms are left as they are.
    """
    folded = copy.deepcopy(model).eval()
    for sequence in [module for module in folded.modules() if isinstance(module, nn.Sequential)]:
        for (_, layer), (name, norm) in pairwise(list(sequence.named_children())):
            if isinstance(layer, PerStep) and isinstance(layer.module, _FOLDABLE) and isinstance(norm, TdBN):
                layer.module = fold(layer.module, norm)
                sequence.register_module(name, nn.Identity())
    return folded
