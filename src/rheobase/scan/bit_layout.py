"""How bits of spikes lie: along memory.

A row is the innermost axis of memory (the channels in channels-last); where that has fewer than 64 values the next axes
join it until it has. Rows are padded with zeros to words of 64, and bit k of word w is value 64 w + k of the row. A
tensor of bits is int64 `[rows, words]`.
"""

from collections.abc import Sequence


def rows(shape: Sequence[int], stride: Sequence[int]) -> tuple[int, int]:
    """How many rows of bits a dense tensor has, and how many values each."""
    order = sorted((k for k, size in enumerate(shape) if size != 1), key=lambda k: stride[k])
    count = inner = 1
    for k in order:
        if inner < 64:
            inner *= shape[k]
        else:
            count *= shape[k]
    return count, inner
