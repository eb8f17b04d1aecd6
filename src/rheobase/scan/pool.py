"""Threads for kernels that release the GIL: torch's own OpenMP team where it can be had, else a small pool.

The team is the one that torch's operations use, so its threads are often awake already; waking a pool's takes some
100 us. A forked child cannot use its parent's team and makes a pool; the caller works too.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any


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

    def run(self, work: Callable[[], None], threads: int) -> None:
        """Call `work` on so many threads at once, the caller's among them; raises what one of them raised."""
        done: SimpleQueue[BaseException | None] = SimpleQueue()

        def heard() -> None:
            try:
                work()
            except BaseException as error:
                done.put(error)
            else:
                done.put(None)

        self.grow(threads - 1)
        for _ in range(threads - 1):
            self.tasks.put(heard)
        heard()
        errors = [error for error in (done.get() for _ in range(threads)) if error is not None]
        if errors:
            raise errors[0]


def _openmp() -> Any:
    """`GOMP_parallel` of the OpenMP library that torch has loaded, or None."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        with open("/proc/self/maps") as file:  # noqa: PTH123
            loaded = {row.split()[-1] for row in file if "libgomp" in row or "libiomp" in row or "libomp" in row}
        parallel = ctypes.CDLL(loaded.pop()).GOMP_parallel if len(loaded) == 1 else None
    except (OSError, AttributeError):
        return None
    if parallel is not None:
        parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        parallel.restype = None
    return parallel


_pool, _parallel = _Pool(), _openmp()


def _renew() -> None:
    global _pool, _parallel
    _pool, _parallel = _Pool(), None


os.register_at_fork(after_in_child=_renew)

Kernel = Callable[[int], None]
"""A C function of one address, called without the GIL."""


def kernel_at(address: int) -> Kernel:
    """The kernel at an address, to be called from Python."""
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)


def run(kernel: Kernel, address: int, slots: int, threads: int) -> None:
    """Call a kernel on its slots from so many threads at once.

    Args:
        kernel: for the caller's own thread; `kernel_at(address)`.
        address: the kernel's.
        slots: address of what it is given. Its callers share the work among themselves.
        threads: how many.
    """
    if threads <= 1:
        kernel(slots)
    elif _parallel is not None:
        _parallel(address, slots, threads, 0)
    else:
        _pool.run(lambda: kernel(slots), threads)
