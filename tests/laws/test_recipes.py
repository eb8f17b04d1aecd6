"""Laws of every recipe: its config survives JSON, its docstring is a claim with a command, and it trains."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from rheobase.data import Dataset, Graph, Split, about, load
from rheobase.models import MODELS, list_models, ring
from rheobase.recipes import (
    Classification,
    NodeClassification,
    build,
    classification,
    is_cross_validated,
    list_recipes,
    nodes,
    recipe,
    train,
)

RECIPES = [name for name in list_recipes() if isinstance(recipe(name)(), Classification)]
ON_GRAPHS = [name for name in list_recipes() if isinstance(recipe(name)(), NodeClassification)]


@pytest.mark.parametrize("name", list_recipes())
def test_config_survives_json(name):
    config = recipe(name)()
    assert type(config).from_dict(json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize("name", list_recipes())
def test_docstring_says_source_and_command(name):
    text = recipe(name).__doc__
    assert f"rheobase train {name}" in text
    assert "arXiv" in text


SHAPES = {
    "cifar10": (3, 32, 32),
    "cifar10_jpeg": (3, 32, 32),
    "cifar10_dvs": (2, 128, 128),
    "dvs_gesture": (2, 128, 128),
    "digits": (1, 8, 8),
    "mnist": (1, 28, 28),
    "fashion_mnist": (1, 28, 28),
    "event_digits": (2, 34, 34),
    "spoken_digits": (64,),
    "nas_tones": (128,),
    "dvs_sign_v2e": (2, 16, 16),
    "cifar100": (3, 32, 32),
}
"""The shape of a sample of each data set, at one step if it is a sequence."""

NARROW = {"sequential-cifar10": 8, "cifar10-dvs": 2}
"""Channels of the first stage of networks that are too large for a test."""


def shape_of(config):
    """The shape of a sample of a recipe's data at one step: recordings summed to `size` pixels."""
    shape = SHAPES[config.data]
    return (shape[0], *[config.size or side for side in shape[1:]])


def made_up(config, side=None):
    """A few samples of the right shape, sequences if the data set has them; images of `side` if it is given."""
    random = torch.Generator().manual_seed(0)
    shape = shape_of(config)
    shape = (shape[0], *[side or each for each in shape[1:]])
    timed = about(config.data).kind in ("events", "sound") or config.data == "event_digits"
    samples = (20, *((config.T,) if timed else ()), *shape)
    split = [Split(torch.randint(0, 256, samples, generator=random).byte(), torch.arange(20) % 10, 255) for _ in "ab"]
    statistics = ((), ()) if timed else ((0.5,) * shape[0], (0.3,) * shape[0])
    return Dataset("made up", *split, tuple("0123456789"), *statistics, "", "", "", T=config.T if timed else None)


SIDE = 16
"""Of what is cut out of made-up pictures."""


def made_up_pictures(folder):
    """Two pictures of each of ten classes, for training and for testing."""
    from PIL import Image

    random = np.random.RandomState(0)
    for part in ("train", "val"):
        for k in range(20):
            path = folder / "imagenet" / part / f"n{k % 10:08}" / f"{k}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.randint(0, 256, (24, 30, 3), np.uint8)).save(path)
    return load("imagenet", root=folder)


def without_absent_policies(augment):
    """As it is, or without a policy of torchvision if that is not installed."""
    try:
        augment and augment.check_installed()
    except ValueError:
        return replace(augment, auto=None)
    return augment


@pytest.mark.parametrize("name", RECIPES)
def test_two_steps(name, tmp_path, monkeypatch):
    """On a few made-up samples of the right shape; of a cross-validated set, one fold; of large models, a tiny one."""
    config = recipe(name)()
    on_disk = config.data == "imagenet"
    tiny = MODELS[config.model].tiny
    data = made_up_pictures(tmp_path) if on_disk else made_up(config, SIDE if tiny else None)
    monkeypatch.setattr(classification, "load", lambda *_, **__: data)
    short = replace(
        config,
        model=tiny or config.model,
        width=None if tiny else NARROW.get(name, config.width),
        train_samples=None,
        size=SIDE if on_disk else None,
        test_resize=None,
        workers=2 if on_disk else 0,
        frames_by="time",
        augment=without_absent_policies(config.augment),
        fold=0 if is_cross_validated(config) else None,
        batch_size=5,
        validation=0.5,
        train=replace(
            config.train, epochs=1, warmup_epochs=0, warmup_lr=0.0, cooldown_epochs=0, checkpoint_every_steps=0
        ),
    )
    run, result = train(name, short, tmp_path)
    assert run.result()["train"]["steps"] == 2
    assert 0 <= result["test_accuracy"] <= 1


@pytest.mark.parametrize("name", ON_GRAPHS)
def test_two_steps_on_a_graph(name, tmp_path, monkeypatch):
    """On a ring of a few nodes."""
    config = recipe(name)()
    x, y, edges = torch.rand(30, 16), torch.arange(30) % 3, ring(30)
    graph = Graph("ring", x, edges, y, *torch.arange(30).split(10), tuple("abc"), "", "", "")
    monkeypatch.setattr(nodes, "load", lambda *_, **__: graph)
    short = replace(config, train=replace(config.train, epochs=2))
    run, result = train(name, short, tmp_path)
    assert run.result()["train"]["steps"] == 2
    assert 0 <= result["test_accuracy"] <= 1


@pytest.mark.parametrize("name", RECIPES)
def test_made_up_samples_have_the_shape_of_the_real_ones(name):
    config = recipe(name)()
    if config.data == "imagenet":
        pytest.skip("pictures of many shapes; the config says what is cut out of them")
    if about(config.data).made_from:
        pytest.skip("it would be computed anew, which takes minutes")
    try:
        task = build(replace(config, fold=0 if is_cross_validated(config) else None))
    except FileNotFoundError:
        pytest.skip(f"{config.data} is not below RHEOBASE_DATA")
    assert task.dataset.sample_shape == shape_of(config)
    assert task.dataset.T == made_up(config).T


@pytest.mark.parametrize("name", [name for name, entry in MODELS.items() if entry.tiny])
def test_a_stand_in_is_a_registered_test_model(name):
    assert MODELS[name].tiny in list_models("test_*")


def test_an_unknown_field_is_named():
    with pytest.raises(ValueError, match="has a field 'colour' that Classification does not know"):
        Classification.from_dict({"colour": 1})
    with pytest.raises(ValueError, match="has a field 'speed' that TrainConfig does not know"):
        Classification.from_dict({"train": {"speed": 1}})
    with pytest.raises(ValueError, match="has a field 'blur' that Augment does not know"):
        Classification.from_dict({"augment": {"blur": 1}})
