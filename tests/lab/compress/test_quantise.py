import pytest
import torch

from rheobase.lab.compress import bits_of, fit_scale, levels, nearest, quantised
from rheobase.neurons import IterativeLIF


@pytest.mark.parametrize(
    ("bits", "kind", "expected"),
    [
        (1, "auto", [-1, 1]),
        (2, "auto", [-1, 0, 1]),
        (3, "auto", [-4, -2, -1, 0, 1, 2, 4]),
        (3, "uniform", [-3, -2, -1, 0, 1, 2, 3]),
        (4, "power", [-64, -32, -16, -8, -4, -2, -1, 0, 1, 2, 4, 8, 16, 32, 64]),
    ],
)
def test_levels(bits, kind, expected):
    assert levels(bits, kind).tolist() == expected


def test_eight_bits_are_uniform():
    found = levels(8)
    assert len(found) == 255
    assert found.tolist() == list(range(-127, 128))


@pytest.mark.parametrize("bits", range(1, 9))
def test_levels_fit_their_bits_and_are_symmetric(bits):
    found = levels(bits)
    assert len(found) <= 2**bits
    assert torch.equal(found, -found.flip(0))


def test_bad_bits_are_refused():
    with pytest.raises(ValueError, match="bits is 9"):
        levels(9)
    with pytest.raises(ValueError, match="at most 4"):
        levels(5, "power")


def draw(seed, n=2000):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed)) * 0.03 + 0.004


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("seed", [0, 1])
def test_scale_is_the_least_squares_optimum_of_its_levels(bits, seed):
    v, table = draw(seed), levels(bits)
    scale = fit_scale(v, table)
    q = nearest(v, scale, table)
    assert scale > 0
    assert float(scale) == pytest.approx(float((v * q).sum() / q.square().sum()), rel=1e-5)
    error = (v - scale * q).square().sum()
    for factor in (0.98, 1.02):
        assert error <= (v - factor * scale * q).square().sum() + 1e-9


@pytest.mark.parametrize("bits", range(1, 9))
def test_every_value_takes_its_nearest_level(bits):
    v, table = draw(2, 300), levels(bits)
    scale = fit_scale(v, table)
    found = (v - quantised(v, scale, table)).abs()
    best = (v[:, None] - scale * table).abs().amin(1)
    assert torch.allclose(found, best, atol=1e-7)


@pytest.mark.parametrize("bits", range(1, 9))
def test_quantising_twice_is_quantising_once(bits):
    v, table = draw(3), levels(bits)
    once = quantised(v, fit_scale(v, table), table)
    assert torch.equal(quantised(once, fit_scale(v, table), table), once)
    assert len(once.unique()) <= len(table)


def test_error_does_not_grow_from_the_start_of_the_alternations():
    v, table = draw(4), levels(3)
    start = v.abs().mean()
    begin = (v - start * nearest(v, start, table)).square().sum()
    assert (v - quantised(v, fit_scale(v, table), table)).square().sum() <= begin


def test_negative_mean_does_not_flip_the_scale():
    v = -draw(5).abs()
    for bits in (1, 2, 3, 8):
        assert fit_scale(v, levels(bits)) > 0


def test_layer_of_zeros_is_defined():
    v = torch.zeros(7)
    assert fit_scale(v, levels(3)) == 1
    assert quantised(v, fit_scale(v, levels(3)), levels(3)).tolist() == [0.0] * 7
    assert fit_scale(v, levels(3), torch.zeros(7, dtype=torch.bool)) == 1


def test_masked_weights_neither_count_nor_appear():
    v, table = draw(6), levels(1)
    mask = v.abs() > v.abs().median()
    scale = fit_scale(v, table, mask)
    assert float(scale) == pytest.approx(float(v[mask].abs().mean()), rel=1e-5)
    found = quantised(v, scale, table, mask)
    assert bool((found[~mask] == 0).all())
    assert bits_of(found) == 2  # {-a, 0, a}
    assert not bool(torch.signbit(found[~mask]).any())


def test_zero_has_no_sign():
    v = torch.tensor([-1e-6, 1e-6, -1.0, 1.0])
    assert not bool(torch.signbit(quantised(v, torch.tensor(1.0), levels(2))[:2]).any())


def test_bits_count_distinct_values():
    found = [bits_of(torch.arange(float(n))) for n in (1, 2, 3, 4, 5, 255, 256, 257)]
    assert found == [1, 1, 2, 2, 3, 8, 8, 32]


def test_scale_folds_into_the_threshold():
    generator = torch.Generator().manual_seed(7)
    weight, bias = torch.randn(20, 30, generator=generator) * 0.1, torch.randn(20, generator=generator) * 0.02
    x = (torch.rand(12, 8, 30, generator=generator) < 0.3).float()
    table = levels(3)
    scale = fit_scale(weight, table)
    q = nearest(weight, scale, table)
    whole = IterativeLIF(0.3, 0.5)(x @ (scale * q).T + bias)
    folded = IterativeLIF(0.3, float(0.5 / scale))(x @ q.T + bias / scale)
    assert whole.sum() > 50
    assert (whole != folded).float().mean() <= 1e-3  # rounding decides ties
    assert torch.equal(whole.mean(0).argmax(1), folded.mean(0).argmax(1))
