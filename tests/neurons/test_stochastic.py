import math

import pytest
import torch

import rheobase as rb
from rheobase.neurons import LIF, StochasticLIF


@pytest.mark.parametrize("distance", [-0.4, -0.1, 0.0, 0.2])
def test_it_fires_with_the_probability_of_escape(distance):
    """With tau = 1 the membrane is the input; 40000 draws lie within five standard deviations."""
    neuron = StochasticLIF(tau=1.0, width=0.2, tau_escape=2.0)
    rate = neuron(torch.full((1, 1, 40000), 1 + distance)).mean().item()
    p = 1 - math.exp(-math.exp(distance / 0.2) / 2)
    assert rate == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / 40000))


def test_without_noise_it_is_a_lif():
    x = torch.randn(6, 3, 50) * 2
    assert torch.equal(StochasticLIF(width=1e-9)(x), LIF()(x))


def test_a_generator_repeats_its_noise_and_goes_on_between_chunks():
    x = torch.randn(6, 3, 50)

    def neuron():
        return StochasticLIF(generator=torch.Generator().manual_seed(3))

    whole = neuron()(x)
    before = torch.get_rng_state()
    assert torch.equal(neuron()(x), whole)
    assert torch.equal(torch.get_rng_state(), before)
    with rb.stream(neuron()) as run:
        assert torch.equal(torch.cat([run(x[:1]), run(x[1:4]), run(x[4:])]), whole)


def test_noise_given_is_noise_used():
    x, neuron = torch.randn(4, 2, 9), StochasticLIF()
    pair = (x, torch.randn(4, 2, 9))
    assert torch.equal(neuron.sequence(pair, None)[0], neuron.sequence(pair, None)[0])


def test_an_expanded_image_gets_its_own_noise_at_every_step():
    (noise,) = StochasticLIF().noise(torch.randn(2, 30).expand(5, 2, 30))
    assert not torch.equal(noise[0], noise[1])
