"""What a report holds: frozen data, checked when it is built."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np

from rheobase.report.section import Section

SATURATED_RATE = 0.99
"""A binary neuron that fires at this share of the steps or more counts as saturated."""

CURVES = ("train_loss", "validation_loss", "train_accuracy", "validation_accuracy", "lr", "seconds")
"""The measured keys of a history line; `epoch` and `step` say where it stands."""


@dataclass(frozen=True, eq=False)
class LayerActivity:
    """The activity of one spiking layer of n neurons.

    Args:
        name: qualified name of the layer.
        rates: `[n]`, spikes of each neuron / (T * samples) over the test samples; the mean of |output| if `graded`.
        raster: `[T, m]`, output of the shown neurons for one sample: {0, 1}, or any finite number if `graded`.
        graded: the outputs are not limited to {0, 1}.
        shown: `[m]`, which neurons the columns of `raster` are; None when they are all n, in order.

    Raises:
        ValueError: the shapes disagree, a number is not finite, or a layer that is not graded holds other than 0 and 1.
    """

    name: str
    rates: np.ndarray
    raster: np.ndarray
    graded: bool = False
    shown: np.ndarray | None = None

    def __post_init__(self) -> None:
        where = f"LayerActivity {self.name!r}"
        if self.rates.ndim != 1:
            raise ValueError(f"{where}: rates has shape {self.rates.shape}, expected [n]; flatten the neurons")
        if self.raster.ndim != 2:
            raise ValueError(
                f"{where}: raster has shape {self.raster.shape}, expected [T, m]; pass one sample, flattened"
            )
        columns = self.neurons if self.shown is None else self.shown.size
        if self.raster.shape[1] != columns:
            named = f"rates names {columns} neurons" if self.shown is None else f"shown names {columns}"
            raise ValueError(
                f"{where}: raster has {self.raster.shape[1]} columns but {named}; "
                "pass one column per neuron, or say in `shown` which neurons the columns are"
            )
        if self.shown is not None and not _are_indices(self.shown, self.neurons):
            raise ValueError(f"{where}: shown must be integers [m] from 0 to {self.neurons - 1}; got {self.shown!r}")
        if not np.isfinite(self.rates).all() or (self.rates < 0).any():
            raise ValueError(f"{where}: rates holds negative numbers, NaN or Inf; expected spikes / (T * samples)")
        if not np.isfinite(self.raster).all():
            raise ValueError(f"{where}: raster holds NaN or Inf; the network diverged, or the sample is broken")
        if not self.graded and (self.rates > 1 + 1e-6).any():
            raise ValueError(
                f"{where}: rates reaches {self.rates.max():g}, expected at most 1 spike per step; "
                "divide by T * samples, or say graded=True"
            )
        if not self.graded and not np.isin(self.raster, (0, 1)).all():
            raise ValueError(f"{where}: raster holds numbers other than 0 and 1; say graded=True if that is meant")

    @property
    def neurons(self) -> int:
        """Number of neurons, n."""
        return self.rates.size

    @property
    def steps(self) -> int:
        """Number of time steps, T."""
        return int(self.raster.shape[0])

    @property
    def mean_rate(self) -> float:
        """Mean of `rates` in spikes per step; NaN without neurons."""
        return _mean(self.rates)

    @property
    def spikes_per_neuron(self) -> float:
        """Mean rate * T: spikes of a neuron during one sample."""
        return self.mean_rate * self.steps

    @property
    def silent(self) -> float:
        """Share of neurons that never fired on the test samples."""
        return _mean(self.rates == 0)

    @property
    def saturated(self) -> float:
        """Share of neurons that fired at `SATURATED_RATE` of the steps or more; NaN for a graded layer."""
        return math.nan if self.graded else _mean(self.rates >= SATURATED_RATE)


@dataclass(frozen=True, eq=False)
class Sample:
    """The input whose rasters are shown.

    Args:
        image: `[H, W]` or `[C, H, W]`: one channel is grey, two are events (on and off), three are red, green and blue.
        label: what it is.
        prediction: what the network says it is.

    Raises:
        ValueError: `image` has another shape, no pixel, or a pixel that is not finite.
    """

    image: np.ndarray
    label: str
    prediction: str

    def __post_init__(self) -> None:
        channels = self.image.shape[0] if self.image.ndim == 3 else 1
        if self.image.ndim not in (2, 3) or channels not in (1, 2, 3) or self.image.size == 0:
            raise ValueError(
                f"Sample: image has shape {self.image.shape}, expected [H, W] or [C, H, W] with C in 1, 2, 3; "
                "average time and choose channels first"
            )
        if not np.isfinite(self.image).all():
            raise ValueError("Sample: image holds NaN or Inf; pass finite pixels")


@dataclass(frozen=True, eq=False)
class RunReport:
    """One trained network, as told by its run.

    Args:
        title: headline of the page.
        recipe: name of the recipe.
        command: the shell command that repeats the run.
        test_accuracy: share of test samples classified correctly, in [0, 1]; NaN when it was not measured.
        parameters: number of trained parameters.
        seconds: training time.
        environment: what else belongs beside the result: device, seed, versions, commit.
        config: the frozen configuration as a dict; may be nested.
        history: the lines of metrics.jsonl: `epoch` or `step`, and any of `CURVES`. Accuracies are shares in [0, 1].
        confusion: `[K, K]` counts, rows are the true classes and columns the predicted ones.
        class_names: K names.
        layers: spiking layers, from input to output.
        sample: the input that the rasters belong to.
        sections: what else there is to show, such as what the network costs.

    Raises:
        ValueError: shapes disagree, a count is negative, or a history value is not a number.
    """

    title: str
    recipe: str
    command: str
    test_accuracy: float
    parameters: int
    seconds: float
    environment: Mapping[str, object]
    config: Mapping[str, object]
    history: Sequence[Mapping[str, object]] = ()
    confusion: np.ndarray | None = None
    class_names: Sequence[str] = ()
    layers: Sequence[LayerActivity] = ()
    sample: Sample | None = None
    sections: Sequence[Section] = ()

    def __post_init__(self) -> None:
        if not (math.isnan(self.test_accuracy) or 0 <= self.test_accuracy <= 1):
            raise ValueError(f"RunReport: test_accuracy is {self.test_accuracy:g}, expected a share in [0, 1]")
        for number, line in enumerate(self.history):
            for key in ("epoch", "step", *CURVES):
                value = line.get(key)
                if value is not None and not isinstance(value, Real):
                    raise ValueError(
                        f"RunReport: history[{number}][{key!r}] is {value!r}, expected a number; "
                        "leave the key out where nothing was measured"
                    )
        if self.confusion is not None:
            self._check_confusion(self.confusion)

    def _check_confusion(self, confusion: np.ndarray) -> None:
        if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1] or confusion.size == 0:
            raise ValueError(f"RunReport: confusion has shape {confusion.shape}, expected [K, K] with K > 0")
        if not np.issubdtype(confusion.dtype, np.integer) or (confusion < 0).any():
            raise ValueError("RunReport: confusion must hold counts (integers, none negative); do not normalise it")
        if len(self.class_names) != len(confusion):
            raise ValueError(
                f"RunReport: got {len(self.class_names)} class_names, but confusion has {len(confusion)} rows; "
                "pass one name per row"
            )

    @property
    def spikes_per_neuron(self) -> float:
        """Spikes of a neuron during one sample, averaged over all neurons of all layers; NaN without neurons."""
        neurons = sum(layer.neurons for layer in self.layers)
        spikes = sum(float(layer.rates.sum()) * layer.steps for layer in self.layers)
        return spikes / neurons if neurons else math.nan


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan


def _are_indices(values: np.ndarray, count: int) -> bool:
    return (
        values.ndim == 1 and np.issubdtype(values.dtype, np.integer) and bool(((values >= 0) & (values < count)).all())
    )
