import math
from dataclasses import asdict

import numpy as np
import pytest
import torch

from rheobase.data import Augment, Split, batches
from rheobase.data.augment import _policy

B, C, H, W = 64, 2, 6, 5


@pytest.fixture
def x():
    """Images whose pixels are all different and above 0."""
    return (torch.arange(B * C * H * W).view(B, C, H, W) + 1) / (B * C * H * W)


@pytest.fixture
def y():
    return torch.arange(B) % 4


def shifted(image, top, left, mirrored, pad, mode="constant"):
    """By NumPy, one image at a time."""
    padded = np.pad(image.numpy(), [(0, 0), (pad, pad), (pad, pad)], mode=mode)
    part = padded[:, top : top + H, left : left + W]
    return torch.from_numpy((part[:, :, ::-1] if mirrored else part).copy())


@pytest.mark.parametrize(("padding", "mode"), [("zero", "constant"), ("reflect", "reflect")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_crop_and_flip_take_a_part_of_the_padded_image(x, y, padding, mode, dtype):
    x = (x * 250).to(dtype)
    moved, labels = Augment(flip=0.5, crop=2, padding=padding)(x, y, classes=4)
    assert moved.dtype == dtype
    assert torch.equal(labels, y)
    seen = set()
    for before, after in zip(x, moved, strict=True):
        places = [(t, s, m) for t in range(5) for s in range(5) for m in (False, True)]
        found = {place for place in places if torch.equal(shifted(before, *place, 2, mode), after)}
        assert found
        seen |= found
    assert {mirrored for *_, mirrored in seen} == {False, True}
    assert len({place[:2] for place in seen}) > 15


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_so_many_are_mirrored(probability):
    x = torch.rand(2000, 1, 2, 3)
    mirrored, _ = Augment(flip=probability, crop=0)(x, torch.zeros(2000).long(), classes=1)
    share = (mirrored == x.flip(3)).flatten(1).all(1).float().mean()
    assert float(share) == pytest.approx(probability, abs=0.05)
    assert torch.equal(torch.where((mirrored == x).flatten(1).all(1).view(-1, 1, 1, 1), x, x.flip(3)), mirrored)


def test_all_steps_of_a_sequence_are_treated_alike(y):
    still = torch.rand(B, 1, C, 8, 8).expand(B, 3, C, 8, 8)
    for augment in (Augment(flip=0.5, crop=2), Augment(erasing=0.5), Augment(cutmix=1.0), Augment(mixup=1.0)):
        moved, _ = augment(still, y, classes=4)
        assert moved.shape == still.shape
        assert torch.equal(moved, moved[:, :1].expand_as(moved))
        assert not torch.equal(moved, still)
        alone, _ = augment(still[:, 0], y, classes=4)
        assert torch.equal(moved[:, 0], alone)


def test_erased_rectangles():
    x = torch.ones(500, 3, 32, 24)
    erased, _ = Augment(erasing=0.4)(x, torch.zeros(500).long(), classes=1, fill=(0.1, 0.2, 0.3))
    for image in erased:
        gone = image[0] != 1
        assert all(torch.equal(gone, channel != 1) for channel in image)
        assert [set(channel[gone].tolist()) for channel in image] in (
            [set()] * 3,
            [{float(torch.tensor(value))} for value in (0.1, 0.2, 0.3)],
        )
        rows, columns = gone.any(1).sum(), gone.any(0).sum()
        assert gone.sum() == rows * columns  # a rectangle
        if gone.any():
            assert 0.015 <= gone.float().mean() <= 0.36  # sides are rounded
    share = (erased != 1).flatten(1).any(1).float().mean()
    assert float(share) == pytest.approx(0.4, abs=0.07)
    black, _ = Augment(erasing=1.0)(x, torch.zeros(500).long(), classes=1)
    assert set(black.unique().tolist()) == {0.0, 1.0}


def test_mixup_is_the_weighted_sum(x, y):
    shares = []
    for batch in range(20):
        mixed, soft = Augment(mixup=0.8)(x, y, classes=4, batch=batch)
        assert soft.dtype == torch.float32
        share = float(soft[1, y[1]])  # its partner is sample 0, of another class
        torch.testing.assert_close(mixed, share * x + (1 - share) * x.roll(1, 0))
        one_hot = torch.nn.functional.one_hot(y, 4).float()
        torch.testing.assert_close(soft, share * one_hot + (1 - share) * one_hot.roll(1, 0))
        shares.append(share)
    assert len(set(shares)) == 20
    assert all(0 <= share <= 1 for share in shares)
    mixed, _ = Augment(mixup=0.8)((x * 255).byte(), y, classes=4)
    assert mixed.dtype == torch.uint8


def test_cutmix_labels_follow_the_area(x, y):
    shares = []
    for batch in range(20):
        mixed, soft = Augment(cutmix=1.0)(x, y, classes=4, batch=batch)
        partner = x.roll(1, 0)
        foreign = mixed == partner
        assert torch.equal(torch.where(foreign, partner, x), mixed)
        assert (foreign == foreign[:1, :1]).all()
        place = foreign[0, 0]
        assert place.sum() == place.any(1).sum() * place.any(0).sum()
        share = float(1 - place.float().mean())
        assert float(soft[1, y[1]]) == pytest.approx(share)
        torch.testing.assert_close(soft.sum(1), torch.ones(B))
        shares.append(share)
    assert len(set(shares)) > 5


def test_both_share_the_batches_and_some_are_left_alone(x, y):
    augment = Augment(mixup=1.0, cutmix=1.0, mix_probability=0.6)
    kinds = []
    for batch in range(300):
        mixed, soft = augment(x, y, classes=4, batch=batch)
        cut = bool(((mixed == x) | (mixed == x.roll(1, 0))).all())
        kinds.append("none" if torch.equal(mixed, x) and soft.max(1).values.eq(1).all() else "cut" if cut else "up")
    for kind, expected in (("none", 0.4), ("cut", 0.3), ("up", 0.3)):
        assert kinds.count(kind) / 300 == pytest.approx(expected, abs=0.08)


def test_mixing_ends_after_its_epochs(x, y):
    augment = Augment(mixup=1.0, mix_epochs=3)
    assert augment(x, y, classes=4, epoch=2)[1].shape == (B, 4)
    after = augment(x, y, classes=4, epoch=3)
    assert torch.equal(after[0], x)
    assert torch.equal(after[1], y)


ALL = Augment(flip=0.5, crop=1, erasing=0.3, mixup=0.5, cutmix=0.5)


def test_draws_are_a_function_of_seed_epoch_and_batch(x, y):
    first = ALL(x, y, classes=4, seed=1, epoch=2, batch=3)
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state()
    again = ALL(x, y, classes=4, seed=1, epoch=2, batch=3)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(torch.get_rng_state(), before)
    for other in ({"seed": 0}, {"epoch": 1}, {"batch": 0}):
        assert not torch.equal(ALL(x, y, classes=4, **{"seed": 1, "epoch": 2, "batch": 3, **other})[0], first[0])
    with pytest.raises(ValueError, match=r"Augment: batch must lie in \[0, 2\*\*32\), got -1"):
        ALL(x, y, classes=4, batch=-1)


def test_batches_of_an_epoch(x, y):
    split = Split(x, y)
    drawn = batches(split, 30, seed=1, epoch=2)
    walk = ALL.over(drawn, classes=4, seed=1, epoch=2)
    assert len(walk) == 3
    for _ in range(2):
        for place, ((plain_x, plain_y), (mixed, soft)) in enumerate(zip(drawn, walk, strict=True)):
            wanted = ALL(plain_x, plain_y, classes=4, seed=1, epoch=2, batch=place)
            assert torch.equal(mixed, wanted[0])
            assert torch.equal(soft, wanted[1])


def test_nothing_is_done_by_default(x, y):
    assert all(a is b for a, b in zip(Augment()(x, y, classes=4), (x, y), strict=True))


def test_vectors_can_be_mixed_but_not_moved(y):
    sound = torch.rand(B, 7, 5)
    assert Augment(mixup=1.0)(sound, y, classes=4)[0].shape == sound.shape
    for name, value in (("flip", 1.0), ("crop", 1), ("erasing", 1.0), ("cutmix", 1.0)):
        with pytest.raises(ValueError, match=rf"{name} needs images \[C, H, W\] or frames .*got \[7, 5\]"):
            Augment(**{name: value})(sound, y, classes=4)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"flip": 1.1}, r"flip is 1\.1; expected in \[0, 1\]"),
        ({"crop": -1}, "crop is -1"),
        ({"padding": "edge"}, "padding is 'edge'"),
        ({"auto": "auto"}, "auto is 'auto'; expected None or one of autoaugment-cifar10,"),
        ({"operations": 0}, "operations is 0"),
        ({"magnitude": 31}, "magnitude is 31; expected 0 to 30"),
        ({"erasing": -0.1}, "erasing is"),
        ({"mixup": -1.0}, "mixup is"),
        ({"cutmix": math.inf}, "cutmix is inf"),
        ({"mix_probability": 2.0}, "mix_probability is"),
        ({"mix_epochs": -1}, "mix_epochs is"),
    ],
)
def test_settings_out_of_range(untyped, settings, says):
    with pytest.raises(ValueError, match=f"Augment: {says}"):
        Augment(**settings)


def test_what_does_not_fit_the_samples(x, y):
    with pytest.raises(ValueError, match="can be reflected by 4 pixels at most"):
        Augment(crop=5, padding="reflect")(x, y, classes=4)
    with pytest.raises(ValueError, match=r"auto='trivial' needs images of 1 or 3 channels; got \[2, 6, 5\]"):
        Augment(auto="trivial")(x, y, classes=4)


def test_torchvision_is_asked_for_by_the_name_of_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchvision.transforms", None)
    _policy.cache_clear()
    with pytest.raises(ValueError, match=r"needs torchvision.*pip install 'rheobase\[vision\]'"):
        Augment(auto="trivial").check_installed()
    Augment(auto="trivial").check((3, 32, 32))


@pytest.mark.parametrize("auto", ["autoaugment-cifar10", "autoaugment-imagenet", "randaugment", "trivial"])
@pytest.mark.parametrize("channels", [1, 3])
def test_policies_of_torchvision(auto, channels, y):
    v2 = pytest.importorskip("torchvision.transforms.v2", reason="torchvision is not installed: the extra vision")
    x = torch.rand(B, channels, 16, 16)
    before = torch.get_rng_state()
    augment = Augment(auto=auto, operations=1, magnitude=20)
    changed, _ = augment(x, y, classes=4, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert (changed.dtype, changed.shape) == (x.dtype, x.shape)
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
    assert torch.equal(augment(x, y, classes=4, seed=3)[0], changed)
    assert not torch.equal(augment(x, y, classes=4, seed=4)[0], changed)
    pixels = (x * 255).round().byte()
    assert torch.equal(augment(pixels, y, classes=4, seed=3)[0], (changed * 255).round().byte())
    kinds = (changed - pixels / 255).abs().flatten(1).amax(1)
    assert len(set(kinds.tolist())) > B // 4  # each image has a draw of its own
    kind = {"randaugment": v2.RandAugment, "trivial": v2.TrivialAugmentWide}.get(auto, v2.AutoAugment)
    assert isinstance(_policy(auto, 1, 20), kind)


def test_frozen_and_plain_for_json():
    assert Augment(**asdict(ALL)) == ALL


def test_erased_bytes_become_the_fill_as_bytes(y):
    x = torch.full((B, 3, 8, 8), 255, dtype=torch.uint8)
    erased, _ = Augment(erasing=1.0)(x, y, classes=4, fill=(0.5, 0.2, 0.0))
    assert [sorted(erased[:, c].unique().tolist()) for c in range(3)] == [[128, 255], [51, 255], [0, 255]]


def test_mixing_keeps_double_precision(y):
    x = torch.rand(B, 3, 4, 4, dtype=torch.float64)
    mixed, soft = Augment(mixup=1.0)(x, y, classes=4)
    share = (mixed - x.roll(1, 0)) / (x - x.roll(1, 0))
    assert mixed.dtype == torch.float64
    torch.testing.assert_close(share, share.flatten()[:1].expand(share.numel()).view_as(share), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(soft.sum(1), torch.ones(B))
