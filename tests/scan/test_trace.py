import pytest
import torch

import rheobase as rb
from rheobase.neurons import Atan, Neuron
from rheobase.scan import Scan, UnsupportedOperationError
from rheobase.scan.ir import Node, live, parse


def scan_of(fn, *, inputs=("x",), state=None, **constants):
    return Scan(rb.step(inputs=inputs, state={"v": 0.0} if state is None else state)(fn), **constants)


def plain(x, v, *, tau, spike):
    h = v + (x - v) / tau
    s = spike(h - 1.0)
    return s, (h * (1 - s),)


def test_text_and_program_are_one():
    text = scan_of(plain, spike=Atan()).text()
    assert str(parse(text)) == text


def test_both_membrane_formats_trace_to_the_same_text():
    scan = scan_of(plain, spike=Atan())
    assert scan.text(torch.float32) == scan.text(torch.float64)


def test_an_output_is_binary_if_it_is_a_spike():
    def graded(x, v, *, spike):
        s = spike(v + x - 1.0)
        return (s, 2 * s), (v + x,)

    assert parse(scan_of(graded, spike=Atan()).text()).binary == (True, False)


def test_what_depends_on_parameters_alone_is_hoisted():
    def fn(x, v, *, w, spike):
        return spike(v + x - 1.0), (v * torch.exp(-1 / w) + x,)

    program = parse(scan_of(fn, spike=Atan()).text())
    assert "exp" in [node.op for node in program.hoisted]
    assert "exp" not in [node.op for node in program.nodes]


def test_infinite_constants_survive_the_text():
    node = Node("n0", "minimum", ("x", float("inf")))
    assert "1e999" in str(node)

    def fn(x, v):
        return torch.where(v > 0, x, float("inf")), (v + x,)

    text = scan_of(fn).text()
    assert str(parse(text)) == text
    y, _ = scan_of(fn)(torch.ones(2, 1, 3))
    assert y[0].isinf().all()
    assert torch.equal(y[1], torch.ones(1, 3))


def test_live_keeps_what_is_needed():
    nodes = [Node("a", "add", ("x", 1.0)), Node("b", "mul", ("x", 2.0)), Node("c", "neg", ("a",))]
    assert [n.name for n in live(nodes, ["c"])] == ["a", "c"]


@pytest.mark.parametrize(
    ("fn", "word"),
    [
        (lambda x, v: (torch.cumsum(x, 0), (v,)), "cumsum"),
        (lambda x, v: (x.sort().values, (v,)), "sort"),
        (lambda x, v: ((-2.0) ** x, (v,)), "pow of the number -2"),
    ],
)
def test_an_operation_outside_the_language_is_named(fn, word):
    with pytest.raises(UnsupportedOperationError, match=word):
        scan_of(fn)


def test_a_tensor_from_outside_must_be_a_parameter():
    outside = torch.tensor(3.0)
    with pytest.raises(UnsupportedOperationError, match="pass it as a parameter"):
        scan_of(lambda x, v: (x * outside, (v,)))


def test_comparing_a_spike_raises():
    def fn(x, v, *, spike):
        s = spike(x)
        return torch.where(s > 0.5, x, v), (v,)

    with pytest.raises(UnsupportedOperationError, match="a spike enters"):
        scan_of(fn, spike=Atan())


def test_a_step_must_return_as_many_states_as_it_has():
    with pytest.raises(ValueError, match=r"returned 2 next states for 1 states \('v',\)"):
        scan_of(lambda x, v: (x, (v, v)))
    with pytest.raises(ValueError, match="expected \\(output, \\(next state"):
        scan_of(lambda x, v: x)


@pytest.mark.parametrize(
    ("inputs", "state", "params"),
    [
        ("x, x_row0", "v", "tau"),
        ("x", "v, v_first_step", "tau"),
        ("x", "v", "tau, tau_inverse"),
        ("x, x_1", "v", "tau"),
    ],
)
def test_names_that_generated_code_would_mix_up_are_refused(inputs, state, params):
    names = {"rb": rb}
    exec(f"def mixed({inputs}, {state}, *, {params}):\n    return v, ({state},)", names)
    with pytest.raises(ValueError, match=r"step 'mixed' has '.*' and '.*', which generated code would mix up"):
        rb.step(inputs=inputs.split(", "), state=dict.fromkeys(state.split(", "), 0.0))(names["mixed"])


def test_names_may_begin_alike():
    @rb.step(inputs=("x", "x_pre"), state={"v": 0.0, "v_dendrite": 0.0})
    def fine(x, x_pre, v, v_dendrite, *, tau, tau_m):
        return v, (v + x / tau, v_dendrite + x_pre / tau_m)

    assert fine.name == "fine"


def test_positional_arguments_are_inputs_and_states():
    with pytest.raises(ValueError, match=r"takes \('x', 'u'\), expected its inputs and then its states \('x', 'v'\)"):
        rb.step(state={"v": 0.0})(lambda x, u: (x, (u,)))


def test_a_name_may_be_any_identifier():
    """Names of the user's arguments and of generated code do not meet."""

    def fn(i, t, *, a, n, T, scratch):
        return i * a + t * n, (t * T + i * scratch,)

    neuron = Neuron(rb.step(inputs=("i",), state={"t": 0.5})(fn), a=1.0, n=2.0, T=0.5, scratch=3.0)
    x = torch.randn(4, 2, 5, requires_grad=True)
    found = []
    for engine in ("cpu", "reference"):
        with rb.engine(engine):
            y = neuron(x)
            found.append((y, torch.autograd.grad(y.square().sum(), x)[0]))
    torch.testing.assert_close(found[0], found[1])


def test_several_inputs_states_and_outputs():
    def fn(current, modulator, v, w, *, decay, gain):
        v = v * decay + current - w
        w = torch.tanh(w + gain * modulator * v)
        return (torch.maximum(v, w), torch.sin(v)), (v, w)

    step = rb.step(inputs=("current", "modulator"), state={"v": 0.0, "w": 0.1})(fn)
    scan = Scan(step)
    gain = torch.rand(7, requires_grad=True)
    xs = [torch.randn(6, 3, 7, requires_grad=True) for _ in range(2)]
    found = []
    for engine in ("cpu", "reference"):
        with rb.engine(engine):
            (a, b), (v, w) = scan(xs, decay=0.9, gain=gain)
            found.append((a, b, v, w, *torch.autograd.grad((a * b).sum() + v.sum() + (w * w).sum(), [*xs, gain])))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_rest_may_depend_on_parameters():
    def fn(x, v, *, level):
        return v + x, (v,)

    scan = Scan(rb.step(state={"v": lambda level: 2 * level})(fn))
    level = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    found = []
    for engine in ("cpu", "reference"):
        with rb.engine(engine):
            y, _ = scan(torch.zeros(2, 4, 3), level=level)
            found.append((y, torch.autograd.grad(y.sum(), level)[0]))
    assert torch.equal(found[0][0], (2 * level).expand(2, 4, 3))
    torch.testing.assert_close(found[0], found[1])


def test_a_neuron_takes_ten_lines():
    @rb.step(state={"v": 0.0, "a": 0.0})
    def adaptive(x, v, a, *, tau, beta, spike):
        h = v + (x - v) / tau
        s = spike(h - (1 + beta * a))
        return s, (h * (1 - s.detach()), 0.9 * a + s)

    neuron = Neuron(adaptive, tau=2.0, beta=torch.nn.Parameter(torch.tensor(0.3)), spike=Atan())
    x = torch.randn(8, 2, 40) * 3
    found = []
    for engine in ("cpu", "reference"):
        with rb.engine(engine):
            y = neuron(x)
            found.append((y, torch.autograd.grad(y.cumsum(0).sum(), neuron.beta)[0]))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-4)
    assert neuron.emits == "binary"


def test_traces_are_shared():
    a, b = Scan(rb.neurons.lif.leaky_integrate_and_fire, **LIF), Scan(rb.neurons.lif.leaky_integrate_and_fire, **LIF)
    assert a.text() is b.text()


LIF = {"spike": Atan(), "reset": "zero", "detach_reset": True, "strict": False}
