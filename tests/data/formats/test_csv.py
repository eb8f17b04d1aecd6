import pytest

from rheobase.data.formats.csv import read_csv

from .conftest import columns


def written(tmp_path, text):
    path = tmp_path / "a.txt"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("1 2 3 1\n5 0 4 0\n", None),
        ("1,2,3,1\n5,0,4,0", None),
        ("# a remark\n\n1; 2; 3; 1\n# another\n5; 0; 4; 0\n", None),
        ("x,y,p,timestamp\r\n2,3,1,1\r\n0,4,0,5\r\n", None),
        ("row;frame;polarity;column;time\n3;7;1;2;1\n4;7;-1;0;5\n", None),
        ("0.000001 2 3 1\n5e-6 0 4 0\n", None),
        ("0.001 2 3 1\n0.005 0 4 0\n", "ms"),
        ("1.0 2 3 1.0\n5.0 0.0 4 0\n", "us"),
    ],
)
def test_rows_in_many_shapes(tmp_path, text, unit):
    events = read_csv(written(tmp_path, text), unit=unit)
    scale = 1000 if events.unit == "ns" else 1
    assert columns(events) == [(1 * scale, 2, 3, 1), (5 * scale, 0, 4, 0)]
    assert events.sensor == (3, 5)


def test_first_row_of_two_is_the_size(tmp_path):
    assert read_csv(written(tmp_path, "240 180\n0.5 1 2 1\n")).sensor == (240, 180)
    with pytest.raises(ValueError, match=r"sensor=\(9, 9\) was given, but the file states \(240, 180\)"):
        read_csv(written(tmp_path, "240 180\n0.5 1 2 1\n"), sensor=(9, 9))


def test_units(tmp_path):
    whole, fraction = written(tmp_path, "7 0 0 1\n"), tmp_path / "b.txt"
    fraction.write_text("1605507430.438338 0 0 1\n")
    assert read_csv(whole).unit == "us"
    assert read_csv(whole, unit="ns").unit == "ns"
    assert (read_csv(fraction).t.tolist(), read_csv(fraction).unit) == ([1605507430438338], "us")
    assert read_csv(written(tmp_path, f"{2**62 + 1} 0 0 1\n"), unit="ns").t.tolist() == [2**62 + 1]


def test_no_rows(tmp_path):
    for text in ("", "\n# nothing\n", "t,x,y,p\n"):
        assert len(read_csv(written(tmp_path, text))) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n", "a row of 3 cells at byte offset 0; expected t x y p, or a line of names"),
        ("t,x,y\n", "columns 't, x, y' at byte offset 0; expected t, x, y and p, each once"),
        ("t,time,x,y,p\n", "each once"),
        ("1 2 3 1\n\n1 2 3\n", r"a row b'1 2 3' at byte offset 9; expected 4 numbers, apart by 'space'"),
        ("1,2,3,1\n1,2,b,1\n", r"a row b'1,2,b,1' at byte offset 8; expected 4 numbers, apart by ','"),
        ("1 2 3 1\n0 2 3 1\n", "event 1 has t=0 after t=1 at byte offset 8"),
        ("1 2 -3 1\n", "event 0 has y=-3 at byte offset 0"),
        ("1 2 3.5 1\n", "y holds NaN, Inf or fractions"),
        ("nan 2 3 1\n", "time 0 is nan"),
        ("99999999999999999999 2 3 1\n", "time 0 is 1e\\+20"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_csv(written(tmp_path, text))
