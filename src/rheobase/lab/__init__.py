"""Annexes to the spine: each room uses models, layers and neurons, and none another room. Loaded when asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rheobase.lab import attack, compress, cost

__all__ = ["attack", "compress", "cost"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return import_module(f"rheobase.lab.{name}")
    raise AttributeError(f"module 'rheobase.lab' has no room {name!r}; there are {', '.join(__all__)}")
