"""What `cost` noted in a run, as a section of its page."""

from collections.abc import Mapping, Sequence
from typing import Any

from rheobase.files import read_table
from rheobase.report import Grid, Section, Stack
from rheobase.train import RunFolder


def _nano(picojoule: str | int | float) -> str:
    """Nanojoule with one decimal."""
    return f"{float(picojoule) / 1e3:,.1f}"


def _whole(count: str | int | float) -> str:
    """A mean count, rounded."""
    return f"{float(count):,.0f}"


def cost_sections(run: RunFolder) -> tuple[Section, ...]:
    """The section of a run's price; none if it was not priced."""
    path, found = run.path / "cost.csv", run.result().get("cost")
    if found is None or "rules" not in found or not path.is_file():
        return ()
    rows = read_table(path)
    products = [row for row in rows if row["kind"] not in ("neurons", "between")]
    neurons = [row for row in rows if row["kind"] == "neurons"]
    parts = (
        _rules(found),
        _beside(found),
        _energies(rows),
        _densities(products),
        _verdicts(found, products),
        _neurons(neurons),
    )
    return (Section("What it costs", _text(found), parts),)


def _text(found: Mapping[str, Any]) -> str:
    exceptions, share = found["exceptions"], 100 * found["mac_share"]
    verdict = (
        "Spike-driven: yes, every product selects and adds."
        if not exceptions
        else f"Spike-driven: no; {share:.2f} % of the multiply-accumulates need a multiplier, in "
        f"{len(exceptions)} layers."
    )
    said = [
        f"{verdict} Counted on {found['samples']} {found.get('counted', 'test samples')} of the "
        f"{found['checkpoint']} checkpoint, T = {found['T']}, per sample. Energies are counts times the picojoules of "
        f"a table in 45 nm; no hardware was measured."
    ]
    return " ".join((*said, *cost_remarks(found)))


def cost_remarks(found: Mapping[str, Any]) -> list[str]:
    """What to know before believing the numbers, a sentence each."""
    cases = (
        ("mismatches", "Read other values than declared"),
        ("silent", "Read zeros alone, so that their verdict says nothing"),
        ("unpriced", "Neurons without a traced step, whose operations are missing"),
    )
    return [f"{said}: {', '.join(name or '(model)' for name in found[case])}." for case, said in cases if found[case]]


def _rules(found: Mapping[str, Any]) -> Grid:
    columns = ("rule", "MACs", "ACs", "products, nJ", "neurons and sums, nJ", "memory, nJ", "sum, nJ")
    rows = tuple(
        (
            name,
            _whole(sums["macs"]),
            _whole(sums["acs"]),
            *(_nano(sums[f"{part}_pJ"]) for part in ("products", "neurons", "memory", "energy")),
        )
        for name, sums in found["rules"].items()
    )
    return Grid("One network, every rule", columns, rows)


def _beside(found: Mapping[str, Any]) -> Grid:
    bits = found["quantised"]["operations"]["bits"]
    return Grid(
        f"Beside the quantised network of the same shape: {bits} bits, once, dense",
        ("counted", "spiking, nJ", "quantised, nJ", "spiking / quantised"),
        tuple(
            (name, _nano(sums["snn_pJ"]), _nano(sums["ann_pJ"]), f"{sums['ratio']:.2f}")
            for name, sums in found["quantised"].items()
        ),
    )


def _energies(rows: Sequence[Mapping[str, str]]) -> Stack:
    rows = [row for row in rows if float(row["computing_pJ"]) + float(row["moving_pJ"]) > 0]
    computing = [(row["kind"] in _ENDINGS, float(row["computing_pJ"]) / 1e3) for row in rows]
    products = tuple(0.0 if other else value for other, value in computing)
    others = tuple(value if other else 0.0 for other, value in computing)
    moving = tuple(float(row["moving_pJ"]) / 1e3 for row in rows)
    parts = (("products", products), ("neurons and sums", others), ("memory", moving))
    labels = tuple(_name(row) + _ENDINGS.get(row["kind"], "") for row in rows)
    return Stack("Energy by layer", "nJ a sample, by the rule memory", labels, parts)


def _densities(products: Sequence[Mapping[str, str]]) -> Stack:
    values = tuple(min(map(float, row["density"].split(" x "))) for row in products)
    labels = tuple(map(_name, products))
    return Stack("Density of what products read", "share of values that are not zero", labels, (("density", values),))


def _name(row: Mapping[str, str]) -> str:
    return row["layer"] or "(model)"


_ENDINGS = {"neurons": " (neurons)", "between": " (sums)"}


def _verdicts(found: Mapping[str, Any], products: Sequence[Mapping[str, str]]) -> Grid:
    columns = (
        "layer", "reads", "density", "spike-driven", "MACs a step", "share of MACs", "effective", "energy, nJ",
        "quantised, nJ",
    )  # fmt: skip
    every = sum((float(row["macs"]) * float(row["steps"]) for row in products), 0.0) or 1.0
    rows = tuple(
        (
            _name(row),
            row["holds"],
            " x ".join(f"{float(each):.3f}" for each in row["density"].split(" x ")),
            "no" if row["spike_driven"] != "True" else "yes" if row["strict"] == "True" else "additions",
            _whole(row["macs"]),
            f"{100 * float(row['macs']) * float(row['steps']) / every:.2f} %",
            _whole(row["effective"]),
            _nano(float(row["computing_pJ"]) + float(row["moving_pJ"])),
            _nano(row["quantised_pJ"]),
        )
        for row in products
    )
    verdict = f"no, MAC share {100 * found['mac_share']:.2f} %" if found["exceptions"] else "yes"
    sums = [sum((float(row[key]) for row in products), 0.0) for key in ("computing_pJ", "moving_pJ", "quantised_pJ")]
    total = (
        "all products", "", "", verdict, _whole(found["macs_per_step"]), "100 %", None,
        _nano(sums[0] + sums[1]), _nano(sums[2]),
    )  # fmt: skip
    return Grid("Products: what they read, and whether additions do", columns, rows, total)


def _neurons(neurons: Sequence[Mapping[str, str]]) -> Grid:
    columns = ("layer", "neurons", "rate", "updates", "operations an update", "computing, nJ", "memory, nJ")
    rows = tuple(
        (
            _name(row),
            _whole(row["shape"]),
            row["density"],
            _whole(row["updates"]),
            float(row["operations"]) if row["operations"] else None,
            _nano(row["computing_pJ"]),
            _nano(row["moving_pJ"]),
        )
        for row in neurons
    )
    sums = [sum((float(row[key]) for row in neurons), 0.0) for key in ("shape", "updates", "computing_pJ", "moving_pJ")]
    total = ("all neurons", _whole(sums[0]), "", _whole(sums[1]), None, _nano(sums[2]), _nano(sums[3]))
    return Grid("Neurons: updates and what they compute", columns, rows, total, folded=True)
