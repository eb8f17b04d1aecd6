import numpy as np
import pytest
from scipy import signal

from rheobase.data import Cochlea
from rheobase.data.cochlea import erb_frequency, erb_rate

RATE_HZ = 8000


def tone(hz, seconds=0.5):
    return np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE_HZ)) / RATE_HZ)


def test_erb_rate_and_its_inverse():
    assert erb_rate(1000.0) == pytest.approx(15.62, abs=0.01)
    hz = np.array([50.0, 500.0, 3000.0])
    assert erb_frequency(erb_rate(hz)) == pytest.approx(hz)
    centres = Cochlea(channels=5, low_hz=100, high_hz=2000).centres_hz
    assert centres[[0, -1]] == pytest.approx([100, 2000])
    assert np.diff(erb_rate(centres)) == pytest.approx(np.full(4, np.diff(erb_rate(centres)).mean()))


@pytest.mark.parametrize("hz", [150, 440, 1000, 2500])
def test_a_tone_excites_the_channel_of_its_frequency_most(hz):
    cochlea = Cochlea(channels=32)
    counts = np.bincount(cochlea.hear(tone(hz), RATE_HZ).x, minlength=32)
    assert abs(int(counts.argmax()) - int(np.abs(cochlea.centres_hz - hz).argmin())) <= 1
    assert counts.max() > 4 * counts.mean()


def test_the_filter_is_a_gammatone():
    """The rate is the square root of the response of SciPy's filter of the same order, up to a constant.

    The centre is one where samples fall on all phases of a cycle.
    """
    cochlea = Cochlea(channels=1, low_hz=1013, high_hz=1013, normalise=False)
    frequencies = np.arange(613, 1463, 50)
    spikes = np.array([len(cochlea.hear(tone(hz), RATE_HZ)) for hz in frequencies])
    b, a = signal.gammatone(1013, "iir", fs=RATE_HZ)
    response = np.abs(signal.freqz(b, a, frequencies, fs=RATE_HZ)[1])
    assert np.abs(spikes / spikes.max() - np.sqrt(response / response.max())).max() < 0.03


def test_rate_and_gain_of_a_neuron():
    """At its centre the filter has gain 1 and no delay: sqrt(max(sin, 0)) drives the neuron, 16 samples a cycle."""
    cochlea = Cochlea(channels=1, low_hz=500, high_hz=500, gain=1000, normalise=False)
    events = cochlea.hear(tone(500, seconds=2), RATE_HZ)
    settled = events.between(1_000_000, 2_000_000)
    drive = np.sqrt(np.maximum(np.sin(2 * np.pi * np.arange(16) / 16), 0)).mean()
    assert len(settled) == pytest.approx(1000 * drive, abs=2)


def test_loudness_is_set_unless_told_otherwise():
    quiet, loud = 0.01 * tone(440), 100 * tone(440)
    cochlea = Cochlea(channels=8)
    assert len(cochlea.hear(quiet, RATE_HZ)) == len(cochlea.hear(loud, RATE_HZ))
    plain = Cochlea(channels=8, normalise=False)
    assert len(plain.hear(quiet, RATE_HZ)) < len(plain.hear(loud, RATE_HZ)) / 50


def test_events_are_in_order_and_repeat_themselves():
    sound = np.random.default_rng(0).normal(size=4000)
    events = Cochlea(channels=16).hear(sound, RATE_HZ)
    assert (events.sensor, events.unit) == ((16, 1), "us")
    assert events.p.all()
    assert events.t[0] >= 0
    assert events.t[-1] < 500_000
    assert (events.array == Cochlea(channels=16).hear(sound, RATE_HZ).array).all()
    part = Cochlea(channels=16, normalise=False)
    whole = part.hear(sound, RATE_HZ)
    assert (part.hear(sound[:2000], RATE_HZ).array == whole.between(0, 250_000).array).all()


@pytest.mark.parametrize("sound", [np.zeros(0), np.zeros(100)])
def test_silence_is_no_events(sound):
    assert len(Cochlea().hear(sound, RATE_HZ)) == 0


@pytest.mark.parametrize(
    ("sound", "rate_hz", "message"),
    [
        (np.zeros((2, 100)), RATE_HZ, r"shape \[2, 100\]"),
        (np.array([0.0, np.nan]), RATE_HZ, "NaN or Inf"),
        (np.ones(10), 4000, "lower high_hz"),
    ],
)
def test_sound_that_cannot_be_heard_raises(sound, rate_hz, message):
    with pytest.raises(ValueError, match=message):
        Cochlea().hear(sound, rate_hz)


@pytest.mark.parametrize(
    "change", [{"channels": 0}, {"low_hz": 0.0}, {"low_hz": 5000.0}, {"gain": 0.0}, {"gain": np.inf}]
)
def test_impossible_cochleas_raise(change):
    with pytest.raises(ValueError, match="expected channels >= 1"):
        Cochlea(**change)
