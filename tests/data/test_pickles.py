import pickle
from pathlib import Path

import numpy as np
import pytest

from rheobase.data.pickles import read_pickle

PATH = Path("batch")


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["u1", "<i4", "<f8", ">i2"])
def test_arrays_and_plain_things_come_back(protocol, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    thing = {"data": array, "labels": [1, 2], "name": "x", "pair": (1.5, None, True)}
    read = read_pickle(PATH, pickle.dumps(thing, protocol))
    assert read["data"].dtype == array.dtype.newbyteorder("=")
    assert (read["data"] == array).all()
    assert {name: read[name] for name in ("labels", "name", "pair")} == {
        "labels": [1, 2],
        "name": "x",
        "pair": (1.5, None, True),
    }


def test_strings_of_python_2_are_latin_1():
    assert read_pickle(PATH, b"\x80\x02U\x02a\xe9.") == "aé"


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("evil"),))


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(Evil()),
        b"cos\nsystem\n(S'touch evil'\ntR.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"c_codecs\nencode\n(Vx\nVutf-7\ntR.",
    ],
)
def test_nothing_that_a_pickle_names_is_run(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"batch: not a pickle of plain arrays"):
        read_pickle(PATH, data)
    assert not (tmp_path / "evil").exists()


def test_what_a_caller_lists_stands_in():
    data = b"ccollections\ndefaultdict\n(c__builtin__\nlist\ntR."
    allowed = {("collections", "defaultdict"): lambda *_: {}, ("__builtin__", "list"): list}
    assert read_pickle(PATH, data, allowed) == {}


def test_cut_pickles_are_one_error():
    data = pickle.dumps({"data": np.arange(100)}, 2)
    for length in range(0, len(data), 7):
        with pytest.raises(ValueError, match="batch: "):
            read_pickle(PATH, data[:length])
