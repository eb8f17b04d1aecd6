import jaxtyping
import pytest

from rheobase.train import RunFolder


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
