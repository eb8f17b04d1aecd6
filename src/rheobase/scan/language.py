"""What a step cannot say, and what to say instead."""

import re
import warnings
from collections.abc import Iterable
from typing import Any

_LAYER = "put a layer before the neuron, or rb.nn.Recurrent around it where the spikes feed back"
_NOISE = "make the noise a further input, @rb.step(inputs=('x', 'noise'), ...), and draw it outside"
_ONE = "a step sees one neuron of one sample at a time, so do this before or after it"
_ITEM = "keep the value a tensor, and choose with torch.where"

MATRIX = frozenset({
    "matmul", "mm", "mv", "bmm", "dot", "vdot", "addmm", "addmv", "baddbmm", "linear", "convolution", "einsum", "outer",
    "embedding", "batch_norm", "native_batch_norm", "native_layer_norm",
})  # fmt: skip
"""Operations that mix neurons: a layer's work."""
_FAMILIES: dict[str, Iterable[str]] = {
    _LAYER: MATRIX,
    _NOISE: (
        "rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "bernoulli", "normal", "uniform",
        "exponential", "poisson", "multinomial", "geometric", "log_normal", "cauchy", "dropout", "native_dropout",
    ),
    _ONE: (
        "sum", "mean", "amax", "amin", "max", "min", "aminmax", "prod", "any", "all", "var", "var_mean", "std", "norm",
        "linalg_vector_norm", "argmax", "argmin", "sort", "topk", "median", "cumsum", "cumprod", "logsumexp", "roll",
        "softmax", "_softmax", "_log_softmax", "flip", "index", "index_select", "index_put", "gather", "scatter",
        "select", "slice", "cat", "stack", "split", "permute", "transpose", "t", "unsqueeze", "squeeze", "repeat",
    ),
    _ITEM: ("_local_scalar_dense", "nonzero", "masked_select", "unique"),
}  # fmt: skip
_ADVICE = {
    "pow": "write exponents of 2, 3, 0.5, -0.5 and -1, or torch.exp(y * torch.log(x)) for positive x",
    "gelu": "write 0.5 * x * (1 + torch.erf(x / 2**0.5))",
    "exp2": "write torch.exp(0.6931471805599453 * x)",
    "log2": "write torch.log(x) / 0.6931471805599453",
    "log10": "write torch.log(x) / 2.302585092994046",
    "tan": "write torch.sin(x) / torch.cos(x)",
    "sinh": "write 0.5 * (torch.exp(x) - torch.exp(-x))",
    "cosh": "write 0.5 * (torch.exp(x) + torch.exp(-x))",
    "asinh": "write torch.log(x + torch.sqrt(x * x + 1))",
    "acosh": "write torch.log(x + torch.sqrt(x * x - 1))",
    "atanh": "write 0.5 * torch.log((1 + x) / (1 - x))",
    "asin": "write torch.atan(x / torch.sqrt(1 - x * x))",
    "acos": "write 1.5707963267948966 - torch.atan(x / torch.sqrt(1 - x * x))",
    "atan2": "write torch.atan(y / x) and choose the branch with torch.where",
    "hypot": "write torch.sqrt(x * x + y * y)",
    "erfc": "write 1 - torch.erf(x)",
    "erfinv": "use a polynomial, or torch.tanh and torch.atan, which have inverses here",
    "erfcx": "use a polynomial",
    "lgamma": "use a polynomial",
    "digamma": "use a polynomial",
    "remainder": "write x - y * torch.floor(x / y)",
    "fmod": "write x - y * torch.trunc(x / y)",
    "floor_divide": "write torch.floor(x / y)",
    "div(rounding_mode='floor')": "write torch.floor(x / y)",
    "div(rounding_mode='trunc')": "write torch.trunc(x / y)",
    "frac": "write x - torch.trunc(x)",
    "fmin": "write torch.minimum",
    "fmax": "write torch.maximum",
    "logical_xor": "write a != b",
    "bitwise_xor": "write a != b",
    "isnan": "write x != x",
    "nan_to_num": "write torch.where(x == x, x, 0.0)",
    "isinf": "write x.abs() == float('inf')",
    "logaddexp": "write torch.maximum(a, b) + torch.log1p(torch.exp(-(a - b).abs()))",
    "heaviside": "write (x >= 0).to(x.dtype), or a surrogate where a gradient is wanted",
    "complex": "carry the real and the imaginary part as two states",
    "view_as_complex": "carry the real and the imaginary part as two states",
    **{name: advice for advice, names in _FAMILIES.items() for name in names},
}
_GENERAL = (
    "write it with arithmetic, comparison, where, minimum, maximum, clamp, exp, log, tanh, sigmoid, sqrt, sin, cos, "
    "atan, erf, round (scan.round_ste), floor, ceil, trunc, abs, sign, detach"
)


class UnsupportedOperationError(ValueError):
    """A step uses an operation that the language of steps does not have."""

    def __init__(self, step: str, problem: str, advice: str) -> None:
        self.problem = problem
        super().__init__(
            f"step {step!r} {problem}; {advice}. To run it unfused all the same, declare "
            f"@rb.step(..., fallback='reference')"
        )


def lacks(step: str, operation: str) -> UnsupportedOperationError:
    """The error for an operation that the language does not have, with the nearest one that it has."""
    advice = _ADVICE.get(operation) or _ADVICE.get(operation.partition(" ")[0], _GENERAL)
    return UnsupportedOperationError(step, f"uses {operation}, which a fused step does not have", advice)


def fails(step: str, error: Exception) -> UnsupportedOperationError:
    """The error for a step that torch cannot run on lanes."""
    text = str(error).strip().partition("\n")[0]
    if "Boolean value of Tensor" in text:
        return UnsupportedOperationError(step, "branches in Python on a tensor's value", _ITEM)
    if "cannot be converted to Scalar" in text:
        return UnsupportedOperationError(step, "takes a Python number out of a tensor", _ITEM)
    if missing := re.match(r"derivative for aten::(\w+) is not implemented", text):
        return lacks(step, missing[1])
    if "cannot be multiplied" in text:
        return UnsupportedOperationError(step, f"multiplies matrices ({text})", _LAYER)
    problem = f"does not run on lanes, tensors of equal shape (2,) for every argument ({text})"
    return UnsupportedOperationError(step, problem, _ONE)


_warned: set[Any] = set()


def fall_back(step: Any, error: UnsupportedOperationError) -> None:
    """Raise `error` unless the step allows the reference engine; else warn, once for each step.

    Raises:
        UnsupportedOperationError: the step was declared without `fallback="reference"`.
    """
    if step.fallback != "reference":
        raise error
    if step not in _warned:
        _warned.add(step)
        warnings.warn(
            f"step {step.name!r} {error.problem}: it runs unfused, one time step after the other, on the reference "
            f"engine, many times slower",
            RuntimeWarning,
            stacklevel=5,
        )
