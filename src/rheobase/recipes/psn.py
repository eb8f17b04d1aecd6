"""Parallel spiking neurons against neurons with and without a reset, one column of an image a step."""

from functools import partial, update_wrapper
from typing import Any

from rheobase.recipes.classification import Classification
from rheobase.recipes.registry import register
from rheobase.train import TrainConfig

NEURONS: dict[str, tuple[str, dict[str, Any]]] = {
    "psn": ("psn", {}),
    "masked": ("masked_psn", {"k": 32, "ramp": True}),
    "sliding": ("sliding_psn", {"k": 32, "exp_init": False}),
    "glif": ("glif", {"shape": "channel"}),
    "plif": ("plif", {"tau": 2.0, "reset": "subtract"}),
    "klif": ("klif", {"reset": "subtract", "detach_reset": False}),
    "lif": ("lif", {"reset": "subtract"}),
    "lif_no_reset": ("lif", {"reset": "none"}),
}
"""The neurons of the comparison, and how they differ from their defaults: the settings of the published code."""


def columns(name: str) -> Classification:
    """A narrow net on columns of CIFAR-10 (JPEG-75); nothing but the neuron changes."""
    neuron, options = NEURONS[name]
    return Classification(
        data="cifar10_jpeg",
        model="sequential_cifar_snn",
        neuron=neuron,
        neuron_options=dict(options),
        width=32,
        encoder="columns",
        T=32,
        batch_size=64,
        validation=0.04,
        train_samples=5000,
        threads=1,
        train=TrainConfig(epochs=8, lr=3e-3, label_smoothing=0.1, seed=0),
    )


def _claim(name: str) -> str:
    return f"""{name} neurons read CIFAR-10 (JPEG-75) column by column.

    Fang et al. 2023, arXiv:2304.12760. Not measured yet. Command: `rheobase train psn-{name.replace("_", "-")}`
    """


for _name in NEURONS:
    _make = update_wrapper(partial(columns, _name), columns)
    _make.__name__, _make.__doc__ = f"psn_{_name}", _claim(_name)
    register(_make)
