"""The price of a trained run: what its network computes on the test split, by a named rule."""

import csv
import io
from pathlib import Path
from typing import Any

import torch

from rheobase.files import write_atomic
from rheobase.lab.cost import Energy, Report, activity, energy, rule_named, tracing
from rheobase.lab.cost.report import shapes
from rheobase.recipes.classification import build, config_of, is_cross_validated, load_run
from rheobase.train import RunFolder, evaluate

COLUMNS = (
    "layer", "kind", "shape", "macs", "bias_adds", "executed", "steps", "holds", "density", "effective", "declared",
    "spike_driven", "strict", "rule", "counted_macs", "counted_acs", "energy_pJ",
)  # fmt: skip


def cost(
    run: RunFolder, *, which: str | None = None, rule: str = "strict", samples: int | None = None
) -> tuple[Report, Energy, Path]:
    """Price a checkpoint of a run on its test split; write `cost.csv` into the run and note sums in result.json.

    Args:
        run: a run with a checkpoint.
        which: "best" or "last"; that of its config by default.
        rule: a name of `rheobase.lab.cost.RULES`.
        samples: how many of the first test samples to run; None is all.

    Returns:
        what the network computes, its price per sample, and the file.

    Raises:
        ValueError: a run of several folds, no such rule, or fewer than one sample.
    """
    if is_cross_validated(config_of(run)):
        raise ValueError(f"{run.path} holds a network for each fold; name one of {run.path / 'folds'}")
    if samples is not None and samples < 1:
        raise ValueError(f"samples is {samples}; expected at least 1, or None for all")
    rule_named(rule)  # before the run, which may take long
    task = build(config_of(run))
    which, test = load_run(task, run, which), task.dataset.test
    part = test if samples is None else test.select(torch.arange(min(samples, len(test))))
    with task.at_work(), tracing(task.model) as tracer:
        found = evaluate(task.model, task.source(part, shuffle=False)(0), task.config.train, prepare=task.prepare)
    report = tracer.report()
    price = energy(report, rule)
    path = run.path / "cost.csv"
    write_atomic(path, _csv(report, price).encode())
    run.add_result("cost", {**summary(report, price), "checkpoint": which, "accuracy": found["accuracy"]})
    return report, price, path


def summary(report: Report, price: Energy) -> dict[str, Any]:
    """The sums of a report and its price, as JSON holds them."""
    return {
        "rule": price.rule,
        "samples": report.samples,
        "T": report.T,
        "macs_per_step": report.macs,
        "mac_share": report.mac_share,
        "spike_driven": report.spike_driven,
        "exceptions": list(report.exceptions),
        "mismatches": list(report.mismatches),
        "silent": list(report.silent),
        "neuron_updates": report.updates,
        "spikes_per_neuron": activity(report).spikes_per_neuron,
        "macs": price.macs,
        "acs": price.acs,
        "energy_pJ": price.total_pJ,
    }


def _csv(report: Report, price: Energy) -> str:
    lines = io.StringIO()
    writer = csv.DictWriter(lines, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for product, layer in zip(report.products, price.layers, strict=True):
        seen = product.activations
        writer.writerow(
            {
                "layer": product.name,
                "shape": shapes(product),
                "holds": " x ".join(str(operand.holds) for operand in seen),
                "density": " x ".join(f"{operand.density:.6g}" for operand in seen),
                "declared": product.declared or "",
                "rule": price.rule,
                "counted_macs": layer.macs,
                "counted_acs": layer.acs,
                "energy_pJ": layer.energy_pJ,
                **{
                    name: getattr(product, name)
                    for name in (
                        "kind",
                        "macs",
                        "bias_adds",
                        "executed",
                        "steps",
                        "effective",
                        "spike_driven",
                        "strict",
                    )
                },
            }
        )
    return lines.getvalue()
