import wave

import numpy as np
import pytest
import torch

from rheobase.data import Cochlea, load
from rheobase.data.spoken_digits import RATE_HZ, SPEAKERS


def write_wave(path, samples, rate=RATE_HZ, channels=1):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The source's folder of 3000 very short tones: the digit sets the frequency."""
    root = tmp_path_factory.mktemp("fsdd")
    folder = root / "spoken_digits/recordings"
    folder.mkdir(parents=True)
    for digit in range(10):
        tone = 10000 * np.sin(2 * np.pi * (200 + 300 * digit) * np.arange(400) / RATE_HZ)
        for speaker in SPEAKERS:
            for take in range(50):
                write_wave(folder / f"{digit}_{speaker}_{take}.wav", tone)
    return root


def test_official_split_by_take(source):
    data = load("spoken_digits", root=source, cochlea=Cochlea(channels=16))
    assert (len(data.train), len(data.test), data.sensor) == (2700, 300, (16, 1))
    assert data.test.y.bincount().tolist() == [30] * 10
    centre = Cochlea(channels=16).centres_hz
    for k in range(0, 300, 17):
        counts = np.bincount(data.test[k].x, minlength=16)
        assert abs(int(counts.argmax()) - int(np.abs(centre - 200 - 300 * int(data.test.y[k])).argmin())) <= 1


def test_a_speaker_can_be_left_out(source):
    data = load("spoken_digits", root=source, without="theo")
    assert (len(data.train), len(data.test)) == (2500, 500)
    assert data.test.read.waves.names[data.test.read.rows[0]].split("_")[1] == "theo"
    with pytest.raises(ValueError, match="there is no speaker 'nobody'; expected one of george"):
        load("spoken_digits", root=source, without="nobody")


def test_frames_span_the_first_second(source, tmp_path, monkeypatch):
    monkeypatch.setenv("RHEOBASE_CACHE", str(tmp_path))
    data = load("spoken_digits", root=source, cochlea=Cochlea(channels=16))
    data = type(data)(**{**vars(data), "train": data.test})
    frames = data.frames(T=64, size=8)
    assert (frames.T, frames.sample_shape, frames.train.x.dtype) == (64, (8,), torch.uint8)
    events = data.test[3]
    assert int(frames.test.x[3].sum()) == len(events)
    assert int(frames.test.x[3, 4:].sum()) == 0  # a tone of 50 ms lasts for 4 steps of 16 ms
    with pytest.raises(ValueError, match="is sound, which is cut by='time'"):
        data.frames(T=64, by="count")
    with pytest.raises(ValueError, match="size is 17; expected 1 to 16"):
        data.frames(T=64, size=17)


@pytest.mark.parametrize("damage", ["text", "short", "stereo", "rate"])
def test_damaged_sound_raises(tmp_path, damage):
    from rheobase.data.spoken_digits import _Waves

    path = tmp_path / "0_george_0.wav"
    write_wave(
        path, np.zeros(400), rate=16000 if damage == "rate" else RATE_HZ, channels=2 if damage == "stereo" else 1
    )
    if damage == "text":
        path.write_text("not a sound")
    if damage == "short":
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"0_george_0\.wav: .*copy it again"):
        _Waves(tmp_path, (path.name,))(0)


def test_missing_sounds_are_counted(tmp_path):
    folder = tmp_path / "spoken_digits/recordings"
    folder.mkdir(parents=True)
    write_wave(folder / "0_george_0.wav", np.zeros(10))
    with pytest.raises(FileNotFoundError, match=r"lacks 2999 of 3000 files, 0_george_1\.wav first; clone https"):
        load("spoken_digits", root=tmp_path)


def test_real_recordings():
    try:
        data = load("spoken_digits")
    except FileNotFoundError:
        pytest.skip("spoken_digits is not below RHEOBASE_DATA")
    assert (len(data.train), len(data.test)) == (2700, 300)
    assert data.train.y.bincount().tolist() == [270] * 10
    events = data.test[0]
    assert 1000 < len(events) < 2000
    assert events.x.max() < 64
