"""NeuroBench's counts, to the unit: golden/make_neurobench.py made golden/neurobench.json with NeuroBench itself."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from rheobase.lab.cost import neurobench, trace
from rheobase.neurons import IF
from rheobase.nn import PerStep

GOLDEN = Path(__file__).parent / "golden"
FOUND = json.loads((GOLDEN / "neurobench.json").read_text())["networks"]


def maker():
    spec = importlib.util.spec_from_file_location("make_neurobench", GOLDEN / "make_neurobench.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKE = maker()


@pytest.mark.parametrize("name", MAKE.NETWORKS)
def test_counts_are_those_of_neurobench_to_the_unit(name):
    model = MAKE.network(name, layer=PerStep, neuron=IF)
    ours = neurobench(trace(model, MAKE.inputs(name).transpose(0, 1).split(MAKE.BATCH, 1)))
    theirs = FOUND[name]["SynapticOperations"]
    for mine, key in (("effective_macs", "Effective_MACs"), ("effective_acs", "Effective_ACs"), ("dense", "Dense")):
        assert getattr(ours, mine) * MAKE.SAMPLES == pytest.approx(theirs[key] * MAKE.SAMPLES, abs=1e-6), key
    assert ours.activation_sparsity == pytest.approx(FOUND[name]["ActivationSparsity"], rel=1e-12)
    assert ours.connection_sparsity == pytest.approx(FOUND[name]["ConnectionSparsity"], abs=5.1e-5)


def test_the_networks_are_not_all_alike():
    """A layer with both kinds of operations, one of multiplications, pruned weights and padded borders are there."""
    graded = trace(MAKE.network("graded", PerStep, IF), MAKE.inputs("graded").transpose(0, 1)).products[2]
    assert graded.activations[0].holds == "graded"
    assert 0 < graded.selected < graded.effective < graded.additions
    assert graded.inside < graded.macs
    assert FOUND["pruned"]["ConnectionSparsity"] > 0.5


def test_shapes_alone_are_refused():
    with torch.device("meta"):
        report = trace(PerStep(torch.nn.Linear(3, 2)), torch.empty(2, 1, 3))
    with pytest.raises(ValueError, match="what its operands hold is unknown"):
        neurobench(report)
