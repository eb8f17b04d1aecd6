import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from rheobase.lab.cost import (
    HOROWITZ,
    Elementwise,
    Integers,
    NeuronLayer,
    Operand,
    Operations,
    Product,
    Report,
    quantised_twin,
    trace,
)
from rheobase.neurons import IF, create_neuron
from rheobase.nn import PerStep

T = 4
WEIGHT = Operand((8, 16), True, None, 0.5, 128)
SPIKES = Operand((16,), False, "binary", 0.25, 16, 1.0)
IMAGE = Operand((16,), False, "real", 0.9, 16)
LAYER = Product("layer", "linear", (SPIKES, WEIGHT), 128, 8, 16.0, T, T, inside=120, outputs=8, additions=16.0)
NEURONS = NeuronLayer("fire", 8, 3.0, 0.1, "binary", 8 * T, Operations(add=1, compare=1), 1, 1.0)


def of(*products, neurons=(), elementwise=(), steps=T):
    return Report(products, tuple(neurons), steps, 1, tuple(elementwise))


@pytest.mark.parametrize(("steps", "bits"), [(1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4), (15, 4), (16, 5)])
def test_a_rate_code_of_t_steps_has_t_plus_one_levels(steps, bits):
    assert quantised_twin(of(LAYER, steps=steps)).bits == bits


def test_both_networks_are_priced_in_whole_numbers():
    """Sums of 32 bits: .12 pJ; products of 3 and 8 bits: .2 * 24/64 = .075 pJ."""
    twin = quantised_twin(of(LAYER))
    assert twin.snn.total_pJ == pytest.approx(T * (16 + 8) * 0.12)
    assert twin.ann.total_pJ == pytest.approx(0.5 * 120 * (0.075 + 0.12) + 8 * 0.12)
    assert twin.ratio == pytest.approx(twin.snn.total_pJ / twin.ann.total_pJ)
    assert (twin.ann.macs, twin.snn.macs) == (60, 0)


def test_both_read_the_same_image_and_leave_out_its_zeros():
    image = replace(LAYER, operands=(IMAGE, WEIGHT), executed=1, stem=True, effective=54.0)
    twin = quantised_twin(of(image))
    assert twin.snn.total_pJ == pytest.approx(54 * (0.2 + 0.12) + 8 * 0.12)
    assert twin.ann == replace(twin.snn, rule=twin.ann.rule)
    assert quantised_twin(of(image), density=0.5).ann == twin.ann
    deeper = quantised_twin(of(replace(image, stem=False)))
    assert deeper.ann.total_pJ == pytest.approx(60 * (0.2 + 0.12) + 8 * 0.12)


def test_sums_of_spikes_multiply_at_their_width():
    sums = replace(SPIKES, holds="graded", peak=5.0)
    twin = quantised_twin(of(replace(LAYER, operands=(sums, WEIGHT))))
    assert twin.snn.total_pJ == pytest.approx(T * (16 * (0.2 * 3 * 8 / 64 + 0.12) + 8 * 0.12))


def test_sparse_activations_save_the_quantised_network_products():
    whole, half = (quantised_twin(of(LAYER), density=density).ann for density in (1.0, 0.5))
    assert half.macs == whole.macs / 2
    stem = of(replace(LAYER, operands=(IMAGE, WEIGHT)))
    assert quantised_twin(stem, density=0.5).ann == quantised_twin(stem).ann
    with pytest.raises(ValueError, match="expected a share from 0 to 1"):
        quantised_twin(of(LAYER), density=1.5)


def test_neurons_and_sums_run_at_every_step_and_activations_once():
    twin = quantised_twin(of(neurons=[NEURONS], elementwise=[Elementwise("sum", 9, 9, 40, 0)]))
    assert twin.snn.total_pJ == pytest.approx(8 * T * 2 * 0.12 + 40 * 0.12)
    assert twin.ann.total_pJ == pytest.approx(8 * (0.12 + 0.2 * 32 * 8 / 64) + 10 * 0.12)


def test_memory_moves_the_widths_of_each():
    plain, moved = quantised_twin(of(LAYER)), quantised_twin(of(LAYER), memory=HOROWITZ)
    word = 10 / 64
    assert moved.snn.total_pJ - plain.snn.total_pJ == pytest.approx(T * word * (16 + 8 * 128 + 32 * 8))
    assert moved.ann.total_pJ - plain.ann.total_pJ == pytest.approx(word * (3 * 16 + 8 * 128 + 32 * 8))
    once = quantised_twin(of(LAYER), memory=replace(HOROWITZ, weights_once=True))
    assert once.snn.total_pJ - plain.snn.total_pJ == pytest.approx(word * (T * 16 + 8 * 128 + T * 32 * 8))
    assert once.ann == moved.ann


def test_fewer_spikes_cost_the_spiking_network_less_and_the_other_the_same():
    model = nn.Sequential(PerStep(nn.Linear(6, 8)), IF(), PerStep(nn.Linear(8, 3)))
    torch.manual_seed(0)
    x, twins = torch.rand(T, 3, 6), []
    for threshold in (0.3, 30.0):
        model[1] = IF(threshold=threshold)
        twins.append(quantised_twin(trace(model, x)))
    assert twins[0].snn.total_pJ > twins[1].snn.total_pJ
    assert twins[0].ann == twins[1].ann
    assert f"{twins[0].ratio:.3f} times" in str(twins[0])


@pytest.mark.parametrize("neuron", ["psn", "sliding_psn"])
def test_products_of_neurons_are_the_spiking_networks_alone(neuron):
    made = create_neuron(neuron, **({"T": T} if neuron == "psn" else {}))
    model = nn.Sequential(PerStep(nn.Linear(6, 8)), made, PerStep(nn.Linear(8, 3)))
    twin = quantised_twin(trace(model, torch.rand(T, 3, 6)))
    first, own, last = zip(twin.snn.layers, twin.ann.layers, strict=True)
    assert own[0].energy_pJ > 0 == own[1].energy_pJ
    assert first[1].energy_pJ > 0
    assert last[1].energy_pJ > 0


def test_an_empty_network_has_no_ratio():
    assert quantised_twin(of()).ratio == math.inf


def test_shapes_alone_have_no_price():
    with torch.device("meta"):
        found = trace(PerStep(nn.Linear(3, 2)), torch.empty(2, 1, 3))
    with pytest.raises(ValueError, match="what its operands hold is unknown"):
        quantised_twin(found)


def test_widths_are_exposed():
    wide = quantised_twin(of(LAYER), Integers(weight_bits=16, state_bits=16))
    assert wide.snn.total_pJ == pytest.approx(T * 24 * 0.06)
    assert wide.ann.total_pJ == pytest.approx(60 * (0.2 * 3 * 16 / 64 + 0.06) + 8 * 0.06)
