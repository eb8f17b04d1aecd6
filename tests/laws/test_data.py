"""Laws of every data set: what is known of it without its files, what is said where they are absent, and its sizes."""

import re

import pytest

from rheobase.data import Dataset, EventDataset, Graph, ImageFolders, Omniglot, about, list_datasets, load

NAMES = list_datasets()
KINDS = ("images", "events", "sound", "graphs", "episodes", "generated")


@pytest.mark.parametrize("name", NAMES)
def test_about_is_told_in_full(name):
    known = about(name)
    for field in ("title", "source", "licence", "citation", "split", "size"):
        assert getattr(known, field).strip(), field
    assert known.kind in KINDS
    assert known.source.startswith("https://") or known.made_from in NAMES
    assert all(re.fullmatch("[0-9a-f]{32}|[0-9a-f]{64}", digest) for digest in known.checksums.values())


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
