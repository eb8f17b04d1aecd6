from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rheobase.data.dataset import Dataset, Split, batches, hold_out


def numbered(size, classes=3):
    """A split whose samples carry their own index, so that what happens to each can be followed."""
    return Split(torch.arange(size, dtype=torch.float32).view(-1, 1), torch.arange(size) % classes)


def indices(split):
    return split.samples().flatten().long().tolist()


def order(walk):
    return [int(value) for x, _ in walk for value in x.flatten()]


@pytest.fixture
def colours():
    generator = torch.Generator().manual_seed(0)
    train, test = (torch.randint(0, 256, (n, 3, 5, 4), generator=generator, dtype=torch.uint8) for n in (20, 8))
    return Dataset(
        name="colours",
        train=Split(train, torch.arange(20) % 2, 255),
        test=Split(test, torch.arange(8) % 2, 255),
        classes=("even", "odd"),
        mean=(0.1, 0.5, 0.6),
        std=(0.2, 0.3, 0.4),
        source="made here",
        licence="none",
        citation="none",
    )


# Split


def test_intensities_scale_the_asked_samples_only(colours):
    split = colours.train
    index = torch.tensor([7, 0, 7])
    x = split.intensities(index)
    assert x.dtype == torch.float32
    assert torch.equal(x, split.x[index].float() / 255)
    assert torch.equal(split.intensities(slice(2, 5)), split.x[2:5].float() / 255)
    assert split.intensities().shape == split.x.shape


def test_intensities_of_floats_leave_the_stored_samples_alone():
    split = Split(torch.full((4, 1), 3.0), torch.zeros(4, dtype=torch.int64), full_scale=6.0)
    assert split.intensities().unique().tolist() == [0.5]
    assert split.x.unique().tolist() == [3.0]


def test_statistics_per_channel(colours):
    mean, std = colours.train.statistics()
    x = colours.train.x.numpy() / 255
    assert mean.tolist() == pytest.approx(x.mean((0, 2, 3)))
    assert std.tolist() == pytest.approx(x.std((0, 2, 3)))


def test_statistics_of_many_samples():
    x = torch.randint(0, 17, (20001, 2, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    mean, std = Split(x, torch.zeros(len(x), dtype=torch.int64), 16).statistics()
    assert mean.tolist() == pytest.approx((x.numpy() / 16).mean((0, 2)))
    assert std.tolist() == pytest.approx((x.numpy() / 16).std((0, 2)))


def test_split_says_what_it_is(colours):
    assert repr(colours.train) == "Split(20 samples of [3, 5, 4], torch.uint8, full_scale=255)"


@pytest.mark.parametrize(
    ("x", "y", "full_scale", "message"),
    [
        (torch.zeros(4, 1, dtype=torch.float64), torch.zeros(4, dtype=torch.int64), 1, "x must be uint8 or float32"),
        (torch.zeros(4), torch.zeros(4, dtype=torch.int64), 1, r"\[N, C, ...\], got torch.float32 \[4\]"),
        (torch.zeros(4, 1), torch.zeros(3, dtype=torch.int64), 1, r"y must be int64 of shape \[4\].*got .* \[3\]"),
        (torch.zeros(4, 1), torch.zeros(4), 1, "y must be int64.*got torch.float32"),
        (torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64), 0, "full_scale must be positive, got 0"),
    ],
)
def test_split_refuses(x, y, full_scale, message):
    with pytest.raises(ValueError, match=message):
        Split(x, y, full_scale)


# Dataset


def test_standardise_uses_the_statistics_of_each_channel(colours):
    x = colours.train.intensities()
    expected = (x.numpy() - np.array(colours.mean)[:, None, None]) / np.array(colours.std)[:, None, None]
    np.testing.assert_allclose(colours.standardise(x).numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_standardise_keeps_the_dtype(colours, dtype):
    assert colours.standardise(colours.test.intensities().to(dtype)).dtype == dtype


def test_standardise_passes_gradients(colours):
    x = colours.test.intensities().requires_grad_()
    colours.standardise(x).sum().backward()
    assert x.grad[0, :, 0, 0].tolist() == pytest.approx([1 / std for std in colours.std])


def test_standardise_refuses_other_channels(colours):
    with pytest.raises(ValueError, match=r"colours has 3 channel.s. on axis 1, got shape \[6, 2, 3, 5\].*before it is"):
        colours.standardise(torch.zeros(6, 2, 3, 5))


def test_encode_standardises_for_real_values_only(colours):
    x = colours.test.intensities()
    assert torch.equal(colours.encode(x, 3)[2], colours.standardise(x))
    spikes = colours.encode(x, 400, "poisson", torch.Generator().manual_seed(0))
    assert float((spikes.mean(0) - x).abs().max()) < 0.13
    with pytest.raises(ValueError, match="no encoder 'morse'; choose one of burst, columns, direct"):
        colours.encode(x, 3, "morse")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("only",)}, "train has label 1, but the labels of 1 classes are 0 to 0"),
        ({"mean": (0.1,)}, "mean and std must hold 3 finite numbers"),
        ({"std": (0.1, 0.0, 0.1)}, "std > 0"),
        ({"std": (0.1, float("nan"), 0.1)}, "finite"),
        ({"test": numbered(4)}, r"train samples are \[3, 5, 4\], test samples \[1\]"),
    ],
)
def test_dataset_refuses(colours, change, message):
    with pytest.raises(ValueError, match=message):
        replace(colours, **change)


# batches


def test_batches_are_intensities_with_their_labels(colours):
    for x, y in batches(colours.train, 6, seed=2):
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
        for image, label in zip(x, y, strict=True):
            same = (colours.train.intensities() == image).flatten(1).all(1).nonzero().item()
            assert colours.train.y[same] == label


@given(
    size=st.integers(1, 40), batch_size=st.integers(1, 45), seed=st.integers(0, 2**32 - 1), epoch=st.integers(0, 10**6)
)
def test_an_epoch_shows_every_sample_once(size, batch_size, seed, epoch):
    walk = batches(numbered(size), batch_size, seed=seed, epoch=epoch)
    sizes = [len(y) for _, y in walk]
    assert sorted(order(walk)) == list(range(size))
    assert len(sizes) == len(walk)
    assert set(sizes[:-1]) <= {batch_size}


def test_order_is_a_function_of_seed_and_epoch():
    def shown(seed, epoch):
        return tuple(order(batches(numbered(50), 8, seed=seed, epoch=epoch)))

    assert shown(3, 1) == shown(3, 1)
    assert len({shown(seed, epoch) for seed in range(5) for epoch in range(5)}) == 25


def test_order_never_changes_between_versions():
    assert order(batches(numbered(10), 4, seed=3, epoch=1)) == [5, 1, 3, 0, 6, 9, 8, 7, 2, 4]


def test_batches_can_be_walked_again():
    walk = batches(numbered(20), 8)
    assert order(walk) == order(walk)


def test_batches_and_the_global_random_state_do_not_meet():
    torch.manual_seed(0)
    np.random.seed(0)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = order(batches(numbered(30), 7))
    hold_out(numbered(30), 0.2, seed=0)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()
    torch.manual_seed(1)
    np.random.seed(1)
    assert order(batches(numbered(30), 7)) == first


def test_stored_order_and_dropped_rest():
    assert order(batches(numbered(10), 4, shuffle=False)) == list(range(10))
    walk = batches(numbered(10), 4, shuffle=False, drop_last=True)
    assert (len(walk), order(walk)) == (2, list(range(8)))


def test_batches_move_to_the_device():
    devices = {tensor.device.type for batch in batches(numbered(4), 2, device="meta") for tensor in batch}
    assert devices == {"meta"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": 11, "drop_last": True}, "leaves no batch of 10 samples"),
        ({"batch_size": 2, "seed": -1}, r"seed must lie in \[0, 2\*\*32\), got -1"),
        ({"batch_size": 2, "epoch": 2**32}, "epoch must lie in"),
    ],
)
def test_batches_refuse(options, message):
    with pytest.raises(ValueError, match=message):
        batches(numbered(10), **options)


# hold_out


@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=60),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32 - 1),
)
def test_hold_out_parts_the_split_by_class(labels, fraction, seed):
    size, wanted = len(labels), round(fraction * len(labels))
    split = Split(torch.arange(size, dtype=torch.float32).view(-1, 1), torch.tensor(labels))
    if not 0 < wanted < size:
        with pytest.raises(ValueError, match="fraction"):
            hold_out(split, fraction, seed)
        return
    kept, held = hold_out(split, fraction, seed)
    assert len(held) == wanted
    assert indices(kept) == sorted(set(range(size)) - set(indices(held)))
    assert indices(held) == sorted(indices(held))
    for part in (kept, held):
        assert torch.equal(part.y, split.y[torch.tensor(indices(part))])
    for label in set(labels):
        assert abs((held.y == label).sum() - labels.count(label) * wanted / size) < 1


def test_hold_out_is_fixed_by_its_seed():
    first = [indices(hold_out(numbered(60), 0.25, seed)[1]) for seed in range(20)]
    again = [indices(hold_out(numbered(60), 0.25, seed)[1]) for seed in range(20)]
    assert first == again
    assert len(set(map(tuple, first))) == 20


def test_hold_out_gives_every_sample_its_chance():
    times = np.zeros(40)
    for seed in range(200):
        times[indices(hold_out(numbered(40, classes=2), 0.5, seed)[1])] += 1
    assert times.min() > 60  # expected 100, standard deviation 7
    assert times.max() < 140


def test_hold_out_keeps_the_scale(colours):
    for part in hold_out(colours.train, 0.3, seed=0):
        assert (part.full_scale, part.x.dtype) == (255, torch.uint8)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan"), 0.04])
def test_hold_out_refuses(fraction):
    with pytest.raises(ValueError, match=f"leave both parts at least one of 10 samples, got {fraction}"):
        hold_out(numbered(10), fraction, seed=0)


def test_a_part_of_a_part_shares_the_samples():
    split = numbered(20)
    kept, _ = hold_out(split, 0.25, seed=0)
    again, _ = hold_out(kept, 0.2, seed=1)
    assert again.x is split.x
    assert torch.equal(again.samples(), split.x[torch.tensor(indices(again))])
    assert torch.equal(again.select(torch.tensor([2, 0])).samples(), again.samples()[[2, 0]])
    for part in (kept, again):
        mean, deviation = part.statistics()
        values = part.intensities().double()
        assert mean.item() == pytest.approx(values.mean().item())
        assert deviation.item() == pytest.approx(values.std(correction=0).item())


# Sequences


def frames(T=3, count=4):
    x = torch.arange(count * T * 2).view(count, T, 2).byte()
    return Split(x, torch.arange(count) % 2)


def test_sequences_only_put_time_first():
    data = Dataset("frames", frames(), frames(), ("a", "b"), (), (), "", "", "", T=3)
    x, _ = next(iter(batches(data.train, 2, shuffle=False)))
    assert torch.equal(data.encode(x, 3), data.train.x[:2].float().transpose(0, 1))
    assert data.sample_shape == (2,)
    with pytest.raises(ValueError, match=r"sequences of T=3 steps.*got T=4 and encoder 'direct'"):
        data.encode(x, 4)
    with pytest.raises(ValueError, match="got T=3 and encoder 'poisson'"):
        data.encode(x, 3, "poisson")


@pytest.mark.parametrize(("T", "mean"), [(2, ()), (3, (0.5,))])
def test_sequences_of_another_shape_or_with_statistics_raise(T, mean):
    with pytest.raises(ValueError, match=r"must be \[T, C, \.\.\.\] with T="):
        Dataset("frames", frames(), frames(), ("a", "b"), mean, mean, "", "", "", T=T)
