import pytest

rk = pytest.importorskip("rheobase_kernels", reason="rheobase-kernels-cpu is not installed")


@pytest.mark.parametrize(
    ("size", "row_pixels", "row_words", "rows"),
    [
        ((2, 64, 5, 7), 1, 1, 70),
        ((2, 65, 5, 7), 1, 2, 70),
        ((2, 63, 5, 7), 7, 7, 10),
        ((2, 3, 5, 7), 35, 2, 2),
        ((2, 1, 5, 7), 70, 2, 1),
    ],
)
def test_bits_lie_as_rheobase_packs_them(size, row_pixels, row_words, rows):
    batch, channels, height, width = size
    shape = rk.convolution(batch, channels, height, width, 8, (3, 3))
    assert (shape.row_pixels, shape.row_words, shape.rows) == (row_pixels, row_words, rows)


def test_bits_lie_as_rheobase_packs_them_in_fact():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    bits = pytest.importorskip("rheobase.scan.bits", reason="rheobase is not installed")
    for size in ((2, 64, 5, 7), (2, 65, 5, 7), (2, 63, 5, 7), (2, 3, 5, 7), (1, 3, 1, 9), (2, 1, 5, 7)):
        packed = bits.pack(torch.ones(size).contiguous(memory_format=torch.channels_last))
        shape = rk.convolution(*size, 8, (1, 1))
        assert tuple(packed.shape) == (shape.rows, shape.row_words), size


def test_outputs_are_those_of_a_convolution():
    shape = rk.convolution(2, 64, 11, 12, 8, (3, 2), stride=(2, 3), padding=(1, 0), dilation=(2, 1))
    assert (shape.out_height, shape.out_width) == (5, 4)
    assert (shape.positions, shape.pixels) == (40, 264)


def test_laid_weights_are_rounded_up_to_16_channels():
    assert rk.laid_size(rk.convolution(1, 6, 5, 5, 34, (3, 3), groups=2)) == 2 * 9 * 3 * 32


def test_chunks_depend_on_the_shape_alone_and_stay_small():
    assert rk.chunks(rk.linear(100, 64, 64)) == 1
    assert rk.chunks(rk.convolution(64, 64, 32, 32, 64, (3, 3), padding=(1, 1))) == 32
    assert rk.chunks(rk.convolution(64, 512, 32, 32, 2048, (3, 3), padding=(1, 1))) == 1


def test_tiles_leave_every_thread_some():
    shape = rk.linear(1024, 64, 64)
    assert rk.tile("forward_events", shape) == 256
    assert rk.tile("forward_events", shape, threads=4) == 64
    assert rk.tile("forward_table", shape, threads=4) == 256


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: rk.linear(0, 8, 8), "sizes of 1 or more"),
        (lambda: rk.convolution(1, 8, 4, 4, 8, (3, 3), groups=3), "must divide both"),
        (lambda: rk.convolution(1, 8, 4, 4, 8, (5, 5)), "does not fit"),
    ],
)
def test_shapes_that_cannot_be_are_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()
