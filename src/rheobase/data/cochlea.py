r"""A spiking cochlea: sound becomes spikes on channels of rising frequency.

A gammatone filter bank (the basilar membrane), half-wave rectification and a square root (inner hair cells), and one
integrate-and-fire neuron a channel (the auditory nerve). For sound x, filter output y of channel c at sample n:

$r_c[n] = \sqrt{\max(\mathrm{Re}\, y_c[n], 0)}$, $v_c \mathrel{+}= g\, r_c[n] / f_s$; every time $v_c \ge 1$ it fires
and $v_c$ falls by 1.

    import numpy as np
    from rheobase.data import Cochlea

    tone = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    events = Cochlea(channels=32, high_hz=3600).hear(tone, rate_hz=8000)
    assert events.sensor == (32, 1)
"""

from dataclasses import dataclass

import numpy as np

from rheobase.data.events import EVENT, Events
from rheobase.data.kernels import kernels

_ORDER = 4
_TICKS = 10**6
_BANDWIDTH = np.pi * 720 * 2**-6 / 36
"""Equivalent rectangular bandwidth of a fourth-order gammatone filter over its decay rate (Hohmann 2002, eq. 14)."""


def erb_rate(frequency_hz: np.ndarray | int | float) -> np.ndarray:
    """Equivalent rectangular bandwidths below a frequency: 21.4 log10(1 + 0.00437 f) (Glasberg and Moore 1990)."""
    return np.asarray(21.4 * np.log10(1 + 0.00437 * np.asarray(frequency_hz)))


def erb_frequency(rate: np.ndarray | int | float) -> np.ndarray:
    """The inverse of `erb_rate`, in Hz."""
    return np.asarray((10 ** (np.asarray(rate) / 21.4) - 1) / 0.00437)


@dataclass(frozen=True)
class Cochlea:
    """A spiking cochlea with centre frequencies evenly spaced in equivalent rectangular bandwidths.

    Departs from a model of hearing in that the loudness of a whole recording is set to one root mean square first
    (`normalise`), that neurons have no refractory period, and that nothing is random.

    Sources: V. Hohmann 2002, "Frequency analysis and synthesis using a gammatone filterbank", Acta Acustica 88 (complex
    one-pole cascade); B. Glasberg, B. Moore 1990, doi:10.1016/0378-5955(90)90170-T (bandwidths).

    Args:
        channels: filters, one neuron each.
        low_hz: centre of channel 0.
        high_hz: centre of the last channel; below half the sampling rate.
        gain: spikes a second of a neuron whose rectified input stays at 1.
        normalise: scale every recording to a root mean square of 1.

    Raises:
        ValueError: fewer than one channel, frequencies that do not rise from above zero, a gain that is not positive
            and finite.
    """

    channels: int = 64
    low_hz: int | float = 80.0
    high_hz: int | float = 3600.0
    gain: int | float = 600.0
    normalise: bool = True

    def __post_init__(self) -> None:
        if self.channels < 1 or not 0 < self.low_hz <= self.high_hz or not 0 < self.gain < np.inf:
            raise ValueError(
                f"Cochlea: channels={self.channels}, low_hz={self.low_hz}, high_hz={self.high_hz}, gain={self.gain}; "
                "expected channels >= 1, 0 < low_hz <= high_hz and a finite gain > 0"
            )

    @property
    def centres_hz(self) -> np.ndarray:
        """Centre frequency of every channel, float64 `[channels]`."""
        return erb_frequency(np.linspace(erb_rate(self.low_hz), erb_rate(self.high_hz), self.channels))

    def hear(self, sound: np.ndarray, rate_hz: int) -> Events:
        """The spikes that a sound causes: channel along x, a sensor of one row, microseconds since its first sample.

        Args:
            sound: one channel of samples `[N]`, float or integer of any scale.
            rate_hz: samples a second.

        Raises:
            ValueError: sound is not `[N]` or not finite, or `high_hz` is not below half of rate_hz.
        """
        sound = np.asarray(sound, dtype=np.float64)
        if sound.ndim != 1 or not np.isfinite(sound).all():
            raise ValueError(
                f"hear: sound has shape {list(sound.shape)} or holds NaN or Inf; expected finite samples [N] of one "
                "channel: pick one, or take their mean"
            )
        if self.high_hz >= rate_hz / 2:
            raise ValueError(
                f"hear: the last channel is centred at {self.high_hz:g} Hz, but sound at {rate_hz} Hz holds nothing "
                f"above {rate_hz / 2:g} Hz; lower high_hz"
            )
        loudness = np.sqrt(np.square(sound).mean()) if self.normalise and len(sound) else 1.0
        if loudness == 0:
            return Events.none((self.channels, 1))
        bandwidth = 24.7 * (4.37 * self.centres_hz / 1000 + 1)
        decay = np.exp(-2 * np.pi * bandwidth / _BANDWIDTH / rate_hz)
        turn = 2 * np.pi * self.centres_hz / rate_hz
        sample, channel = kernels("cochlea_kernel").spikes(
            sound / loudness,
            decay * np.cos(turn),
            decay * np.sin(turn),
            2 * (1 - decay) ** _ORDER,
            self.gain / rate_hz,
        )
        array = np.zeros(len(sample), EVENT)
        array["t"], array["x"], array["p"] = sample * _TICKS // rate_hz, channel, True
        return Events(array, (self.channels, 1))
