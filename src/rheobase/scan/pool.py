"""A small thread pool for kernels that release the GIL. The caller works too; a forked child makes its own."""

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

_pool: ThreadPoolExecutor | None = None
_size = 0


def _forget() -> None:
    global _pool, _size
    _pool, _size = None, 0


os.register_at_fork(after_in_child=_forget)


def _workers(count: int) -> ThreadPoolExecutor:
    global _pool, _size
    if _pool is None or _size < count:
        _pool, _size = ThreadPoolExecutor(count, thread_name_prefix="rheobase"), count
    return _pool


def run_blocks(work: Callable[[int, int], None], blocks: int, lanes_steps: int) -> None:
    """Call `work(first, last)` over all blocks, on as many threads as torch uses.

    Args:
        work: does blocks first <= b < last; must not depend on which thread runs it.
        blocks: how many there are.
        lanes_steps: size of the whole job, to keep small ones on one thread.
    """
    threads = min(torch.get_num_threads(), blocks)
    if threads <= 1 or lanes_steps < 1 << 17:
        work(0, blocks)
        return
    pieces = min(blocks, 4 * threads)
    edges = [blocks * k // pieces for k in range(pieces + 1)]
    counter = itertools.count()

    def drain() -> None:
        while (k := next(counter)) < pieces:
            work(edges[k], edges[k + 1])

    others = [_workers(threads - 1).submit(drain) for _ in range(threads - 1)]
    drain()
    for other in others:
        other.result()
