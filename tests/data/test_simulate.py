import hashlib
import pickle

import numpy as np
import pytest
import torch

from rheobase.data import load
from rheobase.data.simulate import MovingImageSensor, Path, jitter, saccades, translate

PLAIN = {"mismatch": 0.0, "refractory_us": 0, "noise_hz": 0.0}


def pictures(count, side=12):
    return np.random.default_rng(0).integers(0, 256, (count, side, side), dtype=np.uint8)


def counted(events, T, duration):
    width, height = events.sensor
    counts = np.zeros((T, 2, height, width), np.int64)
    np.add.at(counts, (events.t * T // duration, events.p.astype(int), events.y, events.x), 1)
    return np.minimum(counts, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("options", "T"),
    [
        ({}, 10),
        ({"noise_hz": 50.0, "mismatch": 0.3}, 7),
        ({"sensor": (10, 9), "path": jitter(), "step_us": 700}, 3),  # the image does not fit
        ({"theta": 0.005, "refractory_us": 0}, 2),  # more events than the scratch of the kernel, and than a byte
        ({"path": translate(-3.0, 1.5)}, 1),
    ],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_frames_are_the_recordings_counted(options, T, threads):
    sensor = MovingImageSensor(**{"sensor": (18, 16), **options})
    images, seeds = pictures(3), [5, 0, 2**32 - 1]
    frames = sensor.frames(images, T, seeds, threads)
    assert (frames.shape[1:], frames.dtype) == ((T, 2, *sensor.sensor[::-1]), np.uint8)
    for image, seed, made in zip(images, seeds, frames, strict=True):
        events = sensor.record(image / 255, seed)
        assert len(events) > 0
        assert (made == counted(events, T, sensor.path.duration_us)).all()


def test_more_images_than_a_chunk():
    sensor, images = MovingImageSensor(sensor=(8, 8), noise_hz=100.0), pictures(300, side=4)
    frames = sensor.frames(images, 2, range(300))
    assert (frames[299] == counted(sensor.record(images[299] / 255, 299), 2, 300_000)).all()


def test_events_of_one_time_stand_by_row_column_and_polarity():
    events = MovingImageSensor(sensor=(18, 16), theta=0.05).record(pictures(1)[0] / 255, 0)
    order = np.lexsort((events.p, events.x, events.y, events.t))
    assert (order == np.arange(len(events))).all()
    assert (np.diff(events.t) == 0).any()
    assert events.unit == "us"
    assert 0 <= events.t[0] <= events.t[-1] < 300_000


def test_the_same_bits_on_every_machine():
    sensor = MovingImageSensor(noise_hz=5.0)
    events = sensor.record((np.arange(28 * 28).reshape(28, 28) * 37 % 256) / 255, 7)
    digest = hashlib.sha256(events.array.tobytes()).hexdigest()
    assert (len(events), digest[:16]) == (12109, "ead2f043d1e93471")


def test_an_edge_gives_the_events_of_its_contrast():
    """A white square goes 3 pixels right: 3 columns brighten, 3 darken, each by ln((1 + eps) / eps)."""
    path = Path(((0.0, 0.0), (3.0, 0.0)), steady=True)
    sensor = MovingImageSensor(sensor=(20, 10), path=path, theta=0.4, eps=0.1, step_us=50, **PLAIN)
    events = sensor.record(np.ones((4, 6)), 0)
    expected = int(np.log(1.1 / 0.1) / 0.4)
    counts = counted(events, 1, 100_000)[0]
    assert set(np.unique(counts)) == {0, expected}
    assert counts.sum() == 2 * 4 * 3 * expected
    assert [side.any(axis=0).nonzero()[0].tolist() for side in counts] == [[7, 8, 9], [13, 14, 15]]


def test_events_have_the_times_of_their_crossings():
    """Below a front that moves a pixel in 100 ms, I = t / 100 ms, and L crosses at I = eps (exp(j theta) - 1)."""
    sensor = MovingImageSensor(sensor=(8, 4), path=translate(2.0, 0.0, 200_000), theta=0.4, step_us=20, **PLAIN)
    events = sensor.record(np.ones((2, 2)), 0)
    risen = events[events.p & (events.x == 5) & (events.y == 1)]
    crossings = 0.1 * (np.exp(0.4 * np.arange(1, 6)) - 1)
    assert len(risen) == 5
    # A position is rounded to 1/1024 of a pixel, that is 98 us.
    assert np.abs(risen.t - (100_000 + 100_000 * crossings)).max() < 150


def test_a_closed_path_leaves_no_contrast_behind():
    counts = counted(MovingImageSensor(**PLAIN).record(pictures(1, 28)[0] / 255, 0), 1, 300_000)[0].astype(int)
    assert counts.sum() > 1000
    assert np.abs(counts[1] - counts[0]).max() <= 1


def test_the_triangle_has_three_straight_legs():
    path = saccades(6.0)
    at = path.positions(np.arange(0, 300_001, 10_000))
    assert path.duration_us == 300_000
    assert (at[0] == at[-1]).all()
    corners = at[[0, 10, 20]]
    sides = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
    assert sides[0] == pytest.approx(sides[1])
    assert np.ptp(at, axis=0).tolist() == [6.0, 6.0]
    first = at[:11] - at[0]
    assert np.cross(np.c_[first, np.zeros(11)], [*first[-1], 0]).max() == pytest.approx(0)


def test_a_leg_starts_and_ends_slowly_unless_steady():
    times = np.array([0, 25_000, 50_000, 75_000, 100_000])
    assert Path(((0.0, 0.0), (8.0, 0.0))).positions(times)[:, 0].tolist() == [0, 1, 4, 7, 8]
    assert translate(8.0, -4.0).positions(times).tolist() == [[-4, 2], [-2, 1], [0, 0], [2, -1], [4, -2]]


def test_jitter_is_fixed_by_its_seed():
    assert jitter(seed=1) == jitter(seed=1) != jitter(seed=2)
    assert jitter(1.0, count=5).duration_us == 125_000
    assert np.abs(jitter(1.0, count=50).waypoints).max() <= 0.5


def test_nothing_moves_nothing_fires():
    sensor = MovingImageSensor(noise_hz=0.0)
    assert len(sensor.record(np.zeros((28, 28)), 0)) == 0
    assert len(MovingImageSensor(path=translate(0.0, 0.0), noise_hz=0.0).record(pictures(1)[0] / 255, 0)) == 0


def test_noise_is_poisson_everywhere():
    sensor = MovingImageSensor(noise_hz=20.0)
    expected = 20 * 34 * 34 * 0.3
    counts = np.array([len(sensor.record(np.zeros((28, 28)), seed)) for seed in range(60)])
    assert counts.mean() == pytest.approx(expected, abs=5 * np.sqrt(expected / 60))
    assert 0.5 < counts.var() / expected < 1.8
    events = sensor.record(np.zeros((28, 28)), 3)
    for values, bins in ((events.t, 300_000), (events.x, 34), (events.y, 34), (events.p, 2)):
        assert values.mean() / bins == pytest.approx(0.5 if bins > 2 else 0.25, abs=0.03)


def test_noise_is_of_the_image_and_mismatch_of_the_sensor():
    image = pictures(1)[0] / 255
    quiet = MovingImageSensor(noise_hz=0.0)
    assert (quiet.record(image, 0).array == quiet.record(image, 1).array).all()
    other = MovingImageSensor(noise_hz=0.0, seed=1)
    assert len(quiet.record(image, 0)) != len(other.record(image, 0))
    noisy = MovingImageSensor(noise_hz=5.0)
    assert (noisy.record(image, 4).array == noisy.record(image, 4).array).all()
    assert len(noisy.record(image, 4)) != len(noisy.record(image, 5))
    assert np.isin(quiet.record(image, 0).array, noisy.record(image, 4).array).all()


def test_a_pixel_rests_after_an_event():
    image = pictures(1)[0] / 255
    free, resting = (
        MovingImageSensor(theta=0.1, mismatch=0.0, noise_hz=0.0, refractory_us=us).record(image, 0) for us in (0, 3000)
    )
    assert np.isin(resting.array, free.array).all()
    assert len(resting) < len(free)
    for pixel in range(34 * 34):
        times = resting.t[resting.y * 34 + resting.x.astype(int) == pixel]
        assert len(times) < 2 or np.diff(times).min() >= 3000


def test_a_set_of_images_becomes_a_set_of_recordings():
    sensor, images = MovingImageSensor(), pictures(4)
    found = pickle.loads(pickle.dumps(sensor.recordings(images, torch.arange(4), first_seed=10)))
    assert (found[3].array == sensor.record(images[3] / 255, 13).array).all()
    keys = {
        made.key
        for made in (
            found,
            sensor.recordings(images, torch.arange(4)),
            sensor.recordings(images[::-1], torch.arange(4), first_seed=10),
            MovingImageSensor(theta=0.5).recordings(images, torch.arange(4), first_seed=10),
        )
    }
    assert len(keys) == 4


def test_every_image_has_a_label(untyped):
    with pytest.raises(ValueError, match="4 images, but 3 labels"):
        MovingImageSensor().recordings(pictures(4), torch.arange(3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sensor": (0, 4)}, r"expected sensor, width and height in \[1, 65536\], got sensor=\(0, 4\)"),
        ({"theta": 0.0}, "expected theta.*got theta=0.0"),
        ({"eps": float("nan")}, "expected eps.*got eps=nan"),
        ({"mismatch": -0.1}, "expected mismatch.*got mismatch=-0.1"),
        ({"noise_hz": float("inf")}, "expected noise_hz.*got noise_hz=inf"),
        ({"refractory_us": -1}, "expected refractory_us >= 0, got"),
        ({"step_us": 0}, "expected step_us >= 1, got"),
        ({"seed": -1}, "expected seed"),
        ({"path": translate(1.0, 1.0, 2**30 + 1)}, "expected path, at most"),
    ],
)
def test_a_sensor_says_what_is_wrong_with_it(options, message):
    with pytest.raises(ValueError, match=message):
        MovingImageSensor(**options)


def test_wrong_images_and_seeds_are_named():
    sensor = MovingImageSensor()
    with pytest.raises(ValueError, match=r"record: expected an image \[H, W\] of intensities in \[0, 1\], got .* 2\]"):
        sensor.record(np.full((3, 3), 2.0), 0)
    with pytest.raises(ValueError, match="seed must lie"):
        sensor.record(np.zeros((3, 3)), -1)
    with pytest.raises(ValueError, match=r"T >= 1, got uint8 .* and T=0"):
        sensor.frames(pictures(1), 0, [0])
    with pytest.raises(ValueError, match=r"expected 2 seeds .* got 1 in 0 \.\. 0"):
        sensor.frames(pictures(2), 1, [0])
    with pytest.raises(ValueError, match="one per image, got 1 in -1"):
        sensor.frames(pictures(1), 1, [-1])
    with pytest.raises(ValueError, match="two or more waypoints"):
        Path(((0.0, 0.0),))


def test_digits_give_as_many_events_as_a_real_recording():
    """A real N-MNIST sample has 4325 events in 0.31 s on 34 x 34."""
    try:
        images = load("mnist").train.x[:100, 0].numpy()
    except FileNotFoundError:
        pytest.skip("MNIST is not on this machine: RHEOBASE_DATA")
    frames = MovingImageSensor().frames(images, 10, range(100))
    events = frames.sum(axis=(1, 2, 3, 4), dtype=np.int64)
    assert 3500 < events.mean() < 4500
    assert 0.45 < frames[:, :, 1].sum(dtype=np.int64) / events.sum() < 0.55
