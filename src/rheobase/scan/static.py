"""Sequences whose steps are all one: an image that is shown at every step is computed once and never copied."""

import torch
from torch import Tensor


def is_static(x: Tensor) -> bool:
    """Whether all steps of x `[T, ...]` are the same memory: an image repeated over time without a copy."""
    return x.shape[0] > 1 and x.stride(0) == 0


def repeat(y: Tensor, T: int) -> Tensor:
    """y `[B, ...]` at each of T steps: `[T, B, ...]`, without a copy."""
    x = y.unsqueeze(0).expand(T, *y.shape)
    if x.requires_grad and not torch.compiler.is_compiling():
        x.repeated = y  # type: ignore[attr-defined]
    return x


def step_of(x: Tensor) -> Tensor:
    """The step `[B, ...]` of a static x.

    The gradient of an element is a sequence of zeros but for one step, which the repetition then sums over T. Where
    `repeat` made x, the gradient goes straight to what was repeated: the same numbers. Not where somebody waits for the
    gradient of x itself.
    """
    y: Tensor | None = getattr(x, "repeated", None)
    return x[0] if y is None or x.retains_grad or x._backward_hooks else y


def once(x: Tensor) -> Tensor:
    """A static x as its one step, `[1, B, ...]`; any other x as it is."""
    return step_of(x).unsqueeze(0) if is_static(x) else x
