import importlib.util
import os
import tempfile
from pathlib import Path

# Threads that spin while they wait slow each other down many times over on a machine with other work.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import jaxtyping
import pytest
import torch

# Kernels of the test run stay out of the user's cache, and are shared by its processes.
os.environ.setdefault("RHEOBASE_KERNELS", str(Path(tempfile.gettempdir()) / f"rheobase-kernels-{os.getuid()}"))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def one_thread():
    """Small layers spend their time on waking a second thread, and on a busy machine on waiting for it."""
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


def pytest_runtest_setup(item):
    if item.get_closest_marker("triton") is None:
        return
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed: make test-triton")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("set TRITON_INTERPRET=1 before Python starts: make test-triton")
