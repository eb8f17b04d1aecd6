"""The verbs `data` and `view`."""

import json
import struct
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from rheobase.cli import main
from rheobase.data import about, files_of, list_datasets


def run(capsys, *arguments):
    """Exit code, last line as JSON if asked for, standard output and error."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr()
    found = json.loads(said.out.strip().splitlines()[-1]) if "--json" in arguments and code == 0 else None
    return code, found, said.out, said.err


@pytest.fixture
def nothing_here(tmp_path, monkeypatch):
    monkeypatch.setenv("RHEOBASE_DATA", str(tmp_path))
    return tmp_path


def test_every_data_set_has_a_line(capsys, nothing_here):
    code, found, out, _ = run(capsys, "data", "list", "--json")
    assert code == 0
    assert [row["name"] for row in found["data"]] == list_datasets()
    (row,) = (row for row in found["data"] if row["name"] == "event_digits")
    assert row == {"name": "event_digits", "kind": "generated", "here": False}
    (line,) = (line for line in out.splitlines() if line.startswith("event_digits"))
    assert line.split() == ["event_digits", "generated", "missing"]


def test_a_set_is_here_if_a_path_of_its_layout_is(capsys, nothing_here):
    file = nothing_here / "MNIST/raw/train-images-idx3-ubyte.gz"
    file.parent.mkdir(parents=True)
    file.touch()
    assert files_of("event_digits") == (file,)
    code, found, out, _ = run(capsys, "data", "info", "event_digits", "--json")
    assert code == 0
    known = about("event_digits")
    for key in ("title", "kind", "source", "licence", "citation", "split", "size"):
        assert found[key] == getattr(known, key)
        assert getattr(known, key) in out
    assert found["here"]
    assert found["found"] == [str(file)]
    assert "found  MNIST/raw/train-images-idx3-ubyte.gz" in out
    assert "absent mnist/MNIST/raw/train-images-idx3-ubyte.gz" in out


def test_info_names_the_closest_set(capsys):
    code, _, _, err = run(capsys, "data", "info", "event_digit")
    assert code == 2
    assert "did you mean 'event_digits'" in err


def test_prepare_loads_a_set(capsys):
    code, found, out, _ = run(capsys, "data", "prepare", "digits", "--json")
    assert (code, found) == (0, {"name": "digits", "train": 1300, "test": 497})
    assert "digits is ready, 1300 in train, 497 in test" in out


def test_prepare_hands_on_its_options_and_tells_of_progress(capsys, monkeypatch):
    from rheobase.data import registry

    def made(*, root=None, download=False, T=4, on_progress=None):
        for done in range(1, 101):
            on_progress(done, 100)
        assert (T, download) == (7, True)

    monkeypatch.setitem(registry._LOADERS, "made", made)
    code, found, out, _ = run(capsys, "data", "prepare", "made", "--T", "7", "--download", "--json")
    assert (code, found) == (0, {"name": "made"})
    assert [line for line in out.splitlines() if line.startswith("made: ")][-1] == "made: 100 of 100"
    assert out.count("made: ") == 11


def test_prepare_makes_the_frames_of_every_fold(capsys, monkeypatch, tmp_path):
    from rheobase.data import EventDataset, Events, Recordings, cache_folder, registry

    def read(fold, k):
        return Events.of([0, 1 + k], [fold, 0], [0, 0], [1, 1], (3, 2))

    def made(*, root=None, download=False, fold=0):
        train, test = (
            Recordings(partial(read, fold), torch.zeros(N).long(), f"{fold} {part}") for part, N in (("a", 4), ("b", 2))
        )
        return EventDataset("made", train, test, ("one",), (3, 2), "", "", "")

    monkeypatch.setenv("RHEOBASE_CACHE", str(tmp_path))
    monkeypatch.setitem(registry._LOADERS, "made", made)
    monkeypatch.setitem(registry._FOLDS, "made", 3)
    code, _, _, err = run(capsys, "data", "prepare", "made", "--size", "2")
    assert (code, "--size is 2 without --T" in err) == (2, True)
    assert run(capsys, "data", "prepare", "made", "--json")[1] == {"name": "made", "train": 4, "test": 2}
    assert list(tmp_path.iterdir()) == []
    assert run(capsys, "data", "prepare", "made", "--T", "2", "--json")[1] == {"name": "made", "train": 4, "test": 2}
    assert len(list(cache_folder().glob("*.npy"))) == 6


def test_prepare_says_what_a_set_does_not_take_or_lacks(capsys, nothing_here):
    code, _, _, err = run(capsys, "data", "prepare", "digits", "--T", "7")
    assert (code, "digits takes no --T; expected recordings; leave it out" in err) == (2, True)
    code, _, _, err = run(capsys, "data", "prepare", "event_digits")
    assert (code, "files are missing" in err) == (2, True)


def test_a_set_without_about_is_listed(capsys, monkeypatch):
    from rheobase.data import registry

    monkeypatch.setitem(registry._LOADERS, "bare", lambda *, root=None, download=False: None)
    _, found, _, _ = run(capsys, "data", "list", "--json")
    assert {"name": "bare", "kind": "unknown", "here": False} in found["data"]


def test_data_without_an_action_says_what_there_is(capsys):
    assert run(capsys, "data")[0] == 2
    code, _, _, err = run(capsys, "data", "lst")
    assert (code, "expected one of list, info, prepare" in err) == (2, True)


@pytest.fixture
def recording(tmp_path):
    random = np.random.default_rng(0)
    path = tmp_path / "mine.npz"
    columns = {"x": random.integers(0, 8, 50), "y": random.integers(0, 6, 50), "p": random.integers(0, 2, 50)}
    np.savez(path, t=np.arange(50) * 1000, **columns)
    return path


@pytest.mark.parametrize("ending", ["gif", "png", "html"])
def test_view_draws_a_file(capsys, recording, tmp_path, ending):
    out = tmp_path / f"drawn.{ending}"
    code, found, _, err = run(capsys, "view", recording, "--out", out, "--sensor", "8,6", "--unit", "us", "--json")
    assert code == 0, err
    assert out.stat().st_size > 0
    assert (found["events"], found["seconds"], found["sensor"], found["view"]) == (50, 0.049, [8, 6], str(out))


def test_view_writes_a_page_into_the_current_folder(capsys, recording, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "view", recording, "--sensor", "8,6", "--unit", "us")[0] == 0
    assert "mine.npz" in (tmp_path / "mine.html").read_text()


def test_view_takes_files_that_do_not_say_their_format_or_keep_their_order(capsys, tmp_path):
    path = tmp_path / "mine.aedat"
    path.write_bytes(b"".join(struct.pack(">HI", x << 1, t) for x, t in ((3, 10), (2, 5))))
    arguments = ("view", path, "--out", tmp_path / "mine.png", "--json")
    code, _, _, err = run(capsys, *arguments)
    assert (code, "say format='aedat2'" in err) == (2, True)
    found = run(capsys, *arguments, "--format", "cochlea")[1]
    assert (found["events"], found["sensor"]) == (2, [32, 1])
    path = tmp_path / "mine.csv"
    path.write_text("t,x,y,p\n10,0,0,1\n5,1,1,0\n")
    arguments = ("view", path, "--out", tmp_path / "mine.png", "--json")
    code, _, _, err = run(capsys, *arguments)
    assert (code, "pass sort=True" in err) == (2, True)
    assert run(capsys, *arguments, "--sort")[1]["seconds"] == 5e-6


@pytest.mark.parametrize("sensor", ["8", "8,x", "8,6,2"])
def test_view_says_how_a_sensor_is_given(capsys, tmp_path, sensor):
    code, _, _, err = run(capsys, "view", tmp_path / "a.npz", "--sensor", sensor)
    assert (code, "expected W,H such as 34,34" in err) == (2, True)


def test_about_is_all_told(capsys, monkeypatch):
    from rheobase.data import registry

    told = replace(about("event_digits"), checksums={"file.gz": "0123abcd"})
    monkeypatch.setitem(registry._ABOUT, "event_digits", told)
    assert "0123abcd  file.gz" in run(capsys, "data", "info", "event_digits")[2]
