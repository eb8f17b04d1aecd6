import os
import pickle

import numpy as np
import pytest

from rheobase.data.event_files import class_files, delta_recordings, file_recordings, files_key, read_columns


@pytest.fixture
def packed(tmp_path):
    """Three recordings of 2, 0 and 3 events."""
    path = tmp_path / "events.npz"
    columns = {"x": [1, 2, 3, 4, 5], "y": [0] * 5, "p": [1, 0, 1, 0, 1], "dt": [7, 3, 1, 0, 2]}
    arrays = {name: np.array(column, np.uint16) for name, column in columns.items()}
    np.savez(path, **arrays, offsets=np.array([0, 2, 2, 5]))
    return path


def test_columns_become_recordings(packed):
    recordings = delta_recordings(packed, [2, 0, 1], [5, 6, 7], (6, 1))
    assert recordings.y.tolist() == [5, 6, 7]
    assert [recordings[k].t.tolist() for k in range(3)] == [[1, 1, 3], [7, 10], []]
    assert [recordings[k].x.tolist() for k in range(3)] == [[3, 4, 5], [1, 2], []]
    assert pickle.loads(pickle.dumps(recordings.read))(0).p.tolist() == [True, False, True]


def test_a_file_that_changes_is_read_again(packed):
    assert delta_recordings(packed, [0], [0], (6, 1))[0].x.tolist() == [1, 2]
    columns = read_columns(packed, ("x", "y", "p", "dt", "offsets"))
    np.savez(packed, **{**columns, "x": columns["x"][::-1]})
    os.utime(packed, ns=(0, 0))  # a clock may be too coarse to tell
    assert delta_recordings(packed, [0], [0], (6, 1))[0].x.tolist() == [5, 4]


def test_key_tells_index_and_file(packed):
    keys = {delta_recordings(packed, index, [0] * len(index), (6, 1)).key for index in ([0], [1], [0, 1])}
    assert len(keys) == 3


@pytest.mark.parametrize("offsets", [[0, 2, 2, 4], [1, 2, 2, 5], [0, 3, 2, 5]])
def test_wrong_offsets_raise(tmp_path, packed, offsets):
    columns = read_columns(packed, ("x", "y", "p", "dt"))
    path = tmp_path / "wrong.npz"
    np.savez(path, **columns, offsets=np.array(offsets))
    with pytest.raises(ValueError, match=r"wrong\.npz: columns of \[5\] events"):
        delta_recordings(path, [0], [0], (6, 1))


def test_damaged_npz_is_one_error(packed):
    whole = packed.read_bytes()
    for length in (0, 10, len(whole) // 2):
        packed.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"events\.npz: not an npz with x"):
            read_columns(packed, ("x",))
    packed.write_bytes(whole)
    with pytest.raises(ValueError, match="it lacks label"):
        read_columns(packed, ("x", "label"))


def test_objects_in_an_npz_are_not_run(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{}], object))
    with pytest.raises(ValueError, match=r"a\.npz: "):
        read_columns(tmp_path / "a.npz", ("x",))


def test_files_of_classes_are_sorted(tmp_path):
    for name in ("b/2.bin", "b/10.bin", "b/notes.txt", "a/1.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    assert class_files(tmp_path, ("b", "a"), (".bin",)) == [["b/10.bin", "b/2.bin"], ["a/1.bin"]]
    with pytest.raises(ValueError, match=r"c: holds no \.bin or \.dat file"):
        class_files(tmp_path, ("a", "c"), (".bin", ".dat"))
    recordings = file_recordings(tmp_path, ["a/1.bin"], [3], (34, 34))
    assert (len(recordings), recordings.key) == (1, files_key(tmp_path, ["a/1.bin"]))
    assert files_key(tmp_path, ["a/1.bin"]) != files_key(tmp_path, ["b/2.bin"])
