import pytest
from torch import nn

from rheobase.models import MODELS, create_model, list_models, register, registry


@pytest.fixture
def models(monkeypatch):
    """An own copy of the registry, so that a test may add to it."""
    monkeypatch.setattr(registry, "MODELS", dict(MODELS))
    return registry.MODELS


def shape(width=2, **_):
    return (width,)


def test_a_function_is_entered_under_its_name(models):
    @register(shape, causal=False, reproduces="a dream")
    def toy(width: int = 2):
        return nn.Linear(width, 1)

    assert create_model("toy", width=3).in_features == 3
    assert toy().in_features == 2
    assert list_models("to*") == ["toy"]
    entry = models["toy"]
    assert (entry.causal, entry.any_T, entry.stochastic, entry.streamable) == (False, True, False, True)
    assert (entry.reproduces, entry.example(width=3)) == ("a dream", (3,))


def test_a_name_is_given_once(models):
    register(shape, name="toy")(lambda: nn.Identity())
    with pytest.raises(ValueError, match="already a model 'toy'"):
        register(shape, name="toy")(lambda: nn.Identity())


def test_list_is_sorted_and_filtered():
    assert list_models() == sorted(list_models())
    assert list_models("ms_resnet??") == ["ms_resnet20", "ms_resnet32", "ms_resnet44", "ms_resnet56"]
    assert list_models("test_*_resnet") == ["test_ms_resnet", "test_sew_resnet", "test_vanilla_resnet"]
    assert list_models("nothing*") == []


def test_unknown_names_and_options_say_what_there_is():
    with pytest.raises(ValueError, match=r"no model 'ms_resnet_20'; did you mean .*'ms_resnet20'"):
        create_model("ms_resnet_20")
    with pytest.raises(ValueError, match=r"no model '!'; there are .*cifar_resnet, .*vanilla_resnet56"):
        create_model("!")
    with pytest.raises(ValueError, match="'ms_resnet20' takes no option depth; its options are in_channels, classes"):
        create_model("ms_resnet20", depth=26)
