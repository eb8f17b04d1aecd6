import threading

import pytest

from rheobase import files
from rheobase.files import locked, remove_parts, write_atomic


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomic(path, b"old")

    def full(handle):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_several_writers_do_not_meet(tmp_path):
    path, wrong = tmp_path / "a.bin", []

    def write(content):
        for _ in range(20):
            write_atomic(path, content)
            if path.read_bytes() not in contents:
                wrong.append(content[:1])

    contents = [bytes([k]) * 100_000 for k in range(4)]
    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert list(tmp_path.iterdir()) == [path]


def test_who_reads_changes_and_writes_back_under_a_lock_loses_nothing(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b"")

    def append(letter):
        for _ in range(20):
            with locked(tmp_path):
                write_atomic(path, path.read_bytes() + letter)

    threads = [threading.Thread(target=append, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.read_bytes()) == sorted(20 * b"abc")
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_is_let_go_after_an_exception(tmp_path):
    with pytest.raises(RuntimeError), locked(tmp_path):
        raise RuntimeError
    with locked(tmp_path):
        pass


@pytest.mark.skipif(files.os.name != "posix", reason="nothing is locked there")
def test_where_a_folder_cannot_be_locked_work_goes_on(tmp_path, monkeypatch):
    import fcntl

    def refused(*_):
        raise OSError("EBADF: as over NFS")

    monkeypatch.setattr(fcntl, "flock", refused)
    with locked(tmp_path):
        write_atomic(tmp_path / "a", b"written")
    assert (tmp_path / "a").read_bytes() == b"written"


def test_what_a_kill_left_is_removed(tmp_path):
    path = tmp_path / "a.json"
    write_atomic(path, b"whole")
    for name in (".a.json.1f.part", ".a.json.2f.part", ".b.json.1f.part"):
        (tmp_path / name).write_bytes(b"ha")
    remove_parts(path)
    assert sorted(each.name for each in tmp_path.iterdir()) == [".b.json.1f.part", "a.json"]
    assert path.read_bytes() == b"whole"


def test_a_table_comes_back_with_empty_cells(tmp_path):
    path = tmp_path / "table.csv"
    files.write_table(path, ("name", "count"), [{"name": "a, b", "count": 2}, {"name": "c"}])
    assert path.read_bytes() == b'name,count\n"a, b",2\nc,\n'
    assert files.read_table(path) == [{"name": "a, b", "count": "2"}, {"name": "c", "count": ""}]
