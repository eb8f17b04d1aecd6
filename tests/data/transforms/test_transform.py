import pickle

import numpy as np
import pytest

from rheobase.data import (
    CenterCrop,
    Compose,
    Crop,
    Cutout,
    Denoise,
    Downsample,
    DownsampleTime,
    Drop,
    DropByArea,
    DropByTime,
    Events,
    FlipPolarity,
    FlipTime,
    FlipX,
    FlipY,
    JitterSpace,
    JitterTime,
    RandomCrop,
    RandomCutout,
    RandomRotate,
    RandomShift,
    Refractory,
    Rotate,
    Shift,
    ToFrames,
    UniformNoise,
    sample_generator,
)
from rheobase.data.transforms.transform import happens

FIXED = (
    CenterCrop(4, 3),
    Crop(1, 1, 4, 3),
    Cutout(1, 1, 3, 2),
    Denoise(500),
    Downsample(1.5),
    Downsample((2, 1), merge=100),
    DownsampleTime(1000, merge=True),
    FlipPolarity(),
    FlipTime(polarity=False),
    FlipX(),
    FlipY(),
    Refractory(1000),
    Rotate(30.0),
    Shift(2, -1, wrap=True),
)
RANDOM = (
    Drop(0.5),
    DropByArea(0.5),
    DropByTime(0.3),
    FlipPolarity(0.5),
    FlipTime(probability=0.5),
    FlipX(0.5),
    FlipY(0.5),
    JitterSpace(1.0),
    JitterTime(500.0),
    RandomCrop(4, 3),
    RandomCutout(4, 3),
    RandomRotate(40.0),
    RandomShift(2, wrap=True),
    UniformNoise(50.0),
)


def events_of(N=300, seed=0):
    random = np.random.default_rng(seed)
    columns = np.sort(random.integers(0, 10**5, N)), random.integers(9, size=N), random.integers(6, size=N)
    return Events.of(*columns, random.integers(2, size=N), (9, 6), "us")


def same(a, b):
    return a.sensor == b.sensor and a.unit == b.unit and np.array_equal(a.array, b.array)


@pytest.mark.parametrize("transform", [*FIXED, *RANDOM], ids=repr)
def test_transforms_are_values_that_change_nothing(transform):
    events, state = events_of(), np.random.get_state()[1].copy()
    before = events.array.copy()
    events.array.setflags(write=False)
    again = pickle.loads(pickle.dumps(transform))
    assert again == transform
    assert hash(again) == hash(transform)
    assert eval(repr(transform)) == transform
    made = [one(events, sample_generator(1, 2, 3)) for one in (transform, again)]
    assert same(*made)
    assert np.array_equal(events.array, before)
    assert np.array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize("transform", [*FIXED, *RANDOM], ids=repr)
@pytest.mark.parametrize("N", [0, 1])
def test_transforms_take_empty_recordings(transform, N):
    made = transform(events_of(N), sample_generator(0))
    assert len(made) <= N
    assert made.sensor == transform(events_of(), sample_generator(0)).sensor


@pytest.mark.parametrize("transform", FIXED, ids=repr)
def test_fixed_transforms_need_no_generator(transform):
    generator = sample_generator(0)
    state = str(generator.bit_generator.state)
    assert same(transform(events_of()), transform(events_of(), generator))
    assert str(generator.bit_generator.state) == state


@pytest.mark.parametrize("transform", RANDOM, ids=repr)
def test_random_transforms_need_a_generator(transform):
    with pytest.raises(ValueError, match="is random and got no generator"):
        transform(events_of())
    results = [transform(events_of(), sample_generator(0, 0, k)) for k in range(20)]
    assert not all(same(results[0], other) for other in results[1:])


def test_a_pipeline_is_its_steps_in_turn():
    pipeline = Compose((RandomCrop(5, 5), Drop(0.5), ToFrames(4)))
    generator = sample_generator(7)
    step = Drop(0.5)(RandomCrop(5, 5)(events_of(), generator), generator)
    assert np.array_equal(pipeline(events_of(), sample_generator(7)), ToFrames(4)(step))
    assert pipeline == Compose((RandomCrop(5, 5), Drop(0.5), ToFrames(4)))
    assert pickle.loads(pickle.dumps(pipeline)) == pipeline
    assert hash(eval(repr(pipeline))) == hash(pipeline)
    assert pipeline != Compose((Drop(0.5), RandomCrop(5, 5), ToFrames(4)))
    assert same(Compose(())(events_of()), events_of())


def test_only_the_last_step_makes_arrays():
    with pytest.raises(
        ValueError, match=r"step 1, FlipX\(probability=1.0\), takes events but step 0, ToFrames.* ndarray"
    ):
        Compose((ToFrames(4), FlipX()))(events_of())


def test_generators_differ_by_seed_epoch_and_sample():
    draws = [sample_generator(*key).integers(2**62) for key in [(0,), (1,), (0, 1), (0, 0, 1), (1, 0, 0)]]
    assert len(set(draws)) == 4
    assert draws[1] == draws[4]
    with pytest.raises(ValueError, match="must not be negative, got 0, -1 and 0"):
        sample_generator(0, -1)


def test_something_happens_as_often_as_it_should():
    generator = sample_generator(0)
    assert sum(happens("", 0.3, generator) for _ in range(1000)) == pytest.approx(300, abs=60)
    assert not any(happens("", 0, generator) for _ in range(100))
    assert happens("", 1, None)
    with pytest.raises(ValueError, match=r"flip_x: probability must lie in \[0, 1\], got 1.5"):
        FlipX(1.5)(events_of())
