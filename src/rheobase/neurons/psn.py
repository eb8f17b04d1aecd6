r"""Parallel spiking neurons: without a reset the membrane is linear in the input, so a matrix replaces the loop.

$h_t = b_t + \sum_i W_{ti}\,x_i$, $s_t = H(h_t)$, the threshold stored as $b = -\vartheta$. PSN and masked PSN learn a
$T \times T$ matrix; the sliding PSN weighs the last k inputs, the same way at every step.

Source: Fang et al. 2023, arXiv:2304.12760, and the code published with it.
"""

import inspect
import math
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rheobase.neurons.neuron import Neuron
from rheobase.neurons.registry import register
from rheobase.neurons.surrogate import Atan, Surrogate
from rheobase.scan import Scan, Step, step
from rheobase.scan.engine import resolve

Form = Literal["conv", "gemm"]


@step(inputs=("h",), state={})
def fire(h: Tensor, *, spike: Any) -> Any:
    """$s = H(h)$."""
    return spike(h), ()


def _charge(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """$H = b + W X$ in the format of the weights, whatever autocast says."""
    with torch.autocast(x.device.type, enabled=False):
        return torch.addmm(bias.unsqueeze(1), weight, x.to(weight.dtype))


class _ChargeFire(torch.autograd.Function):
    """$S = H(W X + b)$, X `[T, N]`; keeps X, W and b, and computes the membrane again for backward."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, text: str, engine: str) -> Tensor:
        (s,) = torch.ops.rheobase.scan(text, [_charge(x, weight, bias)], [], [], engine)
        return s.to(x.dtype)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        *tensors, ctx.text, ctx.engine = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, bias = ctx.saved_tensors
        h = _charge(x, weight, bias)
        (g,) = torch.ops.rheobase.scan_backward(ctx.text, [h], [], [], [grad.to(h.dtype)], [True], ctx.engine)
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        with torch.autocast(x.device.type, enabled=False):
            return (
                (weight.T @ g).to(x.dtype) if of_x else None,
                g @ x.to(g.dtype).T if of_weight else None,
                g.sum(1) if of_bias else None,
                None,
                None,
            )


def _charge_fire(scan: Scan, x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    """Spikes `[R, B, ...]` in `dtype` of x `[T, B, ...]`, W `[R, T]` and b `[R]`, in x's memory order."""
    membrane = torch.float64 if dtype == torch.float64 else torch.float32
    weight, bias = weight.to(membrane), bias.to(membrane)
    order = sorted(range(1, x.dim()), key=lambda a: (-x.stride()[a], a))
    ordered = x.permute(0, *order)
    flat = ordered.flatten(1)
    engine = resolve(x.device)
    if engine == "reference":
        s = scan(_charge(flat, weight, bias))[0]
    else:
        s = _ChargeFire.apply(flat, weight, bias, scan.text(membrane), engine)  # type: ignore[no-untyped-call]
    back = [0] * x.dim()
    for k, a in enumerate(order, 1):
        back[a] = k
    spikes: Tensor = s.to(dtype).view(len(weight), *ordered.shape[1:]).permute(back)
    return spikes


def _check(name: str, x: Tensor) -> None:
    if x.dim() < 2 or x.shape[0] == 0:
        raise ValueError(f"{name}: x has shape {tuple(x.shape)}; expected [T, B, ...] with T >= 1")
    if not x.is_floating_point():
        raise ValueError(f"{name}: x is {x.dtype}; expected floating point, convert with x.float()")


def _append(name: str, past: Tensor, x: Tensor) -> Tensor:
    """The inputs of the state `[t, B, ...]` and then x."""
    if past.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"{name}: the state holds inputs of shape {tuple(past.shape[1:])} but a step of x has "
            f"{tuple(x.shape[1:])}; pass the state that this call returned for the same batch"
        )
    return torch.cat([past, x])


def _uniform(*shape: int) -> Tensor:
    r"""Uniform in $\pm 1/\sqrt n$ with n the size of the last axis."""
    return (2 * torch.rand(shape) - 1) / math.sqrt(shape[-1])


def _shown(bias: Tensor, scan: Scan) -> str:
    return f"threshold={-bias.detach().mean().item():.4g}, spike={scan.constants['spike']!r}"


@register("psn", causal=False, streamable=False, any_T=False, closed_form=False)
class PSN(Neuron):
    r"""Parallel spiking neuron: $h_t = b_t + \sum_{i=1}^{T} W_{ti}\,x_i$, $s_t = H(h_t)$; all neurons share W and b.

    The threshold of step t is $\vartheta_t = -b_t$. Every step sees all T inputs, later ones too: not causal, so it
    cannot be streamed and is no model of online processing. The membrane is accumulated in float32 (float64 for float64
    input), also for 16-bit input and under autocast. The fused engines keep x and W for backward and compute h again.

    Args:
        T: the number of steps, fixed: W has T x T values and b T, together $T^2 + T$.
        surrogate: stands in for the derivative of the spike.

    Raises:
        ValueError: T below one; a sequence of another length.

    Source: Fang et al. 2023, arXiv:2304.12760; W starts uniform in $\pm 1/\sqrt T$ and b at -1, as in the code that was
    published with it.
    """

    streamable = False

    def __init__(self, T: int, surrogate: Surrogate = Atan()) -> None:  # noqa: B008
        if T < 1:
            raise ValueError(f"{type(self).__name__}: T is {T}; expected at least 1")
        super().__init__(fire, spike=surrogate)
        self.T = T
        self.weight = nn.Parameter(_uniform(T, T))
        self.bias = nn.Parameter(torch.full((T,), -1.0))

    @property
    def threshold(self) -> Tensor:
        r"""The thresholds $\vartheta = -b$ of the steps, `[T]`."""
        return -self.bias

    @threshold.setter
    def threshold(self, value: Tensor) -> None:
        with torch.no_grad():
            self.bias.copy_(-value)

    def sequence(self, x: Any, state: tuple[Tensor, ...] | None) -> tuple[Any, tuple[Tensor, ...]]:
        """Spikes `[T, B, ...]` of the whole sequence x `[T, B, ...]`; there is no state.

        Raises:
            ValueError: x has another number of steps, or a state is given.
        """
        _check("PSN", x)
        if state:
            raise ValueError("PSN: got a state, but it needs the whole sequence at once; pass None")
        if len(x) != self.T:
            raise ValueError(f"PSN: x has {len(x)} steps; expected T={self.T}, the size of its weights")
        return _charge_fire(self.scan, x, self.weight, self.bias, x.dtype), ()

    def extra_repr(self) -> str:
        """Size, threshold and surrogate."""
        return f"T={self.T}, {_shown(self.bias, self.scan)}"


def masking(epoch: int, epochs: int) -> float:
    r"""How far a masked PSN is masked in an epoch of training: $\lambda = \min(1, 8\,e/(E - 1))$.

    Not at all in epoch 0, wholly from epoch $\lceil (E-1)/8 \rceil$ on; 1 where there is one epoch only.

    Args:
        epoch: $e$, from 0.
        epochs: $E$, how many there are.

    Raises:
        ValueError: no such epoch.

    Source: the training scripts published with arXiv:2304.12760.
    """
    if not 0 <= epoch < epochs:
        raise ValueError(f"masking: epoch is {epoch}; expected 0 to {epochs - 1} of {epochs} epochs")
    return min(1.0, 8 * epoch / (epochs - 1)) if epochs > 1 else 1.0


@register("masked_psn", any_T=False, closed_form=False)
class MaskedPSN(PSN):
    r"""Masked PSN of order k: $h_t = b_t + \sum_i (W \cdot M_k(\lambda))_{ti}\,x_i$, $s_t = H(h_t)$.

    $M_k$ is 1 for the k inputs $t-k+1 \le i \le t$ and 0 elsewhere; $M_k(\lambda) = \lambda M_k + (1 - \lambda)$, so
    that $\lambda = 0$ is the PSN and $\lambda = 1$ is causal. Training may raise $\lambda$ from 0 to 1, see `ramp` and
    `masking`. The buffer `lambda_` is part of the state dict.

    With $\lambda = 1$ it can be streamed, and takes sequences shorter than T; its state is the inputs seen so far,
    `[t, B, ...]` in x's format, whose number is its position. Below one it needs the whole sequence. Formats and what
    is kept for backward are those of `PSN`.

    Args:
        T: the number of steps, fixed: $T^2 + T$ parameters.
        k: order, how many inputs a step sees; None is T. 1 is no memory.
        lambda_: $\lambda$ at the start, in [0, 1].
        ramp: whether `begin_epoch`, which `rheobase.recipes.train` calls before every epoch, sets $\lambda$.
        surrogate: stands in for the derivative of the spike.

    Raises:
        ValueError: T or k below one, $\lambda$ outside [0, 1]; more than T steps, or fewer where $\lambda < 1$.

    Source: Fang et al. 2023, arXiv:2304.12760; W and b start as in `PSN`. The code published with it starts $\lambda$
    at 0; here it starts at 1, so that a neuron that nobody schedules is the causal one.
    """

    mask: Tensor
    lambda_: Tensor

    def __init__(
        self,
        T: int,
        k: int | None = None,
        lambda_: float = 1.0,
        ramp: bool = False,
        surrogate: Surrogate = Atan(),  # noqa: B008
    ) -> None:
        if k is not None and k < 1:
            raise ValueError(f"MaskedPSN: k is {k}; expected at least 1, or None for all T={T} steps")
        super().__init__(T, surrogate)
        self.k = T if k is None else k
        self.ramp = ramp
        ones = torch.ones(T, T)
        self.register_buffer("mask", ones.tril() - ones.tril(-self.k), persistent=False)
        self.register_buffer("lambda_", torch.ones(()))
        self.set_lambda(lambda_)

    def set_lambda(self, value: float) -> None:
        r"""Set $\lambda$.

        Raises:
            ValueError: outside [0, 1].
        """
        if not 0 <= value <= 1:
            raise ValueError(f"MaskedPSN: lambda is {value}; expected 0 (a PSN) to 1 (causal)")
        self.lambda_.fill_(value)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        r"""Set $\lambda$ to that of an epoch, see `masking`, if it was made with `ramp=True`."""
        if self.ramp:
            self.set_lambda(masking(epoch, epochs))

    @property
    def streamable(self) -> bool:  # type: ignore[override]
        r"""Whether $\lambda = 1$."""
        return self.lambda_.item() == 1

    def sequence(self, x: Any, state: tuple[Tensor, ...] | None) -> tuple[Any, tuple[Tensor, ...]]:
        """Spikes `[t, B, ...]` of the next steps x `[t, B, ...]`, after the inputs in `state`.

        Raises:
            ValueError: steps beyond T; not all T at once although lambda is below one; a state of another batch.
        """
        _check("MaskedPSN", x)
        seen = x
        if state:
            seen = _append("MaskedPSN", state[0], x)
        before, end = len(seen) - len(x), len(seen)
        if end > self.T:
            raise ValueError(f"MaskedPSN: got {len(x)} steps after {before}; expected no more than T={self.T} in all")
        if len(x) < self.T and not self.streamable:
            raise ValueError(
                f"MaskedPSN: got {len(x)} of T={self.T} steps with lambda={self.lambda_.item():.4g}, which is not "
                f"causal; pass the whole sequence, or set_lambda(1.0)"
            )
        weight = self.weight * (self.lambda_ * self.mask + (1 - self.lambda_))
        s = _charge_fire(self.scan, seen, weight[before:end, :end], self.bias[before:end], x.dtype)
        return s, (seen,)

    def extra_repr(self) -> str:
        """Size, order, lambda, threshold and surrogate."""
        return f"T={self.T}, k={self.k}, lambda={self.lambda_.item():.4g}, {_shown(self.bias, self.scan)}"


class _SlidingStep(Step):
    """One step of order k; unpickled by its order, for it has no name of its own in this module."""

    def __reduce__(self) -> Any:
        return sliding_step, (len(self.state) + 1,)


@lru_cache
def sliding_step(k: int) -> Step:
    r"""The sliding PSN of order k as a step: $h = b + w_0 x_{t-k+1} + \dots + w_{k-1} x_t$, $s = H(h)$.

    Its states are the last k-1 inputs, the oldest first; its parameters are `bias` and `w0` to `w{k-1}`.
    """

    def sliding(x: Tensor, *past: Tensor, spike: Any, bias: Any, **weights: Any) -> Any:
        window = (*past, x)
        h = bias
        for i, value in enumerate(window):
            h = h + weights[f"w{i}"] * value
        return spike(h), window[1:]

    past = [f"x{i}" for i in range(k - 1, 0, -1)]
    kinds = inspect.Parameter
    sliding.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            *(kinds(name, kinds.POSITIONAL_OR_KEYWORD) for name in ("x", *past)),
            *(kinds(name, kinds.KEYWORD_ONLY) for name in ("spike", "bias", *(f"w{i}" for i in range(k)))),
        ]
    )
    sliding.__name__ = f"sliding_{k}"
    return _SlidingStep(sliding, ("x",), dict.fromkeys(past, 0.0))


@register("sliding_psn", closed_form=False)
class SlidingPSN(Neuron):
    r"""Sliding PSN of order k: $h_t = b + \sum_{i=0}^{k-1} W_i\,x_{t-k+1+i}$, $s_t = H(h_t)$; x is 0 before the start.

    Causal, for sequences of any length; the state is the last k-1 inputs, the oldest first, in both forms:

    - "conv": a step over time whose state is that window, k products a step, run fused like any neuron. Any chunking
      gives equal bits. A kernel is compiled for each k, in seconds where k is 16 or more, and it grows slow there.
    - "gemm": the banded matrix of W times the whole sequence, $T^2$ products. The chunks of a sequence are products of
      other sizes and may round differently. Formats and what is kept for backward are those of `PSN`.

    Args:
        k: order, how many inputs a step sees; $k + 1$ parameters. 1 is no memory.
        exp_init: W starts as (..., 1/4, 1/2, 1), the newest input having weight 1; otherwise uniform in
            $\pm 1/\sqrt k$.
        form: "conv" or "gemm"; None is "conv" up to k = 4, where it was the faster one for T = 4, 16 and 64 on a CPU.
        surrogate: stands in for the derivative of the spike.

    Raises:
        ValueError: k below one, or an unknown form.

    Source: Fang et al. 2023, arXiv:2304.12760; b starts at -1, as in the code published with it.
    """

    def __init__(
        self,
        k: int = 2,
        exp_init: bool = True,
        form: Form | None = None,
        surrogate: Surrogate = Atan(),  # noqa: B008
    ) -> None:
        if k < 1:
            raise ValueError(f"SlidingPSN: k is {k}; expected at least 1")
        if form not in ("conv", "gemm", None):
            raise ValueError(f"SlidingPSN: form is {form!r}; expected 'conv', 'gemm' or None")
        self.k = k
        self.form: Form = form or ("conv" if k <= 4 else "gemm")
        super().__init__(fire, spike=surrogate)
        if self.form == "conv":
            self.scan = Scan(sliding_step(k), spike=surrogate)
        self.weight = nn.Parameter(2.0 ** torch.arange(1.0 - k, 1) if exp_init else _uniform(k))
        self.bias = nn.Parameter(torch.tensor(-1.0))

    @property
    def taps(self) -> int:
        """Products of an input and a weight at every step, where no matrix product computes them."""
        return self.k if self.form == "conv" else 0

    def __getattr__(self, name: str) -> Any:
        """`w0` to `w{k-1}`, what the step of the conv form calls the entries of `weight`."""
        if name[:1] == "w" and name[1:].isdecimal() and int(name[1:]) < self.k:
            return self.weight[int(name[1:])]
        return super().__getattr__(name)

    @property
    def threshold(self) -> Tensor:
        r"""The threshold $\vartheta = -b$."""
        return -self.bias

    @threshold.setter
    def threshold(self, value: Tensor) -> None:
        with torch.no_grad():
            self.bias.copy_(-value)

    def sequence(self, x: Any, state: tuple[Tensor, ...] | None) -> tuple[Any, tuple[Tensor, ...]]:
        """Spikes of x `[T, B, ...]` after the k-1 inputs in `state`, each `[B, ...]` (None: zero).

        Raises:
            ValueError: a state of another order or batch.
        """
        if self.form == "conv":
            return super().sequence(x, state)
        _check("SlidingPSN", x)
        past = self.k - 1
        if state is not None and len(state) != past:
            raise ValueError(f"SlidingPSN: got a state of {len(state)} inputs; expected {past}, for k={self.k}")
        seen, band = x, self._band(len(x))
        if state:
            seen = _append("SlidingPSN", torch.stack(state), x)
        else:
            band = band[:, past:]
        s = _charge_fire(self.scan, seen, band, self.bias.expand(len(x)), x.dtype)
        missing = past - len(seen)
        last = seen[len(seen) - past :] if missing <= 0 else torch.cat([x.new_zeros(missing, *x.shape[1:]), seen])
        return s, last.unbind()

    def _band(self, T: int) -> Tensor:
        """`[T, k-1+T]`: row t holds W from column t on."""
        columns = torch.arange(T + self.k - 1, device=self.weight.device)
        tap = columns - columns[:T].unsqueeze(1)
        return torch.where((tap >= 0) & (tap < self.k), self.weight[tap.clamp(0, self.k - 1)], 0.0)

    def extra_repr(self) -> str:
        """Order, form, threshold and surrogate."""
        return f"k={self.k}, form={self.form!r}, {_shown(self.bias, self.scan)}"
