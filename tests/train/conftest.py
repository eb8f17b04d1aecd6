import pytest

from rheobase.train import RunFolder


@pytest.fixture(autouse=True)
def _alone(one_thread):
    pass


@pytest.fixture
def run(tmp_path):
    """An empty run folder."""
    return RunFolder.create(tmp_path / "runs", "tiny", {"width": 3})
