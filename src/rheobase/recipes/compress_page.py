"""What compression noted in a run, as a section of its page."""

from collections.abc import Mapping
from typing import Any

from rheobase.files import read_table
from rheobase.report import Grid, Section, Stack
from rheobase.train import RunFolder


def compress_sections(run: RunFolder) -> tuple[Section, ...]:
    """The section of a compressed run; none if it was not compressed."""
    path, found = run.path / "compress.csv", run.result().get("compress")
    if found is None or not path.is_file():
        return ()
    rows = read_table(path)
    left = tuple(float(row["weights"]) - float(row["zeros"]) for row in rows)
    zeros = tuple(float(row["zeros"]) for row in rows)
    labels = tuple(row["layer"].removesuffix(".weight") for row in rows)
    parts = (
        _beside(found),
        _stages(found),
        Stack("Weights by layer", "weights", labels, (("not zero", left), ("zero", zeros))),
        _layers(rows, found),
    )
    return (Section("What compression made of it", "\n".join(compress_remarks(found)), parts),)


def compress_remarks(found: Mapping[str, Any]) -> list[str]:
    """What was done, in sentences."""
    before, after = found["before"], found["after"]
    lost = 100 * (before["accuracy"] - after["accuracy"])
    said = [
        f"{found['zeros']:,} of {found['weights']:,} weights are zero ({found['sparsity']:.2%}), the others need "
        f"{found['bits']:.3g} bits; {found['storage']:.2%} of the bits of fp32, "
        f"{found['storage_with_8_bit_index']:.2%} with 8 bits to say where each lies.",
        f"Test accuracy {after['accuracy']:.2%}, {abs(lost):.2f} points {'below' if lost > 0 else 'above'} the "
        f"{before['accuracy']:.2%} of the network before, after {found['epochs']} epochs.",
        f"packed.safetensors has {found['bytes']:,} bytes, plain fp32 {found['dense_bytes']:,}; both hold biases and "
        "norms too, which are not compressed.",
    ]
    if found["spikes_ratio"] is not None:
        said.append(f"Spikes are {found['spikes_ratio']:.2%} of those before.")
    if found["operations_ratio"] is not None:
        said.append(
            f"Operations are {found['operations_ratio']:.2%} of those before, weighted by bits "
            f"{found['bit_operations_ratio']:.2%}; counted on {after['counted']} test samples."
        )
    return said


def _beside(found: Mapping[str, Any]) -> Grid:
    rows = (
        ("test accuracy", *(f"{found[when]['accuracy']:.2%}" for when in ("before", "after"))),
        ("spikes per neuron", *(_number(found[when]["spikes_per_neuron"]) for when in ("before", "after"))),
        ("operations a sample", *(f"{found[when]['operations']:,.0f}" for when in ("before", "after"))),
        ("times bits / 32", *(f"{found[when]['bit_operations']:,.0f}" for when in ("before", "after"))),
    )
    return Grid("Before and after", ("", "before", "after"), rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _stages(found: Mapping[str, Any]) -> Grid:
    rows = tuple(
        (
            stage["method"],
            str(stage["epochs"]),
            f"{stage['sparsity_after']:.2%}" if "sparsity_after" in stage else "-",
            ", ".join(f"{name} {_shown(value)}" for name, value in stage.items() if name not in _APART),
        )
        for stage in found["stages"]
    )
    return Grid("Methods", ("method", "epochs", "zeros after it", "settings, and what was found"), rows)


_APART = ("method", "epochs", "sparsity_after")


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "[" + ", ".join(map(_shown, value)) + "]" if isinstance(value, list) else str(value)


def _layers(rows: list[dict[str, str]], found: Mapping[str, Any]) -> Grid:
    columns = ("layer", "weights", "zeros", "sparsity", "values", "bits", "kept as", "bytes")
    cells = tuple(
        (
            row["layer"],
            f"{int(row['weights']):,}",
            f"{int(row['zeros']):,}",
            f"{float(row['sparsity']):.2%}",
            row["distinct"],
            row["bits"],
            row["form"],
            f"{int(row['bytes']):,}",
        )
        for row in rows
    )
    size = sum(int(row["bytes"]) for row in rows)
    sums = (f"{found['weights']:,}", f"{found['zeros']:,}", f"{found['sparsity']:.2%}")
    total = ("all", *sums, "", f"{found['bits']:.3g}", "", f"{size:,}")
    return Grid("Layers", columns, cells, total)
