"""Learnable delays: convolution over time with one tap per synapse, whose position is learned.

While training, a tap is a Gaussian over the delays that may be; a schedule lowers its width (`sharpen`). In eval mode
it is one whole delay.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rheobase.scan import Temporal


class _Inward(torch.autograd.Function):
    """Clamp whose gradient is kept at the bounds as far as a descent along it leads back inside."""

    @staticmethod
    def forward(d: Tensor, high: float) -> Tensor:
        return d.clamp(0.0, high)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        d, ctx.high = inputs
        ctx.save_for_backward(d)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (d,) = ctx.saved_tensors
        outward = ((d >= ctx.high) & (grad < 0)) | ((d <= 0) & (grad > 0))
        return grad.masked_fill(outward, 0.0), None


class _Delayed(Temporal):
    """A layer of delays d in [0, D-1], D = `max_delay`, each a tap over the last D inputs."""

    delay: nn.Parameter
    sigma: Tensor

    def __init__(self, shape: tuple[int, ...], max_delay: int, sigma: float | None) -> None:
        super().__init__()
        name = type(self).__name__
        if min(shape) < 1 or max_delay < 1:
            raise ValueError(f"{name}: sizes are {shape} and max_delay is {max_delay}; expected at least 1")
        sigma = max_delay / 2 if sigma is None else sigma
        if not 0 < sigma < math.inf:
            raise ValueError(f"{name}: sigma is {sigma}; expected above 0 and finite")
        self.max_delay = max_delay
        self.delay = nn.Parameter(torch.rand(shape) * (max_delay - 1))
        self.register_buffer("sigma", torch.tensor(sigma))

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Set the width of the taps to that of an epoch, see `delay_sigma`."""
        self.sigma.fill_(delay_sigma(epoch, epochs, self.max_delay))

    def steps(self) -> Tensor:
        """The delays as whole steps, int64: those that eval mode uses."""
        return self.delay.detach().clamp(0, self.max_delay - 1).round().long()

    def taps(self) -> Tensor:
        r"""The taps over time `[*delay.shape, D]`, oldest input first, each of sum one.

        Training: $g_n \propto \exp(-\frac12 ((n - (D - 1 - d)) / \sigma)^2)$. Eval: one at $n = D - 1 - [d]$, [d] the
        nearest whole number.
        """
        last = self.max_delay - 1
        n = torch.arange(self.max_delay, device=self.delay.device)
        if not self.training:
            return (n == last - self.steps().unsqueeze(-1)).to(self.delay.dtype)
        d: Tensor = _Inward.apply(self.delay, float(last))
        z = (n - (last - d.unsqueeze(-1))) / self.sigma
        return torch.softmax(-0.5 * z * z, -1)

    def _remembered(self, x: Tensor, state: tuple[Tensor, ...] | None) -> Tensor:
        """The last D-1 inputs and then x: `[B, ..., D-1+T]`, x being `[B, ..., T]`."""
        shape = (*x.shape[:-1], self.max_delay - 1)
        before = x.new_zeros(shape) if state is None else state[0].to(x.dtype)
        if before.shape != shape:
            raise ValueError(
                f"{type(self).__name__}: the state holds inputs of shape {tuple(before.shape)} [B, ..., D-1]; "
                f"expected {shape}; pass the state that this layer returned for the same batch"
            )
        return torch.cat([before, x], -1)


class DelayedLinear(_Delayed):
    r"""A linear layer whose synapses have delays: $y_t = \sum_n (W \odot G_n)\,x_{t-D+1+n} + b$, D = `max_delay`.

    One weight and one delay per synapse; $G_n$ `[c_out, c_in]` are the taps: Gaussians of width $\sigma$ around
    $n = D - 1 - d$ while training; in eval $y_{t,o} = \sum_i W_{oi}\,x_{t - [d_{oi}],\,i} + b_o$ with whole delays [d].
    Inputs before the first step are zero.

    x is `[T, B, ..., c_in]`, y `[T, B, ..., c_out]`; the state is the last D-1 inputs, `[B, ..., c_in, D-1]`. It runs
    as one `conv1d` over time, on a copy of x with time innermost, and costs D times what nn.Linear does.

    A delay outside [0, D-1] counts as the nearest bound, and no gradient drives it further out: nothing has to be
    clamped after an optimiser step. Delays are in steps: give them a larger learning rate than the weights (the source:
    100 times), in a parameter group of their own.

    Args:
        c_in: input features.
        c_out: output features.
        max_delay: D, in steps: delays are 0 to D-1.
        sigma: width of the taps at the start, in steps; None is D/2. A buffer, see `sharpen`.
        bias: add b.

    Raises:
        ValueError: a size below one, a sigma that is not positive, an input of another size, a state of another batch.

    Source: Hammouamri et al. 2023, arXiv:2306.17670. Departures: the Gaussian is a softmax, without a constant in its
    sum; eval alone rounds, the parameters stay.
    """

    def __init__(self, c_in: int, c_out: int, max_delay: int, sigma: float | None = None, bias: bool = False) -> None:
        super().__init__((c_out, c_in), max_delay, sigma)
        self.c_in, self.c_out = c_in, c_out
        linear = nn.Linear(c_in, c_out, bias)
        self.weight = linear.weight
        self.bias: nn.Parameter | None = linear.bias

    def sequence(self, x: Any, state: tuple[Tensor, ...] | None) -> tuple[Any, tuple[Tensor, ...]]:
        """Run x `[T, B, ..., c_in]` from the last inputs (None: zeros)."""
        if x.dim() < 3 or x.shape[-1] != self.c_in or x.shape[0] == 0:
            raise ValueError(
                f"DelayedLinear: x has shape {tuple(x.shape)}; expected [T, B, ..., c_in] with c_in = {self.c_in}"
            )
        seen = self._remembered(x.movedim(0, -1), state)
        kernel = self.weight.unsqueeze(-1) * self.taps()
        y = F.conv1d(seen.flatten(0, -3), kernel, self.bias).unflatten(0, seen.shape[:-2])
        return y.movedim(-1, 0).contiguous(), (seen[..., x.shape[0] :].clone(),)

    def extra_repr(self) -> str:
        """The sizes."""
        return f"{self.c_in}, {self.c_out}, max_delay={self.max_delay}, bias={self.bias is not None}"


class Delay(_Delayed):
    r"""A delay per channel: $y_{t,c} = x_{t - d_c,\,c}$, as in `DelayedLinear` with one synapse for each channel.

    x and y are `[T, B, C, ...]`, channels on axis 2; the state is the last D-1 inputs, `[B, C, ..., D-1]`. Costs D
    multiplications per value (a depthwise `conv1d`). In eval the values are moved, not changed.

    Args:
        channels: C.
        max_delay: D, in steps: delays are 0 to D-1.
        sigma: width of the taps at the start, in steps; None is D/2.

    Raises:
        ValueError: a size below one, a sigma that is not positive, an input of other channels, a state of another
            batch.

    Source: as `DelayedLinear`; axonal instead of synaptic delays.
    """

    def __init__(self, channels: int, max_delay: int, sigma: float | None = None) -> None:
        super().__init__((channels,), max_delay, sigma)
        self.channels = channels

    def sequence(self, x: Any, state: tuple[Tensor, ...] | None) -> tuple[Any, tuple[Tensor, ...]]:
        """Run x `[T, B, C, ...]` from the last inputs (None: zeros)."""
        if x.dim() < 3 or x.shape[2] != self.channels or x.shape[0] == 0:
            raise ValueError(
                f"Delay: x has shape {tuple(x.shape)}; expected [T, B, C, ...] with C = {self.channels} channels"
            )
        seen = self._remembered(x.movedim(0, -1), state)
        rows = seen.movedim(1, -2)
        y = F.conv1d(rows.flatten(0, -3), self.taps().unsqueeze(1), groups=self.channels)
        y = y.unflatten(0, rows.shape[:-2]).movedim(-2, 1).movedim(-1, 0)
        return y.contiguous(), (seen[..., x.shape[0] :].clone(),)

    def extra_repr(self) -> str:
        """The sizes."""
        return f"{self.channels}, max_delay={self.max_delay}"


def delay_sigma(epoch: int, epochs: int, max_delay: int, last: float = 0.5, share: float = 0.25) -> float:
    r"""Width of the taps in an epoch: $\sigma_e = \sigma_0 (\sigma_1/\sigma_0)^{e/(rE)}$, $\sigma_1$ from $e = rE$ on.

    Args:
        epoch: e, from 0.
        epochs: E.
        max_delay: D; $\sigma_0 = D/2$.
        last: $\sigma_1$, in steps.
        share: r, the part of the training over which the width falls.

    Raises:
        ValueError: an epoch below 0, no epochs, a last width or share that is not positive.

    Source: arXiv:2306.17670 (a quarter of the epochs, down to 0.5; its published code goes on to 0.23).
    """
    if epoch < 0 or epochs < 1 or not last > 0 or not 0 < share <= 1:
        raise ValueError(
            f"delay_sigma: epoch {epoch} of {epochs}, last {last}, share {share}; "
            f"expected epoch >= 0, epochs >= 1, last > 0 and 0 < share <= 1"
        )
    first = max_delay / 2
    if first <= last:
        return last
    return first * (last / first) ** min(1.0, epoch / (share * epochs))


def sharpen(model: nn.Module, epoch: int, epochs: int, last: float = 0.5, share: float = 0.25) -> None:
    """Set the width of all taps in the model to that of an epoch, see `delay_sigma`; call it before each epoch.

    Raises:
        ValueError: the model has no layer with delays, or an argument is out of range.
    """
    layers = [module for module in model.modules() if isinstance(module, _Delayed)]
    if not layers:
        raise ValueError(f"sharpen: {type(model).__name__} has no layer with delays")
    for layer in layers:
        layer.sigma.fill_(delay_sigma(epoch, epochs, layer.max_delay, last, share))
