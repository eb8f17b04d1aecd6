"""Sums over the processes that train one model together, each on a part of the batch (torch's default group)."""

import torch
import torch.distributed as dist
from torch import Tensor


@torch.no_grad()
def sum_over_processes(*tensors: Tensor) -> list[Tensor]:
    """The sum of each tensor over all processes, the same bits in all of them; one message, no gradient.

    Every process calls it, with tensors of the same shapes.
    """
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape).to(tensor.dtype) for part, tensor in zip(parts, tensors, strict=True)]


@torch.no_grad()
def pooled(mean: Tensor, var: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""Mean and biased variance of the values of all processes, from those of each, and how many values there are.

    $n = \sum_r n_r,\; \mu = \sum_r n_r \mu_r / n,\; \sigma^2 = \sum_r n_r (\sigma_r^2 + (\mu_r - \mu)^2) / n$,
    summed in fp64 in the order of the processes.

    Args:
        mean, var: of this process's values, `[C]`.
        count: how many values per channel this process has.

    Returns:
        mean, var `[C]` in the format of `mean`, and the count of all, fp64 `()`: the same bits in all processes.
    """
    own = torch.cat([mean.double(), var.double(), mean.new_tensor([count], dtype=torch.float64)])
    each = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(each, own)
    means, variances, counts = torch.stack(each).split([len(mean), len(mean), 1], 1)
    total = counts.sum()
    all_mean = (counts * means).sum(0) / total
    all_var = (counts * (variances + (means - all_mean).square())).sum(0) / total
    return all_mean.to(mean.dtype), all_var.to(var.dtype), total
