"""A recipe's network in SpikingJelly, trained for a given time: `python -m benchmarks.same_time --seconds 1800`.

Data, batches, augmentation, optimiser, schedule, loss, checks and the final measurement are the recipe's. The network,
its neurons and its backward pass are SpikingJelly's, in `step_mode="m"`, convolutions channels-last. Before it trains,
its spikes and gradients are compared with Rheobase's at equal weights. Then a few steps are timed, and it gets as many
epochs as fit into the time, so that its learning rate too falls to the end.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks import nets
from benchmarks.conv import Case, check
from benchmarks.measure import ROOT
from benchmarks.nets import Kit, Rheobase, SpikingJelly
from benchmarks.peers import PEERS, PeersMissingError, environment
from rheobase.models import create_model
from rheobase.models.registry import image_of, register
from rheobase.neurons import IterativeLIF
from rheobase.recipes import Classification, Task, build, recipe, record, train
from rheobase.scan.allocator import keep_memory
from rheobase.train.measure import Forward

PEER = "spikingjelly_cifar_conv7"
WARM, TIMED = 5, 20
"""Steps before the clock starts, and steps that are timed."""


class IterativeSpikingJelly(SpikingJelly):
    """SpikingJelly with the neuron of `rheobase.neurons.IterativeLIF`, which its LIFNode is at these settings."""

    def neuron(self) -> nn.Module:
        from spikingjelly.activation_based import surrogate

        found: nn.Module = self._neuron.LIFNode(
            tau=4 / 3,
            decay_input=False,
            v_threshold=0.5,
            v_reset=0.0,
            surrogate_function=surrogate.Rect(),
            detach_reset=True,
            step_mode="m",
        )
        return found


class Forgetful(nn.Module):
    """A peer's network that starts every call at rest."""

    def __init__(self, kit: Kit, net: nn.Module) -> None:
        super().__init__()
        self.kit, self.net = kit, net

    def forward(self, x: Tensor) -> Tensor:
        self.kit.release(self.net)
        y: Tensor = self.net(x)
        return y


def enter(kit: Kit, width: int = 32) -> None:
    """Register the peer's network under `PEER`, so that a recipe may name it; it starts at Rheobase's weights."""

    def make(in_channels: int = 3, classes: int = nets.CLASSES) -> nn.Module:
        ours = create_model("cifar_conv7", in_channels=in_channels, classes=classes, width=width)
        theirs = nets.conv7(kit, width)
        for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
            its.data.copy_(mine.data)
        return Forgetful(kit, theirs.to(memory_format=torch.channels_last))  # type: ignore[call-overload]

    register(image_of(32), name=PEER, reproduces="cifar_conv7 in SpikingJelly")(make)


def seconds_of_an_epoch(task: Task, warm: int = WARM, timed: int = TIMED) -> float:
    """How long an epoch takes: training steps of its size, and its validation in proportion, without optimiser."""
    forward = Forward(task.model, task.config.train, task.prepare)
    training, validation = task.source(task.train, shuffle=True), task.source(task.validation, shuffle=False)

    def run(source: Sequence, steps: int, learn: bool) -> float:
        began = time.perf_counter()
        for k, batch in enumerate(islice(source(0), steps)):
            with torch.set_grad_enabled(learn):
                outcome = forward(batch, f"step {k}", "timing", k)
            if learn:
                task.model.zero_grad(set_to_none=True)
                torch.autograd.backward(outcome.loss)
        return (time.perf_counter() - began) / steps

    with task.at_work():
        run(training, warm, True)
        steps, tests = min(timed, len(training)), min(timed, len(validation))
        return run(training, steps, True) * len(training) + run(validation, tests, False) * len(validation)


def main(arguments: Sequence[str]) -> int:
    """Compare, time, train and record. Ends with 0, 1 if the networks disagree, 2 if the peer is not here."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.same_time", description=__doc__)
    parser.add_argument("--recipe", default="cifar10-half-hour", help="whose settings are taken")
    parser.add_argument("--seconds", type=float, required=True, help="of training, validation with it")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the run folder is made")
    parser.add_argument("--results", type=Path, help="CSV file to append the measured row to")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)  # in the peers' environment already
    options = parser.parse_args(arguments)
    if not options.inside:
        try:
            python = environment(PEERS)
        except PeersMissingError as error:
            print(error, file=sys.stderr)
            return 2
        command = [str(python), "-m", "benchmarks.same_time", *arguments, "--inside"]
        return subprocess.run(command, cwd=ROOT, check=False).returncode
    if recipe(options.recipe)().model != "cifar_conv7":
        parser.error(f"{options.recipe} trains another network than cifar_conv7, the one that is rebuilt here")
    keep_memory()
    peer = IterativeSpikingJelly()
    case = Case("cifar_conv7", nets.conv7, (2, 16, 3, 32, 32), 1e-5)
    agreement = check(case, Rheobase(IterativeLIF), peer)
    print(f"at equal weights: {agreement.text}", flush=True)
    if not agreement.holds:
        return 1
    enter(peer)
    config: Classification = replace(recipe(options.recipe)(), model=PEER)
    epoch = seconds_of_an_epoch(build(config))
    epochs = max(1, int(options.seconds / epoch))
    print(f"an epoch takes {epoch:.0f} s: {epochs} epochs in {options.seconds:.0f} s", flush=True)
    warmup = min(config.train.warmup_epochs, epochs - 1)
    config = replace(config, train=replace(config.train, epochs=epochs, warmup_epochs=warmup))
    name = f"{options.recipe}-spikingjelly"
    run, result = train(name, config, options.runs, on_epoch=lambda line: print(line, flush=True))
    print(f"spikingjelly {peer.version}: test accuracy {result['test_accuracy']:.2%}, run {run.path}")
    if options.results is not None:
        record(run, options.results)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
