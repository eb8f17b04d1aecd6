"""Keeping memory that was given back: glibc returns large tensors to the system and pays page faults at every step."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h


def keep_memory() -> bool:
    """Let malloc reuse large blocks instead of returning them to the system; of the whole process, for good.

    The command line and the benchmarks call this at start-up, an import never does. The process keeps up to 2 GiB at
    the top of its heap. Nothing happens where the C library is not glibc.

    Returns:
        whether the settings were taken.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
