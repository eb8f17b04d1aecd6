import numpy as np
import pytest

from rheobase.data import load


@pytest.fixture
def source(tmp_path):
    """The source's folder, recording k having k + 2 events; three fields of each tell which one it is."""
    for label in range(3):
        folder = tmp_path / "dvs_sign_v2e/train_self" / str(label)
        folder.mkdir(parents=True)
        for k in range(40):
            lines = [f"{(i + 1) / 30:.8f},{label},{k},{i % 2}" for i in range(k + 2)]
            (folder / f"{k}.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_folds_test_every_recording_once(source):
    seen = set()
    for fold in range(5):
        data = load("dvs_sign_v2e", root=source, fold=fold)
        assert (len(data.train), len(data.test)) == (96, 24)
        assert data.test.y.bincount().tolist() == [8, 8, 8]
        for split in (data.train, data.test):
            for k in range(0, len(split), 7):
                events = split[k]
                assert events.x[0] == split.y[k]
                assert len(events) == events.y[0] + 2
        seen |= {(int(data.test[k].x[0]), int(data.test[k].y[0])) for k in range(24)}
    assert len(seen) == 120


def test_times_are_in_tenths_of_milliseconds(source):
    events = load("dvs_sign_v2e", root=source).test[0]
    assert events.t[:2].tolist() == [33300, 66700]
    assert (events.sensor, events.unit, events.p[:2].tolist()) == ((128, 128), "us", [False, True])


@pytest.mark.parametrize("text", ["1,2,3\n", "a,b,c,d\n", "0.1,200,1,1\n", "0.1,1.5,1,1\n", "nan,1,1,1\n", "0.1,1,1"])
def test_damaged_tables_raise(source, text):
    data = load("dvs_sign_v2e", root=source)
    for path in source.rglob("*.csv"):
        path.write_text(text)
    with pytest.raises(ValueError, match=r"\.csv: .*at byte offset .*copy or download the file again"):
        data.test[0]


def test_a_table_may_be_out_of_order_and_begin_with_a_whole_second(source):
    for path in source.rglob("*.csv"):
        path.write_text("1,5,6,0\n0.5,7,8,1\n")
    assert load("dvs_sign_v2e", root=source).train[0].array.tolist() == [(500_000, 7, 8, True), (10**6, 5, 6, False)]


def test_missing_tables_are_counted(source):
    (source / "dvs_sign_v2e/train_self/1/7.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 1 of 120 files, .*1/7\.csv first; copy the whole folder"):
        load("dvs_sign_v2e", root=source)


def test_no_such_fold():
    with pytest.raises(ValueError, match="fold is 5; expected 0 to 4"):
        load("dvs_sign_v2e", fold=5)


def test_real_recordings():
    try:
        data = load("dvs_sign_v2e")
    except FileNotFoundError:
        pytest.skip("dvs_sign_v2e is not below RHEOBASE_DATA")
    sizes = [len(split[k]) for split in (data.train, data.test) for k in range(len(split))]
    assert (sum(sizes), min(sizes), max(sizes)) == (3699943, 9646, 95108)
    assert 2.8 < data.train[0].seconds < 5.9
    assert np.diff(data.train[0].t).min() >= 0
