"""A made-up run that looks like a trained one; tests replace parts of it."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rheobase.report import LayerActivity, RunReport, Sample


def make_layer(index: int, neurons: int = 128, steps: int = 4, graded: bool = False) -> LayerActivity:
    random = np.random.default_rng(index)
    rates = random.beta(0.6, 4.0, neurons) * (random.random(neurons) > 0.15)
    raster = random.random((steps, neurons)) < rates
    return LayerActivity(
        f"blocks.{index}.neuron", rates, raster * random.normal(size=raster.shape) if graded else raster, graded
    )


def make_confusion(classes: int) -> np.ndarray:
    random = np.random.default_rng(classes)
    counts = random.poisson(0.6, (classes, classes)) * random.integers(0, 4, (classes, classes))
    np.fill_diagonal(counts, random.integers(85, 105, classes))
    return counts


def make_report(classes: int = 10, depth: int = 5, **parts: Any) -> RunReport:
    random = np.random.default_rng(0)
    history = [
        {
            "epoch": epoch,
            "step": 100 * epoch,
            "lr": 0.01 / epoch,
            "train_loss": 2.2 * math.exp(-epoch / 6) + 0.05 + 0.02 * random.random(),
            "train_accuracy": 0.99 - 0.6 * math.exp(-epoch / 4),
            "validation_loss": 2.1 * math.exp(-epoch / 6) + 0.15 + 0.05 * random.random(),
            "validation_accuracy": 0.965 - 0.55 * math.exp(-epoch / 4) + 0.01 * random.random(),
            "seconds": 11.5 + random.random(),
        }
        for epoch in range(1, 25)
    ]
    rows, columns = np.mgrid[-1:1:28j, -1:1:28j]
    report = RunReport(
        title="A small spiking network on digits",
        recipe="digits-lif",
        command="rheobase train digits-lif --seed 0 --epochs 24",
        test_accuracy=0.9731,
        parameters=1_234_567,
        seconds=281.4,
        environment={
            "device": "cpu",
            "seed": 0,
            "versions": {"torch": "2.13.0", "rheobase": "0.1.0"},
            "commit": "0f3a91c",
        },
        config={
            "model": {"name": "lif-net", "width": 128, "tau": 2.0},
            "epochs": 24,
            "augment": ("flip", "crop"),
            "empty": {},
        },
        history=history,
        confusion=make_confusion(classes),
        class_names=[str(number) for number in range(classes)],
        layers=[make_layer(index, neurons=128 * (index + 1)) for index in range(depth)],
        sample=Sample(np.exp(-20 * (np.hypot(rows, columns) - 0.6) ** 2), "0", "0"),
    )
    return replace(report, **parts)


@pytest.fixture
def report() -> RunReport:
    return make_report()


@pytest.fixture(name="make_report")
def make_report_fixture() -> Callable[..., RunReport]:
    return make_report


@pytest.fixture(name="make_layer")
def make_layer_fixture() -> Callable[..., LayerActivity]:
    return make_layer
