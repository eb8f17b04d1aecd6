import numpy as np
import pytest

from rheobase.data import load
from rheobase.data.ncaltech101 import draw_tenth


@pytest.fixture
def root(tmp_path, write_bin):
    for name, count in (("BACKGROUND_Google", 21), ("accordion", 3)):
        for number in range(count):
            write_bin(tmp_path / f"ncaltech101/Caltech101/{name}/image_{number:04}.bin", [(number, 239, 179, 1)])
    return tmp_path


def test_split_holds_a_tenth_of_each_class(root):
    data = load("ncaltech101", root=root)
    assert data.classes == ("BACKGROUND_Google", "accordion")
    assert data.train.y.bincount().tolist() == [19, 2]
    assert data.test.y.bincount().tolist() == [2, 1]
    names = set(data.train.read.names) | set(data.test.read.names)
    assert len(names) == 24


def test_split_is_fixed_by_the_seed(root):
    first, again, other = (load("ncaltech101", root=root, seed=seed) for seed in (0, 0, 1))
    assert first.test.read.names == again.test.read.names
    assert first.test.key == again.test.key
    assert first.test.read.names != other.test.read.names


def test_draw_never_changes():
    train, test = draw_tenth([["a"] * 40, ["b"] * 12], seed=0)
    assert test == [7, 17, 18, 31, 48]
    assert sorted(train + test) == list(range(52))


@pytest.mark.parametrize(("groups", "seed"), [([["a"]], 0), ([["a", "b"]], -1), ([["a", "b"]], 2**32)])
def test_impossible_draws_raise(groups, seed):
    with pytest.raises(ValueError, match="draw_tenth: "):
        draw_tenth(groups, seed)


def test_events_are_read(root):
    data = load("ncaltech101", root=root)
    events = data.train[0]
    assert (events.sensor, len(events), int(events.x[0])) == ((240, 180), 1, 239)


def test_damaged_recordings_are_one_error(root):
    path = root / "ncaltech101/Caltech101/accordion/image_0000.bin"
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:1] + b"\xc0" + whole[2:]):  # cut, or in row 192
        path.write_bytes(content)
        data = load("ncaltech101", root=root)
        (split,) = (part for part in (data.train, data.test) if "accordion/image_0000.bin" in part.read.names)
        with pytest.raises(ValueError, match=r"image_0000\.bin: .* at byte offset"):
            split[split.read.names.index("accordion/image_0000.bin")]


def test_an_empty_folder_raises(tmp_path):
    (tmp_path / "NCALTECH101/Caltech101").mkdir(parents=True)
    with pytest.raises(ValueError, match="Caltech101: holds no folders"):
        load("ncaltech101", root=tmp_path)


def test_draw_does_not_touch_the_global_random_state():
    before = np.random.get_state()[1].tolist()
    draw_tenth([["a"] * 10], 3)
    assert np.random.get_state()[1].tolist() == before
