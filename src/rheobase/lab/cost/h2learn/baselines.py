"""Other arrays in a line each, for cross-checks: cycles of a product of spikes S `[M, K]` and weights `[K, N]`.

Source: the baselines of arXiv:2503.03379 (Prosperity), restated as formulas.
"""

from math import ceil

from torch import Tensor
from torch.nn import functional as F

from rheobase.lab.cost.h2learn.trace import LayerTrace


def spike_matrix(trace: LayerTrace) -> Tensor:
    """What a layer read, as the matrix of its product, `[T, places and samples, K]`, bool.

    Raises:
        ValueError: the layer reads no spikes, or is a convolution in groups.
    """
    if trace.holds != "binary" or trace.groups != 1:
        raise ValueError(f"{trace.name}: reads {trace.holds} in {trace.groups} groups; expected spikes in one group")
    if trace.kind == "linear":
        return trace.input.flatten(1, -2)
    columns = F.unfold(
        trace.input.flatten(0, 1).float(),
        trace.weight.shape[2:],
        dilation=trace.dilation,
        padding=trace.padding,
        stride=trace.stride,
    )
    return columns.bool().unflatten(0, trace.input.shape[:2]).transpose(2, 3).flatten(1, 2)


def dense_array(M: int, K: int, N: int, rows: int = 14, columns: int = 12) -> float:
    """A dense array of `rows` x `columns`, Eyeriss: ceil(N / columns) K M / rows."""
    return ceil(N / columns) * K * M / rows


def event_driven(spikes: Tensor, N: int, units: int = 128) -> int:
    """One spike after the other, its N weights on so many units: nnz(S) ceil(N / units)."""
    return int(spikes.count_nonzero()) * ceil(N / units)


def row_parallel(spikes: Tensor, N: int, units: int = 128) -> int:
    """Rows dealt to units, the longest first to the one that has least: the largest sum of spikes times N."""
    load = [0] * units
    for count in sorted(spikes.flatten(0, -2).sum(-1).tolist(), reverse=True):
        load[load.index(min(load))] += count
    return max(load) * N


def parallel_time_batching(spikes: Tensor, N: int, window: int = 4, columns: int = 16, packing: int = 32) -> int:
    """PTB, arXiv:2206.04778: windows of steps, in each the union of their spikes, packed: L ceil(N / 16) 4 + 32 M.

    Args:
        spikes: S with its time apart, `[T, M / T, K]`.
        N: output channels.
        window: steps in a window.
        columns: of the array.
        packing: cycles to pack a row.

    L is the number of columns in the union, summed over places and windows; M counts rows of all steps. This is our
    reading of a formula that says it in a line.
    """
    padded = F.pad(spikes, (0, 0, 0, 0, 0, -len(spikes) % window))
    union = padded.unflatten(0, (-1, window)).any(1)
    return int(union.sum()) * ceil(N / columns) * window + spikes[..., 0].numel() * packing
