import gc
import subprocess
import sys

import pytest
from benchmarks.measure import Contest, Effort, Others, alternate, compare, facts

from benchmarks import measure


def test_contestants_take_turns_once_untimed_and_once_timed():
    log = []
    contests = {name: Contest(lambda name=name: log.append(name), lambda: log.append("released")) for name in "ab"}
    medians = alternate(contests, seconds=0.0, least=3)
    assert log == ["a", "released", "a", "released", "b", "released", "b", "released"] * 3
    assert medians.keys() == {"a", "b"}
    assert gc.isenabled()


def test_only_the_call_is_timed(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])

    def spend(seconds):
        return lambda: now.__setitem__(0, now[0] + seconds)

    contests = {"short": Contest(spend(0.001), spend(5.0)), "long": Contest(spend(0.004))}
    medians = alternate(contests, seconds=0.0, least=3)
    assert medians == {"short": pytest.approx(1.0), "long": pytest.approx(4.0)}


def test_repeats_until_the_time_is_used_up(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])
    calls = []

    def call():
        calls.append(1)
        now[0] += 0.25

    alternate({"a": Contest(call)}, seconds=5.0, least=2)
    assert len(calls) == 22  # 10 repetitions end at 5.0, which is not past the end


def test_slow_contestants_sit_out_after_three_calls_and_very_slow_ones_after_one(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])
    calls = []

    def contest(name, seconds):
        return Contest(lambda: calls.append(name) or now.__setitem__(0, now[0] + seconds))

    contests = {"quick": contest("quick", 0.1), "slow": contest("slow", 2.0), "very": contest("very", 50.0)}
    medians = alternate(contests, seconds=0.0, least=5)
    assert (calls.count("quick"), calls.count("slow"), calls.count("very")) == (10, 8, 2)
    assert medians == {"quick": pytest.approx(100), "slow": pytest.approx(2000), "very": pytest.approx(50000)}


def test_a_first_call_that_compiles_does_not_count(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])

    def compiling():
        now[0] += 0.25 if calls else 60.0
        calls.append(1)

    assert alternate({"a": Contest(compiling)}, seconds=0.0, least=5) == {"a": pytest.approx(250)}
    assert len(calls) == 10


class Busy(Others):
    def __exit__(self, *_):
        self.share = 0.7


class Quiet(Others):
    def __exit__(self, *_):
        self.share = 0.01


@pytest.fixture
def contests(monkeypatch):
    monkeypatch.setattr(measure, "wait_for_calm", lambda _: None)
    monkeypatch.setattr(measure, "alternate", lambda contests, *_: dict.fromkeys(contests, 1.0))
    return {"a": Contest(lambda: None)}


def test_a_busy_machine_gives_no_times(contests, monkeypatch):
    monkeypatch.setattr(measure, "Others", Busy)
    assert compare(contests, Effort()) == ({}, "not timed: other processes used 0.70 of a core")


def test_a_busy_machine_is_named_where_times_are_wanted_all_the_same(contests, monkeypatch):
    monkeypatch.setattr(measure, "Others", Busy)
    assert compare(contests, Effort(loaded=True)) == ({"a": 1.0}, "other processes used 0.70 of a core")


def test_a_quiet_machine_gives_times(contests, monkeypatch):
    monkeypatch.setattr(measure, "Others", Quiet)
    assert compare(contests, Effort()) == ({"a": 1.0}, "")


def test_others_are_what_the_system_did_beyond_us(monkeypatch):
    busy, own, wall = iter([100.0, 103.0]), iter([10.0, 11.0]), iter([0.0, 4.0])
    monkeypatch.setattr(measure, "_busy", lambda: next(busy))
    monkeypatch.setattr(measure, "_own", lambda: next(own))
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(wall))
    with Others() as others:
        pass
    assert others.share == 0.5


def test_others_are_unknown_where_the_system_does_not_say(monkeypatch):
    monkeypatch.setattr(measure, "_busy", lambda: None)
    with Others() as others:
        pass
    assert others.share is None


def test_facts_are_filled_in():
    found = facts()
    assert found.threads >= 1
    assert found.machine.endswith("cores")
    assert found.date.count("-") == 2


def test_work_of_children_is_our_own():
    before = measure._own()
    subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
    assert measure._own() > before


def test_load_is_what_others_use_now(monkeypatch):
    monkeypatch.setattr(measure.time, "sleep", lambda _: None)
    monkeypatch.setattr(measure, "Others", Busy)
    assert measure.load() == 0.7
