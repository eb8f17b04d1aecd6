"""Which engine runs a scan: the choice is a context or an environment variable, never a constructor argument."""

import importlib.util
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

ENGINES = ("reference", "cpu", "triton")
_chosen: str | None = os.environ.get("RHEOBASE_ENGINE") or None  # a plain global: torch.compile guards on it
_warned: set[str] = set()
_TRITON = importlib.util.find_spec("triton") is not None
_INTERPRETED = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")  # as Triton reads it


def chosen() -> str | None:
    """The engine that `engine` or `RHEOBASE_ENGINE` named; None: the device decides."""
    return _chosen


@contextmanager
def engine(name: str | None) -> Iterator[None]:
    """Run every scan of the process on one engine while inside; outside, `RHEOBASE_ENGINE` or the device decides.

    Args:
        name: "reference" (the plain step in a loop: any device, double backward), "cpu" or "triton" (fused; Triton on a
            GPU, or interpreted on the CPU where `TRITON_INTERPRET=1` was set when Python started); None lets the device
            decide.

    Raises:
        ValueError: no such engine, or it cannot run here.
    """
    global _chosen
    if name is not None:
        _check(name)
    before, _chosen = _chosen, name
    try:
        yield
    finally:
        _chosen = before


def resolve(device: torch.device) -> str:
    """The engine for tensors on `device`.

    Raises:
        ValueError: the chosen engine does not exist or cannot run on this device.
    """
    if _chosen is not None:
        _check(_chosen)
        if _chosen == "cpu" and device.type != "cpu":
            raise ValueError(f"engine 'cpu' got tensors on {device}; move the model and its input to the CPU")
        if _chosen == "triton" and not (device.type == "cuda" or (device.type == "cpu" and _INTERPRETED)):
            raise ValueError(
                f"engine 'triton' got tensors on {device}; move the model and its input to a GPU, "
                f"or set TRITON_INTERPRET=1 before Python starts to try it on the CPU, slowly"
            )
        return _chosen
    if device.type == "cpu":
        return "cpu"
    if device.type == "cuda" and _TRITON:
        return "triton"
    if device.type not in _warned:
        _warned.add(device.type)
        reason = "triton is not installed" if device.type == "cuda" else "Rheobase has no kernels for it"
        warnings.warn(
            f"there is no fused engine for {device.type!r} tensors ({reason}): "
            f"scans run step by step on the reference engine",
            RuntimeWarning,
            stacklevel=3,
        )
    return "reference"


def _check(name: str) -> None:
    if name not in ENGINES:
        raise ValueError(f"there is no engine {name!r}; expected one of {', '.join(ENGINES)}")
    if name == "triton" and not _TRITON:
        raise ValueError("engine 'triton' needs the package triton; pip install 'rheobase[triton]' (Linux only)")
