"""exp, log, tanh and the others as arithmetic: accuracy, limits, equal bits, vector instructions, parity."""

import re

import numpy as np
import pytest
import torch
from scipy import special

import rheobase as rb
from rheobase.neurons import Atan, Neuron
from rheobase.scan import run_cpu
from rheobase.scan.emit_cpu import Layout, emit_backward, emit_forward
from rheobase.scan.functions import FUNCTIONS, lower
from rheobase.scan.ir import TORCH, live
from rheobase.scan.trace import trace

F = np.float32
EXACT = {
    "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "tanh": np.tanh, "sigmoid": special.expit,
    "sin": np.sin, "cos": np.cos, "atan": np.arctan, "erf": special.erf,
}  # fmt: skip
# the greatest errors that the module's page states
ULP = {
    "exp": 0.99, "expm1": 1.46, "log": 0.88, "log1p": 1.42, "tanh": 1.46, "sigmoid": 2.49, "sin": 2.36, "cos": 2.43,
    "atan": 1.56, "erf": 1.30,
}  # fmt: skip
INF, NAN = float("inf"), float("nan")
SPECIAL = {
    "exp": [(0.0, 1), (INF, INF), (-INF, 0), (NAN, NAN), (88.7228, 3.40269e38), (88.73, INF), (-87.33, 1.1833e-38),
            (-87.34, 0)],
    "expm1": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -1), (NAN, NAN), (88.73, INF), (-1e-40, -1e-40),
              (-1e30, -1)],
    "log": [(0.0, -INF), (-0.0, -INF), (1.0, 0), (INF, INF), (-1.0, NAN), (-INF, NAN), (NAN, NAN), (1e-40, -92.1034)],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (-1.0, -INF), (INF, INF), (-1.5, NAN), (-INF, NAN), (NAN, NAN), (1e-40, 1e-40)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (INF, 1), (-INF, -1), (NAN, NAN), (9.5, 1), (-1e30, -1), (1e-40, 1e-40)],
    "sigmoid": [(0.0, 0.5), (INF, 1), (-INF, 0), (NAN, NAN), (-89.0, 0), (20.0, 1), (1e30, 1)],
    "sin": [(0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN), (NAN, NAN), (1e-40, 1e-40)],
    "cos": [(0.0, 1), (-0.0, 1), (INF, NAN), (-INF, NAN), (NAN, NAN), (1e-40, 1)],
    "atan": [(0.0, 0.0), (-0.0, -0.0), (INF, np.pi / 2), (-INF, -np.pi / 2), (NAN, NAN), (1.0, np.pi / 4),
             (1e-40, 1e-40)],
    "erf": [(0.0, 0.0), (-0.0, -0.0), (INF, 1), (-INF, -1), (NAN, NAN), (4.5, 1), (-1e30, -1)],
}  # fmt: skip


def ldexp(x, n):
    return (F(x).view(np.uint32) + (F(n + F(1.5 * 2**23)).view(np.uint32) << np.uint32(23))).view(F)


def exponent(x):
    return F((x.view(np.int32) - np.int32(0x3F3504F3)) >> np.int32(23))


NUMPY = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative, "abs": np.abs,
    "minimum": np.minimum, "maximum": np.maximum, "where": np.where, "lt": np.less, "le": np.less_equal,
    "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal, "ldexp": ldexp, "exponent": exponent,
    "floor": np.floor,
}  # fmt: skip


def evaluate(program, *inputs):
    """Outputs of a lowered program without state, in NumPy's single precision."""
    values = dict(zip(program.inputs, inputs, strict=True))
    with np.errstate(all="ignore"):
        for node in live(program.nodes, program.outputs):
            values[node.name] = NUMPY[node.op](*(values[a] if isinstance(a, str) else F(a) for a in node.args))
    return [values[name] for name in program.outputs]


def of(fn, dtype=torch.float32):
    """The traced step that maps its input by `fn` and has no state."""
    return trace(lambda x: (fn(x), ()), "function", ["x"], [], [], {}, dtype=dtype)


def together(names=tuple(EXACT)):
    """One step with every function of one argument as an output."""
    return of(lambda x: tuple(TORCH[name](x) for name in names))


def every_exponent(per_exponent=3000):
    """Normal numbers of both signs with random mantissas, and some below them."""
    bits = np.random.default_rng(0).integers(0, 2**23, (256, per_exponent), dtype=np.uint32)
    bits[1:255] |= np.arange(1, 255, dtype=np.uint32)[:, None] << np.uint32(23)
    bits[255] = np.linspace(F(0.25).view(np.uint32), F(32).view(np.uint32), per_exponent).astype(np.uint32)
    x = bits.reshape(-1).view(F)
    return np.concatenate([x, -x])


def limits():
    return np.array([x for cases in SPECIAL.values() for x, _ in cases], F)


def ulps(found, expected):
    exponents = np.maximum(np.frexp(expected)[1], -125)
    return np.abs(found.astype(np.float64) - expected) / np.ldexp(1.0, exponents - 24)


@pytest.mark.parametrize("name", EXACT)
def test_accuracy_over_all_exponents(name):
    x = every_exponent()
    if name in ("sin", "cos"):
        x = x[np.abs(x) <= 1e4]
    found = evaluate(lower(of(TORCH[name])), x)[0]
    with np.errstate(all="ignore"):
        expected = EXACT[name](x.astype(np.float64))
    normal = (np.abs(expected) >= 2.0**-126) & (np.abs(expected) <= float(np.finfo(F).max))
    assert normal.sum() > 100000
    assert ulps(found[normal], expected[normal]).max() <= ULP[name]
    rest = ~normal
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(found[rest], expected[rest].astype(F), rtol=1e-5, atol=2.0**-126)


@pytest.mark.parametrize("name", EXACT)
def test_limits(name):
    x, expected = np.array(SPECIAL[name], F).T.copy()
    found = evaluate(lower(of(TORCH[name])), x)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert np.array_equal(found[np.isinf(expected)], expected[np.isinf(expected)])
    zeros = expected == 0
    assert np.array_equal(np.signbit(found[zeros]), np.signbit(expected[zeros]))


def test_powers():
    general = lower(trace(lambda x, y: (x**y, ()), "power", ["x", "y"], [], [], {}))
    rng = np.random.default_rng(0)
    x, y = np.exp2(rng.uniform(-20, 20, 200000)).astype(F), rng.uniform(-8, 8, 200000).astype(F)
    expected = x.astype(np.float64) ** y
    normal = (expected > 2.0**-126) & (expected < 3e38)
    error = ulps(evaluate(general, x, y)[0], np.where(normal, expected, 1))
    assert (error <= 1 + 2 * np.abs(y * np.log(x)))[normal].all()
    cases = [(-2, 3, -8), (-2, 2, 4), (-2, 0.5, NAN), (0, 2, 0), (0, -1, INF), (0, 0, 1), (INF, -2, 0), (NAN, 2, NAN)]
    x, y, expected = np.array(cases, F).T.copy()
    np.testing.assert_allclose(evaluate(general, x, y)[0], expected, rtol=1e-6)
    for number in (1.7, -0.3, 17.0, 18.0, 4.0, -3.0, 0.0):
        fixed = lower(of(lambda x, n=number: x**n + 0 * x))
        x = np.array([1.25, 0.5, -1.5, 3.0], F)
        with np.errstate(invalid="ignore"):
            np.testing.assert_allclose(evaluate(fixed, x)[0], x.astype(np.float64) ** number, rtol=5e-6)


@pytest.mark.parametrize("name", ["tanh", "sin", "atan", "erf"])
def test_odd_functions_are_odd(name):
    x = every_exponent(300)
    if name == "sin":
        x = x[np.abs(x) < 2.0**22]
    program = lower(of(TORCH[name]))
    assert np.array_equal(evaluate(program, -x)[0].view(np.uint32), (-evaluate(program, x)[0]).view(np.uint32))


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_a_large_angle_is_known_to_its_last_places(name):
    x = np.random.default_rng(1).uniform(1e4, 2.0**22, 200000).astype(F)
    found = evaluate(lower(of(TORCH[name])), x)[0]
    assert (np.abs(found - EXACT[name](x.astype(np.float64))) <= 2 * np.spacing(x) + 2e-7).all()
    assert np.abs(evaluate(lower(of(TORCH[name])), every_exponent(300))[0]).max() <= 1


def test_a_lowered_step_has_arithmetic_alone():
    program = together()
    assert {*EXACT, "pow"} == {*FUNCTIONS}
    assert {*EXACT} <= {node.op for node in program.nodes}
    lowered = lower(program)
    assert {node.op for node in lowered.nodes} <= {*NUMPY}
    assert lowered.nodes == tuple(live(lowered.nodes, [*lowered.outputs, *lowered.grads_inputs]))
    assert lower(lowered) is lowered


def test_equal_parts_are_computed_once():
    def size(*names):
        lowered = lower(together(names))
        return len(live(lowered.nodes, lowered.outputs))

    assert size("exp", "expm1") < size("exp") + size("expm1")
    twice = lower(of(lambda x: (torch.sigmoid(x), (torch.exp(-x) + 1).reciprocal())))
    assert twice.outputs[0] == twice.outputs[1]
    assert np.array_equal(evaluate(twice, F([0.0, INF]))[1], F([0.5, 1.0]))


def test_the_function_of_a_number():
    program = lower(of(lambda x: x + torch.exp(torch.zeros_like(x) + 1.0)))
    assert np.array_equal(evaluate(program, F([2.0]))[0], F([2.0]) + F(np.e))


def test_hoisted_functions_stay_with_torch():
    program = trace(lambda x, *, w: (x * torch.sigmoid(w), ()), "scaled", ["x"], [], ["w"], {})
    assert "sigmoid" in {node.op for node in program.hoisted}
    assert lower(program) is program


@pytest.mark.parametrize("name", EXACT)
def test_double_precision_keeps_the_library(name):
    layout = Layout("f64", frozenset(), frozenset(), 256, (True,), (True,))
    program = of(TORCH[name], torch.float64)
    for source in (emit_forward(program, layout).text, emit_backward(program, layout).text):
        body = source[source.index("def forward" if "def forward" in source else "def backward") :]
        assert "ldexp(" not in body
        assert "exponent(" not in body
    library = {"sigmoid": "np.exp(", "atan": "np.arctan(", "erf": "math.erf("}.get(name, f"np.{name}(")
    assert library in emit_forward(program, layout).text


@pytest.fixture(scope="module")
def kernel():
    """The compiled forward kernel of a step with every function."""
    module = {"CACHE": False}
    exec(emit_forward(together(), Layout("f32", frozenset(), frozenset(), 1024)).text, module)
    return module["forward"]


def test_the_kernel_has_the_bits_of_the_nodes():
    x = np.concatenate([every_exponent(100), limits()])
    outputs, _ = run_cpu.forward(str(together()), [torch.from_numpy(x).reshape(1, 1, -1)], [], [])
    found = [output.numpy().ravel() for output in outputs]
    for name, got, expected in zip(EXACT, found, evaluate(lower(together()), x), strict=True):
        assert np.array_equal(np.isnan(got), np.isnan(expected)), name
        known = ~np.isnan(expected)
        assert np.array_equal(got[known].view(np.uint32), expected[known].view(np.uint32)), name


def test_the_kernel_calls_no_function_and_is_vectorised(kernel):
    text = kernel.inspect_llvm()
    called = set(re.findall(r"\bcall\b[^@\n]*@\"?(?:llvm\.|numba_)?([\w]+)", text))
    assert "memset" in called or "fabs" in called
    functions = {*FUNCTIONS, *EXACT, "exp2", "log2", "pow", "sincos", "ldexp", "exponent"}
    assert not called & {name + suffix for name in functions for suffix in ("", "f")}
    assert not [name for name in called if re.search(r"3e(ldexp|exponent)", name)]
    assert re.search(r"fmul <\d+ x float>", text)
    assert re.search(r"shl (nuw |nsw )*<\d+ x i32>", text)


def test_every_engine_agrees_on_each_function():
    """Against torch's functions, which have an error of a unit in the last place of their own."""
    x = torch.linspace(0.01, 4, 301).reshape(1, 1, -1)
    outputs, _ = run_cpu.forward(str(together()), [x], [], [])
    for name, got in zip(EXACT, outputs, strict=True):
        expected = TORCH[name](x)
        assert ulps(got.numpy(), expected.double().numpy()).max() <= ULP[name] + 1.5, name


def membrane(x, v, tau):
    """An exponential neuron with a bounded recovery: every kind of function in one loop."""
    return (
        v + (x - v + torch.exp((v - 1.5) * 2) - 0.3 * torch.tanh(v * x)) / tau + 0.1 * torch.sigmoid(v) * torch.sin(x)
    )


def firing(x, v, *, tau, spike):
    h = membrane(x, v, tau)
    s = spike(h - 1.0)
    return s, (h * (1 - s),)


def test_a_neuron_agrees_with_the_reference_up_to_ties():
    neuron = Neuron(rb.step(state={"v": 0.0})(firing), tau=torch.nn.Parameter(torch.tensor(2.5)), spike=Atan())
    x = torch.randn(20, 4, 500) * 2
    v, tied, ties = torch.zeros(4, 500), torch.zeros(4, 500, dtype=torch.bool), []
    with torch.no_grad():
        for x_t in x:
            h = membrane(x_t, v, neuron.tau)
            tied |= (h - 1.0).abs() <= 1e-5
            ties.append(tied.clone())
            v = torch.where(h >= 1.0, 0.0, h)
    free = ~torch.stack(ties)
    assert free[-1].float().mean() > 0.99
    upstream = torch.randn_like(x) * free[-1]
    found = []
    for engine in ("cpu", "reference"):
        leaf = x.clone().requires_grad_()
        with rb.engine(engine):
            y, (last,) = neuron.sequence(leaf, None)
            found.append((y, last, *torch.autograd.grad(y, [leaf, neuron.tau], upstream)))
    (y, last, to_x, to_tau), (y_, last_, to_x_, to_tau_) = found
    assert 0.05 < y_.mean() < 0.95
    assert torch.equal(y[free], y_[free])
    torch.testing.assert_close(last[free[-1]], last_[free[-1]], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(to_x, to_x_, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(to_tau, to_tau_, rtol=1e-4, atol=1e-4)
