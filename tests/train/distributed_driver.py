"""Trainings in two processes, and what differs from one process. Run as a script with RANK set, once for each process.

distributed_driver.py compare <root>   the same trainings alone and together; process 0 prints a JSON report
distributed_driver.py die <root>       a training together in which process 1 is killed after three steps
distributed_driver.py resume <root>    goes on with it; process 0 prints how it differs from one not killed
distributed_driver.py fail <root>      a training together in which the labels of process 1 are wrong
"""

import json
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import kill_driver
import torch
from kill_driver import contents, die_at_step, differences, new_run
from torch import nn

import rheobase as rb
from rheobase.models import create_model
from rheobase.train import Batches, Processes, RunFolder, TrainConfig, evaluate, fit, join
from rheobase.train.processes import leave

CONFIG = TrainConfig(epochs=2, optimizer="sgd", lr=0.05, weight_decay=1e-3, clip_norm=2.0, device="cpu")
IMAGES = torch.rand(19, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
SOUNDS = (torch.rand(3, 19, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64) < 0.3).double()
LABELS = torch.arange(19) % 5


SOFT = nn.functional.one_hot(LABELS, 10).double() * 0.7 + nn.functional.one_hot(LABELS.roll(1), 10) * 0.3


def source(x, axis, size, labels=LABELS):
    """Batches of 19 samples: those of 8 leave an odd one of 3, those of 6 one that is smaller than two processes."""
    order = [torch.randperm(19, generator=torch.Generator().manual_seed(epoch)) for epoch in range(2)]
    return Batches(
        lambda epoch: [(x.index_select(axis, index), labels[index]) for index in order[epoch].split(size)],
        -(-19 // size),
    )


def still(x, generator):
    return x.expand(2, *x.shape)


def moving(x, generator):
    return torch.stack([x, x.flip(-1)])


def build(name):
    torch.manual_seed(4)
    return create_model(name).double()


class Unfused(nn.Module):
    """test_ms_resnet on the reference engine, where norms run by themselves."""

    def __init__(self):
        super().__init__()
        self.model = build("test_ms_resnet")

    def forward(self, x):
        with rb.engine("reference"):
            return self.model(x)


def trained(root, model, x, axis, size, config=CONFIG, labels=LABELS, **options):
    """Loss curve and final weights of a training."""
    batches = source(x, axis, size, labels)
    losses = []
    fit(model, batches, batches, config, run_of(root), on_epoch=losses.append, **options)
    found = evaluate(model, batches(0), config, prepare=options.get("prepare"), together=True)
    curve = [line[name] for line in losses for name in line if name not in ("epoch", "step", "seconds")]
    return {"curve": torch.tensor([*curve, found["loss"], found["accuracy"], found["count"]], dtype=torch.float64)} | {
        name: value.detach().clone() for name, value in model.state_dict().items()
    }


def run_of(root):
    """The run folder; that of other processes than 0 lies nowhere."""
    return new_run(root) if Processes.current().rank == 0 else nowhere(root)


def nowhere(root):
    return RunFolder(root.with_name("nowhere"))


def trainings(root):
    """By name: a function that trains."""
    tet, bits = replace(CONFIG, loss="tet"), replace(CONFIG, memory="bits")

    def resnet(name, x, size, prepare, config=CONFIG, model=None, labels=LABELS):
        model = build("test_ms_resnet") if model is None else model
        return trained(root / name, model, x, 0, size, config, labels, prepare=prepare)

    return {
        "resnet": lambda: resnet("resnet", IMAGES, 8, still),
        "bits": lambda: resnet("bits", IMAGES, 8, moving, bits),
        "unfused": lambda: resnet("unfused", IMAGES, 8, still, model=Unfused()),
        "small": lambda: resnet("small", IMAGES, 6, still),
        "soft": lambda: resnet("soft", IMAGES, 8, still, labels=SOFT),
        "float": lambda: resnet("float", IMAGES.float(), 8, moving, model=build("test_ms_resnet").float()),
        "dense": lambda: trained(root / "dense", build("test_recurrent_snn"), SOUNDS, 1, 8, tet),
    }


def compare(root):
    """The largest difference of each training, and what else is to be true of two processes."""
    alone = {}
    if os.environ["RANK"] == "0":
        alone = {name: train() for name, train in trainings(root / "alone").items()}
    with join(f"file://{root}/meeting") as processes:
        found = {}
        for name, train in trainings(root / "together").items():
            together = train()
            if alone:
                found[name] = max(float((alone[name][key] - together[key]).abs().max()) for key in alone[name])
        drawn = [[], []]
        for draws, name in zip(drawn, ("one", "again"), strict=True):
            kill_driver.train(run_of(root / name), net=partial(Watched, draws))
        found["repeats"] = drawn[0] == drawn[1]
        everywhere = [None] * processes.count
        torch.distributed.all_gather_object(everywhere, drawn[0])
        found["draws differ"] = all(a != b for a, b in zip(*everywhere, strict=True))
        try:
            processes.first(lambda: 1 / 0)
        except ZeroDivisionError:
            said = [None] * processes.count
            torch.distributed.all_gather_object(said, processes.rank)
            found["errors of the first are everybody's"] = said == [0, 1]
    if processes.rank == 0:
        found["same bits again"] = differences(contents(RunFolder(root / "one")), contents(RunFolder(root / "again")))
        found["nowhere"] = [str(path) for path in root.rglob("nowhere")]
        print(json.dumps(found))


class Watched(kill_driver.Net):
    """Notes what its dropout drops in training."""

    def __init__(self, draws):
        super().__init__()
        self.layers[3].register_forward_hook(
            lambda layer, _, y: draws.append((y != 0).tolist()) if layer.training else None
        )


def die(root):
    with join(f"file://{root}/meeting") as processes:
        kill_driver.train(run_of(root / "whole"))
        kill_driver.train(run_of(root / "killed"), on_step=die_at_step(3) if processes.rank else None)


def resume(root):
    with join(f"file://{root}/meeting again") as processes:
        run = RunFolder(root / "killed") if processes.rank == 0 else nowhere(root / "killed")
        kill_driver.train(run, resume=True)
    if processes.rank == 0:
        found = differences(contents(RunFolder(root / "whole")), contents(RunFolder(root / "killed")))
        print(json.dumps({"different": found}))


def fail(root):
    def batches(epoch):
        x, y = torch.rand(8, 6), torch.zeros(8, dtype=torch.int64)
        y[1::2] = 0 if epoch == 0 else 7
        return [(x, y)]

    with join(f"file://{root}/meeting"):
        settings = TrainConfig(epochs=2, device="cpu")
        validation = Batches(lambda epoch: [(torch.rand(2, 6), torch.zeros(2, dtype=torch.int64))], 1)
        fit(
            kill_driver.Net(),
            Batches(batches, 1),
            validation,
            settings,
            run_of(root / "run"),
            prepare=kill_driver.encode,
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"compare": compare, "die": die, "resume": resume, "fail": fail}[sys.argv[1]](Path(sys.argv[2]))
    leave(0)
