"""HDF5 files of events (`.h5`, `.hdf5`), read and written; needs h5py: `pip install "rheobase[events]"`.

One recording: the datasets `events/t`, `events/x`, `events/y`, `events/p`, all `[N]` (DSEC, whose `t_offset` is added
to the times), or one dataset `CD/events` or `events` of records with these fields (Prophesee, whose `geometry` of the
file, such as 1280x720, is the size). Rheobase writes the former, with the attributes `sensor` (width, height) and
`unit` of the group `events`. Where the file states no size, and without `sensor`, it is the largest address + 1 on both
axes.

Many recordings of a cochlea (SHD, SSC): `spikes/times`, for each recording its times in seconds (float16 or float32),
`spikes/units`, for each the channels (uint16), `labels` `[N]`, `extra/keys` (the names of the classes), `extra/speaker`
`[N]`. They become events on a sensor of 700 x 1, times rounded to microseconds, all ON.

Source: B. Cramer et al., "The Heidelberg spiking data sets for the systematic evaluation of spiking neural networks",
IEEE Transactions on Neural Networks and Learning Systems 33(7), 2744-2757, 2022, https://zenkelab.org/datasets/;
M. Gehrig et al., "DSEC", IEEE Robotics and Automation Letters 6(3), 2021, https://dsec.ifi.uzh.ch/data-format/;
The HDF Group, "HDF5 File Format Specification 3.0", section "Disk Format: Level 1E - Global Heap".
"""

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import torch

from rheobase.data.events import TICKS_PER_SECOND, Events, Unit
from rheobase.data.formats.checks import (
    Sensor,
    agreed_sensor,
    agreed_unit,
    as_events,
    blaming,
    column_events,
    damaged,
    existing,
    ticks,
    whole_numbers,
)
from rheobase.data.recordings import Recordings
from rheobase.files import write_atomic

CHANNELS = 700
_LARGEST_RATIO = 1032
_FIELDS = ("t", "x", "y", "p")
_REFERENCE = struct.Struct("<IQI")
_COLLECTION = struct.Struct("<4s4xQ")
_OBJECT = struct.Struct("<HH4xQ")
_DEFLATE, _SHUFFLE = 1, 2


def read_hdf5(path: Path, *, sensor: Sensor | None = None, unit: Unit | None = None, sort: bool = False) -> Events:
    """Read a file of one recording.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: h5py is missing.
        ValueError: a damaged file, other datasets, another sensor or unit than the file states, an address outside the
            sensor, times that fall (without `sort`).
    """
    with _opened(path) as file:
        columns, place = _columns(path, file)
        offset = _get(file, "t_offset")
        if offset is not None:
            columns["t"] = _shifted(path, columns["t"], _values(path, offset), place)
        group = file.get("events", file)
        known = agreed_sensor(path, sensor, _stated_sensor(path, file, group), place)
        own = _attribute(group, "unit")
        own = None if own is None else _text(own)
        if own is not None and own not in get_args(Unit):
            raise damaged(path, f"unit is {own!r:.60}, beside data", place, " or ".join(get_args(Unit)))
        agreed = agreed_unit(path, unit, cast(Unit | None, own), place)
        return column_events(path, columns, known, agreed, sort=sort, at=lambda _k: place)


def write_hdf5(path: Path, events: Events) -> None:
    """Write a recording, compressed: the whole file or, after a failure, nothing."""
    buffer = io.BytesIO()
    with _h5py(path).File(buffer, "w") as file:
        group = file.create_group("events")
        group.attrs["sensor"] = np.array(events.sensor, np.int64)
        group.attrs["unit"] = np.bytes_(events.unit)
        for name in _FIELDS:
            column = np.ascontiguousarray(events.array[name])
            group.create_dataset(name, data=column, **({"compression": "gzip", "shuffle": True} if len(column) else {}))
    write_atomic(path, buffer.getvalue())


@dataclass(frozen=True, eq=False)
class SpikeLabels:
    """Of a file of SHD or SSC: numbers of classes `[N]`, names of classes, speakers `[N]` or None."""

    labels: np.ndarray
    keys: tuple[str, ...]
    speaker: np.ndarray | None


def read_spikes(path: Path, index: int, *, channels: int = CHANNELS, sort: bool = False) -> Events:
    """Recording `index` of a file of SHD or SSC, on a sensor of `(channels, 1)`; times in us, all ON.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: h5py is missing.
        IndexError: there is no such recording.
        ValueError: a damaged file, other datasets, a channel outside the sensor, times that fall (without `sort`).
    """
    with _opened(path) as file:
        times, units = (_dataset(path, file, f"spikes/{name}") for name in ("times", "units"))
        if len(times) != len(units):
            raise damaged(path, f"{len(times)} times and {len(units)} units", _place(times), "as many")
        if not 0 <= index < len(times):
            raise IndexError(f"{path}: there is no recording {index}; there are {len(times)}")
        place = _place(times)
        t, x = _sequence(path, file, times, index), _sequence(path, file, units, index)
        if t.shape != x.shape or t.ndim != 1 or t.dtype.kind != "f":
            raise damaged(
                path,
                f"recording {index} has times {list(t.shape)} of {t.dtype} and units {list(x.shape)}",
                place,
                "[n]",
            )
        x = whole_numbers(path, "units", x, place)
        t, _ = ticks(path, t, "s", place, decimal=True)
        columns = (t, x, np.zeros(len(x), np.uint16), np.ones(len(x), np.bool_))
        return as_events(path, columns, (channels, 1), "us", sort=sort, at=lambda _k: place)


def read_spike_labels(path: Path) -> SpikeLabels:
    """The labels of a file of SHD or SSC.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: h5py is missing.
        ValueError: a damaged file, other datasets, labels of another number than the recordings.
    """
    with _opened(path) as file:
        dataset = _dataset(path, file, "labels")
        count = len(_dataset(path, file, "spikes/times"))
        labels = whole_numbers(path, "labels", _values(path, dataset), _place(dataset)).astype(np.int64)
        if labels.shape != (count,):
            raise damaged(path, f"labels {list(labels.shape)}", _place(dataset), f"one for each of {count} recordings")
        keys, speaker = _get(file, "extra/keys"), _get(file, "extra/speaker")
        names = () if keys is None else _names(path, file, keys)
        return SpikeLabels(labels, names, None if speaker is None else _values(path, speaker).astype(np.int64))


def spike_recordings(path: Path, *, channels: int = CHANNELS, sort: bool = False) -> Recordings:
    """The recordings of a file of SHD or SSC with their labels, each read when it is asked for, as `read_spikes` does.

    Raises:
        FileNotFoundError, ImportError, ValueError: as `read_spike_labels`.
    """
    labels = torch.from_numpy(read_spike_labels(path).labels)
    read = partial(read_spikes, path, channels=channels, sort=sort)
    return Recordings(read, labels, f"{path.name}:{path.stat().st_size}")


def write_spikes(
    path: Path,
    recordings: Sequence[Events],
    labels: Sequence[int],
    keys: Sequence[str],
    speaker: Sequence[int] | None = None,
    dtype: type[np.floating] = np.float16,
) -> None:
    """Write recordings in the layout of SHD and SSC: the whole file or, after a failure, nothing.

    Times become seconds of `dtype`: float16, as in SHD, resolves 0.5 ms at 1 s. Rows and polarities are lost.

    Raises:
        ImportError: h5py is missing.
        ValueError: labels or speakers of another number than the recordings, a label without a key.
    """
    speakers = [0] * len(recordings) if speaker is None else list(speaker)
    if not len(recordings) == len(labels) == len(speakers) or any(not 0 <= label < len(keys) for label in labels):
        raise ValueError(
            f"write_spikes: {len(recordings)} recordings, {len(labels)} labels, {len(speakers)} speakers and "
            f"{len(keys)} keys; expected one label below the number of keys and one speaker for each recording"
        )
    h5py = _h5py(path)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        times = file.create_dataset("spikes/times", (len(recordings),), h5py.vlen_dtype(np.dtype(dtype)))
        units = file.create_dataset("spikes/units", (len(recordings),), h5py.vlen_dtype(np.dtype(np.uint16)))
        for k, events in enumerate(recordings):
            times[k] = (events.t / TICKS_PER_SECOND[events.unit]).astype(dtype)
            units[k] = events.x
        file["labels"] = np.array(labels, np.uint16)
        file["extra/keys"] = np.array([key.encode() for key in keys] or [b""][:0], "S" if keys else "S1")
        file["extra/speaker"] = np.array(speakers, np.uint16)
    write_atomic(path, buffer.getvalue())


def _h5py(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f'{path} is an HDF5 file: pip install "rheobase[events]" (package h5py)') from error
    return h5py


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The open file; what the HDF5 library says of a damaged one becomes a ValueError."""
    h5py = _h5py(path)
    size = existing(path).stat().st_size
    with blaming(path, "a damaged HDF5 file", 0, f"{size} bytes of one"), h5py.File(path, "r") as file:
        yield file


def _get(file: Any, name: str) -> Any:
    found = file.get(name)
    return found if hasattr(found, "dtype") else None


def _dataset(path: Path, file: Any, name: str) -> Any:
    found = _get(file, name)
    if found is None:
        raise damaged(path, f"no dataset {name} in the file that begins", 0, "the layout of SHD")
    return found


def _attribute(holder: Any, name: str) -> Any:
    """An attribute of fixed length; others, which lie in a heap (see `_sequence`), count as absent."""
    return holder.attrs[name] if name in holder.attrs and holder.attrs.get_id(name).dtype.kind != "O" else None


def _names(path: Path, file: Any, keys: Any) -> tuple[str, ...]:
    if keys.dtype.kind != "O":
        return tuple(_text(key) for key in _values(path, keys).reshape(-1))
    return tuple(_text(_sequence(path, file, keys, k).tobytes()) for k in range(len(keys)))


def _sequence(path: Path, file: Any, dataset: Any, index: int) -> np.ndarray:
    """Entry `index` of a dataset of sequences or texts of any length.

    Each entry is a count (uint32), the address of a collection in the global heap (uint64), and the number of an object
    there (uint32). It is followed here, because the HDF5 library can walk for ever through a damaged collection.
    """
    if index >= len(dataset) or dataset.ndim != 1 or file.id.get_create_plist().get_sizes() != (8, 8):
        raise damaged(path, f"{dataset.name} {list(dataset.shape)} in the file that begins", 0, "[N], 8-byte addresses")
    kind = _h5py(path).check_vlen_dtype(dataset.dtype)
    kind = np.dtype(np.uint8 if kind in (None, str, bytes) else kind)
    count, address, number = _REFERENCE.unpack(_reference(path, dataset, index))
    if count == 0:
        return np.empty(0, kind)
    start = address + file.userblock_size
    with path.open("rb") as stream:
        stream.seek(0, io.SEEK_END)
        limit = stream.tell() - start
        stream.seek(min(start, stream.tell()))
        head = stream.read(_COLLECTION.size)
        size = _COLLECTION.unpack(head)[1] if len(head) == _COLLECTION.size and head[:4] == b"GCOL" else 0
        if not _COLLECTION.size <= size <= limit:
            raise damaged(path, f"entry {index} of {dataset.name} has its heap", start, "a heap inside the file")
        heap = stream.read(size - _COLLECTION.size)
    position = 0
    while position + _OBJECT.size <= len(heap):
        found, _, length = _OBJECT.unpack_from(heap, position)
        position += _OBJECT.size
        if found == number and count * kind.itemsize <= length <= len(heap) - position:
            return np.frombuffer(heap, kind, count, position)
        if found in (0, number) or length > len(heap) - position:
            break
        position += -(-length // 8) * 8
    raise damaged(path, f"entry {index} of {dataset.name} has its heap", start, f"{count} numbers as object {number}")


def _reference(path: Path, dataset: Any, index: int) -> bytes:
    """The 16 bytes of an entry, from a dataset in one piece or in chunks, which may be deflated."""
    if not dataset.chunks:
        start, stored = dataset.id.get_offset(), dataset.id.get_storage_size()
        place = index * _REFERENCE.size
        filters = []
    else:
        first, place = index // dataset.chunks[0] * dataset.chunks[0], index % dataset.chunks[0] * _REFERENCE.size
        chunk = dataset.id.get_chunk_info_by_coord((first,))
        start, stored = chunk.byte_offset, chunk.size
        plist = dataset.id.get_create_plist()
        used = [k for k in range(plist.get_nfilters()) if not chunk.filter_mask >> k & 1]
        filters = [plist.get_filter(k)[0] for k in used]
    if start is None:
        return bytes(_REFERENCE.size)
    if stored > path.stat().st_size or filters not in ([], [_DEFLATE], [_SHUFFLE, _DEFLATE]):
        raise damaged(
            path, f"{dataset.name}, stored in {stored} bytes with filters {filters}", start, "deflate or none"
        )
    with path.open("rb") as stream:
        stream.seek(start if filters else start + place)
        content = stream.read(stored if filters else _REFERENCE.size)
    if filters:
        content = zlib.decompressobj().decompress(content, dataset.chunks[0] * _REFERENCE.size)
        if _SHUFFLE in filters and len(content) % _REFERENCE.size == 0:
            content = np.frombuffer(content, np.uint8).reshape(_REFERENCE.size, -1).T.tobytes()
        content = content[place : place + _REFERENCE.size]
    if len(content) < _REFERENCE.size:
        raise damaged(path, f"entry {index} of {dataset.name} lies", start, "a place inside the file")
    return content


def _place(dataset: Any) -> int:
    """Where the values of a dataset begin in the file, 0 where they are in several pieces."""
    return int(dataset.id.get_offset() or 0)


def _values(path: Path, dataset: Any) -> np.ndarray:
    """All values of a dataset, after a check that the file is large enough to hold them."""
    if dataset.dtype.hasobject:
        raise damaged(path, f"{dataset.name} is of {dataset.dtype}, in the file that begins", 0, "numbers")
    needed = dataset.size * dataset.dtype.itemsize if dataset.shape is not None else 0
    stored = dataset.id.get_storage_size()
    if needed > stored * (_LARGEST_RATIO if dataset.chunks else 1) or stored > path.stat().st_size:
        raise damaged(
            path, f"{dataset.name} says {needed} bytes, stored in {stored}", _place(dataset), "as many as are there"
        )
    return np.asarray(dataset[()])


def _columns(path: Path, file: Any) -> tuple[dict[str, np.ndarray], int]:
    """The columns, and where the times begin."""
    for name in ("CD/events", "events"):
        table = _get(file, name)
        if table is not None and set(_FIELDS) <= set(table.dtype.names or ()):
            values = _values(path, table)
            return {field: values[field] for field in _FIELDS}, _place(table)
    datasets = {field: _get(file, f"events/{field}") for field in _FIELDS}
    if any(dataset is None for dataset in datasets.values()):
        several = _get(file, "spikes/times") is not None
        raise damaged(
            path,
            "recordings of SHD's layout" if several else f"{', '.join(file)!r:.80}, in the file that begins",
            0,
            "events/t, events/x, events/y and events/p, or records at CD/events or events",
            "read them one by one with rheobase.data.formats.hdf5.read_spikes" if several else "choose another reader",
        )
    return {field: _values(path, dataset) for field, dataset in datasets.items()}, _place(datasets["t"])


def _shifted(path: Path, t: np.ndarray, offset: np.ndarray, place: int) -> np.ndarray:
    """Whole times, int64, with the offset that DSEC adds to all of them."""
    if t.dtype.kind not in "iu" or offset.dtype.kind not in "iu" or offset.size != 1:
        found = f"times of {t.dtype} and t_offset {list(offset.shape)} of {offset.dtype}"
        raise damaged(path, f"{found}, in data", place, "whole numbers, and one offset")
    start = int(offset.reshape(-1)[0])
    if t.size and not -(2**63) <= int(t.min()) + start <= int(t.max()) + start < 2**63:
        raise damaged(path, "times too large for 64 bits, in data", place, "64 bits with a sign")
    return t.astype(np.int64) + start


def _stated_sensor(path: Path, file: Any, group: Any) -> Sensor | None:
    stated, geometry = _attribute(group, "sensor"), _attribute(file, "geometry")
    if stated is not None:
        sides = np.asarray(stated).reshape(-1)
        if sides.shape != (2,) or sides.dtype.kind not in "iu":
            raise damaged(path, f"sensor is {stated!r:.60}, in the file that begins", 0, "two whole numbers")
        return int(sides[0]), int(sides[1])
    width, _, height = _text(geometry if geometry is not None else "").partition("x")
    return (int(width), int(height)) if width.isdigit() and height.isdigit() else None


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
