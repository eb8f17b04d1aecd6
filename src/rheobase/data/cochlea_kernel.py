"""The numba loop of `cochlea`: filters, hair cells and neurons of all channels, sample by sample."""

from typing import Any

import numpy as np
from numba import njit


@njit(nogil=True, error_model="numpy")
def spikes(sound: Any, real: Any, imaginary: Any, scale: Any, gain: float) -> Any:
    """Sample numbers and channels of all spikes, in the order of samples and then of channels.

    Args:
        sound: `[N]`.
        real: of each channel's pole, `[C]`.
        imaginary: of each channel's pole, `[C]`.
        scale: what a channel's input is multiplied by, `[C]`.
        gain: what a neuron takes in from a rectified input of 1 in a sample.
    """
    channels = len(real)
    re, im = np.zeros((4, channels)), np.zeros((4, channels))
    v = np.zeros(channels)
    drive = np.empty(channels)
    when, where = np.empty(1024, np.int64), np.empty(1024, np.uint16)
    count = 0
    for n in range(len(sound)):
        x = sound[n]
        for c in range(channels):
            a, b = scale[c] * x, 0.0
            for stage in range(4):
                p, q = re[stage, c], im[stage, c]
                a += real[c] * p - imaginary[c] * q
                b += real[c] * q + imaginary[c] * p
                re[stage, c], im[stage, c] = a, b
            drive[c] = gain * np.sqrt(max(a, 0.0))
        for c in range(channels):
            v[c] += drive[c]
        for c in range(channels):
            while v[c] >= 1.0:
                v[c] -= 1.0
                if count == len(when):
                    when, where = np.append(when, np.empty_like(when)), np.append(where, np.empty_like(where))
                when[count], where[count] = n, c
                count += 1
    return when[:count], where[:count]
