import ctypes
import multiprocessing
import threading
from pathlib import Path

import pytest
import torch

from rheobase.neurons import LIF
from rheobase.scan import pool
from rheobase.scan.bits import pack


@pytest.fixture
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def everything():
    """What kernels of both kinds give for inputs that are worth several threads."""
    torch.manual_seed(3)
    x = (torch.randn(4, 8, 40000) * 2).requires_grad_()
    y = LIF()(x)
    return y, torch.autograd.grad(y.cumsum(0).sum(), x)[0], pack(y.detach())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not list what is loaded")
def test_the_team_of_torch_is_found():
    """All is right without it, but calls cost more."""
    assert (pool._parallel is not None) == ("libgomp" in Path("/proc/self/maps").read_text())


@pytest.mark.usefixtures("_two_threads")
def test_both_kinds_of_threads_give_the_same_bits(monkeypatch):
    expected = everything()
    monkeypatch.setattr(pool, "_parallel", None)
    assert all(map(torch.equal, everything(), expected))
    assert pool._pool.size >= 1


@pytest.mark.usefixtures("_two_threads")
def test_kernels_work_after_fork():
    """As in a DataLoader's worker, which cannot use its parent's threads."""
    here = [t.detach().numpy().sum() for t in everything()]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()

    def work():
        torch.set_num_threads(1)  # torch itself would wait for its parent's threads
        alone = [t.detach().numpy().sum() for t in everything()]
        pool.run(queue.put, 0, 5, 3)
        queue.put((alone, pool._parallel is None))

    child = context.Process(target=work, daemon=True)
    child.start()
    found = [queue.get(timeout=60) for _ in range(4)]
    child.join(timeout=60)
    assert found.count(5) == 3
    assert (here, True) in found


def test_a_kernel_is_called_by_each_thread(monkeypatch):
    monkeypatch.setattr(pool, "_parallel", None)
    together, names = threading.Barrier(3), []

    def kernel(slots):
        together.wait(timeout=60)
        names.append((threading.current_thread().name, slots))

    pool.run(kernel, 0, 7, 3)
    assert len(set(names)) == 3
    assert {slots for _, slots in names} == {7}


def test_one_thread_is_the_callers_own():
    threads = []
    pool.run(lambda slots: threads.append(threading.current_thread()), 0, 7, 1)
    assert threads == [threading.current_thread()]


def test_a_thread_that_fails_is_heard():
    together = threading.Barrier(2)

    def work():
        together.wait(timeout=60)
        if threading.current_thread().name.startswith("rheobase-"):
            raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        pool._pool.run(work, 2)


def test_a_kernel_is_called_at_its_address():
    seen = []
    callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(seen.append)
    pool.kernel_at(ctypes.cast(callback, ctypes.c_void_p).value)(11)
    assert seen == [11]
