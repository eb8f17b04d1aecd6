"""A run on an accelerator for training: one real step of its training, simulated on a named design."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rheobase.files import write_table
from rheobase.lab.cost.h2learn import (
    PUBLISHED,
    Design,
    Gpu,
    LayerResult,
    Ratios,
    Simulation,
    StepTrace,
    ablation,
    preset,
    ratios,
    sensitivity,
    simulate,
    trace_step,
    works_of,
)
from rheobase.recipes.classification import Task, trained
from rheobase.train import RunFolder
from rheobase.train.measure import Forward

LAYER_COLUMNS = (
    "layer", "reads", "c_in", "c_out", "kernel", "positions", "macs", "rate", "d_in", "d_out", "silent", "balance",
    "forward", "backward", "backward_by_densities", "update", "update_exposed", "forward_busy", "backward_busy",
    "update_busy", "dram_bytes", "energy_pJ", "unmapped",
)  # fmt: skip
"""Columns of h2learn.csv, per sample: cycles of each engine; densities and the count by them alone; what is unmapped
has its reason in the last column and its MACs of a sample."""
ASSUMPTION_COLUMNS = (
    "assumption", "value", "halved_speed", "halved_energy", "halved_area", "doubled_speed", "doubled_energy",
    "doubled_area",
)  # fmt: skip
"""Columns of h2learn_assumptions.csv."""
DENSE = 0.99
"""A gradient with this share of non-zero values or more counts as dense."""


@dataclass(frozen=True)
class Accelerated:
    """What came out.

    Attributes:
        name: of the design.
        units: of the table of energies.
        checkpoint: whose weights.
        step: what was traced.
        found: the simulation, cycle by cycle.
        by_densities: the same by densities alone.
        exposed: with the building of tables exposed.
        compared: ratios to the GPU model, by what is counted.
        parts: what each part of the design brings.
        assumptions: name, value, and the ratios with it halved and doubled.
    """

    name: str
    units: str
    checkpoint: str
    step: StepTrace
    found: Simulation
    by_densities: Simulation
    exposed: Simulation
    compared: Mapping[str, Ratios]
    parts: Mapping[str, Simulation]
    assumptions: tuple[tuple[str, int | float, Ratios, Ratios], ...]

    @property
    def dense(self) -> list[str]:
        """Layers whose gradient is dense where it enters the transposed product, as behind a norm in training."""
        return [layer.work.name for layer in self.found.layers if layer.backward and layer.work.d_in >= DENSE]

    @property
    def open(self) -> list[str]:
        """Neurons whose windows are open everywhere: the surrogate never vanishes, or nothing is known of it."""
        return [cell.name for cell in self.step.neurons if cell.open == 1]

    @property
    def unmapped_share(self) -> float:
        """Share of the forward multiply-accumulates that the engines cannot take."""
        lost = sum(each.macs for each in self.step.unmapped)
        taken = sum(layer.work.macs for layer in self.found.layers) * self.step.batch
        return lost / (lost + taken)


def h2learn(
    run: RunFolder,
    *,
    design: str = "ref-S",
    units: str = "45nm",
    which: str | None = None,
    samples: int | None = None,
) -> tuple[Accelerated, Path]:
    """Trace one training step of a run's checkpoint and simulate it; write h2learn.csv, note sums in result.json.

    The step is the first batch of an epoch of its training data, with its encoder, its loss and its norms in training
    mode. Nothing is learned. What each assumption weighs is written to h2learn_assumptions.csv.

    Args:
        run: a run with a checkpoint.
        design: a name of `rheobase.lab.cost.h2learn.PRESETS`.
        units: a name of `rheobase.lab.cost.h2learn.UNITS`.
        which: "best" or "last"; that of its config by default.
        samples: how many samples of the batch; None is all.

    Returns:
        what came out, and the file of layers.

    Raises:
        ValueError: a run of several folds, no such design or units, fewer than one sample, or a network without a layer
            that the engines can take.
    """
    chosen = preset(design)
    task, which = trained(run, which, samples)
    if not isinstance(task, Task):
        raise ValueError(f"{run.path} holds a network for {task.config.task}; --h2learn simulates those of samples")
    with task.at_work():
        step = trace_training_step(task, samples)
        made = accelerated(step, chosen, design, units, which)
    path = run.path / "h2learn.csv"
    write_table(path, LAYER_COLUMNS, _layers(made))
    write_table(path.with_name("h2learn_assumptions.csv"), ASSUMPTION_COLUMNS, _assumptions(made))
    run.add_result("h2learn", accelerated_summary(made))
    return made, path


def trace_training_step(task: Task, samples: int | None = None) -> StepTrace:
    """One step of a task's training, see `rheobase.lab.cost.h2learn.trace_step`."""
    forward = Forward(task.model, task.config.train, task.prepare)
    x, y = next(iter(task.source(task.train, shuffle=True)(0)))
    forward.generator.manual_seed(task.config.train.seed)
    x = task.prepare(x[:samples].to(forward.device), forward.generator)
    y = y[:samples].to(forward.device)
    y = y.float() if y.is_floating_point() else y.long()
    autocast = torch.autocast(forward.device.type, torch.bfloat16, enabled=task.config.train.autocast == "bf16")
    task.model.train()
    with autocast:
        return trace_step(task.model, x, partial(_loss, forward, y))


def _loss(forward: Forward, y: Tensor, logits: Tensor) -> Tensor:
    return forward.criterion(logits.float(), y)


def accelerated(step: StepTrace, design: Design, name: str, units: str, checkpoint: str = "") -> Accelerated:
    """Simulate a traced step on a design, with everything that a report says of it."""
    work = works_of(step, design)
    found = simulate(work, design, units)
    layers, cells = work
    exposed = simulate(work, replace(design, builds="exposed"), units)
    waiting = simulate(work, replace(design, builds="regrouped", stalls=True), units)
    return Accelerated(
        name,
        units,
        checkpoint,
        step,
        found,
        simulate(([each.by_densities() for each in layers], cells), design, units),
        exposed,
        {
            "tables hidden": ratios(work, found),
            "tables exposed": ratios(work, exposed),
            "tables of each group, and waits for the DRAM": ratios(work, waiting),
        },
        ablation(partial(works_of, step), design, units),
        tuple(sensitivity(work, found)),
    )


def accelerated_summary(made: Accelerated) -> dict[str, Any]:
    """What came out, as JSON holds it."""
    found = made.found
    return {
        "design": made.name,
        "units": made.units,
        "checkpoint": made.checkpoint,
        "samples": made.step.batch,
        "T": made.step.T,
        "loss": made.step.loss,
        "cycles": dict(found.cycles),
        "cycles_by_densities": dict(made.by_densities.cycles),
        "cycles_exposed": dict(made.exposed.cycles),
        "minibatch": found.design.minibatch,
        "ms_per_sample": found.seconds * 1e3,
        "utilisation": dict(found.utilisation),
        "energy_pJ": dict(found.energy_pJ),
        "power_W": found.joules / found.seconds,
        "area_mm2": found.silicon.area_mm2(found.design),
        "dram_bytes": found.dram_bits / 8,
        "roofline": [_finite(asdict(roof)) for roof in found.roofline],
        "ratios": {name: asdict(each) for name, each in made.compared.items()},
        "published": {name: list(each) for name, each in PUBLISHED.items()},
        "ablation": {
            name: {"cycles": dict(each.cycles), "ms_per_sample": each.seconds * 1e3}
            for name, each in made.parts.items()
        },
        "unmapped": [asdict(each) for each in made.step.unmapped],
        "unmapped_share": made.unmapped_share,
        "dense": made.dense,
        "open": made.open,
        "gpu": asdict(Gpu()),
    }


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {name: None if value == float("inf") else value for name, value in values.items()}


def _layers(made: Accelerated) -> Iterable[dict[str, Any]]:
    for layer, plain, shown in zip(made.found.layers, made.by_densities.layers, made.exposed.layers, strict=True):
        work, phases = layer.work, layer.phases
        yield {
            "layer": work.name,
            "reads": "binary" if work.binary else "other",
            **{name: getattr(work, name) for name in ("c_in", "c_out", "kernel", "positions", "macs")},
            **{name: f"{getattr(work, name):.6g}" for name in ("rate", "d_in", "d_out", "silent")},
            "balance": "" if layer.backward is None else f"{work.balance or made.found.design.balance:.6g}",
            **_cycles(made, layer),
            "backward_by_densities": "" if plain.backward is None else plain.backward.compute,
            "update_exposed": shown.update.compute,
            "dram_bytes": sum(phase.dram_bits for phase in phases) / 8,
            "energy_pJ": sum(
                count * getattr(made.found.units, unit) for phase in phases for unit, count in phase.counts.items()
            ),
        }
    for each in made.step.unmapped:
        yield {"layer": each.name, "macs": each.macs // made.step.batch, "unmapped": each.reason}


def _cycles(made: Accelerated, layer: LayerResult) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, phase in (("forward", layer.forward), ("backward", layer.backward), ("update", layer.update)):
        cycles = None if phase is None else phase.cycles(made.found.design)
        found[name] = "" if cycles is None else cycles
        found[f"{name}_busy"] = f"{phase.useful / cycles:.6g}" if phase is not None and cycles else ""
    return found


def _assumptions(made: Accelerated) -> Iterable[dict[str, Any]]:
    for name, value, low, high in made.assumptions:
        yield {
            "assumption": name,
            "value": f"{value:.6g}",
            **{f"halved_{kind}": f"{ratio:.6g}" for kind, ratio in asdict(low).items()},
            **{f"doubled_{kind}": f"{ratio:.6g}" for kind, ratio in asdict(high).items()},
        }
