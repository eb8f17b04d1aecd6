"""Parity law: every engine computes what the plain step computes: equal spikes, equal final state, every gradient."""

import copy
import itertools

import pytest
import torch

import rheobase as rb
from rheobase.neurons import NEURONS, SURROGATES, create_neuron
from rheobase.scan import lanes, run_cpu, run_triton
from rheobase.scan.ir import live, parse

HANDFUL = ["alif", "lif", "plif"]
"""What does not depend on the neuron is shown on these."""
ANY_T = sorted(name for name, entry in NEURONS.items() if entry.any_T)
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
        def empty_strided(*args, **kwargs):
            return torch.empty_strided(*args, **kwargs).fill_(float("nan"))

        @staticmethod
        def empty(*args, dtype, **kwargs):
            return torch.empty(*args, dtype=dtype, **kwargs).fill_(float("nan") if dtype.is_floating_point else 255)

    for module in (lanes, run_cpu, run_triton):
        monkeypatch.setattr(module, "torch", Poisoned())


def everything(neuron, engine, inputs, state, params, upstream):
    """Outputs, final states and all gradients: of inputs, initial states and every parameter that has one."""
    inputs, state = ([a.detach().clone().requires_grad_() for a in group] for group in (inputs, state))
    with rb.engine(engine):
        y, last = neuron.scan(inputs, tuple(state), **params)
        found = (*(y if isinstance(y, tuple) else (y,)), *last)
        learned = [p for p in params.values() if isinstance(p, torch.Tensor) and p.requires_grad]
        grads = torch.autograd.grad(found, [*inputs, *state, *learned], upstream)
    return found, grads


INEXACT = {"exp", "expm1", "log", "log1p", "tanh", "sigmoid", "sin", "cos", "atan", "erf", "pow", "sqrt"}
"""Engines may round these differently than torch does; of the square root, torch's vector library is to blame."""


def is_exact(neuron):
    """Whether the loop over time is made of operations that every engine rounds alike."""
    program = parse(neuron.scan.text())
    return INEXACT.isdisjoint(node.op for node in live(program.nodes, [*program.outputs, *program.next_states]))


def decided(neuron, inputs, state, params, watching):
    """True for each step and lane while no membrane has come closer than 1e-5 to the threshold."""
    with rb.engine("reference"), torch.no_grad(), watching(neuron) as seen:
        neuron.scan(inputs, state, **params)
    if not seen:
        return torch.ones_like(inputs[0], dtype=torch.bool)
    closest = torch.stack(seen).abs().unflatten(0, (len(inputs[0]), -1)).amin(1)
    return (closest > 1e-5).long().cumprod(0).bool()


def agree(engine, neuron, *inputs, outputs=1, state=None, params=None, tolerance=1e-5, near=1e-4, watching=None):
    """Compare an engine with the reference on one input, from a random state or the one given.

    Spikes and states must have equal bits; where the loop goes through exp and its like, spikes are equal and states
    within `near` of their largest value, up to the first step that is too close to call. A gradient may differ by
    `tolerance` of its largest value, and a parameter's, a sum over all lanes, by that share of the gradient's 1-norm.
    """
    x = inputs[0]
    one = x[0].float() if x.dtype != torch.float64 else x[0]
    state = tuple(torch.randn_like(one) for _ in neuron.scan.step.state) if state is None else state
    params = params or {key: getattr(neuron, key) for key in neuron.scan.params}
    upstream = [*(torch.randn_like(x) for _ in range(outputs)), *(torch.randn_like(s) for s in state)]
    exact = is_exact(neuron)
    if not exact:
        sure = decided(neuron, inputs, state, params, watching)
        upstream = [u * sure[-1] for u in upstream]
    (a, grads_a), (b, grads_b) = (everything(neuron, e, inputs, state, params, upstream) for e in (engine, "reference"))
    for k, (got, expected) in enumerate(zip(a, b, strict=True)):
        assert got.dtype == expected.dtype
        if exact:
            assert torch.equal(got, expected)
            continue
        got, expected = ((t * (sure if k < outputs else sure[-1])).detach().double() for t in (got, expected))
        bound = 0.0 if k < outputs and neuron.emits == "binary" else near * float(expected.abs().max())
        assert float((got - expected).abs().max()) <= bound
    scale = float(sum(grad.abs().sum() for grad in grads_b[: len(inputs)]))
    for k, (got, expected) in enumerate(zip(grads_a, grads_b, strict=True)):
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype
        assert got.isfinite().all()
        largest = float(expected.abs().max())
        bound = largest if k < len(inputs) + len(state) else max(scale, largest)
        assert float((got - expected).abs().max()) <= tolerance * max(bound, 1e-30)


def agrees(laws, name, engine, module, x, **options):
    """`agree` for a registered neuron: from a state that it may well be in, with noise if it draws any."""
    agree(engine, module, x, *module.noise(x), state=laws.warm(name, module, x), watching=laws.watching, **options)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("neuron", ANY_T)
def test_odd_shapes(laws, engine, neuron, shape):
    agrees(laws, neuron, engine, laws.make(neuron), laws.signal(neuron, *shape))


@pytest.mark.parametrize("neuron", ANY_T)
def test_the_laws_see_it_fire_and_rest(laws, neuron):
    """Else the laws would compare nothing but zeros."""
    module = laws.make(neuron)
    y, state = module.sequence(laws.signal(neuron, 9, 3, 2, 1100), None)
    assert all(s.isfinite().all() for s in state)
    if module.emits == "binary":
        assert 0.005 < y.mean() < 0.8
    else:
        assert y.std() > 0.1


@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
@pytest.mark.parametrize("neuron", HANDFUL)
def test_every_surrogate(laws, engine, neuron, surrogate):
    module = laws.make(neuron, surrogate=SURROGATES[surrogate]())
    agrees(laws, neuron, engine, module, laws.signal(neuron, 5, 2, 33))


@pytest.mark.parametrize(
    ("reset", "detach", "strict"), list(itertools.product(["zero", "subtract", "none"], [True, False], [True, False]))
)
def test_every_reset(engine, reset, detach, strict):
    neuron = create_neuron("plif", reset=reset, detach_reset=detach, strict=strict)
    agree(engine, neuron, torch.randn(5, 2, 33) * 2)


@pytest.mark.parametrize("neuron", ANY_T)
def test_double_precision_and_the_gradient_of_every_parameter(laws, engine, neuron):
    """Learned or not, each parameter has its own value for every neuron here, and its gradient."""
    module, x = laws.make(neuron).double(), laws.signal(neuron, 4, 2, 301).double()
    params = {}
    for name in module.scan.params:
        value = torch.as_tensor(getattr(module, name)).detach().double()
        params[name] = (value * (1 + 0.05 * torch.rand(301, dtype=torch.float64))).requires_grad_()
    if engine == "triton":
        with rb.engine(engine), pytest.raises(ValueError, match="'triton' got float64"):
            module(x)
        return
    agrees(laws, neuron, engine, module, x, tolerance=1e-9, near=1e-10, params=params)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("neuron", [*HANDFUL, "stochastic_lif"])
def test_16_bit_formats(laws, engine, neuron, dtype):
    # The gradients are rounded once from float32, so a last-bit difference there is one unit of the format.
    tolerance = {torch.bfloat16: 2**-8, torch.float16: 2**-11}[dtype]
    x = laws.signal(neuron, 4, 2, 301).to(dtype)
    agrees(laws, neuron, engine, laws.make(neuron), x, tolerance=tolerance)


@pytest.mark.parametrize("neuron", ANY_T)
def test_a_norm_inside_the_kernel_is_the_norm_before_it(laws, engine, neuron):
    """Equal bits of outputs, states and running statistics; gradients of input and all parameters agree."""
    from rheobase.nn import Sequential, TdBN

    x, module = laws.signal(neuron, 5, 2, 3, 7), laws.make(neuron)
    norm = TdBN(3, threshold=float(x.std()))
    g, found = torch.randn_like(x), []
    for kind in (Sequential, torch.nn.Sequential):
        model, leaf = copy.deepcopy(kind(norm, module)), x.clone().requires_grad_()
        with rb.engine(engine):
            torch.manual_seed(7)
            y, last = rb.call(model, leaf)
            grads = torch.autograd.grad(y, [leaf, *model.parameters()], g, allow_unused=True)
        (state,) = last.values()
        found.append(([y, *state, *model.buffers()], grads))
    assert all(map(torch.equal, found[0][0], found[1][0]))
    scale = float(found[1][1][0].abs().sum())
    for got, expected in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5 * scale)


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
