"""The language of steps: every operation, and random steps built from it, mean the same on every engine."""

import warnings

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import rheobase as rb
from rheobase.neurons import Atan, Neuron
from rheobase.scan import UnsupportedOperationError, round_ste

ROUNDED = {  # loops of these give equal bits in every engine
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "rsub": lambda a, b: 1.5 - a * b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / (b * b + 1),
    "reciprocal": lambda a, b: 1 / (a.abs() + 1) + b,
    "neg": lambda a, b: -a + b,
    "abs": lambda a, b: a.abs() - b,
    "square": lambda a, b: a**2 + b,
    "cube": lambda a, b: 0.1 * a**3 + b,
    "minimum": torch.minimum,
    "maximum": torch.maximum,
    "clamp": lambda a, b: a.clamp(-0.5, 0.75) + b,
    "clamp_min": lambda a, b: a.clamp_min(0.1) + b,
    "relu": lambda a, b: torch.relu(a) - b,
    "where": lambda a, b: torch.where(a > b, a * 0.5, b),
    "where and": lambda a, b: torch.where((a > 0) & (b <= 0.5), a, b * 2),
    "where or not": lambda a, b: torch.where((a < 0) | ~(b >= 0.5), a, -b),
    "equal": lambda a, b: torch.where(a == b, a + 1, b) + (a != b).to(a.dtype),
    "floor": lambda a, b: torch.floor(a * 2) + b,
    "ceil": lambda a, b: torch.ceil(a * 2) - b,
    "round": lambda a, b: torch.round(a * 2) + b,
    "trunc": lambda a, b: torch.trunc(a * 2) + b,
    "sign": lambda a, b: torch.sign(a) * b,
    "straight-through": lambda a, b: a + (torch.round(a) - a).detach() + b,
    "round_ste": lambda a, b: round_ste(a * 2) * b,
    "clamp tensor": lambda a, b: torch.clamp(a, -b.abs(), b.abs()),
    "lerp": lambda a, b: torch.lerp(a, b, 0.25),
    "alpha": lambda a, b: torch.add(a, b, alpha=0.5),
    "heaviside": lambda a, b: (a >= 0).to(a.dtype) * b,
}
SMOOTH = {  # these go through functions of the C library or a vector library: equal to a few units in the last place
    # torch's own square root is a unit off at times, by the vector library it finds on some processors; ours never is
    "root": lambda a, b: (a.abs() + 0.1).sqrt() + b,
    "half power": lambda a, b: (a.abs() + 0.1) ** 0.5 - b,
    "exp": lambda a, b: torch.exp(-a.abs()) + b,
    "expm1": lambda a, b: torch.expm1(a * 0.5) + b,
    "log": lambda a, b: torch.log(a.abs() + 1) + b,
    "log1p": lambda a, b: torch.log1p(a.abs()) - b,
    "erf": lambda a, b: torch.erf(a) + b,
    "tanh": lambda a, b: torch.tanh(a) + b,
    "sigmoid": lambda a, b: torch.sigmoid(a) * b,
    "sin": lambda a, b: torch.sin(a) + b,
    "cos": lambda a, b: torch.cos(a) - b,
    "atan": lambda a, b: torch.atan(a) + b,
    "power": lambda a, b: (a.abs() + 0.1) ** 1.7 + b,
    "whole power": lambda a, b: (0.5 * a) ** 5 + (a.abs() + 1) ** -4 + b,
    "power of a number": lambda a, b: 2.0**a - b,
    "power of values": lambda a, b: (a.abs() + 0.1) ** b,
    "softplus": lambda a, b: torch.nn.functional.softplus(a) - b,
    "silu": lambda a, b: torch.nn.functional.silu(a) + b,
}


ENGINES = pytest.mark.parametrize("engine", ["cpu", pytest.param("triton", marks=pytest.mark.triton)])


def both(engine, neuron, x):
    """(output, final state, input gradient, parameter gradients) on an engine and on the reference engine."""
    found = []
    for e in (engine, "reference"):
        leaf = x.clone().requires_grad_()
        with rb.engine(e):
            y, (v,) = neuron.sequence(leaf, None)
            grads = torch.autograd.grad(y.square().sum() + v.sum(), [leaf, *neuron.parameters()])
        found.append((y, v, *grads))
    return found


def bundles(operations, size=10):
    names = sorted(operations)
    return [names[k : k + size] for k in range(0, len(names), size)]


@ENGINES
@pytest.mark.parametrize("names", [*bundles(ROUNDED), *bundles(SMOOTH)], ids=lambda names: names[0])
def test_every_operation(engine, names):
    """Several operations share a step, to compile fewer kernels; each enters the output with a weight of its own."""

    def fn(x, v, *, w):
        total = 0.5 * v
        for k, name in enumerate(names):
            total = total + (0.3 + 0.1 * k) * (ROUNDED | SMOOTH)[name](x, w * v)
        return total, (0.5 * v + 0.25 * x,)

    neuron = Neuron(rb.step(state={"v": 0.25})(fn), w=torch.nn.Parameter(torch.tensor([0.7, -0.3, 1.1, 0.2])))
    x = torch.randn(5, 3, 4)
    a, b = both(engine, neuron, x)
    if names[0] in ROUNDED:
        assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    if engine == "cpu":
        torch.testing.assert_close(*both(engine, neuron.double(), x.double()), rtol=1e-12, atol=1e-12)


@ENGINES
@settings(max_examples=6, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    st.lists(st.tuples(st.sampled_from(sorted(ROUNDED)), st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=7)
)
def test_random_steps(engine, plan):
    """A step that chains operations on whatever was computed before, and fires."""

    def fn(x, v, *, w, spike):
        values = [x, v, w * x]
        for name, i, j in plan:
            values.append(ROUNDED[name](values[i % len(values)], values[j % len(values)]).clamp(-3, 3))
        h = 0.5 * v + 0.25 * x + w * values[-1]
        s = spike(h - 0.4)
        return s + 0.1 * h, ((h * (1 - s.detach())).clamp(-3, 3),)

    neuron = Neuron(rb.step(state={"v": 0.0})(fn), w=torch.nn.Parameter(torch.tensor(0.8)), spike=Atan())
    a, b = both(engine, neuron, torch.randn(6, 2, 37))
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    torch.testing.assert_close(a[2:], b[2:], rtol=1e-4, atol=1e-4)


def test_a_step_without_state():
    """Everything but memory: several inputs and outputs, a learned parameter of every shape, all formats."""

    @rb.step(inputs=("x", "gate"), state={})
    def gated(x, gate, *, w, spike):
        return (spike(w * x - 0.5), gate * x + w), ()

    for shape in [(), (5,), (3, 5)]:
        w = torch.nn.Parameter(torch.rand(shape) + 0.5)
        neuron = Neuron(gated, w=w, spike=Atan())
        inputs = [torch.randn(4, 2, 3, 5, requires_grad=True) for _ in range(2)]
        found = []
        for engine in ("cpu", "reference"):
            with rb.engine(engine):
                (s, y), state = neuron.sequence(inputs, None)
                grads = torch.autograd.grad((s * y).cumsum(0).sum(), [*inputs, w])
            assert state == ()
            found.append((s, y, *grads))
        assert torch.equal(found[0][0], found[1][0])
        assert torch.equal(found[0][1], found[1][1])
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(3,), (5000,)], ids=["small", "large"])
def test_a_step_without_state_in_bfloat16(shape):
    """Parameters and their gradients stay float32, with no state to tell."""

    @rb.step(state={})
    def scaled(x, *, w):
        return x * w, ()

    neuron = Neuron(scaled, w=torch.nn.Parameter(torch.rand(shape)))
    x = torch.randn(3, 2, *shape).bfloat16().requires_grad_()
    found = []
    for engine in ("cpu", "reference"):
        with rb.engine(engine):
            y = neuron(x)
            found.append((y, *torch.autograd.grad(y.float().square().sum(), [x, neuron.w])))
    assert found[0][2].dtype == torch.float32
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(*found, rtol=2**-7, atol=1e-3)


def test_a_stateless_step_streams():
    @rb.step(state={})
    def squared(x):
        return x * x, ()

    x, neuron = torch.randn(5, 2, 3), Neuron(squared)
    with rb.stream(neuron) as run:
        assert torch.equal(torch.cat([run(x[:2]), run(x[2:])]), x * x)


def test_five_states_and_parameters_of_every_shape():
    names = tuple("abcde")

    @rb.step(inputs=("x", "y"), state=dict.fromkeys(names, 0.1))
    def chain(x, y, a, b, c, d, e, *, p, q, r, spike):
        a = 0.5 * a + x
        b = 0.5 * b + p * a
        c = torch.minimum(c + q * b, y)
        d = torch.where(c > d, 0.3 * c, r * d)
        s = spike(d + e - 0.5)
        return (s, c), (a, b, c, d, 0.9 * e + s)

    p, q, r = (torch.nn.Parameter(torch.rand(shape)) for shape in ((), (4, 1), (4, 6)))
    neuron = Neuron(chain, p=p, q=q, r=r, spike=Atan())
    inputs = [torch.randn(7, 2, 4, 6, requires_grad=True) for _ in range(2)]
    found = []
    for engine in ("cpu", "reference"):
        with rb.engine(engine):
            (s, c), state = neuron.sequence(inputs, None)
            total = (s * c).sum() + sum(v.square().sum() for v in state)
            found.append((s, c, *state, *torch.autograd.grad(total, [*inputs, p, q, r])))
    assert all(torch.equal(a, b) for a, b in zip(found[0][:7], found[1][:7], strict=True))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_rounding_is_straight_through():
    x = torch.tensor([-1.2, 0.5, 1.5, 2.7], requires_grad=True)
    y = round_ste(x)
    (3 * y).sum().backward()
    assert y.tolist() == [-1, 0, 2, 3]
    assert x.grad.tolist() == [3, 3, 3, 3]


OUTSIDE = {  # what a step says, the operation that the error names, the advice that it gives
    "matrix": (lambda x, v, w: x @ w + v, "dot", "a layer before the neuron"),
    "linear": (lambda x, v, w: torch.nn.functional.linear(x, torch.ones(5, 5)) + v, "multiplies matrices", "a layer"),
    "noise": (lambda x, v, w: x + torch.rand_like(x), "rand", "a further input"),
    "dropout": (lambda x, v, w: torch.nn.functional.dropout(x), "bernoulli", "a further input"),
    "sum": (lambda x, v, w: x - x.sum(), "sum", "one neuron of one sample"),
    "cumsum": (lambda x, v, w: torch.cumsum(x, 0), "cumsum", "one neuron of one sample"),
    "softmax": (lambda x, v, w: torch.softmax(x, 0), "_softmax", "one neuron of one sample"),
    "index": (lambda x, v, w: x[:, 0], "does not run on lanes", "one neuron of one sample"),
    "branch": (lambda x, v, w: x if v > 0 else -x, "branches in Python", "torch.where"),
    "number": (lambda x, v, w: x * v.item(), "takes a Python number out", "torch.where"),
    "log2": (lambda x, v, w: torch.log2(x), "log2", "torch.log(x) / 0.693"),
    "remainder": (lambda x, v, w: torch.remainder(x, w), "remainder", "x - y * torch.floor(x / y)"),
    "floor divide": (lambda x, v, w: x // w, "floor_divide", "torch.floor(x / y)"),
    "gelu": (lambda x, v, w: torch.nn.functional.gelu(x), "gelu", "torch.erf"),
    "inverse erf": (lambda x, v, w: torch.erfinv(x), "erfinv", "a polynomial"),
    "atan2": (lambda x, v, w: torch.atan2(x, w), "atan2", "torch.atan(y / x)"),
    "bessel": (lambda x, v, w: torch.special.i0(x), "i0", "write it with arithmetic"),
}


@pytest.mark.parametrize("case", sorted(OUTSIDE))
def test_an_operation_outside_names_itself_and_the_nearest(case):
    say, operation, advice = OUTSIDE[case]
    step = rb.step(state={"v": 0.5})(lambda x, v, *, w: (say(x, v, w), (v,)))
    with pytest.raises(UnsupportedOperationError, match=operation) as caught:
        Neuron(step, w=1.5)
    assert advice in str(caught.value)
    assert "fallback='reference'" in str(caught.value)


@pytest.mark.parametrize(
    ("instead", "torch_says"),
    [
        (lambda x, y: 0.5 * x * (1 + torch.erf(x / 2**0.5)), lambda x, y: torch.nn.functional.gelu(x)),
        (lambda x, y: torch.exp(0.6931471805599453 * x), lambda x, y: torch.exp2(x)),
        (lambda x, y: torch.log(x) / 0.6931471805599453, lambda x, y: torch.log2(x)),
        (lambda x, y: torch.log(x) / 2.302585092994046, lambda x, y: torch.log10(x)),
        (lambda x, y: torch.sin(x) / torch.cos(x), lambda x, y: torch.tan(x)),
        (lambda x, y: torch.log(x + torch.sqrt(x * x + 1)), lambda x, y: torch.asinh(x)),
        (lambda x, y: torch.log(y + torch.sqrt(y * y - 1)), lambda x, y: torch.acosh(y)),
        (lambda x, y: 0.5 * torch.log((1 + x) / (1 - x)), lambda x, y: torch.atanh(x)),
        (lambda x, y: torch.atan(x / torch.sqrt(1 - x * x)), lambda x, y: torch.asin(x)),
        (
            lambda x, y: 1.5707963267948966 - torch.atan(x / torch.sqrt(1 - x * x)),
            lambda x, y: torch.acos(x),
        ),
        (lambda x, y: y - x * torch.floor(y / x), lambda x, y: torch.remainder(y, x)),
        (lambda x, y: y - x * torch.trunc(y / x), lambda x, y: torch.fmod(y, x)),
        (
            lambda x, y: torch.maximum(x, y) + torch.log1p(torch.exp(-(x - y).abs())),
            lambda x, y: torch.logaddexp(x, y),
        ),
    ],
)
def test_the_advice_is_right(instead, torch_says):
    """What the messages tell to write instead computes the same, on numbers from 0.1 to 0.9 and from 1.1 to 3."""
    x, y = torch.linspace(0.1, 0.9, 50, dtype=torch.float64), torch.linspace(1.11, 3.03, 50, dtype=torch.float64)
    torch.testing.assert_close(instead(x, y), torch_says(x, y), rtol=1e-12, atol=1e-12)


def test_what_cannot_be_fused_runs_on_the_reference_engine_if_allowed():
    """With one warning for the step, however many neurons are made of it; state and gradients as ever."""

    @rb.step(state={"v": 0.0}, fallback="reference")
    def normalised(x, v, *, w, spike):
        h = w * v + x / (1 + x.abs().amax(-1, keepdim=True))
        s = spike(h - 0.5)
        return s, (h * (1 - s),)

    w = torch.nn.Parameter(torch.tensor(0.9))
    with pytest.warns(RuntimeWarning, match=r"step 'normalised' uses amax.*unfused.*reference engine") as caught:
        neuron = Neuron(normalised, w=w, spike=Atan())
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Neuron(normalised, w=0.5, spike=Atan())
    x = torch.randn(6, 3, 40, requires_grad=True)
    y, last = neuron.sequence(x, None)
    v, expected = torch.zeros(3, 40), []
    for row in x:
        s, (v,) = normalised(row, v, w=w, spike=Atan())
        expected.append(s)
    assert torch.equal(y, torch.stack(expected))
    assert y.any()
    assert torch.equal(last[0], v)
    got, wanted = (torch.autograd.grad(s.cumsum(0).sum(), [x, w]) for s in (y, torch.stack(expected)))
    torch.testing.assert_close(got, wanted)
    with rb.stream(neuron) as run:
        assert torch.equal(torch.cat([run(x[:2]), run(x[2:])]), y)
    assert not neuron.scan.fused
    assert neuron.emits == "real"
    with pytest.raises(ValueError, match="'normalised' runs on the reference engine; it has no traced text"):
        neuron.scan.text()


def test_a_step_that_can_be_fused_does_not_fall_back():
    @rb.step(state={"v": 0.0}, fallback="reference")
    def plain(x, v):
        return v + x, (v + x,)

    assert Neuron(plain).scan.fused


def test_mistakes_are_not_mistaken_for_missing_operations():
    def wrong(x, v):
        return undefined_name + x, (v,)

    with pytest.raises(NameError):
        Neuron(rb.step(state={"v": 0.0}, fallback="reference")(wrong))
