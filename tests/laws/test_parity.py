"""Parity law: every engine computes what the plain step computes: equal spikes, equal final state, every gradient."""

import itertools

import pytest
import torch

import rheobase as rb
from rheobase.neurons import NEURONS, SURROGATES, create_neuron
from rheobase.scan import run_cpu, run_triton

SHAPES = [(1, 1, 1), (5, 2, 7), (3, 2, 3, 5, 3), (2, 1, 2100), (9, 3, 2, 1100)]


@pytest.fixture(params=["cpu", pytest.param("triton", marks=pytest.mark.triton)])
def engine(request):
    return request.param


@pytest.fixture(autouse=True)
def _poison(monkeypatch):
    """Uninitialised memory cannot hide: whatever the engine allocates is full of NaN."""

    class Poisoned:
        def __getattr__(self, name):
            return getattr(torch, name)

        @staticmethod
        def empty(*args, **kwargs):
            return torch.empty(*args, **kwargs).fill_(float("nan"))

    monkeypatch.setattr(run_cpu, "torch", Poisoned())
    monkeypatch.setattr(run_triton, "torch", Poisoned())


def everything(neuron, engine, inputs, state, upstream):
    """Outputs, final states and all gradients: of inputs, initial states and every parameter."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    state = tuple(s.detach().clone().requires_grad_() for s in state)
    with rb.engine(engine):
        y, last = neuron.sequence(inputs, state)
        found = (*(y if isinstance(y, tuple) else (y,)), *last)
        grads = torch.autograd.grad(found, [*inputs, *state, *neuron.parameters()], upstream)
    return found, grads


def agree(engine, neuron, *inputs, outputs=1, tolerance=1e-5):
    """Compare an engine with the reference on one input: spikes and states must have equal bits; a gradient may differ
    by `tolerance` of its largest value, and a parameter's, a sum over all lanes, by that share of the input gradient's
    1-norm."""
    x = inputs[0]
    one = x[0].float() if x.dtype != torch.float64 else x[0]
    state = tuple(torch.randn_like(one) for _ in neuron.scan.step.state)
    upstream = (*(torch.randn_like(x) for _ in range(outputs)), *(torch.randn_like(s) for s in state))
    (a, grads_a), (b, grads_b) = (everything(neuron, e, inputs, state, upstream) for e in (engine, "reference"))
    for got, expected in zip(a, b, strict=True):
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)
    scale = float(sum(grad.abs().sum() for grad in grads_b[: len(inputs)]))
    for k, (got, expected) in enumerate(zip(grads_a, grads_b, strict=True)):
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype
        bound = float(expected.abs().max()) if k < len(inputs) + len(state) else scale
        assert float((got - expected).abs().max()) <= tolerance * max(bound, 1e-30)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("neuron", sorted(NEURONS))
def test_odd_shapes(engine, neuron, shape):
    agree(engine, create_neuron(neuron), torch.randn(shape) * 2)


@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
@pytest.mark.parametrize("neuron", sorted(NEURONS))
def test_every_surrogate(engine, neuron, surrogate):
    agree(engine, create_neuron(neuron, surrogate=SURROGATES[surrogate]()), torch.randn(5, 2, 33) * 2)


@pytest.mark.parametrize(
    ("reset", "detach", "strict"), list(itertools.product(["zero", "subtract", "none"], [True, False], [True, False]))
)
def test_every_reset(engine, reset, detach, strict):
    neuron = create_neuron("plif", reset=reset, detach_reset=detach, strict=strict)
    agree(engine, neuron, torch.randn(5, 2, 33) * 2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("neuron", sorted(NEURONS))
def test_number_formats(engine, neuron, dtype):
    # The 16-bit gradients are rounded once from float32, so a last-bit difference there is one unit of the format.
    tolerance = {torch.float64: 1e-12, torch.bfloat16: 2**-8, torch.float16: 2**-11}[dtype]
    module, x = create_neuron(neuron), (torch.randn(4, 2, 301) * 2).to(dtype)
    if dtype == torch.float64:
        module = module.double()
    if dtype == torch.float64 and engine == "triton":
        with rb.engine(engine), pytest.raises(ValueError, match="'triton' got float64"):
            module(x)
    else:
        agree(engine, module, x, tolerance=tolerance)


@pytest.mark.parametrize("shape", [(), (3, 1, 1), (1, 1, 5), (3, 4, 5), (1, 4, 5), (4, 5)], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
def test_parameters_of_every_shape_in_every_layout(engine, shape, layout):
    x = torch.randn(6, 2, 3, 4, 5) * 2
    if layout == "channels_last":
        x = x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    elif layout == "strided":
        x = torch.randn(6, 2, 3, 4, 10)[..., ::2] * 2
    neuron = create_neuron("plif", shape=shape, threshold=torch.nn.Parameter(torch.rand(shape) + 0.5))
    with torch.no_grad():
        neuron.w.copy_(torch.randn(shape))
    agree(engine, neuron, x)
    if layout != "strided":
        with rb.engine(engine):
            assert neuron(x).stride() == x.stride()


@pytest.mark.parametrize("T", [3, 30])
def test_several_inputs_states_and_outputs(engine, T):
    from rheobase.neurons import Neuron, Triangle

    @rb.step(inputs=("x", "gate"), state={"v": 0.0, "w": 0.25, "last": 0.0})
    def adaptive(x, gate, v, w, last, *, tau, beta, threshold, low, spike):
        h = v + (torch.where(gate > low, x, -0.5 * last) - v) / tau - w
        s = spike(h - threshold - torch.maximum(w, gate) / 3.0)
        w = beta * w + (1 - beta) * (h.clamp(-2, 2) + s)
        return (s, h * gate, torch.round(4 * w)), (h * (1 - s) + low * s, w, x)

    neuron = Neuron(
        adaptive,
        tau=torch.nn.Parameter(torch.tensor(1.7)),
        beta=torch.nn.Parameter(torch.rand(3, 1)),
        threshold=torch.nn.Parameter(torch.rand(7) + 0.5),
        low=torch.nn.Parameter(torch.tensor([0.25])),
        spike=Triangle(),
    )
    agree(engine, neuron, torch.randn(T, 11, 3, 7) * 2, torch.randn(T, 11, 3, 7), outputs=3)


@pytest.mark.parametrize("T", [3, 30])
def test_no_state_and_values_that_all_lanes_share(engine, T):
    from rheobase.neurons import Neuron

    @rb.step(inputs=("x", "y"), state={})
    def gain(x, y, *, a):
        return (x * a + y, y * y), ()

    @rb.step(state={"age": 0.0, "floor": 0.0})
    def shared(x, age, floor, *, a, b):
        a = a.sqrt() * b
        return (x * age + floor, a / 3.0), (age + 1.0, a + 1.0)

    a = torch.nn.Parameter(torch.tensor(0.75))
    agree(engine, Neuron(gain, a=a), torch.randn(T, 2, 9), torch.randn(T, 2, 9), outputs=2)
    agree(engine, Neuron(shared, a=a, b=torch.tensor(1.5)), torch.randn(T, 2, 9), outputs=2)


def test_large_parameters_take_the_lane_path(engine):
    neuron = create_neuron("plif", shape=(5000,))
    agree(engine, neuron, torch.randn(3, 2, 5000) * 2)


def test_static_input_is_read_in_place(engine):
    x = torch.randn(1, 2, 40).expand(6, 2, 40) * 2
    image = torch.randn(2, 40)
    x = image.unsqueeze(0).expand(6, 2, 40)
    agree(engine, create_neuron("lif"), x)
    found = []
    for e in (engine, "reference"):
        leaf = image.clone().requires_grad_()
        with rb.engine(e):
            (create_neuron("lif")(leaf.unsqueeze(0).expand(6, 2, 40)).cumsum(0)).sum().backward()
        found.append(leaf.grad)
    torch.testing.assert_close(*found)


def test_missing_cotangents_are_zero(engine):
    x = torch.randn(4, 2, 9, requires_grad=True)
    neuron = create_neuron("lif", reset="subtract", detach_reset=False)
    found = []
    for e in (engine, "reference"):
        with rb.engine(e):
            _, (v,) = neuron.sequence(x, None)
            found.append(torch.autograd.grad(v.square().sum(), x)[0])
    torch.testing.assert_close(*found)


def test_gradients_do_not_depend_on_the_number_of_threads():
    x = torch.randn(4, 8, 16, 32, 32) * 2
    neuron = create_neuron("plif", shape=(16, 1, 1))
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(torch.autograd.grad(neuron(x).cumsum(0).sum(), neuron.w)[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_nan_input_gives_the_reference_answer(engine):
    x = torch.randn(4, 2, 9)
    x[1, 0, 3] = float("nan")
    neuron = create_neuron("lif")
    found = []
    for e in (engine, "reference"):
        with rb.engine(e):
            found.append(neuron.sequence(x, None))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1][0].isnan(), found[1][1][0].isnan())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_every_16_bit_number_is_read_and_written_right(engine, dtype):
    """A step that copies its input shows the conversions on all 65536 bit patterns."""
    from rheobase.neurons import Neuron

    @rb.step(state={"v": 0.0})
    def through(x, v):
        return x * 1.0, (x + v,)

    x = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(dtype).reshape(1, 2, -1)
    with rb.engine(engine):
        y, (v,) = Neuron(through).sequence(x, None)
    assert torch.equal(y.isnan(), x.isnan())
    assert torch.equal(v.nan_to_num(7.0), x[0].float().nan_to_num(7.0))
    assert torch.equal(y.nan_to_num(7.0), x.nan_to_num(7.0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rounding_to_16_bits_is_to_nearest_even(engine, dtype):
    from rheobase.neurons import Neuron

    @rb.step(state={"v": 0.0})
    def scaled(x, v, *, k):
        return x * k, (v + 0.0 * x,)

    x = torch.cat([torch.randn(5000) * 10.0**e for e in range(-7, 5)]).to(dtype).reshape(1, 1, -1)
    with rb.engine(engine):
        y = Neuron(scaled, k=1.2345678)(x)
    expected = (x.float() * torch.tensor(1.2345678)).to(dtype)
    assert torch.equal(y.view(torch.int16), expected.view(torch.int16))
