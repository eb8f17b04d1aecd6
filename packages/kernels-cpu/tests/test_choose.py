from dataclasses import replace

import pytest

rk = pytest.importorskip("rheobase_kernels", reason="rheobase-kernels-cpu is not installed")

WIDE = rk.convolution(16, 256, 32, 32, 256, (3, 3), padding=(1, 1))
PRODUCTS = ("forward", "weight_gradient", "input_gradient")


@pytest.mark.parametrize("product", PRODUCTS)
def test_few_spikes_are_added_one_by_one(product):
    assert rk.choose(product, WIDE, 0.05) == "events"


@pytest.mark.parametrize("product", PRODUCTS[:2])
def test_more_of_them_come_from_tables(product):
    ways = [rk.choose(product, WIDE, d / 20) for d in range(21)]
    crossover = ways.index("table")
    assert 2 <= crossover <= 10
    assert ways == ["events"] * crossover + ["table"] * (21 - crossover)


def test_a_dense_mask_needs_a_dense_product():
    assert rk.choose("input_gradient", WIDE, 1.0) == "dense"


def test_beside_bf16_the_kernels_must_be_faster():
    assert rk.choose("input_gradient", WIDE, 0.35) == "events"
    assert rk.choose("input_gradient", WIDE, 0.35, "bfloat16") == "dense"


def test_depthwise_layers_stay_dense():
    shape = rk.convolution(4, 64, 32, 32, 64, (3, 3), padding=(1, 1), groups=64)
    assert {rk.choose(product, shape, 0.1) for product in PRODUCTS} == {"dense"}


def test_costs_may_be_those_of_another_machine():
    free = replace(rk.MEASURED, dense=(("float32", 0.0),))
    assert rk.choose("forward", WIDE, 0.01, costs=free) == "dense"


def test_estimates_grow_with_density_but_for_dense():
    low, high = (rk.estimate("forward", WIDE, density) for density in (0.1, 0.2))
    assert low["dense"] == high["dense"]
    assert low["events"] < high["events"]
    assert low["table"] < high["table"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("forward", WIDE, 1.5), "density 1.5"),
        (("forward", WIDE, 0.5, "float16"), "'float16'"),
        (("backward", WIDE, 0.5), "'backward'"),
    ],
)
def test_what_is_unknown_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        rk.choose(*arguments)
