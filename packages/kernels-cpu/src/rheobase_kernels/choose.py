"""Which kernel to call."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Crossovers:
    """x"""


@dataclass(frozen=True)
class Choice:
    """x"""


def choose() -> None:
    """x"""
