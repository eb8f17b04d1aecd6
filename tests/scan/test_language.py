"""The language of steps: every operation, and random steps built from it, mean the same on every engine."""

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import rheobase as rb
from rheobase.neurons import Atan, Neuron

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
    "lerp": lambda a, b: torch.lerp(a, b, 0.25),
    "alpha": lambda a, b: torch.add(a, b, alpha=0.5),
    "heaviside": lambda a, b: (a >= 0).to(a.dtype) * b,
}
SMOOTH = {  # these go through functions of the C library or a vector library: equal to a few units in the last place
    # torch's own square root is a unit off at times, by the vector library it finds on some processors; ours never is
    "root": lambda a, b: (a.abs() + 0.1).sqrt() + b,
    "half power": lambda a, b: (a.abs() + 0.1) ** 0.5 - b,
    "exp": lambda a, b: torch.exp(-a.abs()) + b,
    "log": lambda a, b: torch.log(a.abs() + 1) + b,
    "tanh": lambda a, b: torch.tanh(a) + b,
    "sigmoid": lambda a, b: torch.sigmoid(a) * b,
    "sin": lambda a, b: torch.sin(a) + b,
    "cos": lambda a, b: torch.cos(a) - b,
    "atan": lambda a, b: torch.atan(a) + b,
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
