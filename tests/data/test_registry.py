import inspect
from dataclasses import replace

import pytest

from rheobase.data import registry
from rheobase.data.registry import list_datasets, load, register


@pytest.fixture
def loaders(monkeypatch):
    """An own copy of the registry, so that a test may add to it."""
    monkeypatch.setattr(registry, "_LOADERS", dict(registry._LOADERS))
    return registry._LOADERS


def test_list_is_sorted_and_filtered():
    assert list_datasets() == sorted(list_datasets())
    assert {"digits", "fashion_mnist", "mnist"} <= set(list_datasets())
    assert list_datasets("*n_mnist") == ["fashion_mnist"]
    assert list_datasets("nothing*") == []


def test_load_calls_the_loader_with_its_options(loaders):
    @register
    def toy(*, root=None, download=False, fold=0):
        return replace(load("digits"), name=f"toy {root} {download} {fold}")

    assert list_datasets("toy") == ["toy"]
    assert load("toy", root="here", fold=3).name == "toy here False 3"


def test_register_returns_the_function_unchanged(loaders):
    def toy(*, root=None, download=False):
        return None

    assert register(toy) is toy


@pytest.mark.parametrize(("wrong", "hint"), [("mnsit", "'mnist'"), ("fashionmnist", "'fashion_mnist'")])
def test_unknown_name_suggests_the_closest(wrong, hint):
    with pytest.raises(ValueError, match=rf"no data set '{wrong}'; did you mean {hint}.*list_datasets\(\).*digits"):
        load(wrong)


def test_unknown_name_without_likeness_lists_all():
    with pytest.raises(ValueError, match=r"no data set '!'; rheobase\.data\.list_datasets\(\) lists all: .*digits"):
        load("!")


def test_unknown_option_names_the_known_ones():
    with pytest.raises(ValueError, match="'digits' takes no option donwload; its options are root, download"):
        load("digits", donwload=True)


def test_taken_name_raises(loaders):
    def digits(*, root=None, download=False):
        return None

    with pytest.raises(ValueError, match="already a data set 'digits'"):
        register(digits)


def test_loader_without_the_common_keywords_raises(loaders):
    def toy(*, root=None):
        return None

    with pytest.raises(ValueError, match=r"'toy' lacks the keyword\(s\) download"):
        register(toy)
    assert "toy" not in list_datasets()


@pytest.mark.parametrize("name", list_datasets())
def test_every_loader_downloads_only_when_told_and_has_a_docstring(name):
    loader = registry._LOADERS[name]
    assert inspect.signature(loader).parameters["download"].default is False
    assert inspect.signature(loader).parameters["root"].default is None
    assert inspect.getdoc(loader)
