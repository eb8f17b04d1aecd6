import jaxtyping
import pytest
import torch

from rheobase.train import RunFolder


@pytest.fixture(autouse=True)
def _one_thread():
    """Tiny networks spend their time on waking threads, and on a busy machine on waiting for them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def untyped():
    """Values of the wrong type reach the code itself, as they do outside of test runs with checked types."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture
def run(tmp_path):
    """An empty run folder."""
    return RunFolder.create(tmp_path / "runs", "tiny", {"width": 3})
