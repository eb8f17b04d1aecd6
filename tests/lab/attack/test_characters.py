"""Recorded events: windows of 10 ms of a few characters, split by recording. Legality alone; no share is claimed."""

import numpy as np
import pytest
import torch

from rheobase.data import load, to_frames
from rheobase.lab.attack import SpikeAttack, attack_events
from rheobase.models import create_model

WINDOW_US, T = 10_000, 8


def windows(recordings, classes):
    """Spikes `[T, N, 2, 32, 32]` of all whole windows of the recordings of the first classes, and their labels."""
    frames, labels = [], []
    for k in (recordings.y < classes).nonzero()[:, 0].tolist():
        events = recordings[k]
        first, count = int(events.t[0]), events.duration // WINDOW_US
        for start in range(first, first + count * WINDOW_US, WINDOW_US):
            part = events.between(start, start + WINDOW_US)
            frames.append(to_frames(part, T, window=WINDOW_US, start=start) > 0)
            labels.append(int(recordings.y[k]))
    return torch.from_numpy(np.stack(frames, 1)).float(), torch.tensor(labels)


def test_windows_of_recordings_stay_legal():
    try:
        data = load("characters_dvs")
    except FileNotFoundError:
        pytest.skip("characters_dvs is not below RHEOBASE_DATA")
    (x, y), (tested, labels) = (windows(part, 3) for part in (data.train, data.test))
    model = create_model("pooled_snn", in_channels=2, classes=3, width=4, side=32)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(25):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(4 * model(x).mean(0), y).backward()
        optimizer.step()
    events = tested.sum((0, 2, 3, 4)).long()
    found = attack_events(model, tested, labels, SpikeAttack(iterations=5, threshold=1.0), budget=events)
    assert found.attacked.float().mean() > 0.5
    assert ((found.x == 0) | (found.x == 1)).all()
    assert found.x.shape == tested.shape
    assert ((found.x != tested).sum((0, 2, 3, 4)) <= events).all()
