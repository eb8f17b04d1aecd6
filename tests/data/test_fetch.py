import hashlib
import http.client
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from rheobase.data.fetch import Source, check_blob, check_md5, data_root, obtain

CONTENT = {"a.gz": b"first file", "b.gz": b"second file"}


@pytest.fixture
def mirror(tmp_path):
    folder = tmp_path / "mirror"
    folder.mkdir()
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    return folder


def source(*mirrors):
    return Source(
        dataset="toy",
        files={name: hashlib.md5(content).hexdigest() for name, content in CONTENT.items()},
        folders=("toy/raw", "raw"),
        addresses=tuple(f"{mirror.as_uri()}/" for mirror in mirrors),
    )


def place(path, content=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def files_below(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_data_root_prefers_argument_then_variable_then_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RHEOBASE_DATA", "~/from_variable")
    assert data_root(tmp_path / "given") == tmp_path / "given"
    assert data_root() == tmp_path / "from_variable"
    monkeypatch.delenv("RHEOBASE_DATA")
    assert data_root() == tmp_path / ".cache/rheobase"


def test_first_copy_wins(tmp_path):
    wanted = ["raw/a", "raw/a.gz", "toy/raw/a", "toy/raw/a.gz"]
    place(tmp_path / "raw/b")
    for path in wanted:  # each beats all before it
        place(tmp_path / path)
        assert obtain(source(), tmp_path) == {"a.gz": tmp_path / path, "b.gz": tmp_path / "raw/b"}


def test_missing_files_are_explained(tmp_path, mirror, monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("went online without download=True"))
    place(tmp_path / "raw/a")
    with pytest.raises(FileNotFoundError) as caught:
        obtain(source(mirror), tmp_path)
    message = str(caught.value)
    assert "toy: 1 of 2 files are missing: b.gz." in message
    for path in ("toy/raw/b.gz", "toy/raw/b", "raw/b.gz", "raw/b"):
        assert f"  {tmp_path / path}\n" in message
    assert str(tmp_path / "raw/a") not in message
    for advice in (mirror.as_uri(), "rheobase train RECIPE --download", "load('toy', download=True)", "RHEOBASE_DATA"):
        assert advice in message


def test_download_fetches_what_is_missing_and_nothing_else(tmp_path, mirror):
    root = tmp_path / "root"
    place(root / "raw/a", b"mine")
    (mirror / "a.gz").unlink()
    found = obtain(source(mirror), root, download=True)
    assert found == {"a.gz": root / "raw/a", "b.gz": root / "toy/raw/b.gz"}
    assert found["b.gz"].read_bytes() == CONTENT["b.gz"]
    assert files_below(root) == ["raw/a", "toy/raw/b.gz"]
    assert obtain(source(), root) == found


def test_download_turns_to_the_next_address(tmp_path, mirror):
    damaged = tmp_path / "damaged"
    place(damaged / "a.gz", b"first fil")
    root = tmp_path / "root"
    obtain(source(tmp_path / "nowhere", damaged, mirror), root, download=True)
    assert (root / "toy/raw/a.gz").read_bytes() == CONTENT["a.gz"]
    assert files_below(root) == ["toy/raw/a.gz", "toy/raw/b.gz"]


def test_failed_download_leaves_nothing_and_says_why(tmp_path, mirror):
    (mirror / "a.gz").write_bytes(b"first fil")
    root = tmp_path / "root"
    with pytest.raises(ConnectionError) as caught:
        obtain(source(tmp_path / "nowhere", mirror), root, download=True)
    message = str(caught.value)
    assert "toy: could not download a.gz" in message
    assert f"{(tmp_path / 'nowhere').as_uri()}/a.gz: " in message
    assert f"got 9 bytes with MD5 {hashlib.md5(b'first fil').hexdigest()}" in message
    assert f"place the file yourself at {root / 'toy/raw/a.gz'}" in message
    assert files_below(root) == []


def test_connection_lost_midway_leaves_nothing(tmp_path, mirror, monkeypatch):
    class Broken:
        sent = False

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def read(self, *_):
            if self.sent:
                raise http.client.IncompleteRead(b"", 7)
            self.sent = True
            return b"fir"

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Broken())
    with pytest.raises(ConnectionError, match=r"IncompleteRead|7 more expected"):
        obtain(source(mirror), tmp_path / "root", download=True)
    assert files_below(tmp_path / "root") == []


def test_downloaded_file_has_ordinary_permissions(tmp_path, mirror):
    place(tmp_path / "plain")
    found = obtain(source(mirror), tmp_path / "root", download=True)
    assert found["a.gz"].stat().st_mode == Path(tmp_path / "plain").stat().st_mode


def test_other_forms_serve_instead_and_are_looked_at_first(tmp_path, mirror):
    packed = replace(source(mirror), instead={"a.gz": ("unpacked", "other.zip")})
    assert packed.paths("a.gz") == [
        "toy/raw/unpacked",
        "toy/raw/other.zip",
        "toy/raw/a.gz",
        "toy/raw/a",
        "raw/unpacked",
        "raw/other.zip",
        "raw/a.gz",
        "raw/a",
    ]
    assert packed.layout == (*packed.paths("a.gz"), *packed.paths("b.gz"))
    place(tmp_path / "raw/b")
    place(tmp_path / "toy/raw/a.gz")
    (tmp_path / "toy/raw/unpacked").mkdir()
    assert obtain(packed, tmp_path)["a.gz"] == tmp_path / "toy/raw/unpacked"


def test_a_file_may_have_an_url_of_its_own(tmp_path, mirror):
    (mirror / "a.gz").rename(mirror / "17")
    elsewhere = replace(source(mirror), urls={"a.gz": f"{mirror.as_uri()}/17"})
    found = obtain(elsewhere, tmp_path / "root", download=True)
    assert found["a.gz"].read_bytes() == CONTENT["a.gz"]


def test_what_no_program_can_fetch_is_asked_for_with_page_and_sum(tmp_path):
    by_hand = replace(source(), page="https://example.org/data")
    with pytest.raises(FileNotFoundError) as caught:
        obtain(by_hand, tmp_path, download=True)
    message = str(caught.value)
    assert "Where they come from: https://example.org/data" in message
    assert f"  a.gz: {hashlib.md5(CONTENT['a.gz']).hexdigest()}" in message
    assert "--download" not in message


def test_check_md5(tmp_path):
    place(tmp_path / "a", b"first file")
    check_md5(tmp_path / "a", hashlib.md5(b"first file").hexdigest())
    with pytest.raises(ValueError, match=r"a: 10 bytes with MD5 .*, expected MD5 0+; the file is damaged"):
        check_md5(tmp_path / "a", "0" * 32)


BLOB = "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f"  # what `git hash-object` says of the bytes abc


def test_files_are_known_by_git_too(tmp_path, mirror):
    (mirror / "c").write_bytes(b"abc")
    known = Source(dataset="toy", files={"c": BLOB}, folders=("toy",), addresses=(f"{mirror.as_uri()}/",))
    with pytest.raises(FileNotFoundError, match=f"Their git blob:\n  c: {BLOB}"):
        obtain(known, tmp_path)
    found = obtain(known, tmp_path, download=True)["c"]
    check_blob(found, BLOB)
    found.write_bytes(b"abd")
    with pytest.raises(ValueError, match=f"3 bytes with git blob [0-9a-f]{{40}}, expected git blob {BLOB}"):
        check_blob(found, BLOB)
    found.unlink()
    (mirror / "c").write_bytes(b"abd")
    with pytest.raises(ConnectionError, match=f"got 3 bytes with git blob .*, expected {BLOB}"):
        obtain(known, tmp_path, download=True)
    assert not list((tmp_path / "toy").iterdir())
