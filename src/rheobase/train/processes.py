"""The processes that train one model together: who they are, which part of a batch is whose, and what they tell.

Each is started by a launcher, which says in the environment who it is (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT).
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from rheobase.scan.collective import sum_over_processes
from rheobase.train.checkpoint import random_state, seed_random, set_random_state

Batch = tuple[Any, Tensor] | list[Any]  # a pair (x, y); data loaders make lists
Result = TypeVar("Result")


@dataclass(frozen=True)
class Part:
    """What one process does of a batch.

    Attributes:
        batch: its samples.
        share: how much of the loss of the batch is that of its samples; 0 where another process counts them.
        whole: there are fewer samples than processes, so each runs all of them, and the first counts.
    """

    batch: Batch
    share: float = 1.0
    whole: bool = False


@dataclass(frozen=True)
class Processes:
    """This process, number `rank` of `count` of torch's default group; alone if there is none.

    Every method that communicates is called by all processes, in the same order. Alone, nothing is communicated.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def current(cls) -> "Processes":
        """Those of the process group that there is now."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def key(self) -> tuple[int | str, ...]:
        """What to append to the key of a seed so that each process draws on its own; process 0 draws as if alone."""
        return ("process", self.rank) if self.rank else ()

    def part(self, batch: Batch, axis: int) -> Part:
        """Every `count`-th sample of a batch (x, y), from number `rank` on.

        Args:
            axis: of the samples in x, if x is a tensor; else x is a sequence of samples.

        Raises:
            ValueError: x cannot be parted so. What is no pair with labels is left to those who read it.
        """
        pair = isinstance(batch, (tuple, list)) and len(batch) == 2
        if self.count == 1 or not pair or not are_labels(batch[1]):
            return Part(batch)
        x, y = batch
        if len(y) < self.count:
            return Part(batch, float(self.rank == 0), whole=True)
        mine = slice(self.rank, None, self.count)
        if isinstance(x, Tensor):
            if x.ndim <= axis or x.shape[axis] != len(y):
                raise ValueError(
                    f"x is {tuple(x.shape)} for {len(y)} labels; several processes part it along axis {axis}, "
                    f"so that must have size {len(y)} (samples first with `prepare`, second without)"
                )
            return Part((x[(slice(None),) * axis + (mine,)], y[mine]), len(y[mine]) / len(y))
        try:
            return Part((x[mine], y[mine]), len(y[mine]) / len(y))
        except (TypeError, KeyError, IndexError) as error:
            raise ValueError(
                f"x is a {type(x).__name__}, which several processes cannot part; give a tensor, array or list"
            ) from error

    def total(self, values: Sequence[float], device: torch.device) -> list[float]:
        """The sum of each number over all processes, in fp64."""
        (total,) = sum_over_processes(torch.tensor(values, dtype=torch.float64, device=device))
        return total.tolist()

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by the sum of those of all processes."""
        if self.count == 1:
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        for grad, total in zip(grads, sum_over_processes(*grads) if grads else [], strict=True):
            grad.copy_(total)

    def first(self, call: Callable[[], Result]) -> Result:
        """Let process 0 call, and give its result to all; an exception is raised in all of them."""
        if self.count == 1:
            return call()
        box: list[Any] = [None, None]
        if self.rank == 0:
            try:
                box[0] = call()
            except Exception as error:
                box[1] = error
        dist.broadcast_object_list(box, src=0)
        if box[1] is not None:
            raise box[1]
        return box[0]  # type: ignore[no-any-return]

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Inside is process 0 before the others: what it leaves on the disk is there for them."""
        if self.count > 1 and self.rank > 0:
            dist.barrier()
        try:
            yield
        finally:
            if self.count > 1 and self.rank == 0:
                dist.barrier()

    @contextmanager
    def own_random(self, seed: int) -> Iterator[None]:
        """Inside, the global generators are seeded with `seed`; then they go on as if nothing had been drawn.

        So that sources draw the same batches in all processes. Alone, nothing is seeded and all is one sequence.
        """
        if self.count == 1:
            yield
            return
        before = random_state()
        seed_random(seed)
        try:
            yield
        finally:
            set_random_state(before)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Say it plainly when another process is gone.

        Raises:
            ConnectionError: a message to or from another process failed.
        """
        try:
            yield
        except RuntimeError as error:
            if self.count > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error)):
                raise ConnectionError(
                    f"process {self.rank} of {self.count} lost another, which stopped or was stopped: see its message; "
                    "the last checkpoint is sound"
                ) from error
            raise


def are_labels(y: Any) -> bool:
    """Whether y is integers `[B]`, or floats `[B, K]`: soft labels."""
    if not isinstance(y, Tensor) or y.dtype == torch.bool:
        return False
    return y.ndim == (2 if y.is_floating_point() else 1)


@contextmanager
def join(init_method: str = "env://") -> Iterator[Processes]:
    """Be one of the processes that a launcher started, as the environment says; alone without a launcher.

    Messages go by NCCL between GPUs, by gloo between CPUs. Process k of a machine takes its GPU k. A process group that
    is there already is used and left as it is.

    Args:
        init_method: how the processes find each other: see `torch.distributed.init_process_group`.

    Raises:
        ValueError: the environment says only in part who this process is.
    """
    if dist.is_available() and not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        missing = [name for name in ("RANK", "LOCAL_RANK") if name not in os.environ]
        if missing:
            raise ValueError(
                f"WORLD_SIZE is {os.environ['WORLD_SIZE']} but {' and '.join(missing)} is not set; "
                "start with `accelerate launch` or `torchrun`, or unset WORLD_SIZE"
            )
        rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
        if local < torch.cuda.device_count():
            torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        dist.init_process_group(backend, init_method, world_size=int(os.environ["WORLD_SIZE"]), rank=rank)
        processes = Processes.current()
        with processes.watched():
            yield processes
        # After an exception none of this: the process ends with its connections, and the others are not waited for.
        with processes.watched():
            dist.barrier()
        dist.destroy_process_group()
    else:
        yield Processes.current()


def leave(code: int) -> NoReturn:
    """End this process of several at once, with what it printed.

    Ended in the usual way, some few abort in a thread of torch when all is done (seen with torch 2.13 and gloo).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def own_device(device: torch.device) -> torch.device:
    """`device`, if this process need not share it.

    Raises:
        ValueError: it is CUDA, and this machine has fewer GPUs than processes.
    """
    local, count = int(os.environ.get("LOCAL_RANK", "0")), Processes.current().count
    if device.type == "cuda" and count > 1 and local >= torch.cuda.device_count():
        raise ValueError(
            f"process {local} of this machine finds {torch.cuda.device_count()} CUDA devices; "
            "start as many processes as there are, or train with --device cpu"
        )
    return device
