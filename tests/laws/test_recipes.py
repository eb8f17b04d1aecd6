"""Laws of every recipe: its config survives JSON, its docstring is a claim with a command, and it trains."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from rheobase.data import Dataset, Split, about
from rheobase.recipes import Classification, build, classification, is_cross_validated, list_recipes, recipe, train

RECIPES = list_recipes()


@pytest.mark.parametrize("name", RECIPES)
def test_config_survives_json(name):
    config = recipe(name)()
    assert Classification.from_dict(json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize("name", RECIPES)
def test_docstring_says_source_and_command(name):
    text = recipe(name).__doc__
    assert f"rheobase train {name}" in text
    assert "arXiv" in text


SHAPES = {
    "cifar10": (3, 32, 32),
    "cifar10_jpeg": (3, 32, 32),
    "cifar10_dvs": (2, 48, 48),
    "digits": (1, 8, 8),
    "mnist": (1, 28, 28),
    "fashion_mnist": (1, 28, 28),
    "event_digits": (2, 34, 34),
    "spoken_digits": (64,),
    "nas_tones": (128,),
    "dvs_sign_v2e": (2, 16, 16),
}
"""The shape of a sample of each data set, at one step if it is a sequence: those of events as their recipe has them."""

NARROW = {"sequential-cifar10": 8, "cifar10-dvs": 2}
"""Channels of the first stage of networks that are too large for a test."""


def made_up(config):
    """A few samples of the right shape and number of classes, sequences if the data set has them."""
    random = torch.Generator().manual_seed(0)
    shape = SHAPES[config.data]
    timed = about(config.data).kind in ("events", "sound") or config.data == "event_digits"
    samples = (20, *((config.T,) if timed else ()), *shape)
    split = [Split(torch.randint(0, 256, samples, generator=random).byte(), torch.arange(20) % 10, 255) for _ in "ab"]
    statistics = ((), ()) if timed else ((0.5,) * shape[0], (0.3,) * shape[0])
    return Dataset("made up", *split, tuple("0123456789"), *statistics, "", "", "", T=config.T if timed else None)


@pytest.mark.parametrize("name", RECIPES)
def test_two_steps(name, tmp_path, monkeypatch):
    """On a few made-up samples of the right shape; of a cross-validated set, one fold."""
    config = recipe(name)()
    monkeypatch.setattr(classification, "load", lambda *_, **__: made_up(config))
    short = replace(
        config,
        size=None,
        width=NARROW.get(name, config.width),
        train_samples=None,
        fold=0 if is_cross_validated(config) else None,
        batch_size=5,
        validation=0.5,
        train=replace(config.train, epochs=1, warmup_epochs=0, checkpoint_every_steps=0),
    )
    run, result = train(name, short, tmp_path)
    assert run.result()["train"]["steps"] == 2
    assert 0 <= result["test_accuracy"] <= 1


@pytest.mark.parametrize("name", RECIPES)
def test_made_up_samples_have_the_shape_of_the_real_ones(name):
    config = recipe(name)()
    if about(config.data).made_from:
        pytest.skip("it would be computed anew, which takes minutes")
    try:
        task = build(replace(config, fold=0 if is_cross_validated(config) else None))
    except FileNotFoundError:
        pytest.skip(f"{config.data} is not below RHEOBASE_DATA")
    assert task.dataset.sample_shape == SHAPES[config.data]
    assert task.dataset.T == made_up(config).T


def test_an_unknown_field_is_named():
    with pytest.raises(ValueError, match="has a field 'colour' that Classification does not know"):
        Classification.from_dict({"colour": 1})
    with pytest.raises(ValueError, match="has a field 'speed' that TrainConfig does not know"):
        Classification.from_dict({"train": {"speed": 1}})
