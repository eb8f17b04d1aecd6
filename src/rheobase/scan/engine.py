"""Which engine runs a scan: the choice is a context or an environment variable, never a constructor argument."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

ENGINES = ("reference", "cpu", "triton")
_chosen: ContextVar[str | None] = ContextVar("rheobase_engine", default=None)
_warned: set[str] = set()


def _check(name: str, where: str) -> str:
    if name not in ENGINES:
        raise ValueError(f"{where}: unknown engine {name!r}; expected one of {', '.join(ENGINES)}")
    if name == "triton":
        raise ValueError(f"{where}: the triton engine is not built yet; use 'reference' on a GPU")
    return name


@contextmanager
def engine(name: str) -> Iterator[None]:
    """Run every scan inside on one engine.

    Args:
        name: "reference" (the plain step in a loop, any device, double backward), "cpu" (fused, numba).

    Raises:
        ValueError: no such engine, or it cannot run here.
    """
    token = _chosen.set(_check(name, "rb.engine"))
    try:
        yield
    finally:
        _chosen.reset(token)


def resolve(device: torch.device) -> str:
    """The engine for tensors on `device`: the context's, else `RHEOBASE_ENGINE`, else the device's own."""
    name = _chosen.get() or os.environ.get("RHEOBASE_ENGINE")
    if name is None:
        if device.type == "cpu":
            return "cpu"
        _warn_once(f"no fused engine for {device.type!r} tensors yet: scans run step by step on the reference engine")
        return "reference"
    if _check(name, "RHEOBASE_ENGINE") == "cpu" and device.type != "cpu":
        raise ValueError(f"engine 'cpu' got tensors on {device}; move the model and its input to the CPU")
    return name


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=3)
