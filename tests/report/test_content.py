import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from rheobase.report import LayerActivity, Sample

RATES = np.array([0.0, 0.25, 0.5, 1.0])
RASTER = np.array([[0, 1, 0, 1], [0, 0, 1, 1], [0, 0, 1, 1]])


def test_layer_statistics():
    layer = LayerActivity("a", RATES, RASTER)
    assert (layer.neurons, layer.steps) == (4, 3)
    assert layer.mean_rate == 0.4375
    assert layer.spikes_per_neuron == 3 * 0.4375
    assert layer.silent == layer.saturated == 0.25


def test_a_graded_layer_may_exceed_one_and_has_no_saturation():
    layer = LayerActivity("a", 4 * RATES, RASTER - 0.5, graded=True)
    assert layer.mean_rate == 1.75
    assert math.isnan(layer.saturated)


def test_a_layer_without_neurons_has_no_rates():
    layer = LayerActivity("a", np.zeros(0), np.zeros((3, 0)))
    assert layer.neurons == 0
    assert all(math.isnan(x) for x in (layer.mean_rate, layer.spikes_per_neuron, layer.silent, layer.saturated))


def test_single_precision_rates_of_a_saturated_neuron_pass():
    LayerActivity("a", np.array([np.nextafter(np.float32(1), np.float32(2))]), np.ones((2, 1)))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"rates": RATES[None]}, r"rates has shape \(1, 4\), expected \[n\]"),
        ({"raster": RASTER[0]}, r"raster has shape \(4,\), expected \[T, m\]"),
        ({"raster": RASTER[:, :3]}, "raster has 3 columns but rates names 4 neurons"),
        ({"shown": np.array([0, 1])}, "raster has 4 columns but shown names 2"),
        ({"shown": np.array([0, 1, 2, 4])}, "integers .* from 0 to 3"),
        ({"shown": np.array([0.0, 1.0, 2.0, 3.0])}, "integers"),
        ({"rates": RATES - 0.1}, "negative numbers"),
        ({"rates": np.array([0.0, 0.1, 0.2, np.nan])}, "NaN"),
        ({"rates": 10 * RATES}, "rates reaches 10, expected at most 1"),
        ({"raster": 2 * RASTER}, "other than 0 and 1; say graded=True"),
        ({"raster": np.where(RASTER, np.inf, 0), "graded": True}, "NaN or Inf"),
    ],
)
def test_a_layer_that_disagrees_is_refused_by_name(parts, message):
    with pytest.raises(ValueError, match=f"LayerActivity 'conv1': .*{message}"):
        LayerActivity(**({"name": "conv1", "rates": RATES, "raster": RASTER} | parts))


@pytest.mark.parametrize("shape", [(28,), (4, 28, 28), (1, 1, 28, 28), (0, 28)])
def test_an_image_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"image has shape .* expected \[H, W\]"):
        Sample(np.zeros(shape), "a", "b")


def test_an_image_with_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        Sample(np.full((2, 2), np.nan), "a", "b")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"test_accuracy": 97.3}, r"test_accuracy is 97.3, expected a share in \[0, 1\]"),
        (
            {"history": [{}, {"epoch": 1, "train_loss": "low"}]},
            r"history\[1\]\['train_loss'\] is 'low', expected a number",
        ),
        ({"confusion": np.zeros((10, 9), int)}, r"confusion has shape \(10, 9\)"),
        ({"confusion": np.zeros((0, 0), int), "class_names": []}, r"confusion has shape \(0, 0\)"),
        ({"confusion": np.eye(10)}, "confusion must hold counts"),
        ({"confusion": -np.eye(10, dtype=int)}, "confusion must hold counts"),
        ({"class_names": ["a", "b"]}, "got 2 class_names, but confusion has 10 rows"),
    ],
)
def test_a_report_that_disagrees_is_refused(make_report, parts, message):
    with pytest.raises(ValueError, match=f"RunReport: {message}"):
        make_report(**parts)


def test_spikes_per_neuron_weighs_layers_by_their_neurons(make_report):
    quiet = LayerActivity("quiet", np.zeros(3), np.zeros((2, 3)))
    busy = LayerActivity("busy", np.array([0.5]), np.zeros((4, 1)))
    assert make_report(layers=[quiet, busy]).spikes_per_neuron == 0.5
    assert math.isnan(make_report(layers=[]).spikes_per_neuron)


def test_reports_are_frozen(report):
    with pytest.raises(FrozenInstanceError):
        report.title = "another"
