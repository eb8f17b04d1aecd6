"""The price of a trained run: what its network computes on the test split, by a named rule."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rheobase.files import write_table
from rheobase.lab.cost import (
    HOROWITZ,
    RULES,
    Energy,
    LayerEnergy,
    Memory,
    Product,
    Report,
    activity,
    energy,
    neurobench,
    quantised_twin,
    rule_named,
    tracing,
)
from rheobase.lab.cost.report import shapes
from rheobase.recipes.classification import trained
from rheobase.train import RunFolder, evaluate

COLUMNS = (
    "layer", "kind", "shape", "macs", "inside", "bias_adds", "executed", "steps", "holds", "density", "effective",
    "additions", "declared", "spike_driven", "strict", "updates", "operations", "rule", "counted_macs", "counted_acs",
    "energy_pJ", "computing_pJ", "moving_pJ", "moved_bytes", "quantised_pJ",
)  # fmt: skip
"""Columns of cost.csv. Up to `energy_pJ` by the rule that was asked for; `computing_pJ`, `moving_pJ` and `moved_bytes`
by the rule "memory"; `quantised_pJ` of the quantised network, with memory."""


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
    rule_named(rule)  # before the run, which may take long
    task, which = trained(run, which, samples)
    task = task.traceable
    batches = task.source(task.tested(samples), shuffle=False)(0)
    with task.at_work(), tracing(task.model) as tracer:
        found = evaluate(task.model, batches, task.config.train, prepare=task.prepare, apply=task.run)
    report = tracer.report()
    price = energy(report, rule)
    path = run.path / "cost.csv"
    write_table(path, COLUMNS, _rows(report, price))
    run.add_result("cost", {**summary(report, price), "checkpoint": which, "accuracy": found["accuracy"]})
    return report, price, path


def summary(report: Report, price: Energy) -> dict[str, Any]:
    """The sums of a report and its price, as JSON holds them; by every rule, and of the quantised network."""
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
        "unpriced": list(energy(report, "memory").unpriced),
        "rules": {name: _sums(energy(report, name)) for name in RULES},
        "neurobench": asdict(neurobench(report)),
        "quantised": {name: _beside(report, memory) for name, memory in _COMPARED.items()},
    }


def _sums(price: Energy) -> dict[str, float]:
    return {
        "macs": price.macs,
        "acs": price.acs,
        "products_pJ": sum((layer.operations_pJ for layer in price.layers), 0.0),
        "neurons_pJ": sum((layer.operations_pJ for layer in (*price.neurons, *price.between)), 0.0),
        "memory_pJ": price.memory_pJ,
        "energy_pJ": price.total_pJ,
    }


_COMPARED = {
    "operations": None,
    "with memory": HOROWITZ,
    "with memory, weights read once": replace(HOROWITZ, weights_once=True),
}
"""How a network is compared with the quantised one."""


def _beside(report: Report, memory: Memory | None) -> dict[str, Any]:
    twin = quantised_twin(report, memory=memory)
    return {"bits": twin.bits, "snn_pJ": twin.snn.total_pJ, "ann_pJ": twin.ann.total_pJ, "ratio": twin.ratio}


def _rows(report: Report, price: Energy) -> Iterator[dict[str, Any]]:
    """Rows of cost.csv: products, neurons, and what is between."""
    whole, quantised = energy(report, "memory"), quantised_twin(report, memory=HOROWITZ).ann
    for k, product in enumerate(report.products):
        counted = {"counted_macs": price.layers[k].macs, "counted_acs": price.layers[k].acs}
        shown = {**_product(product), **counted, **_prices(whole.layers[k], quantised.layers[k])}
        yield {**shown, "rule": price.rule, "energy_pJ": price.layers[k].energy_pJ}
    for k, layer in enumerate(report.neurons):
        yield {
            "layer": layer.name,
            "kind": "neurons",
            "shape": layer.units,
            "holds": layer.emits,
            "density": f"{layer.rate:.6g}",
            "updates": layer.updates,
            "operations": "" if layer.operations is None else layer.operations.total,
            "rule": price.rule,
            "energy_pJ": price.neurons[k].energy_pJ if price.neurons else 0.0,
            **_prices(whole.neurons[k], quantised.neurons[k]),
        }
    for k, each in enumerate(report.elementwise):
        yield {
            "layer": each.name,
            "kind": "between",
            "rule": price.rule,
            "energy_pJ": price.between[k].energy_pJ if price.between else 0.0,
            **_prices(whole.between[k], quantised.between[k]),
        }


def _product(product: Product) -> dict[str, Any]:
    seen = product.activations
    plain = ("kind", "macs", "inside", "bias_adds", "executed", "steps", "effective", "spike_driven", "strict")
    return {
        "layer": product.name,
        "shape": shapes(product),
        "holds": " x ".join(str(operand.holds) for operand in seen),
        "density": " x ".join(f"{operand.density:.6g}" for operand in seen),
        "declared": product.declared or "",
        "additions": "" if product.additions is None else product.additions,
        **{name: getattr(product, name) for name in plain},
    }


def _prices(whole: LayerEnergy, quantised: LayerEnergy) -> dict[str, float]:
    return {
        "computing_pJ": whole.operations_pJ,
        "moving_pJ": whole.traffic.energy_pJ,
        "moved_bytes": whole.traffic.moved_bytes,
        "quantised_pJ": quantised.energy_pJ,
    }
