import pickle
import struct

import numpy as np
import pytest

from rheobase.data import load
from rheobase.data.dvs_gesture import read_gesture_labels

HEAD = b"class,startTime_usec,endTime_usec\n"


def write_aedat3(path, events):
    """AEDAT 3.1: a text header, then packets: 28 bytes of header, polarity events of 2 x 32 bits, little-endian."""
    head = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"
    count = len(events)
    packet = struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, count, count, count)
    body = b"".join(struct.pack("<II", x << 17 | y << 2 | p << 1 | 1, t) for t, x, y, p in events)
    path.write_bytes(head + packet + body)


@pytest.fixture
def published(tmp_path):
    """Two trials for training, one for testing, each with a clap from 100 to 200 us and another gesture later."""
    folder = tmp_path / "dvs_gesture/DvsGesture"
    folder.mkdir(parents=True)
    for user in ("user01_led", "user02_led", "user24_led"):
        write_aedat3(folder / f"{user}.aedat", [(t, t // 10, 127, t % 20 == 0) for t in range(0, 1000, 10)])
        (folder / f"{user}_labels.csv").write_bytes(HEAD + b"1,100,200\r\n11,500,900\r\n\r\n")
    (folder / "trials_to_train.txt").write_text("user01_led.aedat\nuser02_led.aedat\n\n")
    (folder / "trials_to_test.txt").write_text("user24_led.aedat\n")
    return tmp_path


def test_published_layout(published):
    data = load("dvs_gesture", root=published)
    assert (data.sensor, len(data.classes)) == ((128, 128), 11)
    assert (data.train.y.tolist(), data.test.y.tolist()) == ([0, 10, 0, 10], [0, 10])
    assert data.train.read.clips[1] == ("user01_led.aedat", 500, 900)
    assert pickle.loads(pickle.dumps(data.train.read)) == data.train.read


def test_clips_are_cut_from_their_trials(published):
    data = load("dvs_gesture", root=published)
    clip = data.train[0]
    assert clip.t.tolist() == list(range(100, 200, 10))
    assert (clip.x.tolist(), set(clip.y.tolist())) == (list(range(10, 20)), {127})
    assert clip.p.tolist() == [True, False] * 5
    assert len(data.test[1]) == 40


def test_damaged_trials_are_one_error(published):
    path = published / "dvs_gesture/DvsGesture/user24_led.aedat"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"user24_led\.aedat: .* at byte offset"):
        load("dvs_gesture", root=published).test[0]


def test_key_knows_the_labels(published):
    before = load("dvs_gesture", root=published).test.key
    labels = published / "dvs_gesture/DvsGesture/user24_led_labels.csv"
    labels.write_text(labels.read_text().replace("100,200", "100,201"))
    assert load("dvs_gesture", root=published).test.key != before


@pytest.mark.parametrize("lost", ["trials_to_test.txt", "user02_led.aedat", "user24_led_labels.csv"])
def test_missing_parts_are_named(published, lost):
    (published / "dvs_gesture/DvsGesture" / lost).unlink()
    with pytest.raises(ValueError, match=f"{lost}: is missing"):
        load("dvs_gesture", root=published)


def test_lists_may_not_lead_elsewhere(published):
    (published / "dvs_gesture/DvsGesture/trials_to_test.txt").write_text("../../secret.aedat\n")
    with pytest.raises(ValueError, match="expected names of files beside it"):
        load("dvs_gesture", root=published)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "line 1 is b'' at byte offset 0; expected class,startTime_usec,endTime_usec"),
        (b"1,2,3\n", "line 1 is b'1,2,3'"),
        (
            HEAD + b"12,1,2\n",
            "line 2 is b'12,1,2' at byte offset 34; expected three whole numbers: a class from 1 to 11",
        ),
        (HEAD + b"1,1,2\r\n3,5,4\n", "line 3 is b'3,5,4' at byte offset 41; .*start <= end"),
        (HEAD + b"1,1\n", "three whole numbers"),
        (HEAD + b"1,a,2\n", "three whole numbers"),
        (HEAD + b"1,-2,2\n", "three whole numbers"),
        (HEAD + b"\xff\xfe\n", r"line 2 is b'\\xff\\xfe'"),
    ],
)
def test_wrong_labels_raise(tmp_path, text, message):
    path = tmp_path / "labels.csv"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=rf"labels\.csv: .*{message}"):
        read_gesture_labels(path)


@pytest.fixture
def rows(tmp_path):
    """Tonic's layout: columns x, y, polarity, milliseconds."""
    array = np.array([[1, 2, 0, 3.0], [127, 0, 1, 4.5]])
    for part, user in (("Train", "user01_led"), ("Test", "user24_lab")):
        folder = tmp_path / f"DVSGesture/ibmGesture{part}" / user
        folder.mkdir(parents=True)
        for label in (0, 2, 10):
            np.save(folder / f"{label}.npy", array)
    return tmp_path


def test_rows_of_milliseconds(rows):
    data = load("dvs_gesture", root=rows)
    assert data.train.y.tolist() == data.test.y.tolist() == [0, 10, 2]
    events = data.test[1]
    assert [events.t.tolist(), events.x.tolist(), events.y.tolist(), events.p.tolist()] == [
        [3000, 4500],
        [1, 127],
        [2, 0],
        [False, True],
    ]
    assert events.unit == "us"
    pickle.loads(pickle.dumps(data.test.read))
    path = rows / "DVSGesture/ibmGestureTest/user24_lab/10.npy"
    np.save(path, np.asfortranarray(np.load(path)))
    assert load("dvs_gesture", root=rows).test[1].array.tolist() == events.array.tolist()


def test_damaged_rows_are_one_error(rows):
    path = rows / "DVSGesture/ibmGestureTest/user24_lab/0.npy"
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:10], b"", b"PK\x03\x04" + whole):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"user24_lab/0\.npy"):
            load("dvs_gesture", root=rows).test[0]
    np.save(path, np.zeros((3, 5)))
    with pytest.raises(ValueError, match=r"array \[3, 5\]"):
        load("dvs_gesture", root=rows).test[0]


def test_strange_names_raise(rows):
    (rows / "DVSGesture/ibmGestureTest/user24_lab/0.npy").rename(rows / "DVSGesture/ibmGestureTest/user24_lab/11.npy")
    with pytest.raises(ValueError, match=r"among them user24_lab/11\.npy"):
        load("dvs_gesture", root=rows)
