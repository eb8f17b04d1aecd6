"""What `h2learn` noted in a run, as a section of its page."""

from collections.abc import Mapping, Sequence
from typing import Any

from rheobase.files import read_table
from rheobase.report import Grid, Section, Stack
from rheobase.report.section import Cell
from rheobase.train import RunFolder

Rows = Sequence[Mapping[str, str]]


def h2learn_sections(run: RunFolder) -> tuple[Section, ...]:
    """The section of a run on H2Learn; none if it was not simulated."""
    layers, assumptions = (run.path / name for name in ("h2learn.csv", "h2learn_assumptions.csv"))
    found = run.result().get("h2learn")
    if found is None or not layers.is_file() or not assumptions.is_file():
        return ()
    rows = read_table(layers)
    mapped, unmapped = [row for row in rows if not row["unmapped"]], [row for row in rows if row["unmapped"]]
    parts: list[Grid | Stack] = [
        _ratios(found),
        Stack(
            "Cycles by layer",
            "cycles a sample",
            tuple(row["layer"] for row in mapped),
            tuple(
                (f"{engine} engine", tuple(float(row[engine] or 0) for row in mapped))
                for engine in ("forward", "backward", "update")
            ),
        ),
        _layers(mapped),
        _engines(found),
        _parts(found),
        _energy(found),
    ]
    if unmapped:
        columns = ("layer", "why", "MACs a sample")
        listed = tuple((row["layer"] or "(model)", row["unmapped"], float(row["macs"])) for row in unmapped)
        parts.append(Grid("What the engines cannot take", columns, listed))
    parts.append(_assumptions(read_table(assumptions)))
    return (Section(f"A training step on H2Learn, {found['design']}", _text(found), tuple(parts)),)


def _text(found: Mapping[str, Any]) -> str:
    text = (
        f"One training step of {found['samples']} samples, T = {found['T']}, traced on the {found['checkpoint']} "
        f"checkpoint and simulated; no hardware was measured. The design is ours, as are the sizes: of the paper the "
        f"abstract alone could be read. The GPU is a roofline, not a measurement. {found['ms_per_sample']:.4g} ms and "
        f"{sum(found['energy_pJ'].values()) / 1e9:.4g} mJ a sample, {found['power_W']:.3g} W, "
        f"{sum(found['area_mm2'].values()):.3g} mm2; energies by the table {found['units']}."
    )
    return " ".join((text, *h2learn_remarks(found)))


def h2learn_remarks(found: Mapping[str, Any]) -> list[str]:
    """What the engines cannot use of this network, a sentence each."""
    said = []
    if found["dense"]:
        said.append(
            f"The gradient that enters the transposed product is dense in {len(found['dense'])} layers, as behind a "
            f"batch norm in training: there the backward engine gains by output sparsity alone."
        )
    if found["open"]:
        said.append(
            f"The windows of {len(found['open'])} layers of neurons are open everywhere, as those of surrogates that "
            f"never vanish: there it gains nothing by output sparsity."
        )
    if found["unmapped"]:
        said.append(f"{100 * found['unmapped_share']:.2f} % of the MACs are left out, here and of the GPU.")
    return said


def _ratios(found: Mapping[str, Any]) -> Grid:
    rows = tuple((name, *(each[kind] for kind in _RATIOS)) for name, each in found["ratios"].items())
    return Grid(
        "How many times better than the GPU model; agreement with the paper is not claimed",
        ("counted", *_RATIOS),
        (*rows, ("published, arXiv:2107.11746, against a V100", *published_ranges(found))),
    )


def published_ranges(found: Mapping[str, Any]) -> list[str]:
    """Of speed, energy and area what the paper states: "least to most", or the one number."""
    return [" to ".join(f"{value:.2f}" for value in sorted(set(found["published"][kind]))) for kind in _RATIOS]


def _layers(mapped: Rows) -> Grid:
    columns = (
        "layer", "MACs", "spike rate", "gradient not zero", "gradient needed", "silent groups", "balance", "forward",
        "backward", "by densities", "update", "tables exposed", "energy, nJ",
    )  # fmt: skip
    names = (
        "macs", "rate", "d_in", "d_out", "silent", "balance", "forward", "backward", "backward_by_densities", "update",
        "update_exposed",
    )  # fmt: skip
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (row["layer"], *(float(row[name]) if row[name] else None for name in names), float(row["energy_pJ"]) / 1e3)
        for row in mapped
    )
    return Grid("Layers: densities, cycles a sample", columns, rows, folded=len(rows) > 30)


def _engines(found: Mapping[str, Any]) -> Grid:
    rows = tuple(
        (
            roof["engine"],
            found["cycles"][roof["engine"]],
            f"{100 * found['utilisation'][roof['engine']]:.1f} %",
            roof["peak"],
            roof["reached"],
            roof["per_byte"],
            roof["bound"],
        )
        for roof in found["roofline"]
    )
    columns = ("engine", "cycles", "busy", "peak, MACs a cycle", "reached", "MACs a DRAM byte", "bound by")
    return Grid("Engines under the roofline; what is skipped counts as done", columns, rows)


def _parts(found: Mapping[str, Any]) -> Grid:
    slowest = next(iter(found["ablation"].values()))["ms_per_sample"]
    rows = tuple(
        (
            name,
            *(each["cycles"][engine] for engine in ("forward", "backward", "update")),
            each["ms_per_sample"],
            slowest / each["ms_per_sample"],
        )
        for name, each in found["ablation"].items()
    )
    return Grid("What each part brings", ("with", "forward", "backward", "update", "ms a sample", "times faster"), rows)


def _energy(found: Mapping[str, Any]) -> Grid:
    whole = sum(found["energy_pJ"].values())
    rows = tuple((name, value / 1e3, f"{100 * value / whole:.1f} %") for name, value in found["energy_pJ"].items())
    return Grid("Energy", ("of", "nJ a sample", "share"), rows, ("all", whole / 1e3, "100 %"))


def _assumptions(rows: Rows) -> Grid:
    columns = ("assumption", "value", *(f"{kind}, {how}" for how in ("halved", "doubled") for kind in _RATIOS))
    names = [f"{how}_{kind}" for how in ("halved", "doubled") for kind in _RATIOS]
    listed: tuple[tuple[Cell, ...], ...] = tuple(
        (row["assumption"], row["value"], *(float(row[name]) for name in names)) for row in rows
    )
    return Grid("Every assumption, and the ratios with it halved and doubled", columns, listed, folded=True)


_RATIOS = ("speed", "energy", "area")
