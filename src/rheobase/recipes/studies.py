"""Studies: what is measured without training, as rows of a table. A study is a function of a seed."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from rheobase.recipes.record import append_row, machine
from rheobase.recipes.registry import found
from rheobase.train import environment


@dataclass(frozen=True)
class Measurement:
    """One number.

    Attributes:
        subject: what was measured.
        size: how much of it: blocks, steps, neurons.
        metric: what the number says.
        value: the number.
        published: what it is to be compared with, empty if there is nothing.
        tag: where that comes from.
    """

    subject: str
    size: int
    metric: str
    value: float
    published: str = ""
    tag: str = "measured"


Study = Callable[[int], Iterator[Measurement]]
"""`study(seed)` yields its measurements one by one; its docstring is the claim."""

COLUMNS = (
    "study", "subject", "size", "metric", "value", "published", "tag", "seed", "device", "threads", "rheobase", "torch",
    "python", "commit", "date",
)  # fmt: skip

_STUDIES: dict[str, Study] = {}


def register(study: Study) -> Study:
    """Enter a study under its function's name, with '-' for '_'."""
    _STUDIES[study.__name__.replace("_", "-")] = study
    return study


def list_studies() -> list[str]:
    """Names of all studies."""
    return sorted(_STUDIES)


def study(name: str) -> Study:
    """The study of that name.

    Raises:
        ValueError: there is none.
    """
    return found("study", "studies", _STUDIES, name)


def record_measurement(name: str, seed: int, measured: Measurement, path: Path) -> None:
    """Append a measurement of a study to a CSV file; the file is replaced in one move.

    Raises:
        ValueError: the file has other columns.
    """
    row = {
        "study": name,
        "seed": seed,
        **asdict(measured),
        "value": f"{measured.value:.6g}",
        **machine(environment()),
        "date": date.today().strftime("%Y%m%d"),
    }
    append_row(path, COLUMNS, row)
