r"""Exponential, logarithm, power, hyperbolic and trigonometric functions, lowered to arithmetic for fp32 membranes.

`lower` rewrites a traced step so that no transcendental operation is left: each becomes additions, products,
divisions, comparisons and selections of IEEE single precision in a fixed order, and two operations on bits:

- `ldexp(x, n)` $= x\,2^n$ for an integral `n`, where x and the result are normal numbers: the bits of x plus those of
  $n + 1.5\cdot2^{23}$ shifted left by 23, as 32-bit integers that wrap around.
- `exponent(x)` $= \lfloor\log_2(x/\sqrt{1/2})\rfloor$ as a float, for a positive normal x: the bits of x less
  0x3F3504F3, shifted right by 23 as a signed integer. So $x\,2^{-\mathrm{exponent}(x)}$ lies in
  $[\sqrt{1/2}, \sqrt2)$.

An emitter that has these two has every function, vectorised, and all engines compute the same bits (without contraction
and reassociation). Steps in fp64 keep the functions of the engine's library.

Method: the argument is reduced by subtracting a multiple of $\ln 2$ or $\pi/2$ in parts whose products are exact
(Cody and Waite, *Software Manual for the Elementary Functions*, 1980); the remaining polynomials are weighted minimax
fits of our own (Lawson's iteration in double precision on 3001 Chebyshev points, function values of mpmath with 40
digits, the coefficients rounded to single precision one after another, the later ones refitted).

Greatest error found against double precision, in units in the last place (ulp) of the true value, over all floats of
the ranges where it peaks and samples of every exponent elsewhere:

| exp  | expm1 | log  | log1p | tanh | sigmoid | atan | erf  | sin, abs(x) <= 10^4 | cos, abs(x) <= 10^4 |
|------|-------|------|-------|------|---------|------|------|---------------------|---------------------|
| 0.99 | 1.46  | 0.88 | 1.42  | 1.46 | 2.49    | 1.56 | 1.30 | 2.36                | 2.43                |

`pow(x, y)` $= e^{y\log|x|}$, with the sign of an odd power: its error grows to $1 + 2|y \log x|$ ulp.

Limits: a subnormal result of exp and sigmoid is flushed to zero (exp from -87.3365 down, sigmoid from -88.7229 down);
overflow gives inf, log(0) = -inf, log of a negative number NaN, tanh and erf saturate at +-1, NaN stays NaN, and odd
functions keep the sign of zero. sin and cos beyond the stated range are those of a number within 2 ulp of the argument
up to 2^22; further out a float is no angle any more, and the value is some number in [-1, 1].
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from rheobase.scan.ir import Arg, Node, Program, live

_SHIFT = 12582912.0  # 1.5 * 2**23: adding and subtracting it rounds to the nearest integer, ties to even
_LARGEST = 3.4028234663852886e38
_SMALLEST = 2.0**-126

_LN2 = (0.693145751953125, 1.4286068203e-06)
_HALF_PI = (1.5703125, 2029 * 2.0**-22, 1297 * 2.0**-34, 2.5633441516e-12)

# exp(r) = 1 + r + r^2 P(r) on |r| <= ln(2)/2; relative error 3e-9
_EXP = (0.49999994, 0.16666521, 0.04166826, 0.008368671, 0.0013821358)
# expm1(r) = r + r^2 P(r) there, relative to r: 4e-10
_EXPM1 = (0.5, 0.16666667, 0.04166649, 0.008333207, 0.0013932665, 0.000199451)
# log1p(f) = f - f^2/2 + f^3 P(f) on [sqrt(1/2) - 1, sqrt(2) - 1], relative to f: 6e-9
_LOG = (0.33333316, -0.2500081, 0.20002303, -0.16624558, 0.14180917, -0.13128483, 0.12883112, -0.07861871)
# tanh(x) = x + x^3 P(x^2) on |x| <= 0.55; relative error 1e-9
_TANH = (-0.33333316, 0.13332546, -0.05384785, 0.021052472, -0.0062459926)
# sin(r) = r + r^3 P(r^2) on |r| <= pi/2; relative error 5e-10
_SIN = (-0.16666667, 0.0083333505, -0.00019843093, 2.7627057e-06, -2.550291e-08)
# atan(u) = u + u^3 P(u^2) on |u| <= 1, relative to u: 2e-9
_ATAN = (
    -0.33333302, 0.19998628, -0.14265126, 0.10956933, -0.08417543, 0.058201253, -0.031422127, 0.011046235,
    -0.0018231076,
)  # fmt: skip
# erf(x) = x + x P(x^2) on |x| <= 0.9, relative to x: 2e-8
_ERF = (0.12837915, -0.37612522, 0.11282151, -0.02677964, 0.005013275, -0.0006097688)
# log(erfc(x)) = P(x) on [0.9, 4]; the error of erf is 2e-9
_LOG_ERFC = (-0.00016644488, -1.1277972, -0.6369761, -0.104113564, 0.022315092, -0.0030654348, 0.00019821027)


class _Nodes:
    """The nodes written so far; equal ones are shared."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.seen: dict[tuple[str, tuple[Arg, ...]], str] = {}
        self.renamed: dict[str, str] = {}

    def add(self, node: Node) -> None:
        """A node under its own name, or the name of an equal one in its place."""
        args = tuple(self.renamed.get(a, a) if isinstance(a, str) else a for a in node.args)
        if (node.op, args) in self.seen:
            self.renamed[node.name] = self.seen[node.op, args]
        else:
            self.seen[node.op, args] = node.name
            self.nodes.append(Node(node.name, node.op, args))

    def emit(self, op: str, *args: Arg) -> str:
        if (op, args) not in self.seen:
            self.add(Node(f"f{len(self.nodes)}", op, args))
        return self.seen[op, args]


class _Value:
    """A value of the step under construction; arithmetic on it writes nodes."""

    def __init__(self, nodes: _Nodes, name: str) -> None:
        self.nodes, self.name = nodes, name

    def op(self, op: str, *args: "_Value | float") -> "_Value":
        # numbers in single precision, so that no engine can round them in another way
        found = (a.name if isinstance(a, _Value) else float(np.float32(a)) for a in args)
        return _Value(self.nodes, self.nodes.emit(op, *found))

    def __add__(self, other: "_Value | float") -> "_Value":
        return self.op("add", self, other)

    def __sub__(self, other: "_Value | float") -> "_Value":
        return self.op("sub", self, other)

    def __rsub__(self, other: float) -> "_Value":
        return self.op("sub", other, self)

    def __mul__(self, other: "_Value | float") -> "_Value":
        return self.op("mul", self, other)

    def __truediv__(self, other: "_Value | float") -> "_Value":
        return self.op("div", self, other)

    def __rtruediv__(self, other: float) -> "_Value":
        return self.op("div", other, self)

    def __neg__(self) -> "_Value":
        return self.op("neg", self)

    def __abs__(self) -> "_Value":
        return self.op("abs", self)

    def __lt__(self, other: float) -> "_Value":
        return self.op("lt", self, other)

    def __le__(self, other: float) -> "_Value":
        return self.op("le", self, other)

    def __gt__(self, other: float) -> "_Value":
        return self.op("gt", self, other)

    def __ge__(self, other: float) -> "_Value":
        return self.op("ge", self, other)


def _where(condition: _Value, a: _Value | float, b: _Value | float) -> _Value:
    return condition.op("where", condition, a, b)


def _polynomial(x: _Value, coefficients: Sequence[float]) -> _Value:
    value = x * coefficients[-1] + coefficients[-2]
    for c in coefficients[-3::-1]:
        value = value * x + c
    return value


def _nearest(x: _Value) -> _Value:
    """The nearest integer, for |x| < 2^22."""
    return (x + _SHIFT) - _SHIFT


def _odd(x: _Value, size: _Value, value: _Value) -> _Value:
    """An odd function out of its `value` at `size` = |x|; near zero it is x itself."""
    return _where(size < 2.0**-12, x, _where(x < 0.0, -value, value))


def _powers(x: _Value) -> tuple[_Value, _Value]:
    """(n, r) with x = n ln 2 + r and |r| <= ln(2) / 2."""
    n = _nearest(x * (1 / math.log(2)))
    return n, (x - n * _LN2[0]) - n * _LN2[1]


def _exp_between(x: _Value) -> _Value:
    """exp(x) where it is a normal number."""
    n, r = _powers(x)
    return x.op("ldexp", (r * r * _polynomial(r, _EXP) + r) + 1.0, n)


def _expm1_between(x: _Value) -> _Value:
    """expm1(x) for -18 <= x and a finite result."""
    n, r = _powers(x)
    half = x.op("ldexp", 0.5, n)
    y = (half - 0.5) + half * (r * r * _polynomial(r, _EXPM1) + r)
    return y + y


def _log_of(fraction: _Value, e: _Value) -> _Value:
    """log((1 + fraction) 2^e) for a fraction in [sqrt(1/2) - 1, sqrt(2) - 1]."""
    square = fraction * fraction
    y = (fraction * (square * _polynomial(fraction, _LOG)) + e * _LN2[1]) - square * 0.5
    return (fraction + y) + e * _LN2[0]


def _log_limits(x: _Value, pole: float, value: _Value) -> _Value:
    """`value` between the pole and infinity; -inf at the pole and NaN below it."""
    nan = (x - x) * math.inf
    return _where(x > pole, _where(x <= _LARGEST, value, x), _where(x.op("eq", x, pole), -math.inf, nan))


def _exp(x: _Value) -> _Value:
    value = _where(x >= -87.33654, _exp_between(x), 0.0)
    return _where(x <= 88.72283, value, x * _LARGEST)


def _expm1(x: _Value) -> _Value:
    value = _where(x >= -18.0, _expm1_between(x), -1.0)
    return _where(abs(x) < 2.0**-24, x, _where(x <= 88.72283, value, x * _LARGEST))


def _log(x: _Value) -> _Value:
    tiny = x < _SMALLEST
    normal = _where(tiny, x * 2.0**23, x)
    e = x.op("exponent", normal)
    fraction = x.op("ldexp", normal, -e) - 1.0
    return _log_limits(x, 0.0, _log_of(fraction, e - _where(tiny, 23.0, 0.0)))


def _log1p(x: _Value) -> _Value:
    whole = x + 1.0
    back = whole - 1.0
    lost = (x - back) + (1.0 - (whole - back))  # x + 1 = whole + lost, exactly
    e = x.op("exponent", whole)
    scale = x.op("ldexp", 1.0, -x.op("minimum", e, 64.0))
    fraction = (x.op("ldexp", whole, -e) - 1.0) + lost * scale
    return _where(abs(x) < 2.0**-24, x, _log_limits(x, -1.0, _log_of(fraction, e)))


def _sigmoid(x: _Value) -> _Value:
    return 1.0 / (_exp(-x) + 1.0)


def _tanh(x: _Value) -> _Value:
    size = x.op("minimum", abs(x), 10.0)
    far = 1.0 - 2.0 / (_exp_between(size + size) + 1.0)
    square = x * x
    near = x * (square * _polynomial(square, _TANH) + 1.0)
    return _where(size >= 0.55, _where(x < 0.0, -far, far), near)


def _sine(x: _Value, n: _Value, k: _Value) -> tuple[_Value, _Value]:
    """(sin(x - n pi / 2), whether k is odd)."""
    r = x
    for part in _HALF_PI:
        r = r - n * part
    r = x.op("maximum", x.op("minimum", r, 1.6), -1.6)
    square, half = r * r, k * 0.5
    return r + r * (square * _polynomial(square, _SIN)), x.op("ne", half, _nearest(half))


def _sin(x: _Value) -> _Value:
    k = _nearest(x * (1 / math.pi))
    y, odd = _sine(x, k + k, k)
    return _where(abs(x) < 2.0**-12, x, _where(odd, -y, y))


def _cos(x: _Value) -> _Value:
    k = _nearest(x * (1 / math.pi) - 0.5)
    y, odd = _sine(x, (k + k) + 1.0, k)
    return _where(odd, y, -y)


def _atan(x: _Value) -> _Value:
    size = abs(x)
    u = x.op("minimum", size, 1.0) / x.op("maximum", size, 1.0)
    square = u * u
    y = u + u * (square * _polynomial(square, _ATAN))
    return _odd(x, size, _where(size > 1.0, 1.5707963705062866 - (y + 4.3711388287e-08), y))


def _erf(x: _Value) -> _Value:
    size = x.op("minimum", abs(x), 4.0)
    far = 1.0 - _exp_between(_polynomial(size, _LOG_ERFC))
    near = x + x * _polynomial(x * x, _ERF)
    return _where(size >= 0.9, _where(x < 0.0, -far, far), near)


def _pow(x: _Value, y: _Value | float) -> _Value:
    value = _exp(_log(abs(x)) * y)
    nan = (x - x) * math.inf
    if isinstance(y, float):
        of_negative = (-value if y % 2 else value) if y.is_integer() else nan
        return _where(x < 0.0, of_negative, value)
    half = y * 0.5
    odd, fraction = half.op("ne", half, half.op("floor", half)), y.op("ne", y, y.op("floor", y))
    of_negative = _where(fraction, nan, _where(odd, -value, value))
    return _where(y.op("eq", y, 0.0), 1.0, _where(x < 0.0, of_negative, value))


FUNCTIONS: Mapping[str, Callable[..., _Value]] = {
    "exp": _exp,
    "expm1": _expm1,
    "log": _log,
    "log1p": _log1p,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "sin": _sin,
    "cos": _cos,
    "atan": _atan,
    "erf": _erf,
    "pow": _pow,
}
"""The operations of the language that `lower` replaces."""


@lru_cache(maxsize=1024)
def lower(program: Program) -> Program:
    """The same step without transcendental operations, for an fp32 membrane.

    Hoisted nodes, which torch evaluates, stay as they are; so does a program without transcendental operations. Names
    of values are kept, except those of the replaced operations and of values that turn out to equal an earlier one.
    """
    if not any(node.op in FUNCTIONS for node in program.nodes):
        return program
    nodes = _Nodes()
    for node in program.nodes:
        if node.op not in FUNCTIONS:
            nodes.add(node)
            continue
        args: list[_Value | float] = [
            _Value(nodes, nodes.renamed.get(a, a)) if isinstance(a, str) else a for a in node.args
        ]
        if isinstance(args[0], float):
            args[0] = _Value(nodes, nodes.emit("add", args[0], 0.0))
        nodes.renamed[node.name] = FUNCTIONS[node.op](*args).name
    results = ("outputs", "next_states", "grads_inputs", "grads_states", "grads_params")
    named: dict[str, Any] = {r: tuple(nodes.renamed.get(name, name) for name in getattr(program, r)) for r in results}
    wanted = [name for r in results for name in named[r]]
    return dataclasses.replace(program, nodes=tuple(live(nodes.nodes, wanted)), **named)
