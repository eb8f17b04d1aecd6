"""Trainings that kill themselves with SIGKILL, and the comparison of what resuming makes of them. Run as a script.

kill_driver.py die <root> <step>        one whole training, then one that kills its process after <step> steps
kill_driver.py resume <root>            resumes that one; prints the differences between the two as JSON
kill_driver.py everywhere <root>        kills forked children at every point, resumes each; prints a JSON report
"""

import gc
import json
import os
import random
import signal
import stat
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from rheobase.train import Batches, RunFolder, TrainConfig, fit, has_checkpoint, load_checkpoint

STEPS_PER_EPOCH, EPOCHS = 2, 2
CONFIG = TrainConfig(
    epochs=EPOCHS,
    optimizer="sgd",
    lr=0.2,
    weight_decay=1e-3,
    clip_norm=1.0,
    warmup_epochs=1,
    monitor="loss",
    checkpoint_every_steps=3,
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, 3))

    def forward(self, x):
        return self.layers(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def batches(epoch):
    """Shuffled by torch's global generator, jittered by Python's and NumPy's between the steps of the training."""
    values = torch.rand(STEPS_PER_EPOCH * 5, 6, generator=torch.Generator().manual_seed(1))
    labels = values[:, :3].argmax(1)
    for index in torch.randperm(len(values)).split(5):
        yield values[index] * (0.9 + 0.05 * random.random() + 0.05 * np.random.random()), labels[index]


def encode(x, generator):
    return (torch.rand(2, *x.shape, generator=generator) < x).float()


def train(run, resume=False, on_step=None, net=Net):
    torch.manual_seed(5)
    validation = Batches(lambda epoch: list(batches(epoch)), STEPS_PER_EPOCH)
    source = Batches(batches, STEPS_PER_EPOCH)
    return fit(net(), source, validation, CONFIG, run, prepare=encode, on_step=on_step, resume=resume)


def new_run(root):
    run = RunFolder(Path(root))
    run.checkpoints.mkdir(parents=True)
    return run


def plain(value):
    """Comparable by ==, bit for bit."""
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), list(value.shape), value.numpy().tobytes().hex()]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key != "seconds"}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def contents(run):
    """All that a run folder holds, less the wall-clock times."""
    found = {"metrics": plain(run.metrics()), "result": plain(run.result())}
    for which in ("last", "best"):
        checkpoint = load_checkpoint(run, which)
        found[f"{which} weights"] = plain(checkpoint.weights)
        found |= {f"{which} {name}": plain(value) for name, value in checkpoint.state.items()}
    found["files"] = sorted(path.name.removesuffix("-again") for path in run.checkpoints.iterdir())
    return found


def differences(one, other):
    return [name for name in sorted(one | other) if one.get(name) != other.get(name)]


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_step(at):
    def on_step(done, total):
        if done == at:
            kill()

    return on_step


def die_at_call(names, at, tear=False):
    """Kill before the at-th call of any of the os functions `names`.

    `tear` counts only the syncs of files, and first cuts off half of the bytes that were not synced before.
    """
    count, synced = 0, {}

    def wrap(original):
        def call(*args, **kwargs):
            nonlocal count
            if tear:
                file = os.fstat(args[0])
                if not stat.S_ISREG(file.st_mode):
                    return original(*args, **kwargs)
                cut, synced[file.st_ino] = (synced.get(file.st_ino, 0) + file.st_size) // 2, file.st_size
            count += 1
            if count == at:
                if tear:
                    os.ftruncate(args[0], cut)
                kill()
            return original(*args, **kwargs)

        return call

    for name in names:
        setattr(os, name, wrap(getattr(os, name)))


def run_child(run, resume, how, at):
    """Train in a forked child that is to die at point `at`; whether it did."""
    child = os.fork()
    if child == 0:
        on_step = None
        if how == "step":
            on_step = die_at_step(at)
        elif how == "call":
            die_at_call(["fsync", "replace", "mkdir", "unlink", "rmdir"], at)
        else:
            die_at_call(["fsync"], at, tear=True)
        train(run, resume, on_step)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(f"child {how} {at} failed")
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def everywhere(root, how, whole):
    covered, different, at = [], {}, 1
    while True:
        run = new_run(root / f"{how}-{at}")
        if not run_child(run, False, how, at):
            break
        begun = has_checkpoint(run)
        covered.append(load_checkpoint(run).state["progress"] if begun else None)
        if begun and at % 4 == 0:  # a second life, killed at another point, then a third
            run_child(run, True, how, 1 + at // 2)
        train(run, resume=begun)
        if found := differences(whole, contents(run)):
            different[at] = found
        at += 1
    steps = [-1 if p is None else p["epoch"] * STEPS_PER_EPOCH + p["batch"] for p in covered]
    return {"kills": len(covered), "steps": steps, "different": different}


def main(verb, root, *rest):
    torch.set_num_threads(1)  # forked children must not inherit a thread pool
    root = Path(root)
    if verb == "die":
        train(new_run(root / "whole"))
        train(new_run(root / "killed"), on_step=die_at_step(int(rest[0])))
    elif verb == "resume":
        train(RunFolder(root / "killed"), resume=True)
        found = differences(contents(RunFolder(root / "whole")), contents(RunFolder(root / "killed")))
        print(json.dumps({"different": found}))
    else:
        train(new_run(root / "whole"))
        whole = contents(RunFolder(root / "whole"))
        gc.freeze()  # forked children then share more pages
        print(json.dumps({how: everywhere(root, how, whole) for how in ("step", "call", "tear")}))


if __name__ == "__main__":
    main(*sys.argv[1:])
