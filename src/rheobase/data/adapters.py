"""Data sets of neighbouring libraries as ours. None of them is imported: what counts is what an object has.

Training and test part come as two objects:

    from rheobase.data import from_torchvision, from_tonic, from_pyg

    data = from_torchvision(MNIST(root, train=True), MNIST(root, train=False), name="mnist")
    data = from_tonic(NMNIST(folder, train=True), NMNIST(folder, train=False), name="nmnist")  # tonic is under the GPL
    graph = from_pyg(Planetoid(root, "Cora")[0], name="cora")
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rheobase.data.dataset import Dataset, Split
from rheobase.data.events import Events, Unit
from rheobase.data.graph import Graph, both_ways
from rheobase.data.neighbours import Subgraph
from rheobase.data.recordings import EventDataset, Recordings


@dataclass(frozen=True, eq=False)
class TonicEvents:
    """Reads sample k of a data set of tonic: a structured array with t, x, p and, unless it is sound, y."""

    dataset: Any
    sensor: tuple[int, int]
    unit: Unit

    def __call__(self, k: int) -> Events:
        """Read sample k."""
        events, _ = self.dataset[k]
        fields = getattr(getattr(events, "dtype", None), "names", None) or ()
        if missing := {"t", "x", "p"} - set(fields):
            raise ValueError(
                f"from_tonic: sample {k} lacks {', '.join(sorted(missing))}; expected a structured array of events: "
                "make the data set without a transform"
            )
        y = events["y"] if "y" in fields else np.zeros(len(events), np.int64)
        return Events.of(events["t"], events["x"], y, events["p"], self.sensor, self.unit, sort=True)


def from_tonic(
    train: Any,
    test: Any,
    *,
    name: str,
    sensor: tuple[int, int] | None = None,
    unit: Unit = "us",
    key: str | None = None,
    source: str = "",
    licence: str = "",
    citation: str = "",
) -> EventDataset:
    """Two data sets of tonic, made without transforms, as an `EventDataset`; samples are read when asked for.

    Args:
        train, test: objects with `len()`, `[k] -> (events, target)`, `targets`, `sensor_size` (w, h, polarities) and
            `classes`; `data`, if it lists files, becomes the key.
        name: of the data set.
        sensor: width and height, where `sensor_size` is None or wrong.
        unit: of the times: tonic's are microseconds, but for files that say otherwise.
        key: says what bytes the recordings are, where `data` lists no files.
        source, licence, citation: tonic's objects do not say.

    Raises:
        ValueError: an attribute is missing or does not fit; names it.
    """
    if sensor is None:
        size = getattr(train, "sensor_size", None)
        if size is None:
            raise ValueError(f"from_tonic: {type(train).__name__} states no sensor_size; pass sensor=(width, height)")
        sensor = (int(size[0]), int(size[1]))
    parts = []
    for dataset in (train, test):
        labels = torch.as_tensor(np.asarray(_attribute("from_tonic", dataset, "targets"))).long()
        if len(labels) != len(dataset):
            raise ValueError(f"from_tonic: {len(labels)} targets for {len(dataset)} samples; expected one each")
        parts.append(Recordings(TonicEvents(dataset, sensor, unit), labels, _key(dataset, key)))
    return EventDataset(
        name=name,
        train=parts[0],
        test=parts[1],
        classes=_classes(train, torch.cat([part.y for part in parts])),
        sensor=sensor,
        source=source,
        licence=licence,
        citation=citation,
    )


def from_torchvision(
    train: Any, test: Any, *, name: str, source: str = "", licence: str = "", citation: str = ""
) -> Dataset:
    """Two data sets of torchvision that keep their images in memory as a `Dataset`, with its own mean and std.

    Args:
        train, test: objects with `data`, bytes `[N, H, W]`, `[N, H, W, C]` or `[N, C, H, W]` (C 1 or 3), and
            `targets` or `labels` `[N]`; transforms are not applied.
        name: of the data set.
        source, licence, citation: torchvision's objects do not say.

    Raises:
        ValueError: an attribute is missing or does not fit; names it.
    """
    splits = [_image_split(dataset) for dataset in (train, test)]
    mean, std = splits[0].statistics()
    return Dataset(
        name=name,
        train=splits[0],
        test=splits[1],
        classes=_classes(train, torch.cat([split.y for split in splits])),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        source=source,
        licence=licence,
        citation=citation,
    )


def from_pyg(data: Any, *, name: str, source: str = "", licence: str = "", citation: str = "") -> Graph:
    """A graph of torch_geometric (its `Data`) as a `Graph`; links come in both directions, loops go.

    `listed` counts the columns of edge_index: a link twice where it stands there both ways.

    Args:
        data: an object with `x` `[N, F]`, `edge_index` `[2, E]`, `y` `[N]` and the masks `train_mask`, `val_mask`,
            `test_mask` `[N]`. Nodes without label must have y = -1; Planetoid of torch_geometric gives them a label,
            which changes no mask.
        name: of the graph.
        source, licence, citation: its objects do not say.

    Raises:
        ValueError: an attribute is missing or does not fit; names it. An edge names a node that does not exist.
    """
    x, edges, y = (_attribute("from_pyg", data, attribute) for attribute in ("x", "edge_index", "y"))
    masks = [_attribute("from_pyg", data, f"{part}_mask") for part in ("train", "val", "test")]
    if wrong := [mask for mask in masks if mask.dtype != torch.bool or mask.shape != (len(x),)]:
        raise ValueError(
            f"from_pyg: a mask is {wrong[0].dtype} {list(wrong[0].shape)}; expected bool [{len(x)}]: pick one of "
            "several splits, data.train_mask = data.train_mask[:, 0] and so on"
        )
    labels = y.long()
    train, val, test = (mask.nonzero().squeeze(1) for mask in masks)
    return Graph(
        name=name,
        x=x.to(torch.float32),
        edge_index=both_ways(edges.long(), len(x)),
        y=labels,
        train=train,
        val=val,
        test=test,
        classes=tuple(map(str, range(int(labels.max()) + 1))),
        source=source,
        licence=licence,
        citation=citation,
        listed=edges.shape[1],
    )


def from_pyg_batch(batch: Any) -> Subgraph:
    """A batch of torch_geometric's `NeighborLoader` as a `Subgraph`, to train on in the same loop as on our own.

    That loader needs pyg-lib or torch-sparse, which are not on PyPI; `NeighbourSampler` needs neither. Read after its
    documentation; not run on the loader itself.

    Args:
        batch: an object with `n_id` `[n]`, `edge_index` `[2, e]` of places in it, and `batch_size`, how many seeds are
            first.

    Raises:
        ValueError: an attribute is missing.
    """
    nodes, edges, seeds = (_attribute("from_pyg_batch", batch, name) for name in ("n_id", "edge_index", "batch_size"))
    return Subgraph(nodes.long(), edges.long(), int(seeds))


def _attribute(caller: str, dataset: Any, name: str) -> Any:
    found = getattr(dataset, name, None)
    if found is None:
        raise ValueError(f"{caller}: {type(dataset).__name__} has no attribute {name!r}; expected one that has it")
    return found


def _classes(dataset: Any, labels: torch.Tensor) -> tuple[str, ...]:
    names: Sequence[Any] | None = getattr(dataset, "classes", None)
    return tuple(map(str, names)) if names else tuple(map(str, range(int(labels.max()) + 1)))


def _key(dataset: Any, key: str | None) -> str:
    if key is not None:
        return f"{key}:{len(dataset)}"
    listed = getattr(dataset, "data", None)
    paths = [Path(path) for path in listed if isinstance(path, str | Path)] if isinstance(listed, list) else []
    if len(paths) != len(dataset) or not all(path.is_file() for path in paths):
        raise ValueError(
            f"from_tonic: {type(dataset).__name__}.data does not list a file per sample, so nothing says what bytes "
            "they are; pass key=, a name that changes whenever they do"
        )
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.parent.name}/{path.name}\t{path.stat().st_size}\n".encode())
    return digest.hexdigest()


def _image_split(dataset: Any) -> Split:
    pixels = np.asarray(_attribute("from_torchvision", dataset, "data"))
    targets = getattr(dataset, "targets", None)
    labels = _attribute("from_torchvision", dataset, "labels") if targets is None else targets
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
        raise ValueError(
            f"from_torchvision: data are {pixels.dtype} {list(pixels.shape)}; expected uint8 [N, H, W], [N, H, W, C] "
            "or [N, C, H, W]"
        )
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.shape[3] in (1, 3):
        pixels = pixels.transpose(0, 3, 1, 2)
    elif pixels.shape[1] not in (1, 3):
        raise ValueError(f"from_torchvision: data are {list(pixels.shape)}; expected 1 or 3 channels, second or last")
    return Split(torch.from_numpy(np.ascontiguousarray(pixels)), torch.as_tensor(np.asarray(labels)).long(), 255)
