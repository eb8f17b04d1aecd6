import numpy as np
import pytest
import torch

from rheobase.data import load
from rheobase.data.nas_tones import CONDITIONS, TONES_HZ


@pytest.fixture
def source(tmp_path):
    """The source's folder with a few events a recording, and their counts per millisecond."""
    random = np.random.default_rng(0)
    counts = np.zeros((len(CONDITIONS), len(TONES_HZ), 500, 128), np.int64)
    for c, condition in enumerate(CONDITIONS):
        folder = tmp_path / "nas_tones/sample_tones" / ("" if c == 0 else "tonesSNR") / condition
        folder.mkdir(parents=True)
        for k, tone in enumerate(TONES_HZ):
            address, t = random.integers(0, 128, 50), random.integers(0, 500_000, 50)
            np.add.at(counts[c, k], (t // 1000, address), 1)
            (folder / f"{tone}.aedat").write_bytes(np.stack([address, t], 1).astype(">u4").tobytes())
    return tmp_path, counts


def test_recordings_become_counts(source):
    root, counts = source
    data = load("nas_tones", root=root, T=50, fold=4)
    test = counts[4].reshape(8, 50, 10, 128).sum(2)
    assert torch.equal(data.test.intensities(), torch.from_numpy(test).float() / 10)
    assert data.test.y.tolist() == list(range(8))
    assert (len(data.train), data.T, data.sample_shape) == (96, 50, (128,))
    rest = np.delete(counts, 4, axis=0).reshape(96, 50, 10, 128).sum(2)
    assert torch.equal(data.train.samples(), torch.from_numpy(rest).float())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-3], "ends at byte 397, inside an event"),
        (lambda data: b"", "ends at byte 0"),
        (lambda data: data[:80] + b"\0\0\0\x80" + data[84:], "address 128 and time .* at byte offset 80"),
        (lambda data: data[:84] + b"\xff\0\0\0" + data[88:], "at byte offset 80"),
    ],
)
def test_damaged_recordings_raise(source, damage, message):
    root, _ = source
    path = root / "nas_tones/sample_tones/tonesSNR/SNR-2/349.aedat"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"349.aedat: .*{message}"):
        load("nas_tones", root=root)


def test_missing_recordings_are_named(source):
    root, _ = source
    (root / "nas_tones/sample_tones/No noise/130.aedat").unlink()
    with pytest.raises(FileNotFoundError, match=r"130.aedat is missing; copy the whole folder"):
        load("nas_tones", root=root)


def test_a_changed_table_raises(tmp_path):
    (tmp_path / "nas_tones").mkdir()
    np.savez(tmp_path / "nas_tones/nas_tones_1ms.npz", counts=np.zeros((104, 500, 128), np.uint16))
    with pytest.raises(ValueError, match="MD5"):
        load("nas_tones", root=tmp_path)


@pytest.mark.parametrize(("options", "message"), [({"T": 60}, "T is 60"), ({"fold": 13}, "expected 0 to 12")])
def test_impossible_options_raise(options, message):
    with pytest.raises(ValueError, match=message):
        load("nas_tones", **options)


def test_real_recordings():
    try:
        data = [load("nas_tones", fold=fold, T=100) for fold in range(13)]
    except FileNotFoundError:
        pytest.skip("nas_tones is not below RHEOBASE_DATA")
    assert sum(len(each.test) for each in data) == 104
    assert all(each.test.y.sort().values.tolist() == list(range(8)) for each in data)
    total = data[0].train.samples().double().sum() + data[0].test.samples().double().sum()
    assert total == 45932573
