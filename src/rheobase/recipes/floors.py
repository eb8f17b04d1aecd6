"""Floors: what trivial methods reach on the samples of a recipe. A network that does not beat them learned nothing.

On the same splits as the network:

    from rheobase.recipes import floors, recipe

    floors(recipe("sign-gestures")())  # accuracies of "linear", "nearest" and "nearest_share", and "count"
"""

import math
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from rheobase.data import ImageFolder, ImageFolders, Split, folds_of
from rheobase.recipes.classification import Classification, Task, is_cross_validated
from rheobase.recipes.task import build
from rheobase.train import RunFolder, TrainConfig, evaluate, fit, load_weights

METHODS = ("linear", "nearest", "nearest_share")
_TRAINING = TrainConfig(epochs=20, lr=1e-3, weight_decay=1e-2, monitor="loss")
_CHUNK = 512


class LinearFrames(nn.Module):
    """A linear classifier of a whole sequence, as per-step logits whose mean over time it is: `[T, B, ...]`.

    Args:
        T: steps.
        features: values of a step.
        classes: K.
        scale: what inputs are divided by.
    """

    def __init__(self, T: int, features: int, classes: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(T, features, classes))
        self.bias = nn.Parameter(torch.zeros(classes))
        self.scale = scale

    def forward(self, x: Float[Tensor, "T B *rest"]) -> Float[Tensor, "T B K"]:
        """Logits of every step, times the number of steps."""
        return torch.baddbmm(self.bias, x.flatten(2) / self.scale, self.weight, alpha=len(x))


def floors(config: Classification, *, download: bool = False) -> dict[str, float]:
    """Test accuracies of trivial methods on the splits, or on all folds together, of a config.

    - "linear": softmax regression on all values of a sequence as the network is given it, one weight for each step,
      value and class; trained on the same batches for 20 epochs, the best of them by the validation loss.
    - "nearest": the nearest neighbour (Euclidean) of the sequences summed over time.
    - "nearest_share": the same, every sum divided by its own total.

    Returns:
        a number for each method, and "count", the number of test samples.
    """
    if not isinstance(config, Classification):
        raise ValueError(f"floors: the recipe is of {config.task}; expected one of samples")
    configs = [config]
    if is_cross_validated(config):
        configs = [replace(config, fold=k) for k in range(folds_of(config.data))]
    hits, count = dict.fromkeys(METHODS, 0.0), 0
    for each in configs:
        task = build(replace(each, augment=None), download=download)
        if isinstance(task.dataset, ImageFolders) or isinstance(task.train, ImageFolder):
            raise ValueError(f"floors: {config.data} stays on the disk; expected a set whose samples are in memory")
        with task.at_work():
            size = len(task.dataset.test)
            hits["linear"] += _linear(task, task.train) * size
            train, test = _sums(task, task.dataset.train), _sums(task, task.dataset.test)
            hits["nearest"] += _nearest(task, train, test) * size
            hits["nearest_share"] += _nearest(task, _shares(train), _shares(test)) * size
        count += size
    return {**{name: value / count for name, value in hits.items()}, "count": count}


def _linear(task: Task, train: Split) -> float:
    x = task.prepare(train.intensities(slice(0, _CHUNK)), None)
    scale = float(x.square().mean().sqrt()) or 1.0
    model = LinearFrames(len(x), math.prod(x.shape[2:]), len(task.dataset.classes), scale)
    training = replace(_TRAINING, seed=task.config.train.seed, device=task.config.train.device)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder), "linear", {})
        sources = (task.source(train, shuffle=True), task.source(task.validation, shuffle=False))
        fit(model, *sources, training, run, prepare=task.prepare)
        load_weights(model, run, "best")
    found = evaluate(model, task.source(task.dataset.test, shuffle=False)(0), training, prepare=task.prepare)
    return float(found["accuracy"])


def _nearest(task: Task, train: np.ndarray, test: np.ndarray) -> float:
    from sklearn.neighbors import KNeighborsClassifier

    neighbours = KNeighborsClassifier(1, algorithm="brute").fit(train, task.dataset.train.y.numpy())
    return float(neighbours.score(test, task.dataset.test.y.numpy()))


def _sums(task: Task, split: Split) -> np.ndarray:
    """Every sample summed over time, `[N, features]`."""
    chunks = (split.intensities(slice(start, start + _CHUNK)) for start in range(0, len(split), _CHUNK))
    return torch.cat([task.prepare(x, None).sum(0).flatten(1) for x in chunks]).numpy()


def _shares(sums: np.ndarray) -> np.ndarray:
    """Every row divided by its own total."""
    shares: np.ndarray = sums / np.maximum(sums.sum(1, keepdims=True), 1e-12)
    return shares
