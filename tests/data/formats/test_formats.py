import subprocess
import sys

import numpy as np
import pytest

from rheobase.data import Events, list_formats, read_events, write_events

from .conftest import LAYOUTS, columns


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_what_another_writer_packed_is_read(tmp_path, rows, name):
    layout = LAYOUTS[name]
    path = tmp_path / f"recording{layout.suffix}"
    path.write_bytes(layout.pack(rows))
    events = read_events(path, format=layout.format)
    expected = rows
    if name == "cochlea":
        expected = [(200 * t, x, 0, p) for t, x, y, p in rows]
        assert (events.sensor, events.unit) == ((32, 1), "ns")
    elif name == "matlab":
        expected = sorted(rows, key=lambda row: row[0])
        assert events.sensor == (10, 10)
    assert columns(events) == expected
    assert name == "cochlea" or events.unit == "us"


@pytest.mark.parametrize("name", sorted(set(LAYOUTS) - {"hdf5", "matlab", "npy", "npz"}))
def test_no_events_are_a_recording_too(tmp_path, name):
    path = tmp_path / f"recording{LAYOUTS[name].suffix}"
    path.write_bytes(LAYOUTS[name].pack([]))
    assert len(read_events(path, format=LAYOUTS[name].format)) == 0


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".hdf5", ".csv"])
@pytest.mark.parametrize("count", [0, 1, 1000])
def test_written_recordings_come_back(tmp_path, suffix, count):
    if suffix in (".h5", ".hdf5"):
        pytest.importorskip("h5py")
    random = np.random.default_rng(count)
    t = np.sort(random.integers(-(2**60), 2**60, count))
    x, y, p = random.integers(0, 640, count), random.integers(0, 480, count), random.integers(0, 2, count)
    events = Events.of(t, x, y, p, (640, 480), "ns")
    path = tmp_path / f"a{suffix}"
    for _ in range(2):  # the second time over the first
        write_events(path, events)
    again = read_events(str(path))
    assert (again.array == events.array).all()
    assert (again.sensor, again.unit) == (events.sensor, events.unit)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    with pytest.raises(ValueError, match=r"sensor=\(1, 1\) was given, but the file states \(640, 480\) at byte"):
        read_events(path, sensor=(1, 1))
    with pytest.raises(ValueError, match="unit='s' was given, but the times are in 'ns'"):
        read_events(path, unit="s")


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    write_events(path, Events.none((2, 3)))
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_events(path, Events.of([1], [1], [1], [1], (2, 3)))
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_sizes_and_order_are_asked_for(tmp_path, rows):
    path = tmp_path / "a.bin"
    path.write_bytes(LAYOUTS["atis"].pack(rows))
    assert read_events(path).sensor == (34, 34)
    assert read_events(path, sensor=(240, 180)).sensor == (240, 180)
    with pytest.raises(ValueError, match=r"event \d+ has [xy]=\d at byte offset \d+; expected . in 0 \.\. 2; pass"):
        read_events(path, sensor=(3, 3))
    path.write_bytes(LAYOUTS["atis"].pack([(7, 0, 1, 1), (5, 1, 1, 0), (7, 2, 1, 0)]))
    with pytest.raises(ValueError, match=r"event 1 has t=5 after t=7 at byte offset 5; .* or pass sort=True"):
        read_events(path)
    assert columns(read_events(path, sort=True)) == [(5, 1, 1, 0), (7, 0, 1, 1), (7, 2, 1, 0)]


def test_what_cannot_be_told_raises(tmp_path):
    path = tmp_path / "a.xyz"
    with pytest.raises(FileNotFoundError, match=r"a\.xyz: there is no such file"):
        read_events(path)
    path.write_bytes(b"something")
    with pytest.raises(ValueError, match=r"cannot tell the format from bytes b'somethin' at byte offset 0 and"):
        read_events(path)
    with pytest.raises(ValueError, match="there is no format 'xyz'; expected one of aedat2, aedat3"):
        read_events(path, format="xyz")
    with pytest.raises(ValueError, match=r"cannot write suffix '\.xyz'; expected one of \.npz, \.h5, \.hdf5, \.csv"):
        write_events(path, Events.none((1, 1)))
    headerless = path.with_suffix(".aedat")
    headerless.write_bytes(bytes(12))
    with pytest.raises(ValueError, match=r"no header at byte offset 0; .* say format='aedat2'"):
        read_events(headerless)
    assert len(read_events(headerless, format="aedat2")) == 2
    assert read_events(headerless, format="cochlea", sensor=(64, 1)).sensor == (64, 1)
    with pytest.raises(ValueError, match=r"expected \(channels, 1\)"):
        read_events(headerless, format="cochlea", sensor=(64, 2))
    with pytest.raises(ValueError, match="unit='ms' was given; expected 'us', the unit of the format"):
        read_events(headerless, format="aedat2", unit="ms")


@pytest.mark.parametrize(
    ("name", "package"), [("aedat4-lz4", "lz4.frame"), ("aedat4-zstandard", "zstandard"), ("hdf5", "h5py")]
)
def test_missing_packages_are_named(tmp_path, rows, monkeypatch, name, package):
    path = tmp_path / f"recording{LAYOUTS[name].suffix}"
    path.write_bytes(LAYOUTS[name].pack(rows))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'pip install "rheobase\[events\]" \(package {package[:4]}'):
        read_events(path)


def test_formats_have_names():
    assert list_formats() == sorted(list_formats())
    assert {"aedat2", "aedat3", "aedat4", "atis", "csv", "dat", "evt", "hdf5", "npz"} <= set(list_formats())


def test_importing_the_data_layer_loads_no_reader():
    script = (
        "import sys; import rheobase.data; "
        "print([m for m in sys.modules if m.startswith('rheobase.data.formats.') or m in ('h5py', 'lz4', 'zstandard')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
