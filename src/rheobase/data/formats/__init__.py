"""Readers and writers of event files, a module per format; each states its layout and its source.

    from rheobase.data import read_events, write_events

    events = read_events("recording.aedat4")
    write_events("recording.npz", events)

The formats that state no size of the sensor take the one given, or the smallest usual one that holds all events.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rheobase.data.events import Events, Unit

_HEAD = 4096


@dataclass(frozen=True)
class _Format:
    """Module and functions of a format, the suffixes of its files, and the bytes that they begin with.

    `unit` says the unit of all its times, None where the file or the caller says it; `sorts`: the reader always sorts.
    """

    module: str
    reader: str
    suffixes: tuple[str, ...]
    magic: tuple[bytes, ...] = ()
    unit: Unit | None = "us"
    sorts: bool = False
    sized: bool = False
    writer: str | None = None


_FORMATS = {
    "aedat2": _Format("aedat2", "read_aedat2", (".aedat",), (b"#!AER-DAT1.0", b"#!AER-DAT2.0"), sorts=True),
    "aedat3": _Format("aedat3", "read_aedat3", (), (b"#!AER-DAT3",)),
    "aedat4": _Format("aedat4", "read_aedat4", (".aedat4",), (b"#!AER-DAT4",)),
    "atis": _Format("atis", "read_atis", (".bin", ".bs2")),
    "cochlea": _Format("aedat2", "read_cochlea", (), unit="ns", sorts=True, sized=True),
    "csv": _Format("csv", "read_csv", (".csv", ".txt"), unit=None, writer="write_csv"),
    "dat": _Format("dat", "read_dat", (".dat",)),
    "evt": _Format("evt", "read_evt", (".raw",), sorts=True),
    "hdf5": _Format("hdf5", "read_hdf5", (".h5", ".hdf5"), (b"\x89HDF\r\n\x1a\n",), unit=None, writer="write_hdf5"),
    "matlab": _Format("matlab", "read_matlab", (".mat",), (b"MATLAB 5.0 MAT-file",)),
    "npz": _Format("npz", "read_npz", (".npz", ".npy"), (b"PK\x03\x04", b"\x93NUMPY"), unit=None, writer="write_npz"),
}


def list_formats() -> list[str]:
    """Return the sorted names of the formats that `read_events` knows."""
    return sorted(_FORMATS)


def read_events(
    path: str | os.PathLike[str],
    *,
    sensor: tuple[int, int] | None = None,
    unit: Unit | None = None,
    format: str | None = None,
    sort: bool = False,
) -> Events:
    """Read the recording in a file of any known format.

    The format is known by the file's first bytes, else by its suffix. Headerless `.aedat` files may be of a camera
    (`format="aedat2"`) or of a cochlea (`format="cochlea"`): say which. Files of several recordings have functions of
    their own: `rheobase.data.formats.hdf5.read_spikes`.

    Args:
        path: the file.
        sensor: width and height, for files that do not state them; None takes what each format's module says.
        unit: of the times, for tables and arrays that do not state it.
        format: name of the format, one of `list_formats()`.
        sort: put events in the order of their times where a format promises that order and the file breaks it. AEDAT
            2.0, EVT and cochlea files promise none and are always sorted. Equal times stay as in the file.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: the format needs a package that is missing: `pip install "rheobase[events]"`.
        ValueError: no such format, one that cannot be told, a sensor or a unit other than the file's, or a damaged
            file: the message names the file, what was found, the byte offset, what was expected and what to do.
    """
    path = Path(path)
    chosen = _FORMATS[_detect(path) if format is None else _known(format)]
    if chosen.unit is not None and unit not in (None, chosen.unit):
        raise ValueError(
            f"{path}: unit={unit!r} was given; expected {chosen.unit!r}, the unit of the format; leave unit out, and "
            "convert with events.in_unit"
        )
    if chosen.sized:
        return _sized(path, chosen, sensor)
    options: dict[str, Any] = {"sensor": sensor}
    if chosen.unit is None:
        options["unit"] = unit
    if not chosen.sorts:
        options["sort"] = sort
    return _function(chosen, chosen.reader)(path, **options)


def write_events(path: str | os.PathLike[str], events: Events) -> None:
    """Write a recording to a `.npz`, `.h5`, `.hdf5` or `.csv` file, with its sensor and unit.

    What was there is replaced at once, or, after a failure, kept. `read_events` gives the same recording back.

    Raises:
        ImportError: `.h5` needs h5py: `pip install "rheobase[events]"`.
        ValueError: another suffix.
    """
    path = Path(path)
    for chosen in _FORMATS.values():
        if chosen.writer is not None and path.suffix.lower() in _WRITTEN and path.suffix.lower() in chosen.suffixes:
            _function(chosen, chosen.writer)(path, events)
            return
    raise ValueError(f"{path}: cannot write suffix {path.suffix!r}; expected one of {', '.join(_WRITTEN)}; rename it")


_WRITTEN = (".npz", ".h5", ".hdf5", ".csv")


def _sized(path: Path, chosen: _Format, sensor: tuple[int, int] | None) -> Events:
    """A recording of channels in one row, whose number is the width."""
    if sensor is None:
        return _function(chosen, chosen.reader)(path)
    if sensor[1] != 1:
        raise ValueError(f"{path}: sensor={sensor} was given; expected (channels, 1) for a cochlea; pass height 1")
    return _function(chosen, chosen.reader)(path, channels=sensor[0])


def _function(chosen: _Format, name: str) -> Callable[..., Any]:
    return getattr(import_module(f"rheobase.data.formats.{chosen.module}"), name)


def _known(name: str) -> str:
    if name not in _FORMATS:
        raise ValueError(f"read_events: there is no format {name!r}; expected one of {', '.join(list_formats())}")
    return name


def _detect(path: Path) -> str:
    from rheobase.data.formats.checks import existing

    with existing(path).open("rb") as file:
        head = file.read(_HEAD)
    suffix = path.suffix.lower()
    for name, known in _FORMATS.items():
        if head.startswith(known.magic):
            return name
    if head.startswith(b"% "):
        return "evt" if b"\n% evt " in head or b"\n% format EVT" in head or suffix == ".raw" else "dat"
    if suffix == ".aedat" and not head.startswith(b"#") and head:
        raise ValueError(
            f"{path}: no header at byte offset 0; expected #!AER-DAT; say format='aedat2' if a camera wrote it, "
            "format='cochlea' if a cochlea did"
        )
    for name, known in _FORMATS.items():
        if suffix in known.suffixes:
            return name
    raise ValueError(
        f"{path}: cannot tell the format from bytes {head[:8]!r} at byte offset 0 and suffix {suffix!r}; "
        f"expected one of {', '.join(list_formats())}; pass format=..."
    )
