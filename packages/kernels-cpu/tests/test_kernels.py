"""Every kernel of every instruction set against plain numpy in float64, on memory that is poisoned before."""

import ctypes
import threading

import numpy as np
import pytest

rk = pytest.importorskip("rheobase_kernels", reason="rheobase-kernels-cpu is not installed")
from rheobase_kernels import library  # noqa: E402

GUARD = 256
NO_STRIDE = (ctypes.c_int64 * 4)()

CASES = {
    "64 channels": rk.convolution(2, 64, 9, 7, 64, (3, 3), padding=(1, 1)),
    "128 channels": rk.convolution(1, 128, 6, 6, 128, (3, 3), padding=(1, 1)),
    "odd channels": rk.convolution(2, 70, 5, 6, 37, (3, 3), padding=(1, 1)),
    "few channels": rk.convolution(2, 3, 10, 9, 20, (3, 3), padding=(1, 1)),
    "channels over the map": rk.convolution(5, 3, 3, 4, 5, (3, 3), padding=(1, 1)),
    "stride 2": rk.convolution(2, 65, 9, 8, 80, (3, 3), stride=(2, 2), padding=(1, 1)),
    "uneven": rk.convolution(2, 24, 8, 11, 17, (2, 3), stride=(3, 2), padding=(0, 2), dilation=(2, 1)),
    "dilation": rk.convolution(1, 64, 11, 11, 48, (3, 3), padding=(2, 2), dilation=(2, 2)),
    "groups": rk.convolution(2, 96, 6, 5, 66, (3, 3), padding=(1, 1), groups=3),
    "groups of words": rk.convolution(1, 256, 5, 5, 128, (3, 3), padding=(1, 1), groups=2),
    "depthwise": rk.convolution(2, 20, 6, 6, 20, (3, 3), padding=(1, 1), groups=20),
    "5x5": rk.convolution(2, 12, 7, 7, 33, (5, 5), padding=(2, 2)),
    "1x1": rk.convolution(3, 130, 4, 5, 100, (1, 1), stride=(2, 2)),
    "one pixel": rk.convolution(1, 64, 1, 1, 3, (3, 3), padding=(1, 1)),
    "wide padding": rk.convolution(1, 64, 2, 2, 16, (1, 1), padding=(3, 3)),
    "linear": rk.linear(131, 200, 140),
    "linear, few features": rk.linear(150, 10, 70),
    "linear, one row": rk.linear(1, 1, 1),
    "many positions": rk.linear(2100, 64, 16),
}


@pytest.fixture(params=rk.supported())
def lib(request):
    return rk.load(request.param)


@pytest.fixture(params=CASES)
def shape(request):
    return CASES[request.param]


@pytest.fixture(autouse=True)
def _guarded(monkeypatch):
    """Scratch memory starts as NaN, and what lies behind it stays as it was."""
    guards = []

    def aligned(size):
        memory = np.full(size + 64 + GUARD, 0xFF, np.uint8)
        address = -(-memory.ctypes.data // 64) * 64
        guards.append(memory[address - memory.ctypes.data + size :])
        return memory, address

    monkeypatch.setattr(library, "_aligned", aligned)
    yield
    assert all((guard == 0xFF).all() for guard in guards)


def guarded(*sizes, dtype=np.float32):
    """Poisoned memory of a result, and a check that nothing before and behind it was written."""
    count = int(np.prod(sizes))
    memory = np.full((count + 2 * GUARD) * np.dtype(dtype).itemsize, 0xFF, np.uint8).view(dtype)
    edges = np.concatenate([memory[:GUARD], memory[-GUARD:]]).view(np.uint8)

    def check():
        assert (np.concatenate([memory[:GUARD], memory[-GUARD:]]).view(np.uint8) == edges).all()

    return memory[GUARD : GUARD + count].reshape(sizes), check


def address(array):
    return array.ctypes.data


def spikes(shape, density, seed=0):
    x = np.random.default_rng(seed).random((shape.batch, shape.height, shape.width, shape.channels)) < density
    flat = np.zeros((shape.rows, shape.row_words * 64), bool)
    row = shape.row_pixels * shape.channels
    flat[:, :row] = x.reshape(shape.rows, row)
    return x.astype(np.float64), np.packbits(flat, axis=1, bitorder="little").view(np.uint64)


def normal(seed, *sizes):
    return np.random.default_rng(seed).standard_normal(sizes).astype(np.float32)


def weights(shape, seed=1):
    return normal(seed, shape.out_channels, shape.channels // shape.groups, shape.kernel_y, shape.kernel_x)


def strides(array):
    return (ctypes.c_int64 * 4)(*(s // array.itemsize for s in array.strides))


def lay(lib, shape, w, source="float32"):
    laid, check = guarded(rk.laid_size(shape))
    lib.call("lay", rk.Lay(shape, address(w), strides(w), library.FORMATS[source], address(laid))).run()
    check()
    return laid


def columns(shape, x):
    """What every output reads: [batch, out_height, out_width, ky, kx, channels]."""
    padded = np.pad(x, ((0, 0), (shape.pad_y,) * 2, (shape.pad_x,) * 2, (0, 0)))
    found = np.empty(
        (shape.batch, shape.out_height, shape.out_width, shape.kernel_y, shape.kernel_x, shape.channels), x.dtype
    )
    for ky in range(shape.kernel_y):
        for kx in range(shape.kernel_x):
            ys = ky * shape.dilation_y + shape.stride_y * np.arange(shape.out_height)
            xs = kx * shape.dilation_x + shape.stride_x * np.arange(shape.out_width)
            found[:, :, :, ky, kx] = padded[:, ys][:, :, xs]
    return found


def grouped(shape, x):
    """Columns by group: [positions, groups, ky, kx, channels of a group]."""
    return (
        columns(shape, x)
        .reshape(shape.positions, shape.kernel_y, shape.kernel_x, shape.groups, -1)
        .transpose(0, 3, 1, 2, 4)
    )


def expected_forward(shape, x, w):
    ws = w.astype(np.float64).reshape(shape.groups, -1, *w.shape[1:])
    return np.einsum("pgyxc,gocyx->pgo", grouped(shape, x), ws, optimize=True).reshape(shape.positions, -1)


def expected_weight_gradient(shape, x, grad):
    gs = grad.astype(np.float64).reshape(shape.positions, shape.groups, -1)
    found = np.einsum("pgyxc,pgo->gocyx", grouped(shape, x), gs, optimize=True)
    return found.reshape(shape.out_channels, *found.shape[2:])


def expected_input_gradient(shape, grad, w):
    """As the transpose of `columns`."""
    ws = w.astype(np.float64).reshape(shape.groups, -1, *w.shape[1:])
    gs = grad.astype(np.float64).reshape(shape.positions, shape.groups, -1)
    each = np.einsum("pgo,gocyx->pyxgc", gs, ws, optimize=True).reshape(
        shape.batch, shape.out_height, shape.out_width, shape.kernel_y, shape.kernel_x, shape.channels
    )
    size = (shape.height + 2 * shape.pad_y, shape.width + 2 * shape.pad_x)
    padded = np.zeros((shape.batch, *size, shape.channels))
    for ky in range(shape.kernel_y):
        for kx in range(shape.kernel_x):
            for oy in range(shape.out_height):
                for ox in range(shape.out_width):
                    at = (
                        ky * shape.dilation_y + oy * shape.stride_y,
                        kx * shape.dilation_x + ox * shape.stride_x,
                    )
                    padded[:, at[0], at[1]] += each[:, oy, ox, ky, kx]
    return padded[:, shape.pad_y : size[0] - shape.pad_y, shape.pad_x : size[1] - shape.pad_x]


def forward(lib, kernel, shape, bits, w, bias=None, tile=None):
    laid = lay(lib, shape, w)
    out, check = guarded(shape.positions, shape.out_channels)
    arguments = rk.Forward(
        *(shape, address(bits), address(laid), bias if bias is None else address(bias), address(out)),
        tile or rk.tile(kernel, shape),
    )
    lib.call(kernel, arguments).run()
    check()
    return out


def weight_gradient(lib, kernel, shape, bits, grad, chunks=None):
    chunks = chunks or rk.chunks(shape)
    partial, check = guarded(chunks, rk.laid_size(shape))
    found, check_found = guarded(shape.out_channels, shape.channels // shape.groups, shape.kernel_y, shape.kernel_x)
    arguments = rk.WeightGradient(
        shape, address(bits), address(grad), chunks, address(partial), address(found), strides(found)
    )
    lib.call(kernel, arguments).run()
    lib.call("gather_weight", arguments).run()
    assert np.isfinite(partial).all()
    check()
    check_found()
    return found


def near(found, expected, size):
    """Equal to the rounding of a sum of so many numbers of size one."""
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6 * size**0.5 + 1e-6)


def terms(shape):
    return shape.kernel_y * shape.kernel_x * shape.channels // shape.groups


@pytest.mark.parametrize("kernel", ["forward_events", "forward_table"])
@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
def test_forward(lib, shape, kernel, density):
    x, bits = spikes(shape, density)
    w, bias = weights(shape), normal(2, shape.out_channels)
    found = forward(lib, kernel, shape, bits, w, bias)
    near(found, expected_forward(shape, x, w) + bias, terms(shape))


@pytest.mark.parametrize("name", ["64 channels", "groups", "few channels", "linear"])
def test_events_are_added_in_the_order_that_is_promised(lib, name):
    shape = CASES[name]
    x, bits = spikes(shape, 0.3)
    w = weights(shape)
    read = grouped(shape, x).astype(np.float32)
    ws = w.reshape(shape.groups, -1, *w.shape[1:])
    sums = np.zeros((shape.positions, shape.groups, ws.shape[1]), np.float32)
    for y, x_, c in np.ndindex(shape.kernel_y, shape.kernel_x, w.shape[1]):
        sums += read[:, :, y, x_, c, None] * ws[None, :, :, c, y, x_]
    assert (forward(lib, "forward_events", shape, bits, w) == sums.reshape(shape.positions, -1)).all()


@pytest.mark.parametrize("kernel", ["forward_events", "forward_table"])
def test_forward_does_not_depend_on_tiles(lib, shape, kernel):
    _, bits = spikes(shape, 0.4)
    w = weights(shape)
    assert (forward(lib, kernel, shape, bits, w) == forward(lib, kernel, shape, bits, w, tile=7)).all()


def test_bf16_weights_are_widened(lib, shape):
    halves = (weights(shape).view(np.uint32) >> 16).astype(np.uint16)
    wide = (halves.astype(np.uint32) << 16).view(np.float32)
    assert (lay(lib, shape, halves, "bfloat16") == lay(lib, shape, wide)).all()


def test_weights_are_read_in_any_memory_order(lib, shape):
    w = weights(shape)
    channels_last = np.ascontiguousarray(w.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert (lay(lib, shape, channels_last) == lay(lib, shape, w)).all()


@pytest.mark.parametrize("kernel", ["weight_gradient_events", "weight_gradient_table"])
@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
def test_weight_gradient(lib, shape, kernel, density):
    x, bits = spikes(shape, density)
    grad = normal(3, shape.positions, shape.out_channels)
    found = weight_gradient(lib, kernel, shape, bits, grad)
    near(found, expected_weight_gradient(shape, x, grad), shape.positions)


@pytest.mark.parametrize("kernel", ["weight_gradient_events", "weight_gradient_table"])
def test_weight_gradient_in_chunks(lib, kernel):
    """More chunks than there are runs of positions: those that are left over hold zeros."""
    shape = rk.convolution(3, 65, 12, 13, 18, (3, 3), padding=(1, 1))
    x, bits = spikes(shape, 0.2)
    grad = normal(3, shape.positions, shape.out_channels)
    found = weight_gradient(lib, kernel, shape, bits, grad, chunks=5)
    near(found, expected_weight_gradient(shape, x, grad), shape.positions)


@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
def test_input_gradient(lib, shape, density):
    needed, mask = spikes(shape, density, seed=4)
    w, grad = weights(shape), normal(5, shape.positions, shape.out_channels)
    grad[::3] = 0
    laid = lay(lib, shape, w)
    found, check = guarded(shape.batch, shape.height, shape.width, shape.channels)
    arguments = rk.InputGradient(shape, address(mask), address(grad), address(laid), address(found))
    lib.call("input_gradient", arguments).run()
    check()
    expected = expected_input_gradient(shape, grad, w) * needed
    near(found, expected, shape.kernel_y * shape.kernel_x * shape.out_channels // shape.groups)
    assert (found[needed == 0] == 0).all()


def test_rows_of_zeros_are_passed_over(lib):
    """Weights that are not finite would be heard of."""
    shape = CASES["64 channels"]
    w, grad = np.full_like(weights(shape), np.inf), np.zeros((shape.positions, shape.out_channels), np.float32)
    _, mask = spikes(shape, 1.0)
    found, _ = guarded(shape.batch, shape.height, shape.width, shape.channels)
    laid = lay(lib, shape, w)
    lib.call(
        "input_gradient", rk.InputGradient(shape, address(mask), address(grad), address(laid), address(found))
    ).run()
    assert (found == 0).all()


@pytest.mark.parametrize("reads", ["sparse_bits", "sparse_dense"])
def test_sparse_weights(lib, shape, reads):
    x, bits = spikes(shape, 0.3)
    w, bias = (
        weights(shape) * (np.random.default_rng(7).random((shape.out_channels, 1, 1, 1)) < 0.9),
        normal(8, shape.out_channels),
    )
    w = (w * (np.random.default_rng(6).random(w.shape) < 0.2)).astype(np.float32)
    if reads == "sparse_dense":
        x = normal(9, *x.shape).astype(np.float64)
    rows = w.transpose(0, 2, 3, 1).reshape(shape.out_channels, -1)
    first = np.concatenate([[0], np.count_nonzero(rows, axis=1).cumsum()]).astype(np.int64)
    row, column = rows.nonzero()
    value, column, dense = rows[row, column], column.astype(np.int32), x.astype(np.float32)
    out, check = guarded(shape.positions, shape.out_channels)
    arrays = (bits, dense, first, column, value, bias, out)
    lib.call(reads, rk.Sparse(shape, *map(address, arrays))).run()
    check()
    near(out, expected_forward(shape, x, w) + bias, terms(shape))


def test_turned_bits(lib, shape):
    x, bits = spikes(shape, 0.4)
    words = -(-shape.pixels // 64)
    turned, check = guarded(shape.channels, words, dtype=np.uint64)
    lib.call("turn", rk.Turn(shape, address(bits), address(turned), words)).run()
    check()
    flat = np.zeros((shape.channels, words * 64), bool)
    flat[:, : shape.pixels] = x.reshape(-1, shape.channels).T
    assert (turned == np.packbits(flat, axis=1, bitorder="little").view(np.uint64)).all()


@pytest.mark.parametrize(
    "kernel", ["forward_events", "forward_table", "weight_gradient_events", "weight_gradient_table"]
)
def test_instruction_sets_give_the_same_bits(shape, kernel):
    _, bits = spikes(shape, 0.3)
    w, grad = weights(shape), normal(3, shape.positions, shape.out_channels)
    found = [
        forward(rk.load(isa), kernel, shape, bits, w)
        if kernel.startswith("forward")
        else weight_gradient(rk.load(isa), kernel, shape, bits, grad)
        for isa in rk.supported()
    ]
    assert all((f == found[0]).all() for f in found)


def test_ranges_and_teams_give_the_same_bits(lib):
    shape = CASES["odd channels"]
    _, bits = spikes(shape, 0.3)
    laid, outs = lay(lib, shape, weights(shape)), []
    for way in ("whole", "halves", "team"):
        out, check = guarded(shape.positions, shape.out_channels)
        call = lib.call("forward_events", rk.Forward(shape, address(bits), address(laid), None, address(out), 8))
        assert call.items == -(-shape.positions // 8)
        if way == "whole":
            call.run()
        elif way == "halves":
            call.run(call.items // 2)
            call.run(0, call.items // 2)
        else:
            job = call.job(3)
            function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(job.function)
            threads = [threading.Thread(target=function, args=(job.address,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        check()
        outs.append(out)
    assert (outs[0] == outs[1]).all()
    assert (outs[0] == outs[2]).all()


def test_a_range_leaves_the_others_alone(lib):
    shape = CASES["linear"]
    _, bits = spikes(shape, 0.3)
    laid = lay(lib, shape, weights(shape))
    out, _ = guarded(shape.positions, shape.out_channels)
    lib.call("forward_events", rk.Forward(shape, address(bits), address(laid), None, address(out), 16)).run(2, 3)
    written = ~np.isnan(out).all(axis=1)
    assert (np.flatnonzero(written) == np.arange(32, 48)).all()
