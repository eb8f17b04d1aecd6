"""Whatever is registered is priced, by every rule, without code of its own."""

import math

import pytest
import torch

from rheobase.lab.cost import HOROWITZ, RULES, energy, neurobench, operations, quantised_twin, trace
from rheobase.models import MODELS, create_model, list_models
from rheobase.neurons import NEURONS, create_neuron
from rheobase.nn import OnGraph


@pytest.mark.parametrize("name", list_models("test_*"))
def test_every_model_is_priced_by_every_rule(name):
    torch.manual_seed(0)
    T = 4
    model = create_model(name, **({} if MODELS[name].any_T else {"T": T}))
    x, *graph = MODELS[name].inputs(T, 2)
    report = trace(OnGraph(model, *graph) if graph else model, x)
    for rule in RULES:
        price = energy(report, rule)
        assert 0 < price.total_pJ < math.inf
        assert price.unpriced == ()
    for product in report.products:
        assert 0 <= product.effective <= product.inside <= product.macs
        assert 0 <= product.selected <= product.effective
        assert product.additions is None or product.additions >= product.effective * (1 - 1e-12)
        assert product.outputs > 0
        assert all(operand.size > 0 for operand in product.operands)
    twin = quantised_twin(report, memory=HOROWITZ)
    assert 0 < twin.ratio < math.inf
    assert neurobench(report).dense > 0


@pytest.mark.parametrize("name", sorted(NEURONS))
def test_every_neuron_has_operations(name):
    neuron = create_neuron(name, **({} if NEURONS[name].any_T else {"T": 4}))
    assert operations(neuron.scan.text()).total > 0
