import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheobase.data import EVENT, EventDataset, Events, Recordings


def some(unit="us"):
    return Events.of(t=[10, 20, 20, 35], x=[0, 3, 1, 2], y=[1, 0, 2, 2], p=[1, 0, -1, 1], sensor=(4, 3), unit=unit)


def test_columns_become_events():
    events = some()
    assert events.array.dtype == EVENT
    assert (events.t.tolist(), events.x.tolist(), events.y.tolist()) == ([10, 20, 20, 35], [0, 3, 1, 2], [1, 0, 2, 2])
    assert events.p.tolist() == [True, False, False, True]
    assert (len(events), events.duration, events.seconds) == (4, 25, 25e-6)
    assert [int(event["t"]) for event in events] == [10, 20, 20, 35]
    assert "4 on 4 x 3" in repr(events)


def test_no_events():
    events = Events.none((5, 1), "ms")
    assert (len(events), events.duration, events.seconds, events.unit) == (0, 0, 0.0, "ms")
    assert len(events.in_unit("ns")) == 0


def test_parts_keep_sensor_and_unit():
    events = some("ms")
    assert events[1:3].t.tolist() == [20, 20]
    assert events[events.p].x.tolist() == [0, 2]
    assert events.between(20, 35).x.tolist() == [3, 1]
    assert (events.between(11, 20).sensor, len(events.between(11, 20)), events[:2].unit) == ((4, 3), 0, "ms")


def test_a_mask_of_another_length_raises():
    with pytest.raises(IndexError, match=r"the mask is \[3\]"):
        some()[np.ones(3, bool)]


def test_a_duration_beyond_64_bits():
    assert Events.of([-(2**63), 2**63 - 1], [0, 0], [0, 0], [1, 1], (1, 1)).duration == 2**64 - 1


def test_sorting_is_stable():
    events = Events.of(t=[5, 1, 5, 0], x=[0, 1, 2, 3], y=[0] * 4, p=[1] * 4, sensor=(4, 1), sort=True)
    assert events.x.tolist() == [3, 1, 0, 2]


@given(st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=20))
def test_finer_units_and_back(times):
    t = sorted(times)
    events = Events.of(t, [0] * len(t), [0] * len(t), [1] * len(t), (1, 1), "ms")
    assert events.in_unit("ns").in_unit("ms").t.tolist() == t
    assert events.in_unit("s").t.tolist() == [time // 1000 for time in t]
    assert events.in_unit("us").seconds == pytest.approx(events.seconds)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": [0, 4, 1, 2]}, "event 1 has x=4 on a sensor of 4 x 3; expected x < 4"),
        ({"y": [0, 0, 1, 3]}, "event 3 has y=3"),
        ({"t": [10, 20, 19, 35]}, "event 2 has t=19 after t=20"),
        ({"t": [10, 20.5, 21, 35]}, "t holds NaN, Inf or fractions"),
        ({"t": [10, np.nan, 21, 35]}, "t holds NaN"),
        ({"x": [-1, 0, 0, 0]}, r"x lies in -1 \.\. 0; expected 0 \.\. 65535"),
        (
            {"t": [0, 1, 2, 2.0**63]},
            r"t lies in 0\.0 \.\. 9\.2.*; expected -9223372036854775808 \.\. 9223372036854775807",
        ),
        ({"p": [1, np.nan, 0, 0]}, "p is of float64 or holds NaN; expected numbers"),
        ({"p": ["a"] * 4}, "p is of <U1 or holds NaN; expected numbers"),
        ({"p": [1, 0]}, r"got columns t \[4\], x \[4\], y \[4\], p \[2\]"),
        ({"x": ["a"] * 4}, "expected numbers"),
        ({"unit": "h"}, "unit is 'h'"),
        ({"sensor": (0, 3)}, r"sensor is \(0, 3\)"),
    ],
)
def test_what_is_not_a_recording_raises(untyped, change, message):
    columns = {"t": [10, 20, 20, 35], "x": [0, 3, 1, 2], "y": [1, 0, 2, 2], "p": [1, 0, 0, 1], "sensor": (4, 3)}
    with pytest.raises(ValueError, match=message):
        Events.of(**{**columns, **change})


def test_other_arrays_and_units_raise(untyped):
    with pytest.raises(ValueError, match=r"array must be .* of dtype EVENT"):
        Events(np.zeros(3), (4, 3))
    with pytest.raises(ValueError, match="does not fit into 64 bits in ns"):
        Events.of([2**62], [0], [0], [1], (1, 1), "s").in_unit("ns")
    with pytest.raises(ValueError, match="unit is 'h'"):
        some().in_unit("h")


def test_recordings_are_read_one_at_a_time(untyped):
    import torch

    asked = []
    recordings = Recordings(lambda k: asked.append(k) or some(), torch.tensor([0, 1]), key="two")
    assert len(recordings) == 2
    assert len(recordings[-1]) == 4
    assert asked == [1]
    with pytest.raises(IndexError, match="no recording 2; there are 2"):
        recordings[2]
    with pytest.raises(ValueError, match=r"y must be int64 \[N\]"):
        Recordings(lambda k: some(), torch.zeros(2), key="")
    with pytest.raises(ValueError, match="test has label 1, but the labels of 1 classes are 0 to 0"):
        EventDataset("two", Recordings(some, torch.tensor([0]), ""), recordings, ("a",), (4, 3), "", "", "")
