import io
import tarfile
import zipfile

import numpy as np
import pytest

from rheobase.data import archives
from rheobase.data.archives import read_entries, unpack

FILES = {"top/a.txt": b"first", "top/deep/b.txt": b"second" * 1000, "else/c.txt": b"third"}


def pack(path, files=FILES):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


KINDS = ("a.zip", "a.tar", "a.tar.gz")


@pytest.mark.parametrize("kind", KINDS)
def test_entries_are_read_by_name(tmp_path, kind):
    archive = pack(tmp_path / kind)
    assert read_entries(archive, lambda name: True) == FILES
    assert read_entries(archive, lambda name: name.endswith("b.txt")) == {"top/deep/b.txt": FILES["top/deep/b.txt"]}


@pytest.mark.parametrize("kind", KINDS)
def test_unpacks_what_is_asked_for_and_nothing_else(tmp_path, kind):
    archive = pack(tmp_path / kind)
    assert unpack(archive, "top") == tmp_path / "top"
    assert (tmp_path / "top/deep/b.txt").read_bytes() == FILES["top/deep/b.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([kind, "top"])
    archive.unlink()
    assert unpack(archive, "top") == tmp_path / "top"


def test_two_that_unpack_at_once_both_find_it(tmp_path, monkeypatch):
    archive, copy = pack(tmp_path / "a.zip"), archives._copy

    def slow(*arguments):
        monkeypatch.setattr(archives, "_copy", copy)
        unpack(archive, "top")  # another process, which begins later and is done before
        copy(*arguments)

    monkeypatch.setattr(archives, "_copy", slow)
    assert unpack(archive, "top") == tmp_path / "top"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "top"]


def test_a_file_at_the_top_is_unpacked(tmp_path):
    archive = pack(tmp_path / "a.zip", {"data.h5": b"content"})
    assert unpack(archive, "data.h5").read_bytes() == b"content"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["../out.txt", "top/../../out.txt", "/tmp/out.txt", "top\\..\\..\\out.txt", "C:/out"])
def test_names_that_leave_the_archive_are_refused(tmp_path, kind, name):
    inner = tmp_path / "inner"
    inner.mkdir()
    archive = pack(inner / kind, {"top/a.txt": b"first", name: b"evil"})
    with pytest.raises(ValueError, match=r"has an entry .*expected a path inside the archive"):
        unpack(archive, "top")
    assert [path.name for path in inner.iterdir()] == [kind]
    assert not (tmp_path / "out.txt").exists()


def test_links_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("top/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("top/link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    for kind in ("a.tar", "a.zip"):
        with pytest.raises(ValueError, match=f"{kind}: top/link is a link"):
            unpack(tmp_path / kind, "top")
    assert not (tmp_path / "top").exists()


def test_too_much_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds more than 100 bytes, at top/deep/b\.txt"):
        unpack(pack(tmp_path / "a.zip"), "top", limit=100)
    assert not (tmp_path / "top").exists()


def test_missing_top_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"a\.tar: holds nothing named other"):
        unpack(pack(tmp_path / "a.tar"), "other")


@pytest.mark.parametrize("kind", KINDS)
def test_cut_archives_are_one_error(tmp_path, kind):
    archive = pack(tmp_path / kind)
    whole = archive.read_bytes()
    for length in (0, 1, 100, len(whole) // 2):
        archive.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=kind):
            unpack(archive, "top")
    assert [path.name for path in tmp_path.iterdir()] == [kind]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["a.zip", "a.tar"])
@pytest.mark.parametrize("names", [("top/a", "top/a"), ("top/a", "top/a/b"), ("top/a/b", "top/a")])
def test_two_entries_at_one_place_are_one_error(tmp_path, kind, names):
    archive = tmp_path / kind
    if kind == "a.zip":
        with zipfile.ZipFile(archive, "w") as opened:
            for name in names:
                opened.writestr(name, b"content")
    else:
        with tarfile.open(archive, "w") as opened:
            for name in names:
                opened.addfile(tarfile.TarInfo(name))
    with pytest.raises(ValueError, match=rf"{kind}: has {names[1]} twice, or as a file and as a folder"):
        unpack(archive, "top")
    assert [path.name for path in tmp_path.iterdir()] == [kind]


def test_damage_that_the_libraries_report_as_errors_of_the_system_is_one_error(tmp_path):
    archive = pack(tmp_path / "a.zip")
    whole = archive.read_bytes()
    place = whole.rindex(b"PK\x05\x06") + 16  # the place of the directory, in the end record
    archive.write_bytes(whole[:place] + b"\xff\xff\xff\x7f" + whole[place + 4 :])
    with pytest.raises(ValueError, match=r"a\.zip: damaged archive"):
        unpack(archive, "top")
    packed = tmp_path / "a.tar.bz2"
    with tarfile.open(packed, "w:bz2") as opened:
        info = tarfile.TarInfo("top/a")
        info.size = 400_000
        opened.addfile(info, io.BytesIO(np.random.default_rng(0).bytes(400_000)))
    data = bytearray(packed.read_bytes())
    data[len(data) // 2] ^= 255
    packed.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.tar\.bz2: damaged archive"):
        unpack(packed, "top")


def test_a_changed_byte_in_a_zip_is_found(tmp_path):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("top/a.txt", b"first content")
    archive.write_bytes(archive.read_bytes().replace(b"first content", b"other content"))
    with pytest.raises(ValueError, match=r"a\.zip: damaged archive .*CRC"):
        read_entries(archive, lambda name: True)


def test_a_folder_that_may_not_be_written_is_named(tmp_path, monkeypatch):
    archive = pack(tmp_path / "a.zip")

    def refuse(self, *_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(type(tmp_path), "mkdir", refuse)
    with pytest.raises(PermissionError, match=r"a\.zip: cannot be unpacked beside itself .*Read-only"):
        unpack(archive, "top")
