"""A small victim that has learned which half of an image is bright, with spikes for its input."""

import pytest
import torch

from rheobase.data import poisson
from rheobase.models import create_model


def halves(count, seed, T=6):
    """Images `[B, 1, 8, 8]` whose bright half is their class, and classes."""
    random = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 2
    x = torch.rand(count, 1, 8, 8, generator=random) * 0.2
    x[y == 0, :, :, :4] += 0.5
    x[y == 1, :, :, 4:] += 0.5
    return x, y


@pytest.fixture(scope="session")
def victim():
    """A trained network, in eval mode."""
    torch.manual_seed(3)
    model = create_model("pooled_snn", width=4, side=8, classes=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(60):
        x, y = halves(32, step)
        error = torch.nn.functional.cross_entropy(model(poisson(x, 6)).mean(0) * 4, y)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    optimizer.zero_grad()
    return model.eval()


@pytest.fixture(scope="session")
def images():
    return halves(24, 1000)


@pytest.fixture(scope="session")
def events(images):
    """Spikes `[6, 24, 1, 8, 8]` and classes."""
    x, y = images
    return poisson(x, 6, torch.Generator().manual_seed(0)), y
