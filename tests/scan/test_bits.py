import threading

import pytest
import torch

from rheobase.scan import bit_layout, bits
from rheobase.scan.bits import dense_stride, is_binary, pack, unpack

FORMATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SHAPES = [
    (),
    (1,),
    (0, 3),
    (63,),
    (64,),
    (7, 9),
    (4, 100),
    (3, 128),
    (2, 1, 70),
    (3, 5, 4, 4),
    (2, 64, 3, 3),
    (2, 65, 3, 3),
]


def spikes(*shape, dtype=torch.float32):
    return (torch.rand(shape) < 0.3).to(dtype)


def layouts(x):
    """x as it is, and laid out in other orders, with gaps, expanded."""
    yield x
    if x.dim() == 4:
        yield x.to(memory_format=torch.channels_last)
    if x.dim() >= 2:
        yield x.transpose(0, 1)
        yield x[..., ::2]
        yield x[:1].expand(x.shape) if len(x) else x
        yield x[1:]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_unpacking_gives_the_same_tensor_in_the_same_place(shape, dtype):
    for x in layouts(spikes(*shape, dtype=dtype)):
        packed = pack(x)
        y = unpack(packed, x.shape, dense_stride(x), dtype)
        assert torch.equal(y, x)
        assert y.dtype == dtype
        assert y.stride() == torch.empty_like(x).stride()
        assert packed.dtype == torch.int64
        assert packed.numel() * 64 <= 2 * max(x.numel(), 64)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_engine_packs_the_same_bits(shape):
    """The kernel's bits are those of plain torch operations, which run on any device."""
    for x in layouts(spikes(*shape)):
        if not x.numel():
            continue
        dense, packed = x.clone(), pack(x)
        rows, inner = bit_layout.rows(dense.shape, dense.stride())
        flat = dense.as_strided((rows, inner), (inner, 1))
        assert torch.equal(bits._pack_torch(flat)[0], packed)
        out = torch.full_like(flat, 7.0)
        bits._unpack_torch(packed, out)
        assert torch.equal(out, flat)


def test_bits_run_along_the_innermost_axis_of_memory():
    x = torch.zeros(2, 70, 3, 3).to(memory_format=torch.channels_last)
    x[1, 1, 0, 2] = 1
    x[1, 69, 0, 2] = 1
    packed = pack(x)
    assert packed.shape == (2 * 3 * 3, 2)
    assert packed.nonzero().tolist() == [[9 + 2, 0], [9 + 2, 1]]
    assert packed[11].tolist() == [1 << 1, 1 << 5]


def test_short_axes_share_a_word():
    x = spikes(5, 16, 8, 4)
    assert pack(x).shape == (5, 8)  # rows of 16 x 8 x 4 values
    assert pack(x.to(memory_format=torch.channels_last)).shape == (5 * 8, 1)  # rows of 4 x 16 values


@pytest.mark.parametrize("value", [2.0, -1.0, 0.5, 1e-45, 1 + 2**-23, float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", [(0, 0), (1, 63), (2, 64), (2, 99)])
def test_a_value_that_is_no_spike_is_named(value, where):
    x = spikes(3, 100)
    x[where] = value
    x[2, 98] = 3.0
    first = list(where) if where != (2, 99) else [2, 98]
    with pytest.raises(
        ValueError, match=rf"x\[{first[0]}, {first[1]}\] is .*, and 2 of 300 values are neither 0 nor 1"
    ):
        pack(x)
    assert not bits._pack_torch(x)[1]


@pytest.mark.parametrize("dtype", FORMATS)
def test_neighbours_of_one_are_no_spikes(dtype):
    for x in (torch.ones(3, dtype=dtype), torch.ones(130, dtype=dtype)):
        assert is_binary(x)
        x[1] = 1 - torch.finfo(dtype).eps
        assert not is_binary(x)
        with pytest.raises(ValueError, match=rf"x\[1\] is .*, and 1 of {len(x)}"):
            pack(x)


def test_minus_zero_is_zero():
    x = spikes(2, 70)
    assert torch.equal(pack(torch.where(x == 0, -0.0, x)), pack(x))
    assert is_binary(torch.where(x == 0, -0.0, x))


@pytest.mark.parametrize("dtype", [*FORMATS, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_any_format_may_be_asked_for_zeros_and_ones(dtype):
    x = spikes(3, 4, 70).to(dtype)
    assert is_binary(x)
    assert is_binary(x[:0])
    assert is_binary(x.transpose(0, 2))
    assert is_binary(x[0, 0, 0])
    if dtype != torch.bool:
        y = x.clone()
        y[2, 3, 69] = 2
        assert not is_binary(y)
        assert not is_binary(y.transpose(0, 2))
        assert not is_binary(y[2, 3, 69])
        assert is_binary(y[:2])


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float8_e4m3fn])
def test_only_floats_are_packed(dtype):
    with pytest.raises(ValueError, match=f"pack: x is {dtype}; expected float16"):
        torch.ops.rheobase.pack(torch.zeros(3).to(dtype))


def test_bits_of_another_tensor_are_refused():
    packed = pack(spikes(3, 100))
    with pytest.raises(ValueError, match=r"unpack: bits are torch.int64 \(3, 2\).*has int64 \(3, 1\)"):
        unpack(packed, (3, 64), (64, 1), torch.float32)
    with pytest.raises(ValueError, match=r"unpack: bits are torch\.int32"):
        torch.ops.rheobase.unpack(packed.int(), (3, 100), (100, 1), torch.float32)


def test_the_number_of_threads_does_not_matter():
    """Large enough for several blocks on several threads."""
    x = spikes(64, 4099)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            packed = pack(x)
            found.append((packed, unpack(packed, x.shape, x.stride(), x.dtype)))
            y = x.clone()
            y[-1, -1] = 0.5
            with pytest.raises(ValueError, match=r"x\[63, 4098\]"):
                pack(y)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0][0], found[1][0])
    assert all(torch.equal(y, x) for _, y in found)


def test_two_threads_may_pack_at_once():
    xs = [spikes(50, 300) for _ in range(4)]
    found = [None] * 4

    def work(k):
        found[k] = unpack(pack(xs[k]), xs[k].shape, xs[k].stride(), xs[k].dtype)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(a, b) for a, b in zip(found, xs, strict=True))


@pytest.mark.compile
@pytest.mark.parametrize("shape", [(3, 5, 4, 4), (2, 65, 3, 3)])
def test_the_operators_obey_torch(shape):
    """Schema, fake kernels and tracing, by torch's own checker."""
    for x in layouts(spikes(*shape)):
        torch.library.opcheck(torch.ops.rheobase.pack.default, (x,))
        arguments = (pack(x), list(x.shape), list(dense_stride(x)), x.dtype)
        torch.library.opcheck(torch.ops.rheobase.unpack.default, arguments)
