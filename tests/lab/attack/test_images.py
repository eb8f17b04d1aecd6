import pytest
import torch

from rheobase.data import direct, poisson
from rheobase.lab.attack import BoxAttack, attack_images, fooled, is_fooled
from rheobase.lab.attack.images import METHODS
from rheobase.neurons import Sigmoid


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def straight(x, _):
    return direct(x, 1)


def coded(x, generator):
    return poisson(x, 6, generator)


class Linear(torch.nn.Module):
    """Two classes: the left half against the right, at every step."""

    def __init__(self):
        super().__init__()
        weight = torch.ones(2, 8, 8)
        weight[0, :, 4:], weight[1, :, :4] = -1, -1
        self.weight = torch.nn.Parameter(weight.flatten(1))

    def forward(self, x):
        return x.flatten(2) @ self.weight.t()


@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_box_and_the_range_are_kept(method, images):
    x, y = images
    how = BoxAttack(0.15, method, iterations=20)
    found = attack_images(Linear(), x, y, straight, how, generator=seeded())
    assert float((found - x).abs().max()) <= 0.15 + 1e-6
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    before, after = ((Linear()(straight(each, None))[0].gather(1, y[:, None])).mean() for each in (x, found))
    assert after < before


@pytest.mark.parametrize("method", ["fgsm", "pgd", "mi_fgsm"])
def test_of_a_linear_model_every_gradient_finds_the_corner(method, images):
    x, y = images
    found = attack_images(Linear(), x, y, straight, BoxAttack(0.1, method, iterations=40), generator=seeded())
    sign = 1 - 2 * ((torch.arange(8) < 4).float()[None, :] == (1 - y.float())[:, None]).float()
    torch.testing.assert_close(found, (x + 0.1 * sign[:, None, None, :]).clamp(0, 1))


def test_a_target_is_approached(images):
    x, y = images
    how = BoxAttack(0.6, "pgd")
    found = attack_images(Linear(), x, y, straight, how, target=1 - y, generator=seeded())
    assert is_fooled(Linear()(straight(found, None))[0], y, 1 - y).all()


@pytest.mark.parametrize("how", [BoxAttack(0.5, encodings=2, surrogate=Sigmoid(2.0)), BoxAttack(0.5, threshold=1.0)])
def test_a_spiking_victim_behind_a_random_encoder_is_fooled(victim, images, how):
    x, y = images
    found = attack_images(victim, x, y, coded, how, generator=seeded())
    assert fooled(victim, coded(found, seeded(1)), y).float().mean() > 0.5
    again = attack_images(victim, x, y, coded, how, generator=seeded())
    assert torch.equal(found, again)


def test_squares_never_raise_the_margin(victim, images):
    x, y = images
    far, near = (
        attack_images(victim, x, y, straight, BoxAttack(0.5, "square", iterations=n), generator=seeded())
        for n in (1, 60)
    )
    hits = [int(fooled(victim, straight(each, None), y).sum()) for each in (far, near)]
    assert hits[1] >= hits[0]


@pytest.mark.usefixtures("untyped")
def test_what_is_no_attack_raises(victim, images):
    with pytest.raises(ValueError, match="expected intensities in"):
        attack_images(victim, images[0] - 1, images[1], straight, BoxAttack(0.1))
    for name, value in (("epsilon", 0.0), ("method", "cw"), ("iterations", 0), ("step", 0.0), ("momentum", -1.0),
                        ("squares", 0.0), ("loss", "hinge"), ("encodings", 0)):  # fmt: skip
        with pytest.raises(ValueError, match=f"BoxAttack: {name} is"):
            BoxAttack(**{"epsilon": 0.1, name: value})
