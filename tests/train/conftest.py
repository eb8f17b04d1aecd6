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
def run(tmp_path):
    """An empty run folder."""
    return RunFolder.create(tmp_path / "runs", "tiny", {"width": 3})
