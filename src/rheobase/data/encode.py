"""Encoders: a batch of images `[B, ...]` becomes input over T steps `[T, B, ...]`, in the dtype of the images.

`direct` repeats any real values, usually standardised ones. The others emit spikes in {0, 1} and read intensities in
[0, 1]. Half-precision intensities are compared in float32, so every dtype sees the same rates and times.

`columns` reads an axis of the image as time. `delta` is apart: it reads signals that have a time axis already.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rheobase.scan.static import repeat


def direct(x: Float[Tensor, "*shape"], T: int) -> Float[Tensor, "T *shape"]:
    """Present x as a constant current, `out[t] = x`: a view with stride 0 along time, nothing is copied.

    Raises:
        ValueError: T < 1.
    """
    _check_steps("direct", T)
    return repeat(x, T)


def presence(x: Float[Tensor, "*shape"], T: int) -> Float[Tensor, "T *shape"]:
    """Fire at every step where x is above zero, `out[t] = [x > 0]`: a view with stride 0 along time.

    Of frames of counts, which have a time axis already, `Dataset.encode` makes spikes by the same rule: one where there
    was any event at all.

    Raises:
        ValueError: T < 1, or an x outside [0, 1] or NaN.
    """
    _check_steps("presence", T)
    return repeat((_intensity("presence", x) > 0).to(x.dtype), T)


def columns(x: Float[Tensor, "*shape W"], T: int) -> Float[Tensor, "T *shape"]:
    """Present one column after the other, from left to right: `out[t] = x[..., t]`, a view; T is the width W.

    Images `[B, C, H, W]` become `[W, B, C, H]`: sequential CIFAR, as in Fang et al. 2023, arXiv:2304.12760.

    Raises:
        ValueError: T is not W.
    """
    _check_steps("columns", T)
    if x.shape[-1] != T:
        raise ValueError(f"columns: T is {T} but x has {x.shape[-1]} columns; expected T={x.shape[-1]}")
    return x.movedim(-1, 0)


def poisson(
    x: Float[Tensor, "*shape"], T: int, generator: torch.Generator | None = None, max_rate: float = 1.0
) -> Float[Tensor, "T *shape"]:
    """Fire independently at every step with probability `max_rate * x`.

    This is a Bernoulli train, the discrete-time form of a Poisson train.

    Args:
        x: intensities in [0, 1].
        T: steps.
        generator: source of randomness on x's device; torch's default one if None.
        max_rate: spikes per step of a pixel of intensity 1, in (0, 1].

    Raises:
        ValueError: T < 1, max_rate outside (0, 1], or an x outside [0, 1] or NaN.
    """
    _check_steps("poisson", T)
    if not 0 < max_rate <= 1:
        raise ValueError(f"poisson: max_rate is a probability per step in (0, 1], got {max_rate}")
    rate = _intensity("poisson", x) * max_rate
    draw = torch.rand(T, *x.shape, generator=generator, dtype=rate.dtype, device=x.device)
    return (draw < rate).to(x.dtype)


def latency(x: Float[Tensor, "*shape"], T: int) -> Float[Tensor, "T *shape"]:
    r"""Fire once, earlier for brighter: at step $t = \mathrm{round}((1 - x)(T - 1))$, halves to the even step.

    Pixels at 0 never fire.

    Raises:
        ValueError: T < 1, or an x outside [0, 1] or NaN.
    """
    _check_steps("latency", T)
    intensity = _intensity("latency", x)
    return _fire_once(((1 - intensity) * (T - 1)).round(), intensity > 0, T).to(x.dtype)


def log_latency(
    x: Float[Tensor, "*shape"], T: int, tau: float = 5.0, threshold: float = 0.2
) -> Float[Tensor, "T *shape"]:
    r"""Fire once, when a leaky integrator at rest charged by the current x reaches the threshold.

    $v(t) = x (1 - e^{-t/\tau})$ reaches $\vartheta$ at $t = \tau \ln \frac{x}{x - \vartheta}$, rounded (halves to even)
    and clipped to the last step. Pixels at or below the threshold never fire.

    Args:
        x: intensities in [0, 1].
        T: steps.
        tau: time constant in steps, positive.
        threshold: in (0, 1).

    Raises:
        ValueError: T < 1, tau <= 0, threshold outside (0, 1), or an x outside [0, 1] or NaN.
    """
    _check_steps("log_latency", T)
    if not tau > 0:
        raise ValueError(f"log_latency: tau is a time constant in steps and must be positive, got {tau}")
    if not 0 < threshold < 1:
        raise ValueError(f"log_latency: threshold must lie in (0, 1), the range of intensities, got {threshold}")
    intensity = _intensity("log_latency", x)
    time = tau * torch.log(intensity / (intensity - threshold))
    return _fire_once(time.round().clamp_max(T - 1), intensity > threshold, T).to(x.dtype)


def phase(x: Float[Tensor, "*shape"], T: int, phases: int = 8) -> Float[Tensor, "T *shape"]:
    r"""Fire the binary digits of the intensity, the greatest first, over and over: weighted spikes.

    With $n = \mathrm{round}((2^K - 1) x)$, halves to even, and K = `phases`, the spike at step t is the digit of n that
    is worth $2^{K-1-(t \bmod K)}$; so a byte fires its own bits. A period adds up to
    $\sum_k 2^{-(1+k)} s_k = n / 2^K$. A T that is no multiple of K cuts the last period off.

    Source: J. Kim, H. Kim, S. Huh, J. Lee, K. Choi, "Deep neural networks with weighted spikes", Neurocomputing 311,
    373-386, 2018.

    Args:
        x: intensities in [0, 1].
        T: steps.
        phases: digits K, 1 to 16.

    Raises:
        ValueError: T < 1, phases outside 1 .. 16, or an x outside [0, 1] or NaN.
    """
    _check_steps("phase", T)
    if not 1 <= phases <= 16:
        raise ValueError(f"phase: phases is a number of binary digits from 1 to 16, got {phases}")
    level = (_intensity("phase", x) * (2**phases - 1)).round().to(torch.int32)
    worth = phases - 1 - torch.arange(T, dtype=torch.int32, device=x.device) % phases
    return ((level >> worth.view(T, *[1] * x.ndim)) & 1).to(x.dtype)


def burst(
    x: Float[Tensor, "*shape"], T: int, n_max: int = 5, t_min: int = 2, t_max: int | None = None
) -> Float[Tensor, "T *shape"]:
    r"""Fire one burst from the first step on, of more spikes at shorter intervals for brighter pixels.

    $N = \lceil n_{max} x \rceil$ spikes at steps 0, I, 2 I and so on with
    $I = \lceil t_{max} - (t_{max} - t_{min}) x \rceil$; those beyond the last step are lost. Pixels at 0 never fire.

    Source: W. Guo, M. E. Fouda, A. M. Eltawil, K. N. Salama, "Neural coding in spiking neural networks: a comparative
    study for robust neuromorphic systems", Frontiers in Neuroscience 15, 638474, 2021, after S. Park, S. Kim, H. Choe,
    S. Yoon, "Fast and efficient information transmission with burst spikes in deep spiking neural networks", DAC 2019.

    Args:
        x: intensities in [0, 1].
        T: steps.
        n_max: spikes of intensity 1.
        t_min: steps between spikes at intensity 1.
        t_max: steps between spikes towards intensity 0; None takes T // n_max, or t_min if that is more: no spike is
            lost then, unless t_min itself is too long.

    Raises:
        ValueError: T < 1, n_max < 1, t_min < 1, t_max < t_min, or an x outside [0, 1] or NaN.
    """
    _check_steps("burst", T)
    longest = max(t_min, T // max(n_max, 1)) if t_max is None else t_max
    if n_max < 1 or not 1 <= t_min <= longest:
        raise ValueError(
            f"burst: expected n_max >= 1 and 1 <= t_min <= t_max, got n_max={n_max}, t_min={t_min}, t_max={t_max}"
        )
    intensity = _intensity("burst", x)
    count = (n_max * intensity).ceil()
    interval = (longest - (longest - t_min) * intensity).ceil()
    step = torch.arange(T, dtype=interval.dtype, device=x.device).view(T, *[1] * x.ndim)
    return ((step % interval == 0) & (step < count * interval)).to(x.dtype)


def delta(x: Float[Tensor, "T *shape"], threshold: float) -> Float[Tensor, "T 2 *shape"]:
    """Fire when a signal has moved by the threshold since it last fired: send-on-delta.

    The reference starts at x[0]. A step with x - reference >= threshold fires ON, one with reference - x >= threshold
    fires OFF, and the reference becomes x. So at every step the signal lies within the threshold of what was last
    sent. Axis 1 of the result is OFF, ON, as in frames of events; the first step is silent.

    Not known to `encode`, as signals have a time axis already.

    Source: M. Miskowicz, "Send-on-delta concept: an event-based data reporting strategy", Sensors 6(1), 49-63, 2006.

    Args:
        x: real values, time first.
        threshold: positive, in units of x.

    Raises:
        ValueError: a threshold that is not positive, or a signal with NaN or Inf.
    """
    if not threshold > 0:
        raise ValueError(f"delta: threshold must be positive, got {threshold}")
    if not x.isfinite().all():
        raise ValueError("delta: x holds NaN or Inf; expected finite values")
    signal = x if x.dtype == torch.float64 else x.float()
    spikes = x.new_zeros(x.shape[0], 2, *x.shape[1:])
    reference = signal[:1].squeeze(0)
    for now, (off, on) in zip(signal, spikes, strict=True):
        moved = now - reference
        off.copy_(moved <= -threshold)
        on.copy_(moved >= threshold)
        reference = torch.where(moved.abs() >= threshold, now, reference)
    return spikes


@dataclass(frozen=True)
class Encoder:
    """An encoder and its traits; calling it encodes with the function's default options.

    `binary`: it emits only 0 and 1 and reads intensities in [0, 1]; otherwise it reads standardised values.
    `stochastic`: it takes a generator, which the others ignore.
    `scans`: it reads the last axis as time, so that a step has an axis less and T must be that axis' size.
    """

    function: Callable[..., Tensor]
    binary: bool
    stochastic: bool
    scans: bool = False

    def __call__(
        self, x: Float[Tensor, "*shape"], T: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "T *step"]:
        """Encode x over T steps."""
        return self.function(x, T, generator) if self.stochastic else self.function(x, T)


_ENCODERS = {
    "burst": Encoder(burst, binary=True, stochastic=False),
    "columns": Encoder(columns, binary=False, stochastic=False, scans=True),
    "direct": Encoder(direct, binary=False, stochastic=False),
    "latency": Encoder(latency, binary=True, stochastic=False),
    "log_latency": Encoder(log_latency, binary=True, stochastic=False),
    "phase": Encoder(phase, binary=True, stochastic=False),
    "poisson": Encoder(poisson, binary=True, stochastic=True),
    "presence": Encoder(presence, binary=True, stochastic=False),
}


def list_encoders() -> list[str]:
    """Return the sorted names that `encode` and `get_encoder` know."""
    return sorted(_ENCODERS)


def get_encoder(name: str) -> Encoder:
    """Return the encoder called `name`; a ValueError lists the names there are."""
    if name not in _ENCODERS:
        raise ValueError(f"there is no encoder {name!r}; choose one of {', '.join(list_encoders())}")
    return _ENCODERS[name]


def encode(
    name: str, x: Float[Tensor, "*shape"], T: int, generator: torch.Generator | None = None
) -> Float[Tensor, "T *step"]:
    """Encode x over T steps with the encoder called `name`; for batches of a data set see `Dataset.encode`.

    Raises:
        ValueError: no encoder has that name, or the encoder refuses its input.
    """
    return get_encoder(name)(x, T, generator)


def _check_steps(caller: str, T: int) -> None:
    if T < 1:
        raise ValueError(f"{caller}: T must be at least 1 step, got {T}")


def _intensity(caller: str, x: Tensor) -> Tensor:
    """Return x checked to lie in [0, 1], in at least float32."""
    if x.numel():
        low, high = (float(bound) for bound in x.detach().aminmax())
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"{caller}: x must hold intensities in [0, 1], got values in [{low:g}, {high:g}]; "
                "pass batches as they come, not standardised"
            )
    return x if x.dtype == torch.float64 else x.float()


def _fire_once(time: Tensor, fires: Tensor, T: int) -> Tensor:
    """Return booleans `[T, ...]`, true at step `time` of every pixel that fires."""
    steps = torch.arange(T, dtype=time.dtype, device=time.device).view(T, *[1] * time.ndim)
    return (steps == time) & fires
