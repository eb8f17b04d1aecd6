r"""A program made of another: a step whose first input is normalised, $f(ax + b\,[+ r], v; \theta)$; one that packs.

The scale a and shift b of each channel are parameters like any other and r is one more input, so that one kernel
normalises and runs the neuron, and every engine has it without code of its own.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from rheobase.scan.ir import Node, Program, parse

SCALE, SHIFT, MEAN, PLUS = "p_norm_scale", "p_norm_shift", "p_norm_mean", "in_norm_plus"


@lru_cache(maxsize=1024)
def normed_text(text: str, plus: bool) -> str:
    r"""The step `text` with its first input normalised and, with `plus`, added to a further input behind it.

    The gradient of the input is that of the normalised one, g, and that of the scale is $g(x-\mu)$: with the shift
    taken as $\beta - a\mu$, its sum is the gradient of the gain up to a factor, without cancellation.
    """
    program = parse(text)
    x, g = program.inputs[0], program.grads_inputs[0]
    scaled, shifted = Node("norm0", "mul", (x, SCALE)), Node("norm1", "add", ("norm0", SHIFT))
    total = Node("norm2", "add", ("norm1", PLUS))
    first = [scaled, shifted, *([total] if plus else [])]

    def renamed(name: str) -> str:
        return first[-1].name if name == x else name

    def renamed_all(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(renamed(name) for name in names)

    nodes = [replace(n, args=tuple(renamed(a) if isinstance(a, str) else a for a in n.args)) for n in program.nodes]
    last = [Node("norm3", "sub", (x, MEAN)), Node("norm4", "mul", (renamed(g), "norm3"))]
    grads = renamed_all(program.grads_inputs)
    made = replace(
        program,
        inputs=(x, *([PLUS] if plus else []), *program.inputs[1:]),
        params=(SCALE, SHIFT, MEAN, *program.params),
        outputs=renamed_all(program.outputs),
        next_states=renamed_all(program.next_states),
        grads_inputs=(grads[0], *([grads[0]] if plus else []), *grads[1:]),
        grads_states=renamed_all(program.grads_states),
        grads_params=("norm4", renamed(g), "norm3", *renamed_all(program.grads_params)),
        nodes=(*first, *nodes, *last),
    )
    return str(made)


@lru_cache(maxsize=1024)
def packed_text(text: str) -> str:
    """The step `text` that writes all outputs as bits: where they are not zero."""
    program = parse(text)
    return str(replace(program, packed=(True,) * len(program.outputs)))


def _program(
    name: str,
    inputs: Sequence[str],
    params: Sequence[str],
    output: str,
    nodes: Sequence[Node],
    grads_params: Sequence[str] | None = None,
) -> Program:
    """A step without state; where nothing else is said, its gradients are those of its output or not asked for."""
    return Program(
        name=name,
        inputs=tuple(inputs),
        states=(),
        params=tuple(params),
        outputs=(output,),
        binary=(False,),
        next_states=(),
        grads_inputs=("grad_out0",) * len(inputs),
        grads_states=(),
        grads_params=tuple(grads_params or ["grad_out0"] * len(params)),
        hoisted=(),
        nodes=tuple(nodes),
    )


IDENTITY = {plus: normed_text(str(_program("normalisation", ["in_x"], [], "in_x", [])), plus) for plus in (False, True)}
"""Normalisation alone, without and with a sum; the gradient of the normalised value is the one given."""

COMBINATION = str(
    _program(
        "normalisation_backward",
        ["in_g", "in_x"],
        ["p_a", "p_b", "p_c"],
        "n3",
        [
            Node("n0", "mul", ("p_a", "in_g")),
            Node("n1", "mul", ("p_b", "in_x")),
            Node("n2", "add", ("n1", "p_c")),
            Node("n3", "add", ("n0", "n2")),
        ],
    )
)
"""$ag + (bx + c)$."""

MOMENTS = str(
    _program(
        "moments",
        ["in_x"],
        ["p_shift", "p_first", "p_second"],
        "in_x",
        [Node("n0", "sub", ("in_x", "p_shift")), Node("n1", "mul", ("n0", "n0"))],
        ["grad_out0", "n0", "n1"],
    )
)
"""The gradients of its last two parameters are the sums of x - shift and of its square over all that they stand for."""
