import ctypes
import multiprocessing
import subprocess
import sys

import numpy as np
import pytest

rk = pytest.importorskip("rheobase_kernels", reason="rheobase-kernels-cpu is not installed")
from rheobase_kernels import library  # noqa: E402


def test_the_best_instruction_set_is_taken(monkeypatch):
    monkeypatch.delenv("RHEOBASE_KERNELS_ISA", raising=False)
    rk.load.cache_clear()
    assert rk.load().isa == rk.supported()[-1]


def test_an_instruction_set_can_be_named(monkeypatch):
    monkeypatch.setenv("RHEOBASE_KERNELS_ISA", "generic")
    rk.load.cache_clear()
    assert rk.load().isa == "generic"
    monkeypatch.setenv("RHEOBASE_KERNELS_ISA", "sve")
    rk.load.cache_clear()
    with pytest.raises(ValueError, match=r"'sve'; this processor has generic"):
        rk.load()


def test_a_library_that_was_not_compiled_is_missed(monkeypatch):
    monkeypatch.setattr(library, "_path", lambda: None)
    library._c.cache_clear()
    rk.load.cache_clear()
    with pytest.raises(FileNotFoundError, match="C compiler"):
        rk.load("generic")
    library._c.cache_clear()


def test_arguments_of_another_kernel_are_refused():
    with pytest.raises(ValueError, match="'turn' with Forward"):
        rk.load("generic").call("turn", rk.Forward())


def test_importing_is_light():
    code = "import sys, rheobase_kernels; print([m for m in ('torch', 'rheobase', 'numba') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def _turned() -> bytes:
    shape = rk.linear(64, 64, 1)
    bits = np.arange(64, dtype=np.uint64)
    turned = np.empty((64, 1), np.uint64)
    rk.load().call("turn", rk.Turn(shape, bits.ctypes.data, turned.ctypes.data, 1)).run()
    return turned.tobytes()


def test_kernels_work_after_fork():
    here = _turned()
    context = multiprocessing.get_context("fork")
    with context.Pool(1) as pool:
        assert pool.apply(_turned) == here


def test_a_job_starts_no_thread():
    shape = rk.linear(640, 64, 1)
    bits, turned = np.ones(640, np.uint64), np.empty((64, 10), np.uint64)
    call = rk.load().call("turn", rk.Turn(shape, bits.ctypes.data, turned.ctypes.data, 10))
    threads = library.Path("/proc/self/task")
    before = len(list(threads.iterdir())) if threads.exists() else 0
    job = call.job(threads=4, grain=3)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(job.function)(job.address)
    assert (turned[0] == np.uint64(2**64 - 1)).all()
    assert not turned[1:].any()
    assert (len(list(threads.iterdir())) if threads.exists() else 0) == before


def test_each_thread_of_a_team_has_scratch_of_its_own():
    seen = []

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
    def kernel(arguments, begin, end, scratch):
        seen.append((begin, end, scratch))
        if begin == 0:
            share(ctypes.addressof(job))  # as another thread would, while the first is at work

    share = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(rk.load().share)
    job = library._Job(ctypes.cast(kernel, ctypes.c_void_p), None, 5, 2, 4096, 64, 0, 0)
    share(ctypes.addressof(job))
    assert seen == [(0, 2, 4096), (2, 4, 4160), (4, 5, 4160)]
