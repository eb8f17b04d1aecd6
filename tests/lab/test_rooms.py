import subprocess
import sys

import pytest

from rheobase import lab


def test_a_room_is_loaded_when_it_is_asked_for():
    code = """
import sys, rheobase as rb
assert not [name for name in sys.modules if name.startswith("rheobase.lab.")]
assert rb.lab.cost.spike_driven
assert sys.modules["rheobase.lab.cost"] is rb.lab.cost
assert "rheobase.lab.compress" not in sys.modules
assert rb.lab.compress.Lats
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_room_that_is_not_there_is_said():
    with pytest.raises(AttributeError, match=r"has no room 'kitchen'; there are .*cost"):
        lab.kitchen  # noqa: B018
