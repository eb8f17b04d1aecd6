"""Whatever bytes a file holds: a recording, or one error that says where; and little memory."""

import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rheobase.data import Events, read_events

from .conftest import LAYOUTS

SLACK = 1 << 18  # modules, buffers of libraries
EXPANSION = dict.fromkeys(LAYOUTS, 64) | {"evt2": 128, "evt3": 128, "matlab": 256}  # bytes of memory per byte of file


@st.composite
def damage(draw, whole):
    """The bytes cut off, changed, spliced, or random behind the first ones."""
    place = st.integers(0, len(whole) - 1)
    kind = draw(st.sampled_from(["cut", "change", "splice", "random"]))
    data = bytearray(whole)
    if kind == "cut":
        del data[draw(place) :]
    elif kind == "change":
        values = st.one_of(st.sampled_from([0, 1, 127, 128, 255]), st.integers(0, 255))
        for at, value in draw(st.lists(st.tuples(place, values), min_size=1, max_size=8)):
            data[at] = value
    elif kind == "splice":
        start, stop, at = draw(place), draw(place), draw(place)
        data[at : at + draw(st.integers(0, 20))] = whole[start:stop]
    else:
        del data[draw(st.integers(1, min(200, len(whole)))) :]
        data += draw(st.binary(max_size=200))
    return bytes(data)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_damaged_bytes_raise_or_are_a_recording(tmp_path_factory, rows, name):
    layout = LAYOUTS[name]
    whole = layout.pack(rows)
    path = tmp_path_factory.mktemp("damage") / f"recording{layout.suffix}"
    path.write_bytes(whole)
    read_events(path, format=layout.format)  # loads libraries and kernels

    @settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(damage(whole))
    def check(data):
        path.write_bytes(data)
        tracemalloc.start()
        try:
            outcome = read_events(path, format=layout.format)
        except ValueError as error:
            outcome = str(error)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert isinstance(outcome, Events) or (outcome.startswith(f"{path}: ") and "byte" in outcome)
        assert peak <= SLACK + EXPANSION[name] * len(data)

    check()
