import ast

import pytest

from rheobase.neurons import LIF, create_neuron
from rheobase.scan.emit_triton import TritonLayout, emit_backward, emit_forward, expression, within
from rheobase.scan.ir import Node, parse


def layout(**fields):
    return TritonLayout("f32", frozenset({"p_tau", "p_threshold"}), frozenset(), 128, **fields)


BACKWARD = {"grads_outputs": (True,), "inputs": (True,), "states": (False,), "grads_next": (False,)}


def sources(name="lif", **fields):
    program = within(parse(create_neuron(name).scan.text()))
    return emit_forward(program, layout(**fields)), emit_backward(program, layout(**BACKWARD, **fields))


def test_sources_are_python_and_always_the_same():
    for looped in (False, True):
        fields = {"head": 3, "chunk": 4, "looped": looped, "kept": looped}
        assert sources(**fields) == sources(**fields)
        for source in sources(**fields):
            ast.parse(source)


def test_a_sequence_of_one_chunk_needs_no_buffer():
    whole, chunked = sources(head=4)[1], sources(head=4, chunk=4, looped=True, kept=True)[1]
    assert "history" not in whole
    assert "debug_barrier" not in whole
    assert chunked.count("tl.debug_barrier()") == 2
    assert chunked.count("tl.store(history") == 1


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (Node("n", "div", ("a", "b")), "tl.div_rn(a, b)"),
        (Node("n", "div", ("a", 3.0)), "tl.div_rn(a, tl.full((), 3.0, tl.float32))"),
        (Node("n", "div", ("a", 4.0)), "a * 0.25"),
        (Node("n", "div", ("a", "p_two")), "a * tl.div_rn(tl.full((), 1.0, tl.float32), p_two)"),
        (Node("n", "sqrt", ("a",)), "tl.sqrt_rn(a)"),
        (Node("n", "sub", ("a", -0.5)), "a - (-0.5)"),
        (Node("n", "mul", ("a", 1e-40)), "a * tl.full((), 1e-40, tl.float32)"),
        (Node("n", "minimum", ("a", float("inf"))), 'tl.full((), float("inf"), tl.float32)'),
        (Node("n", "add", (0.0, 0.0)), "tl.full((), 0.0, tl.float32) + tl.full((), 0.0, tl.float32)"),
    ],
    ids=str,
)
def test_expressions(node, text):
    found = expression(node, frozenset({"p_two"}))
    assert text in found
    ast.parse(found)


def test_an_operation_that_the_engine_lacks_is_named():
    with pytest.raises(ValueError, match=r"the triton engine has no 'gamma'; run this step under rb.engine"):
        expression(Node("n0", "gamma", ("in_x",)))


def test_hoisted_arithmetic_moves_into_the_kernel_and_functions_stay():
    program = parse(create_neuron("plif").scan.text())
    inside = within(program)
    assert {node.op for node in inside.hoisted} == {"sigmoid"}
    assert len(inside.hoisted) + len(inside.nodes) == len(program.hoisted) + len(program.nodes)
    assert within(parse(LIF().scan.text())).hoisted == ()
