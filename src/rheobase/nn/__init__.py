"""Layers on sequences: time, normalisation, residual blocks."""

from rheobase.nn.observe import check, observe
from rheobase.nn.time import PerStep, Stream, call, is_static, stream
from rheobase.scan import ModelState, Temporal

__all__ = ["ModelState", "PerStep", "Stream", "Temporal", "call", "check", "is_static", "observe", "stream"]
