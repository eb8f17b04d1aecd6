"""The look-up-table engines against whole numbers, and to the bit against a slow reference of another make."""

import itertools
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from rheobase.lab.cost.h2learn import (
    FORMATS,
    additions_per_synapse,
    best_fusion,
    forward_engine,
    quantise,
    weight_update_engine,
)

pytestmark = pytest.mark.usefixtures("one_thread")

FUSIONS = (1, 2, 3, 4, 5, 8, 10, 12, "2x4")
REALS = [mode for mode in FORMATS if mode != "int8"]


def rounded(letter):
    """Rounding of an exact sum of two numbers to half (e) or single (f) precision, by the struct module."""
    return lambda x: struct.unpack(letter, struct.pack(letter, x))[0]


TABLE = {"fp16": rounded("e"), "fp16-fp32acc": rounded("e"), "fp32": rounded("f"), "int8": int}
SUM = {"fp16": rounded("e"), "fp16-fp32acc": rounded("f"), "fp32": rounded("f"), "int8": int}


def table(v, fl, first=lambda e: (e & -e).bit_length() - 1):
    """T[e] from T without its first element; the first is the lowest bit unless said otherwise."""
    t = [0.0]
    for e in range(1, 1 << len(v)):
        k = first(e)
        t.append(fl(t[e ^ (1 << k)] + v[k]))
    return t


def slow_sum(values, bits, mode, g, **order):
    """One output: values and bits are lists of the reduction axis, in order."""
    fl, accumulate = TABLE[mode], SUM[mode]
    width = 8 if g == "2x4" else g
    total = 0.0
    for start in range(0, len(values), width):
        v, b = values[start : start + width], bits[start : start + width]
        v, b = v + [0.0] * (width - len(v)), b + [0] * (width - len(b))
        if g == "2x4":
            halves = [(table(v[k : k + 4], fl), b[k : k + 4]) for k in (0, 4)]
            low, high = (t[sum(bit << k for k, bit in enumerate(part))] for t, part in halves)
            found = fl(low + high)
        else:
            found = table(v, fl, **order)[sum(bit << k for k, bit in enumerate(b))]
        total = accumulate(total + found)
    return total


def places(shape, weight, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    """For each output position its coordinates; `seen(c, ky, kx, y, x)` is the input's place, None in the border."""
    H, W = shape[-2:]
    rows = (H + 2 * padding[0] - dilation[0] * (weight[2] - 1) - 1) // stride[0] + 1
    columns = (W + 2 * padding[1] - dilation[1] * (weight[3] - 1) - 1) // stride[1] + 1

    def seen(ky, kx, y, x):
        at = y * stride[0] - padding[0] + ky * dilation[0], x * stride[1] - padding[1] + kx * dilation[1]
        return at if 0 <= at[0] < H and 0 <= at[1] < W else None

    return rows, columns, seen


def slow_forward(spikes, weight, mode, g, groups=1, **geometry):
    """The forward engine of a convolution `[T, B, C, H, W]`, one output after another."""
    T, B = spikes.shape[:2]
    N, C, KY, KX = weight.shape
    rows, columns, seen = places(spikes.shape, weight.shape, **geometry)
    w = weight.to(FORMATS[mode][0]).tolist()
    out = torch.zeros(T, B, N, rows, columns, dtype=FORMATS[mode][2])
    for t, b, n, y, x in itertools.product(*map(range, out.shape)):
        values, bits = [], []
        for c, ky, kx in itertools.product(range(C), range(KY), range(KX)):
            at = seen(ky, kx, y, x)
            values.append(w[n][c][ky][kx])
            bits.append(0 if at is None else int(spikes[t, b, n // (N // groups) * C + c, at[0], at[1]]))
        out[t, b, n, y, x] = slow_sum(values, bits, mode, g)
    return out


def slow_update(spikes, gradient, shape, mode, g, groups=1, **geometry):
    """The weight-update engine of a convolution, one weight after another."""
    rows, columns, seen = places(spikes.shape, shape, **geometry)
    du = gradient.to(FORMATS[mode][0]).tolist()
    out = torch.zeros(shape, dtype=FORMATS[mode][2])
    for n, c, ky, kx in itertools.product(*map(range, shape)):
        values, bits = [], []
        for b, t, y, x in itertools.product(
            range(spikes.shape[1]), range(spikes.shape[0]), range(rows), range(columns)
        ):
            at = seen(ky, kx, y, x)
            values.append(du[t][b][n][y][x])
            bits.append(0 if at is None else int(spikes[t, b, n // (shape[0] // groups) * shape[1] + c, at[0], at[1]]))
        out[n, c, ky, kx] = slow_sum(values, bits, mode, g)
    return out


def bits_of(x):
    return x.view({torch.float16: torch.int16, torch.float32: torch.int32, torch.int32: torch.int32}[x.dtype])


def same_bits(a, b):
    return a.dtype == b.dtype and torch.equal(bits_of(a.contiguous()), bits_of(b.contiguous()))


LAYERS = [
    {},
    {"padding": (1, 1)},
    {"padding": (1, 0), "stride": (2, 1)},
    {"padding": (2, 2), "dilation": (2, 1), "stride": (1, 3)},
    {"padding": (1, 1), "groups": 2},
]


def layer(geometry, T=2, B=2):
    """Spikes `[T, B, 4, 4, 5]`, a weight of 4 outputs, a kernel of 3x2, and a gradient for the outputs."""
    spikes = (torch.rand(T, B, 4, 4, 5) < 0.4).float()
    weight = torch.randn(4, 4 // geometry.get("groups", 1), 3, 2)
    return (
        spikes,
        weight,
        torch.randn_like(F.conv2d(spikes.flatten(0, 1), weight, None, **geometry)).unflatten(0, (T, B)),
    )


@pytest.mark.parametrize("g", FUSIONS)
@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 3),
    st.integers(1, 3),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 2)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.integers(1, 2),
)
def test_whole_numbers_are_those_of_a_convolution(
    g, seed, channels, samples, kernel, stride, padding, dilation, groups
):
    r = torch.Generator().manual_seed(seed)
    spikes = torch.randint(0, 2, (2, samples, channels * groups, 5, 6), generator=r).bool()
    weight = torch.randint(-128, 128, (3 * groups, channels, *kernel), generator=r)
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    flat = spikes.flatten(0, 1).double()
    expected = F.conv2d(flat, weight.double(), None, **geometry)
    found = forward_engine(spikes, weight, mode="int8", g=g, **geometry)
    assert found.dtype == torch.int32
    assert torch.equal(found.double().flatten(0, 1), expected)
    gradient = torch.randint(-128, 128, found.shape, generator=r)
    updated = weight_update_engine(spikes, gradient, weight.shape, mode="int8", g=g, **geometry)
    expected = conv2d_weight(flat, weight.shape, gradient.flatten(0, 1).double(), **geometry)
    assert torch.equal(updated.double(), expected)


@pytest.mark.parametrize("g", FUSIONS)
@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 5), st.lists(st.integers(1, 3), max_size=2))
def test_whole_numbers_are_those_of_a_linear_layer(g, seed, inputs, outputs, between):
    r = torch.Generator().manual_seed(seed)
    spikes = torch.randint(0, 2, (3, 2, *between, inputs), generator=r)
    weight = torch.randint(-128, 128, (outputs, inputs), generator=r)
    found = forward_engine(spikes, weight, mode="int8", g=g)
    assert torch.equal(found.long(), F.linear(spikes.double(), weight.double()).long())
    gradient = torch.randint(-128, 128, found.shape, generator=r)
    expected = gradient.reshape(-1, outputs).double().t() @ spikes.reshape(-1, inputs).double()
    assert torch.equal(weight_update_engine(spikes, gradient, weight.shape, mode="int8", g=g).double(), expected)


@pytest.mark.parametrize("geometry", LAYERS, ids=str)
@pytest.mark.parametrize("mode", FORMATS)
@pytest.mark.parametrize("g", [3, 8, "2x4"])
def test_engines_have_the_bits_of_the_order(geometry, mode, g):
    spikes, weight, gradient = layer(geometry)
    if mode == "int8":
        weight, gradient = quantise(weight).values, quantise(gradient).values
    found = forward_engine(spikes, weight, mode=mode, g=g, **geometry)
    assert same_bits(found, slow_forward(spikes, weight, mode, g, **geometry))
    found = weight_update_engine(spikes, gradient, weight.shape, mode=mode, g=g, **geometry)
    assert same_bits(found, slow_update(spikes, gradient, weight.shape, mode, g, **geometry))


@pytest.mark.parametrize("mode", REALS)
@pytest.mark.parametrize("g", [g for g in FUSIONS if g not in (3, 8, "2x4")])
def test_every_fusion_has_the_bits_of_the_order(mode, g):
    spikes, weight = torch.rand(2, 3, 29) < 0.5, torch.randn(4, 29)
    gradient = torch.randn(2, 3, 4)
    found = forward_engine(spikes, weight, mode=mode, g=g)
    as_conv = spikes[..., None, None], weight[..., None, None], gradient[..., None, None]
    assert same_bits(found, slow_forward(*as_conv[:2], mode, g).flatten(2))
    found = weight_update_engine(spikes, gradient, weight.shape, mode=mode, g=g)
    assert same_bits(found, slow_update(as_conv[0], as_conv[2], as_conv[1].shape, mode, g).flatten(1))


def test_large_layers_are_cut_into_parts_without_a_trace(monkeypatch):
    from rheobase.lab.cost.h2learn import lut

    spikes, weight, gradient = layer({"padding": (1, 1)})
    whole = forward_engine(spikes, weight, padding=1), weight_update_engine(spikes, gradient, weight.shape, padding=1)
    for name in ("_BITS_AT_ONCE", "_ENTRIES_AT_ONCE", "_OUTPUTS_AT_ONCE"):
        monkeypatch.setattr(lut, name, 17)
    cut = forward_engine(spikes, weight, padding=1), weight_update_engine(spikes, gradient, weight.shape, padding=1)
    assert all(same_bits(a, b) for a, b in zip(whole, cut, strict=True))


@pytest.mark.parametrize("mode", ["fp16", "fp16-fp32acc"])
def test_a_plain_sum_has_other_bits_and_a_small_error(mode):
    K = 576
    spikes, weight = torch.rand(12, 4, K) < 0.2, torch.randn(8, K) * 0.05
    found = forward_engine(spikes, weight, mode=mode)
    half = weight.half()
    plain = np.zeros((12, 4, 8), np.float16)
    for k in range(K):
        plain = plain + np.where(spikes[..., k, None].numpy(), half[:, k].numpy(), np.float16(0))
    assert plain.dtype == np.float16
    assert (found.float() == torch.from_numpy(plain).float()).float().mean() < 0.5
    exact = F.linear(spikes.double(), weight.double())
    assert (found.double() - exact).abs().max() < K * 2**-11 * weight.abs().max()


def test_the_order_within_a_table_is_part_of_the_result():
    v = torch.randn(8, 8).half()
    tables = ((list(row), list(row)) for row in v.tolist())
    fl = rounded("e")
    pairs = [(table(a, fl), table(b, fl, first=lambda e: e.bit_length() - 1)) for a, b in tables]
    other = np.mean([x != y for a, b in pairs for x, y in zip(a, b, strict=True)])
    assert other > 0.2
    patterns = torch.tensor([[e >> k & 1 for k in range(8)] for e in range(256)])
    engine = forward_engine(patterns[None], v, mode="fp16")[0]
    assert engine.t().tolist() == [a for a, _ in pairs]


def test_ties_go_to_the_even_number_and_subnormals_stay():
    ones = torch.ones(1, 1, 2)
    pairs = [
        (2048.0, 1.0, 2048.0),
        (2048.0, 3.0, 2052.0),
        (2.0**-24, 2.0**-24, 2.0**-23),
        (2.0**-14, -(2.0**-24), None),
    ]
    for a, b, c in pairs:
        found = forward_engine(ones, torch.tensor([[a, b]]), mode="fp16").item()
        assert found == (a + b if c is None else c)
    tiny = torch.tensor([[2.0**-149, 2.0**-149]])
    assert forward_engine(ones, tiny, mode="fp32").item() == 2.0**-148


def test_doubles_are_rounded_once():
    weight = torch.tensor([[1 + 2.0**-11 + 2.0**-40]], dtype=torch.float64)
    assert forward_engine(torch.ones(1, 1, 1), weight, mode="fp16").item() == 1 + 2.0**-10


@pytest.mark.parametrize("g", [3, 8, "2x4"])
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 9), st.booleans())
def test_whole_inputs_are_exact_by_planes(g, seed, planes, signed):
    r = torch.Generator().manual_seed(seed)
    low = -(2 ** (planes - 1)) if signed else 0
    x = torch.randint(low, low + 2**planes, (2, 2, 3, 5, 5), generator=r)
    weight = torch.randint(-128, 128, (4, 3, 3, 3), generator=r)
    found = forward_engine(x, weight, padding=1, mode="int8", g=g, planes=planes)
    flat = x.flatten(0, 1).double()
    assert torch.equal(found.flatten(0, 1).double(), F.conv2d(flat, weight.double(), padding=1))
    gradient = torch.randint(-128, 128, found.shape, generator=r)
    updated = weight_update_engine(x, gradient, weight.shape, padding=1, mode="int8", g=g, planes=planes)
    expected = conv2d_weight(flat, weight.shape, gradient.flatten(0, 1).double(), padding=1)
    assert torch.equal(updated.double(), expected)


@pytest.mark.parametrize("mode", REALS)
def test_planes_add_up_in_the_accumulator(mode):
    x = torch.randint(-4, 4, (2, 2, 3, 4, 4)).float()
    weight = torch.randn(2, 3, 2, 2)
    total = torch.zeros(2, 2, 2, 3, 3, dtype=FORMATS[mode][2])
    for b, factor in ((0, 1), (1, 2), (2, -4)):
        total = total + factor * slow_forward((x.int() >> b) & 1, weight, mode, 8)
    assert same_bits(forward_engine(x, weight, mode=mode, planes=3), total)


def test_a_real_first_layer_is_quantised():
    image, weight = torch.randn(1, 2, 3, 6, 6), torch.randn(4, 3, 3, 3) * 0.2
    x, w = quantise(image), quantise(weight)
    found = x.scale * w.scale * forward_engine(x.values, w.values, padding=1, mode="int8", planes=8).double()
    exact = F.conv2d(x.scale * x.values[0].double(), w.scale * w.values.double(), padding=1)
    assert torch.allclose(found[0], exact, rtol=1e-12, atol=1e-12)
    real = F.conv2d(image[0], weight, padding=1)
    most = 27 * (x.scale / 2 * weight.abs().max() + w.scale / 2 * image.abs().max())
    assert (found[0] - real).abs().max() < most


def test_quantising_rounds_half_to_even_and_keeps_zero():
    found = quantise(torch.tensor([-127.0, 0.5, 1.5, -0.5, 0.0, 126.6]))
    assert found.scale == 1
    assert found.values.tolist() == [-127, 0, 2, 0, 0, 127]
    assert quantise(torch.tensor([0.0, 1.0]), 4, signed=False).values.tolist() == [0, 15]
    assert quantise(torch.tensor([0.0, 1.0]), 4).values.tolist() == [0, 7]
    assert quantise(torch.zeros(3)).values.tolist() == [0, 0, 0]
    for bad, options, said in (
        (torch.tensor([-1.0]), {"signed": False}, "not signed"),
        (torch.tensor([torch.nan]), {}, "not finite"),
        (torch.ones(1), {"bits": 1}, "expected 2 to 16"),
    ):
        with pytest.raises(ValueError, match=said):
            quantise(bad, **options)


ONES, WEIGHT = torch.ones(2, 2, 3), torch.ones(4, 3)
MAP, KERNEL = torch.ones(2, 2, 3, 5, 5), torch.ones(4, 3, 3, 3)


@pytest.mark.parametrize(
    ("x", "w", "options", "said"),
    [
        (ONES / 2, WEIGHT, {}, r"holds 0.5, and 12 of 12 values are neither 0 nor 1"),
        (ONES * torch.nan, WEIGHT, {}, "neither 0 nor 1"),
        (ONES * 4, WEIGHT, {"planes": 2}, "2 bit-planes hold whole numbers of 0 to 3"),
        (ONES * -3, WEIGHT, {"planes": 2}, "whole numbers of -2 to 1"),
        (ONES / 2, WEIGHT, {"planes": 2}, "holds 0.5; 2 bit-planes"),
        (ONES, WEIGHT, {"planes": 0}, "0 bit-planes; expected 1 to 16"),
        (ONES, WEIGHT, {"g": 0}, "g is 0; expected 1 to 12 or '2x4'"),
        (ONES, WEIGHT, {"g": 13}, "g is 13"),
        (ONES, WEIGHT / 3, {"mode": "int8"}, "holds 0.333333; mode int8 takes whole numbers of -128 to 127"),
        (ONES, WEIGHT * 128, {"mode": "int8"}, "holds 128"),
        (ONES, WEIGHT * torch.inf, {}, "not finite"),
        (ONES, WEIGHT * 1e5, {}, "holds 100000, more than torch.float16 can hold"),
        (ONES, WEIGHT * 6e4, {"mode": "fp16"}, "16 of 16 sums left the range of torch.float16 tables"),
        (ONES, WEIGHT[:, :2], {}, "input 3 channels; expected 2 channels"),
        (ONES, WEIGHT, {"stride": 2}, "a linear layer has stride 1"),
        (ONES, WEIGHT[None], {}, r"the weight has shape \(1, 4, 3\); expected \[out, in\]"),
        (MAP[0, 0], KERNEL, {}, r"reads \[..., C, H, W\]"),
        (MAP, KERNEL, {"groups": 2}, "expected 6 channels"),
        (MAP, KERNEL, {"dilation": 3}, "does not fit on an input of"),
        (MAP, KERNEL, {"padding": -1}, "is no convolution"),
    ],
)
def test_what_the_forward_engine_cannot_take_is_said(x, w, options, said):
    with pytest.raises(ValueError, match=said):
        forward_engine(x, w, **options)


def test_an_int32_accumulator_is_never_overrun():
    x, w = torch.full((1, 1, 257), 2**16 - 1), torch.full((1, 257), -128)
    w[0, 0] = 0
    assert forward_engine(x, w, mode="int8", planes=16).item() == -(2**15) * (2**16 - 1)
    w[0, 0] = 1
    with pytest.raises(ValueError, match=f"is {(2**15 + 1) * (2**16 - 1)}, more than an int32 accumulator holds"):
        forward_engine(x, w, mode="int8", planes=16)
    w = torch.full((1, 12), -128)
    assert forward_engine(torch.ones(1, 1, 12), w, mode="int8", g=12).item() == -12 * 128


@pytest.mark.parametrize(
    ("x", "gradient", "shape", "said"),
    [
        (ONES, torch.ones(2, 2, 5), (4, 3), r"the gradient has shape \(2, 2, 5\)"),
        (MAP, torch.ones(2, 2, 4, 5, 5), (4, 3, 3, 3), r"has \(2, 2, 4, 3, 3\)"),
        (MAP[0], torch.ones(2, 3, 3, 3), (4, 3, 3, 3), r"expected \[T, B, C, H, W\]"),
        (ONES[0], torch.ones(2, 3), (4, 3), r"expected \[T, B, ..., K\]"),
        (ONES * 2, torch.ones(2, 2, 4), (4, 3), "neither 0 nor 1"),
    ],
)
def test_what_the_weight_update_engine_cannot_take_is_said(x, gradient, shape, said):
    with pytest.raises(ValueError, match=said):
        weight_update_engine(x, gradient, shape)


@pytest.mark.usefixtures("untyped")
def test_a_mode_that_is_not_there_is_said():
    with pytest.raises(ValueError, match="there is no mode 'bf16'; expected one of int8, fp16, fp16-fp32acc, fp32"):
        forward_engine(ONES, WEIGHT, mode="bf16")


@pytest.mark.parametrize(("reuse", "g", "cost"), [(1e2, 5, 0.252), (1e3, 8, 0.156), (1e4, 11, 0.109)])
def test_the_best_fusion_grows_with_reuse(reuse, g, cost):
    assert best_fusion(reuse) == g
    assert additions_per_synapse(g, reuse) == pytest.approx(cost, abs=5e-4)
    assert all(
        additions_per_synapse(other, reuse) > additions_per_synapse(g, reuse) for other in range(1, 40) if other != g
    )


def test_additions_are_counted():
    """A table of four takes 11 additions, and its three uses three more, for 12 synapses."""
    assert additions_per_synapse(4, 3.0) * 3 * 4 == pytest.approx(11 + 3)
    assert additions_per_synapse(8, float("inf")) == 1 / 8
    for wrong in (
        lambda: additions_per_synapse(0, 1.0),
        lambda: additions_per_synapse(8, 0.0),
        lambda: best_fusion(0.0),
    ):
        with pytest.raises(ValueError, match="above 0"):
            wrong()
    with pytest.raises(ValueError, match="finite"):
        best_fusion(float("inf"))
