import numpy as np
import pytest

from rheobase.data import load
from rheobase.data.fetch import data_root


@pytest.fixture(scope="module")
def real():
    try:
        return load("characters_dvs")
    except FileNotFoundError:
        pytest.skip("characters_dvs is not below RHEOBASE_DATA")


def test_first_showing_is_for_training(real):
    assert (len(real.train), len(real.test)) == (36, 40)
    assert sorted(real.train.y.tolist()) == list(range(36))
    assert real.classes == tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert real.train.key != real.test.key


def test_all_events_are_there(real):
    recordings = [part[k] for part in (real.train, real.test) for k in range(len(part))]
    assert sum(map(len, recordings)) == 1_079_079
    assert {(events.sensor, events.unit) for events in recordings} == {((32, 32), "us")}
    assert all(0.05 < events.seconds < 0.2 for events in recordings)


def test_nearest_count_image_names_every_later_showing(real):
    """The floor that its README states: 1.00."""

    def counts(part):
        images = [np.bincount(part[k].y * 32 + part[k].x, minlength=1024) for k in range(len(part))]
        return np.array([image / np.linalg.norm(image) for image in images])

    nearest = (counts(real.test) @ counts(real.train).T).argmax(axis=1)
    assert (real.train.y[nearest] == real.test.y).all()


def test_a_damaged_copy_raises(real, tmp_path):
    copy = tmp_path / "characters_dvs"
    copy.mkdir()
    data = bytearray((data_root() / "characters_dvs/characters_dvs.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "characters_dvs.npz").write_bytes(data)
    with pytest.raises(ValueError, match=r"characters_dvs\.npz: .* MD5"):
        load("characters_dvs", root=tmp_path)
