import ctypes
import subprocess
import sys

import pytest

from rheobase.scan import allocator

PROGRAM = """
import ctypes, runpy, sys
keep_memory = runpy.run_path(sys.argv[1])["keep_memory"]
if sys.argv[2] == "keep":
    assert keep_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
memory = libc.malloc(64 << 20)
ctypes.memset(memory, 1, 64 << 20)
libc.free(memory)
print(int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20)
"""


@pytest.mark.skipif(
    not (sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")), reason="needs glibc"
)
def test_freed_memory_stays_with_the_process():
    def resident(mode):
        command = [sys.executable, "-c", PROGRAM, allocator.__file__, mode]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert resident("keep") >= 64 > resident("leave")


def test_elsewhere_nothing_happens(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: pytest.fail("the C library was touched"))
    assert allocator.keep_memory() is False


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert allocator.keep_memory() is False
