"""Laws of every data set: what is known of it without its files, what is said where they are absent, and its sizes."""

import re

import pytest

from rheobase.data import (
    Dataset,
    EventDataset,
    Graph,
    ImageFolders,
    Omniglot,
    about,
    data_root,
    files_of,
    list_datasets,
    load,
)

NAMES = list_datasets()
KINDS = ("images", "events", "sound", "graphs", "episodes", "generated")


@pytest.mark.parametrize("name", NAMES)
def test_about_is_told_in_full(name):
    known = about(name)
    for field in ("title", "source", "licence", "citation", "split", "size"):
        assert getattr(known, field).strip(), field
    assert known.kind in KINDS
    assert known.source.startswith("https://") or known.made_from in NAMES
    assert all(re.fullmatch("[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}", digest) for digest in known.checksums.values())


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_root_is_answered_with_every_path_and_the_source(name, tmp_path):
    known = about(name)
    if not known.layout:
        assert load(name, root=tmp_path) is not None
        return
    with pytest.raises(FileNotFoundError) as caught:
        load(name, root=tmp_path)
    message = str(caught.value)
    needed = known.made_from or name
    assert message.startswith(needed)
    assert about(needed).source in message
    for path in known.layout:
        assert str(tmp_path / path) in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: flipped(data, len(data) // 2)], ids=["cut", "bit"]
)
@pytest.mark.parametrize("name", [name for name in NAMES if about(name).layout])
def test_damaged_copies_of_what_is_here_raise(name, damage, tmp_path):
    """The last of the files that are read, cut by a byte or with one bit changed, the others as they are."""
    found = [path for path in files_of(name) if path.is_file()]
    if not found:
        pytest.skip(f"{name} is not below RHEOBASE_DATA")
    for path in found:
        copy = tmp_path / path.relative_to(data_root())
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path == found[-1]:
            copy.write_bytes(damage(path.read_bytes()))
        else:
            copy.symlink_to(path.resolve())
    with pytest.raises(ValueError, match=re.escape(found[-1].name)):
        load(name, root=tmp_path)


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def sizes(data):
    """The sizes of the parts that a data set's `split` has to state."""
    if isinstance(data, Graph):
        return [len(data.train), len(data.val), len(data.test)]
    if isinstance(data, Omniglot):
        return [len(data.background), len(data.evaluation)]
    assert isinstance(data, Dataset | EventDataset | ImageFolders)
    return [len(data.train), len(data.test)]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "cifar10_jpeg" else name for name in NAMES]
)
def test_parts_that_are_here_have_the_stated_sizes(name):
    if about(name).made_from:
        pytest.skip("it would be computed anew, which takes minutes")
    try:
        data = load(name)
    except FileNotFoundError:
        pytest.skip(f"{name} is not below RHEOBASE_DATA")
    stated = set(map(int, re.findall(r"\d+", about(name).split)))
    assert set(sizes(data)) <= stated
