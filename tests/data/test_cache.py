import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import namedtuple
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from rheobase.data import Events, Recordings
from rheobase.data.cache import cache_folder, cached_array, cached_frames

SOURCES = str(Path(__file__).parents[2] / "src")

MAKER = """
import os, signal
from pathlib import Path

import numpy as np

def rows(log, kill_at, start, stop):
    "Rows k -> [k, 2k]; a line of the log for each call; at one row the caller of all this is killed, once."
    with open(log, "a") as file:
        file.write(f"{start} {stop}\\n")
    if start <= kill_at < stop and not Path(log + ".killed").exists():
        Path(log + ".killed").touch()
        os.kill(int(Path(log + ".pid").read_text()), signal.SIGKILL)
    k = np.arange(start, stop, dtype=np.float32)
    return np.stack([k, 2 * k], axis=1)
"""

BUILDER = """
import os, sys
from functools import partial
from pathlib import Path

from maker import rows
from rheobase.data.cache import cached_array

folder, log, kill_at, workers = sys.argv[1:]
Path(log + ".pid").write_text(str(os.getpid()))
array = cached_array(
    "rows", 640, (2,), "float32", partial(rows, log, int(kill_at)), folder=folder, workers=int(workers)
)
print(float(array.sum()))
"""


array_of = partial(cached_array, workers=0)


def counting(start, stop):
    return np.arange(start, stop, dtype=np.uint8)[:, None]


def failing(start, stop):
    raise KeyError(f"no rows {start} to {stop}")


def never(start, stop):
    raise AssertionError("made again")


def kept(folder):
    return sorted(path.suffix for path in folder.iterdir() if path.suffix != ".lock")


@pytest.fixture
def builder(tmp_path):
    """Start a script that builds `[640, 2]` in 64 ranges."""
    (tmp_path / "maker.py").write_text(MAKER)
    (tmp_path / "builder.py").write_text(BUILDER)
    environment = {**os.environ, "PYTHONPATH": SOURCES, "OMP_NUM_THREADS": "1"}

    def start(log, kill_at, workers):
        arguments = [str(tmp_path / "cache"), str(tmp_path / log), str(kill_at), str(workers)]
        return subprocess.Popen(
            [sys.executable, "builder.py", *arguments],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def ranges(path):
    return [tuple(map(int, line.split())) for line in path.read_text().splitlines()]


def test_made_once_and_kept(tmp_path):
    seen = []
    array = cached_array(
        "a", 200, (1,), np.uint8, counting, folder=tmp_path, on_progress=lambda done, of: seen.append((done, of))
    )
    assert (array[:, 0] == np.arange(200)).all()
    assert (seen[-1], len(seen)) == ((200, 200), 50)
    again = array_of("a", 200, (1,), np.uint8, never, folder=tmp_path)
    assert (again == array).all()
    assert kept(tmp_path) == [".npy"]


def test_what_is_kept_is_an_npy_file(tmp_path):
    array_of("a", 5, (1,), np.uint8, counting, folder=tmp_path)
    (path,) = tmp_path.glob("*.npy")
    assert np.load(path).tolist() == [[0], [1], [2], [3], [4]]
    assert path.read_bytes().endswith(b"a\nformat 1")


def test_writing_into_the_array_leaves_the_file_alone(tmp_path):
    array = array_of("a", 5, (1,), np.uint8, counting, folder=tmp_path)
    torch.from_numpy(array)[:] = 9
    assert array_of("a", 5, (1,), np.uint8, never, folder=tmp_path)[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_another_key_shape_type_or_count_is_made_anew(tmp_path):
    here = partial(array_of, folder=tmp_path)
    here("a", 5, (1,), np.uint8, counting)
    assert here("b", 5, (1,), np.uint8, lambda a, b: counting(a, b) + 1)[0] == 1
    assert here("a", 7, (1,), np.uint8, counting).shape == (7, 1)
    assert here("a", 7, (1,), np.float32, lambda a, b: counting(a, b).astype(np.float32)).dtype == np.float32
    assert here("a", 7, (1, 1), np.uint8, lambda a, b: counting(a, b)[:, None]).shape == (7, 1, 1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-3],
        lambda data: data[:130],
        lambda data: data[:5],
        lambda data: b"",
        lambda data: data + b"x",
        lambda data: b"\0" * len(data),
        lambda data: data.replace(b"format", b"farmat"),
        lambda data: data.replace(b"(5, 1)", b"(1, 5)"),
    ],
)
def test_a_damaged_or_foreign_file_is_made_again(tmp_path, damage):
    array_of("a", 5, (1,), np.uint8, counting, folder=tmp_path)
    (path,) = tmp_path.glob("*.npy")
    path.write_bytes(damage(path.read_bytes()))
    assert array_of("a", 5, (1,), np.uint8, counting, folder=tmp_path)[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert array_of("a", 5, (1,), np.uint8, never, folder=tmp_path).shape == (5, 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_who_is_killed_goes_on_where_he_was(tmp_path, builder, workers):
    first = builder("log", 305, workers)
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    log, cache = tmp_path / "log", tmp_path / "cache"
    assert kept(cache) == [".journal", ".part"]
    noted = {
        tuple(map(int, line.split()[:2]))
        for line in next(cache.glob("*.journal")).read_text().splitlines()[1:]
        if line.endswith("done")
    }
    assert noted
    log.write_text("")
    second = builder("log", 305, workers)
    out, err = second.communicate()
    assert second.returncode == 0, err
    assert float(out) == 3 * sum(range(640))
    made = ranges(log)
    assert len(made) == len(set(made))
    assert noted.isdisjoint(made)
    assert noted | set(made) == {(k, k + 10) for k in range(0, 640, 10)}
    assert kept(cache) == [".npy"]


def test_two_that_build_at_once_make_each_range_once(tmp_path, builder):
    both = [builder(log, -1, 0) for log in ("one", "two")]
    sums = [process.communicate() for process in both]
    assert [float(out) for out, _ in sums] == [3 * sum(range(640))] * 2
    made = [shard for log in ("one", "two") if (tmp_path / log).exists() for shard in ranges(tmp_path / log)]
    assert sorted(made) == [(k, k + 10) for k in range(0, 640, 10)]


def test_two_threads_that_build_at_once_make_each_range_once(tmp_path):
    calls, started, found = [], threading.Barrier(2), []

    def make(start, stop):
        calls.append(start)
        return counting(start, stop)

    def build():
        started.wait()
        found.append(array_of("a", 100, (1,), np.uint8, make, folder=tmp_path).sum())

    threads = [threading.Thread(target=build) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [sum(range(100))] * 2
    assert len(calls) == len(set(calls))


def stopping_at(row, calls, start, stop):
    calls.append(start)
    if start == row:
        raise StopIteration
    return counting(start, stop)


@pytest.mark.parametrize("tail", ["\n12", "\n0 ", "\n0 4 do", "\n", ""])
def test_a_journal_that_was_cut_off_is_gone_on_with(tmp_path, tail):
    calls = []
    with pytest.raises(StopIteration):
        array_of("a", 200, (1,), np.uint8, partial(stopping_at, 100, []), folder=tmp_path)
    (journal,) = tmp_path.glob("*.journal")
    journal.write_text(journal.read_text() + tail)
    array = array_of("a", 200, (1,), np.uint8, partial(stopping_at, None, calls), folder=tmp_path)
    assert (array[:, 0] == np.arange(200)).all()
    assert calls == list(range(100, 200, 4))


def test_what_is_made_but_has_no_name_yet_is_not_made_again(tmp_path, monkeypatch):
    def stopped(self, target):
        raise StopIteration

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", stopped)
        with pytest.raises(StopIteration):
            array_of("a", 200, (1,), np.uint8, counting, folder=tmp_path)
    assert (array_of("a", 200, (1,), np.uint8, never, folder=tmp_path)[:, 0] == np.arange(200)).all()
    assert kept(tmp_path) == [".npy"]


@pytest.mark.parametrize("broken", [".journal", ".part"])
def test_a_part_without_its_journal_starts_anew(tmp_path, broken):
    with pytest.raises(StopIteration):
        array_of("a", 200, (1,), np.uint8, partial(stopping_at, 100, []), folder=tmp_path)
    (path,) = tmp_path.glob(f"*{broken}")
    path.write_bytes(b"\xff\xfe what is this")
    assert (array_of("a", 200, (1,), np.uint8, counting, folder=tmp_path)[:, 0] == np.arange(200)).all()


def test_an_error_of_the_maker_comes_out(tmp_path):
    with pytest.raises(KeyError, match="no rows 0 to 1"):
        array_of("a", 5, (1,), np.uint8, failing, folder=tmp_path)


def test_workers_that_fail_or_die_are_heard(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "bad_makers.py").write_text(
        "import os\ndef failing(a, b):\n    print('words')\n    raise KeyError(f'no rows {a}')\n"
        "def dying(a, b):\n    os._exit(3)\n"
    )
    import bad_makers

    with pytest.raises(KeyError, match="no rows") as caught:
        array_of("a", 9, (1,), np.uint8, bad_makers.failing, folder=tmp_path, workers=1)
    assert "in a worker, rows 0 to 1" in caught.value.__notes__[0]
    with pytest.raises(ChildProcessError, match="a worker died with status 3"):
        array_of("b", 9, (1,), np.uint8, bad_makers.dying, folder=tmp_path, workers=2)


def test_what_cannot_be_sent_is_made_by_the_caller(tmp_path):
    local = cached_array("a", 5, (1,), np.uint8, lambda a, b: counting(a, b), folder=tmp_path)
    assert len(local) == 5
    with pytest.raises(ValueError, match=r"cannot be sent to workers.*pass workers=0"):
        cached_array("b", 5, (1,), np.uint8, lambda a, b: counting(a, b), folder=tmp_path, workers=2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (lambda a, b: np.zeros((b - a, 2), np.uint8), r"came as uint8 \[1, 2\]; expected uint8 \[1, 1\]"),
        (lambda a, b: np.zeros((b - a, 1)), r"came as float64 \[1, 1\]; expected uint8"),
    ],
)
def test_rows_of_another_shape_or_type_are_refused(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        array_of("a", 5, (1,), np.uint8, rows, folder=tmp_path)


@pytest.mark.parametrize(("count", "dtype", "workers"), [(0, np.uint8, 0), (1, np.int64, 0), (1, np.uint8, -1)])
def test_what_cannot_be_an_array_is_refused(tmp_path, count, dtype, workers):
    with pytest.raises(ValueError, match=f"got count={count}, dtype=.*workers={workers}"):
        array_of("a", count, (1,), dtype, counting, folder=tmp_path, workers=workers)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot write to .*file.*set RHEOBASE_CACHE to a folder that can be written"):
        array_of("a", 5, (1,), np.uint8, counting, folder=tmp_path / "file" / "below")


def test_a_full_disk_is_told_before_and_while_writing(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage(10, 7, 3))
        with pytest.raises(OSError, match=r"0\.0 kB are needed and 0\.0 kB free.*RHEOBASE_CACHE") as caught:
            array_of("a", 5, (1,), np.uint8, counting, folder=tmp_path)
        assert caught.value.errno == errno.ENOSPC
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _no_space)
        with pytest.raises(OSError, match=r"No space left.*what is done stays"):
            array_of("a", 5, (1,), np.uint8, counting, folder=tmp_path)
    assert len(array_of("a", 5, (1,), np.uint8, counting, folder=tmp_path)) == 5


def _no_space(descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_folder_comes_from_the_argument_the_environment_or_home(tmp_path, monkeypatch):
    monkeypatch.setenv("RHEOBASE_CACHE", str(tmp_path / "variable"))
    assert cache_folder(tmp_path) == tmp_path
    assert cache_folder() == tmp_path / "variable"
    monkeypatch.delenv("RHEOBASE_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "rheobase" / "frames"


# cached_frames


frames_of = partial(cached_frames, workers=0)


def recording(count, k):
    return Events.of(t=range(count), x=[k] * count, y=[0] * count, p=[1] * count, sensor=(8, 1))


@dataclass(frozen=True)
class Count:
    """Events per column."""

    scale: float = 1.0
    width: int = 8

    def __call__(self, events):
        return self.scale * np.bincount(events.x, minlength=self.width).astype(np.float32)[None]


def recordings(key="eight"):
    return Recordings(partial(recording, 3), torch.arange(8), key)


def test_frames_of_recordings_become_a_split(tmp_path):
    split = frames_of(recordings(), Count(), folder=tmp_path)
    assert (split.x.dtype, split.x.shape) == (torch.float32, (8, 1, 8))
    assert torch.equal(split.x[:, 0], 3 * torch.eye(8))
    assert torch.equal(split.y, torch.arange(8))


def test_frames_are_kept_by_recordings_and_transform(tmp_path):
    frames_of(recordings(), Count(), folder=tmp_path)
    blind = Recordings(_unreadable, torch.arange(8), "eight")
    assert frames_of(blind, Count(), folder=tmp_path).x.sum() == 24
    assert frames_of(recordings(), Count(2.0), folder=tmp_path).x.sum() == 48
    for other in (Recordings(_unreadable, torch.arange(8), "others"), blind):
        with pytest.raises(FileNotFoundError, match="gone"):
            frames_of(other, Count(3.0), folder=tmp_path)


def _unreadable(k):
    raise FileNotFoundError("gone")


def test_a_transform_says_what_it_does(tmp_path):
    with pytest.raises(ValueError, match=r"the repr of transform, <function .*make it a frozen dataclass"):
        frames_of(recordings(), lambda events: events.x, folder=tmp_path)


def test_recordings_of_unequal_frames_are_named(tmp_path):
    ragged = Recordings(lambda k: recording(3, 7 if k == 5 else 0), torch.arange(640) % 2, "ragged")
    with pytest.raises(ValueError, match=r"recording 5 became float32 \[1, 8\], recording 0 float32 \[1, 1\]"):
        frames_of(ragged, Count(width=1), folder=tmp_path)


def test_no_recordings_no_frames(tmp_path):
    with pytest.raises(ValueError, match="there are no recordings"):
        frames_of(Recordings(_unreadable, torch.arange(0), "none"), Count(), folder=tmp_path)
