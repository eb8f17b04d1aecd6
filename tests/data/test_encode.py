import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from rheobase.data.encode import (
    burst,
    columns,
    delta,
    direct,
    encode,
    get_encoder,
    latency,
    list_encoders,
    log_latency,
    phase,
    poisson,
    presence,
)
from rheobase.scan.static import step_of

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
KEEPING = [name for name in list_encoders() if not get_encoder(name).scans]
"""Encoders of which every step has the shape of the image."""
SPIKING = [name for name in list_encoders() if get_encoder(name).binary]
images = arrays(np.float32, array_shapes(min_dims=1, max_dims=4, max_side=4), elements=st.floats(0, 1, width=32)).map(
    torch.from_numpy
)
steps = st.integers(1, 12)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def spike_time(spikes):
    """Step of the only spike of each pixel, -1 where there is none; fails where there are two."""
    count = spikes.sum(0)
    assert float(count.max()) <= 1
    return torch.where(count > 0, spikes.float().argmax(0), -1)


def test_presence_is_one_wherever_there_is_anything():
    x = torch.tensor([0.0, 1e-3, 0.5, 1.0])
    assert presence(x, 2).tolist() == [[0, 1, 1, 1]] * 2
    assert presence(x, 5).stride(0) == 0
    with pytest.raises(ValueError, match="T must be at least 1"):
        presence(x, 0)


# Every encoder


@pytest.mark.parametrize("name", KEEPING)
@pytest.mark.parametrize("dtype", DTYPES)
def test_time_comes_first_and_the_dtype_stays(name, dtype):
    x = torch.rand(2, 3, 4, generator=seeded()).to(dtype)
    out = encode(name, x, 5, seeded())
    assert (out.shape, out.dtype) == ((5, 2, 3, 4), dtype)


@pytest.mark.parametrize("name", SPIKING)
@given(x=images, T=steps)
def test_binary_encoders_emit_zeros_and_ones(name, x, T):
    out = encode(name, x, T, seeded())
    assert ((out == 0) | (out == 1)).all()
    assert not out[:, x == 0].any()


@pytest.mark.parametrize("name", KEEPING)
def test_only_stochastic_encoders_read_the_generator(name):
    x = torch.rand(50, generator=seeded())
    generator = seeded(1)
    first, second = encode(name, x, 8, generator), encode(name, x, 8, seeded(2))
    assert torch.equal(first, second) != get_encoder(name).stochastic
    assert torch.equal(generator.get_state(), seeded(1).get_state()) != get_encoder(name).stochastic
    assert torch.equal(first, encode(name, x, 8, seeded(1)))


@pytest.mark.parametrize("name", KEEPING)
def test_input_is_not_changed(name):
    x = torch.rand(20, generator=seeded())
    before = x.clone()
    encode(name, x, 4, seeded())
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", KEEPING)
def test_empty_batch(name):
    assert encode(name, torch.zeros(0, 1, 2), 3, seeded()).shape == (3, 0, 1, 2)


@pytest.mark.parametrize("name", KEEPING)
def test_at_least_one_step(name):
    assert encode(name, torch.ones(2), 1, seeded()).shape == (1, 2)
    with pytest.raises(ValueError, match=f"{name}: T must be at least 1 step, got 0"):
        encode(name, torch.ones(2), 0, seeded())


@pytest.mark.parametrize("name", SPIKING)
@pytest.mark.parametrize("wrong", [-0.01, 1.01, float("nan"), float("inf")])
def test_spiking_encoders_refuse_what_is_no_intensity(name, wrong):
    x = torch.tensor([0.5, wrong, 0.2])
    with pytest.raises(ValueError, match=rf"{name}: x must hold intensities in \[0, 1\], got values in .*standardised"):
        encode(name, x, 3, seeded())


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(
        ValueError,
        match="no encoder 'posson'; choose one of burst, columns, direct, latency, log_latency, phase, poisson",
    ):
        encode("posson", torch.ones(1), 1)


@pytest.mark.parametrize("name", SPIKING)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_spikes_as_single_precision_does(name, dtype):
    x = torch.rand(500, generator=seeded()).to(dtype)
    assert torch.equal(encode(name, x, 9, seeded(1)), encode(name, x.float(), 9, seeded(1)).to(dtype))


# columns


@given(x=images)
def test_columns_are_the_steps(x):
    W = x.shape[-1]
    out = encode("columns", x, W)
    assert out.shape == (W, *x.shape[:-1])
    assert out.dtype == x.dtype
    assert all(torch.equal(out[t], x[..., t]) for t in range(W))
    assert out.data_ptr() == x.data_ptr()
    encoder = get_encoder("columns")
    assert (encoder.scans, encoder.binary, encoder.stochastic) == (True, False, False)


def test_as_many_steps_as_columns():
    with pytest.raises(ValueError, match="columns: T is 4 but x has 3 columns; expected T=3"):
        columns(torch.zeros(2, 1, 5, 3), 4)
    with pytest.raises(ValueError, match="columns: T must be at least 1 step, got 0"):
        columns(torch.zeros(2, 0), 0)


# direct


@given(x=images, T=steps)
def test_direct_repeats_without_copying(x, T):
    out = direct(x, T)
    assert all(torch.equal(out[t], x) for t in range(T))
    assert out.data_ptr() == x.data_ptr()
    assert T == 1 or out.stride(0) == 0


def test_direct_takes_any_value_and_sums_gradients():
    x = torch.tensor([-3.0, 0.0, 7.0], requires_grad=True)
    direct(x, 4).sum().backward()
    assert x.grad.tolist() == [4.0, 4.0, 4.0]


def test_the_one_step_of_direct_leads_straight_to_the_image():
    x = torch.rand(2, 3, requires_grad=True)
    assert step_of(direct(x, 4)) is x


# poisson


def test_poisson_rate_is_the_intensity():
    x, T = torch.linspace(0, 1, 101), 20000
    rate = poisson(x, T, seeded()).mean(0)
    deviation = (x * (1 - x) / T).sqrt()
    assert ((rate - x).abs() <= 5 * deviation).all()
    assert (rate[0], rate[-1]) == (0, 1)


def test_poisson_dark_pixels_stay_silent_even_on_the_lowest_draw(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, dtype, device, **_: torch.zeros(shape, dtype=dtype))
    assert poisson(torch.tensor([0.0, 2**-24]), 2).tolist() == [[0, 1], [0, 1]]


def test_poisson_steps_and_pixels_are_independent():
    spikes = poisson(torch.full((100,), 0.3), 2000, seeded()) - 0.3
    scale = 0.3 * 0.7
    in_time = float((spikes[1:] * spikes[:-1]).mean()) / scale
    in_space = float((spikes[:, 1:] * spikes[:, :-1]).mean()) / scale
    assert abs(in_time) < 5 / math.sqrt(200000)
    assert abs(in_space) < 5 / math.sqrt(200000)


def test_poisson_max_rate_scales():
    rate = poisson(torch.tensor([0.5, 1.0]), 20000, seeded(), max_rate=0.2).mean(0)
    assert rate.tolist() == pytest.approx([0.1, 0.2], abs=0.015)


@given(x=images, T=steps, seed=st.integers(0, 1000))
def test_poisson_brighter_pixels_fire_whenever_darker_ones_do(x, T, seed):
    assert (poisson(x, T, seeded(seed)) >= poisson(x * 0.5, T, seeded(seed))).all()


def test_poisson_with_a_generator_leaves_the_global_one_alone():
    x = torch.rand(30, generator=seeded())
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = poisson(x, 6, seeded(5))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(poisson(x, 6, seeded(5)), first)


def test_poisson_without_a_generator_follows_the_global_one():
    x = torch.full((100,), 0.5)
    torch.manual_seed(0)
    first, second = poisson(x, 6), poisson(x, 6)
    torch.manual_seed(0)
    assert torch.equal(poisson(x, 6), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("max_rate", [0.0, 1.5, -1.0, float("nan")])
def test_poisson_refuses_a_rate_that_is_no_probability(max_rate):
    with pytest.raises(ValueError, match=rf"max_rate is a probability per step in \(0, 1\], got {max_rate}"):
        poisson(torch.ones(1), 1, max_rate=max_rate)


# latency


@given(x=images, T=steps)
def test_latency_follows_its_formula(x, T):
    time = spike_time(latency(x, T))
    expected = np.round((np.float32(1) - x.numpy()) * np.float32(T - 1))
    assert (time.numpy() == np.where(x.numpy() > 0, expected, -1)).all()


def test_latency_example():
    x = torch.tensor([1.0, 0.75, 0.5, 0.25, 1e-6, 0.0])
    assert spike_time(latency(x, 5)).tolist() == [0, 1, 2, 3, 4, -1]
    assert spike_time(latency(torch.tensor([0.5]), 2)).tolist() == [0]  # half a step: to the even one
    assert spike_time(latency(torch.tensor([0.5]), 4)).tolist() == [2]


@pytest.mark.parametrize("code", [latency, log_latency])
@given(x=images, T=steps)
def test_brighter_is_never_later(code, x, T):
    time = spike_time(code(x, T)).flatten()
    time = torch.where(time < 0, T, time)
    ranked = time[x.flatten().argsort(descending=True)]
    assert (ranked.diff() >= 0).all()


# log_latency


def test_log_latency_is_the_charging_time_of_a_leaky_integrator():
    x, T, tau, threshold = torch.linspace(0.25, 1, 301, dtype=torch.float64), 4000, 800.0, 0.2
    time = spike_time(log_latency(x, T, tau, threshold))
    membrane = x * (1 - torch.exp(-torch.arange(T)[:, None] / tau))
    crossing = (membrane >= threshold).double().argmax(0)
    assert ((crossing - time) >= 0).all()  # the first step at or after the crossing, against the nearest step
    assert ((crossing - time) <= 1).all()


@given(x=images, T=steps, tau=st.floats(0.1, 50), threshold=st.floats(0.01, 0.99))
def test_log_latency_fires_once_above_threshold_and_never_below(x, T, tau, threshold):
    count = log_latency(x, T, tau, threshold).sum(0)
    assert torch.equal(count == 1, x > threshold)
    assert torch.equal(count == 0, x <= threshold)


def test_log_latency_clips_to_the_last_step():
    barely = torch.tensor([0.2, 0.21, 1.0], dtype=torch.float64)
    barely[0] = np.nextafter(0.2, 1)
    assert spike_time(log_latency(barely, 6, tau=5.0, threshold=0.2)).tolist() == [5, 5, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": 0.0}, "tau is a time constant in steps and must be positive, got 0.0"),
        ({"threshold": 0.0}, r"threshold must lie in \(0, 1\).*got 0.0"),
        ({"threshold": 1.0}, r"threshold must lie in \(0, 1\).*got 1.0"),
    ],
)
def test_log_latency_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        log_latency(torch.ones(1), 3, **options)


# phase


def test_phase_fires_the_bits_of_a_byte():
    byte = torch.arange(256)
    spikes = phase(byte / 255, 16)
    bits = [[int(bit) for bit in f"{b:08b}"] for b in range(256)]
    assert spikes[:8].T.tolist() == bits
    assert torch.equal(spikes[8:], spikes[:8])
    weights = 2.0 ** -torch.arange(1, 9)
    assert torch.equal(weights @ spikes[:8], byte / 256)


@given(x=images, T=steps, phases=st.integers(1, 16))
def test_a_period_of_phases_tells_the_intensity(x, T, phases):
    spikes = phase(x, phases + T, phases)
    weights = 2.0 ** (phases - 1 - torch.arange(phases, dtype=torch.float64))
    level = torch.tensordot(weights, spikes[:phases].double(), dims=1)
    assert ((level / (2**phases - 1) - x).abs() <= 0.5 / (2**phases - 1) + 1e-6).all()
    assert torch.equal(spikes[phases:], phase(x, T, phases))


@pytest.mark.parametrize("phases", [0, 17])
def test_phase_refuses_a_number_of_digits(phases):
    with pytest.raises(ValueError, match=f"binary digits from 1 to 16, got {phases}"):
        phase(torch.ones(1), 4, phases)


# burst


def test_burst_example():
    spikes = burst(torch.tensor([1.0, 0.5, 0.2, 0.0]), 20, n_max=4, t_min=2, t_max=6)
    times = [row.nonzero()[:, 0].tolist() for row in spikes.T]
    assert times == [[0, 2, 4, 6], [0, 4], [0], []]


@given(x=images, T=st.integers(1, 40), n_max=st.integers(1, 6), t_min=st.integers(1, 4), longer=st.integers(0, 5))
def test_burst_follows_its_formula(x, T, n_max, t_min, longer):
    spikes = burst(x, T, n_max, t_min, t_min + longer).flatten(1).T
    for value, row in zip(x.flatten().numpy(), spikes, strict=True):
        interval = int(np.ceil(np.float32(t_min + longer) - np.float32(longer) * value))
        count = int(np.ceil(np.float32(n_max) * value))
        assert row.nonzero()[:, 0].tolist() == [k * interval for k in range(count) if k * interval < T]


def test_burst_fits_by_default():
    x = torch.linspace(0, 1, 50)
    assert torch.equal(burst(x, 10).sum(0), (5 * x).ceil())
    assert torch.equal(burst(x, 32).sum(0), (5 * x).ceil())


@pytest.mark.parametrize("options", [{"n_max": 0}, {"t_min": 0}, {"t_min": 4, "t_max": 3}])
def test_burst_refuses(options):
    with pytest.raises(ValueError, match="expected n_max >= 1 and 1 <= t_min <= t_max, got n_max="):
        burst(torch.ones(1), 3, **options)


# delta


def test_delta_example():
    signal = torch.tensor([0.0, 0.4, 0.6, 1.0, 1.1, 0.9, 0.4, -2.0])
    spikes = delta(signal, 0.5)
    assert spikes.shape == (8, 2)
    assert spikes[:, 1].tolist() == [0, 0, 1, 0, 1, 0, 0, 0]
    assert spikes[:, 0].tolist() == [0, 0, 0, 0, 0, 0, 1, 1]


@given(
    x=arrays(np.float64, array_shapes(min_dims=1, max_dims=3, max_side=8), elements=st.floats(-9, 9)),
    threshold=st.floats(0.1, 3),
)
def test_delta_keeps_the_signal_within_the_threshold_of_what_was_sent(x, threshold):
    spikes = delta(torch.from_numpy(x), threshold)
    assert not (spikes[:, 0] * spikes[:, 1]).any()
    assert not spikes[0].any()
    sent = x[0].copy()
    for now, (off, on) in zip(x, spikes.numpy(), strict=True):
        assert ((now - sent)[on > 0] >= threshold).all()
        assert ((now - sent)[off > 0] <= -threshold).all()
        sent = np.where(on + off > 0, now, sent)
        assert (np.abs(now - sent) < threshold).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_delta_keeps_dtype_shape_and_input(dtype):
    x = torch.randn(6, 3, 2, generator=seeded()).to(dtype)
    before = x.clone()
    spikes = delta(x, 0.5)
    assert (spikes.dtype, spikes.shape) == (dtype, (6, 2, 3, 2))
    assert torch.equal(x, before)
    assert torch.equal(spikes, delta(x.double(), 0.5).to(dtype))
    assert delta(x[:0], 0.5).shape == (0, 2, 3, 2)


def test_delta_refuses():
    with pytest.raises(ValueError, match="threshold must be positive, got 0"):
        delta(torch.ones(2), 0.0)
    with pytest.raises(ValueError, match="NaN or Inf"):
        delta(torch.tensor([0.0, float("nan")]), 1.0)
