"""Numbers given to a step, as tensors: made once, known again by who they are."""

import torch
from torch import Tensor

_MOST = 4096
_made: dict[tuple[float, torch.dtype], Tensor] = {}
_known: set[int] = set()


def number(value: float, dtype: torch.dtype) -> Tensor:
    """The number as a 0-d tensor on the CPU, kept for good while there are not too many; nobody may write to it."""
    made = _made.get((value, dtype))
    if made is None:
        with torch.inference_mode(False):
            made = torch.tensor(value, dtype=dtype)
        if len(_made) < _MOST:
            _made[value, dtype] = made
            _known.add(id(made))
    return made


def is_number(t: Tensor) -> bool:
    """Whether `number` keeps this tensor, so that what was computed from it holds for good."""
    return id(t) in _known
