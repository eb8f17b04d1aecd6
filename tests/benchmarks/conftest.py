import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # benchmarks/ is not part of the installed package


@pytest.fixture
def facts():
    from benchmarks.rows import Facts

    return Facts(threads=1, commit="abc", date="2020-01-01", machine="a processor", torch="2.9")
