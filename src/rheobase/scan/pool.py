"""A small thread pool for kernels that release the GIL. The caller works too; a forked child makes its own."""

import itertools
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

import torch

_PIECES = 2
"""Pieces of work a thread: enough to even out a late start, few enough to keep hand-overs cheap."""


class _Pool:
    """Daemon threads that wait on one queue. Nothing but a C-level queue lies between the caller and a worker."""

    def __init__(self) -> None:
        self.tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.size = 0
        self.growing = threading.Lock()

    def grow(self, size: int) -> None:
        """Have at least `size` threads."""
        with self.growing:
            while self.size < size:
                threading.Thread(target=self.work, name=f"rheobase-{self.size}", daemon=True).start()
                self.size += 1

    def work(self) -> None:
        while True:
            self.tasks.get()()


_pool = _Pool()


def _renew() -> None:
    global _pool
    _pool = _Pool()


os.register_at_fork(after_in_child=_renew)


def run_blocks(work: Callable[[int, int], None], blocks: int, cost: float) -> None:
    """Call `work(first, last)` over all blocks, on as many threads as torch uses.

    Args:
        work: does blocks first <= b < last; must not depend on which thread runs it.
        blocks: how many there are.
        cost: rough time of the whole job in microseconds on one thread; a job that is not worth waking a thread for
            stays on the caller's.
    """
    threads = min(torch.get_num_threads(), blocks)
    if threads <= 1 or cost < 250:
        work(0, blocks)
        return
    pieces = min(blocks, _PIECES * threads)
    edges = [blocks * k // pieces for k in range(pieces + 1)]
    counter = itertools.count()
    done: SimpleQueue[BaseException | None] = SimpleQueue()

    def drain() -> None:
        try:
            while (k := next(counter)) < pieces:
                work(edges[k], edges[k + 1])
        except BaseException as error:
            done.put(error)
        else:
            done.put(None)

    _pool.grow(threads - 1)
    for _ in range(threads - 1):
        _pool.tasks.put(drain)
    drain()
    errors = [error for error in (done.get() for _ in range(threads)) if error is not None]
    if errors:
        raise errors[0]
