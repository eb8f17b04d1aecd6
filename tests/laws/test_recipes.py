"""Laws of every recipe: its config survives JSON, its docstring is a claim with a command, and it trains."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from rheobase.data import Dataset, Split
from rheobase.recipes import Classification, classification, list_recipes, recipe, train

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


@pytest.mark.parametrize("name", RECIPES)
def test_two_steps(name, tmp_path, monkeypatch):
    """On a few made-up images of the right shape."""
    config = recipe(name)()
    size = 8 if config.data == "digits" else 28

    def made_up(*_, **__):
        random = torch.Generator().manual_seed(0)
        split = [
            Split(torch.randint(0, 256, (20, 1, size, size), generator=random).byte(), torch.arange(20) % 10, 255)
            for _ in range(2)
        ]
        return Dataset("made up", *split, tuple("0123456789"), (0.5,), (0.3,), "", "", "")

    monkeypatch.setattr(classification, "load", made_up)
    short = replace(
        config,
        batch_size=5,
        validation=0.5,
        train=replace(config.train, epochs=1, warmup_epochs=0, checkpoint_every_steps=0),
    )
    run, result = train(name, short, tmp_path)
    assert run.result()["train"]["steps"] == 2
    assert 0 <= result["test_accuracy"] <= 1


def test_an_unknown_field_is_named():
    with pytest.raises(ValueError, match="has a field 'colour' that Classification does not know"):
        Classification.from_dict({"colour": 1})
    with pytest.raises(ValueError, match="has a field 'speed' that TrainConfig does not know"):
        Classification.from_dict({"train": {"speed": 1}})
