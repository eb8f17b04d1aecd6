"""Graphs of what people buy together and of who writes with whom, in the npz layout of gnn-benchmark.

One file holds `adj_data`, `adj_indices`, `adj_indptr`, `adj_shape`, a CSR matrix of links in one or both directions;
`attr_data`, `attr_indices`, `attr_indptr`, `attr_shape`, likewise the features, or `attr_matrix`, the same `[N, F]`;
`labels` `[N]`. Names of nodes, words and classes that may stand beside are not read.

There is no official split. As the source does, nodes are drawn at random: 20 of each class for training, 30 for
validation, the rest for testing.

Source: https://github.com/shchur/gnn-benchmark, arXiv:1811.05868
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rheobase.data.csr import coordinates, dense
from rheobase.data.event_files import read_columns
from rheobase.data.fetch import Source, check_blob, obtain
from rheobase.data.graph import Graph, both_ways, random_split
from rheobase.data.registry import About, register

_TRAIN, _VALIDATION = 20, 30
_ADJACENCY = ("adj_indices", "adj_indptr", "adj_shape")
_FEATURES = ("attr_data", "attr_indices", "attr_indptr", "attr_shape")


def read_gnn_benchmark(
    path: Path, *, name: str, seed: int = 0, source: str = "", licence: str = "", citation: str = ""
) -> Graph:
    """Read a graph in the layout of gnn-benchmark; features become 0 or 1, links go both ways, loops go.

    `listed` counts the entries of the adjacency matrix.

    Args:
        path: the npz.
        name: of the graph.
        seed: of the split.
        source, licence, citation: the file does not say.

    Raises:
        ValueError: the file is damaged, lacks an array, has several labels a node, or is no graph; names the file.
    """
    found = read_columns(path, (*_ADJACENCY, "labels"), (*_FEATURES, "attr_matrix"))
    indices, indptr, shape, labels = (found[part] for part in (*_ADJACENCY, "labels"))
    if missing := [part for part in _FEATURES if part not in found]:
        if "attr_matrix" not in found:
            raise ValueError(f"{path}: it lacks {', '.join(missing)}, and attr_matrix; download it again")
        x = found["attr_matrix"]
    else:
        data, places, starts, size = (found[part] for part in _FEATURES)
        x = dense(path, data, places, starts, size.tolist())
    edges = torch.from_numpy(coordinates(path, indices, indptr, shape.tolist()))
    if labels.shape != (len(x),) or labels.dtype.kind not in "iu":
        raise ValueError(f"{path}: labels are {labels.dtype} {list(labels.shape)}; expected a whole number per node")
    y = torch.from_numpy(np.asarray(labels, np.int64))
    try:
        if not np.isfinite(x).all():
            raise ValueError("features hold NaN or Inf; expected numbers")
        train, val, test = random_split(y, seed, _TRAIN, _VALIDATION)
        return Graph(
            name=name,
            x=torch.from_numpy((x != 0).astype(np.float32)),
            edge_index=both_ways(edges, len(x)),
            y=y,
            train=train,
            val=val,
            test=test,
            classes=tuple(map(str, range(int(y.max()) + 1))),
            source=source,
            licence=licence,
            citation=citation,
            listed=edges.shape[1],
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}; download it again") from error


@dataclass(frozen=True)
class BenchmarkGraph:
    """A graph of gnn-benchmark: where it lies, and what is known of it."""

    source: Source
    about: About

    def read(self, root: str | os.PathLike[str] | None, download: bool, seed: int) -> Graph:
        """Find or download the file and read it.

        Raises:
            ValueError: it is not the original.
            FileNotFoundError, ConnectionError: as `obtain`.
        """
        ((name, path),) = obtain(self.source, root, download).items()
        check_blob(path, self.source.files[name])
        return read_gnn_benchmark(
            path,
            name=self.source.dataset,
            seed=seed,
            source=self.about.source,
            licence=self.about.licence,
            citation=self.about.citation,
        )


def _graph(name: str, file: str, blob: str, folders: tuple[str, ...], what: str, split: str) -> BenchmarkGraph:
    source = Source(
        dataset=name,
        files={file: blob},
        folders=("gnn_benchmark", *folders),
        addresses=("https://raw.githubusercontent.com/shchur/gnn-benchmark/master/data/npz/",),
        page="https://github.com/shchur/gnn-benchmark",
    )
    about = About(
        title=what,
        kind="graphs",
        source=source.page,
        licence="MIT",
        citation=(
            "O. Shchur, M. Mumme, A. Bojchevski, S. Günnemann. Pitfalls of graph neural network evaluation. "
            "NeurIPS workshop 2018. arXiv:1811.05868"
        ),
        split=f"none official; drawn by the option `seed`: {split}",
        size="one npz",
        layout=source.layout,
        checksums=source.files,
    )
    return BenchmarkGraph(source, about)


_PHOTO = _graph(
    "amazon_photo",
    "amazon_electronics_photo.npz",
    "97323743cb56aca9dd611f5b4b46862c1c9c6bd9",
    ("Photo/raw", "Amazon/Photo/raw"),
    "Amazon Photo: 7650 goods, 119081 pairs bought together, 745 words of reviews, 8 classes",
    "160 train, 240 validation, 7250 test",
)
_COMPUTERS = _graph(
    "amazon_computers",
    "amazon_electronics_computers.npz",
    "8120e4148a330b3fafe37c4476823302d9d834b9",
    ("Computers/raw", "Amazon/Computers/raw"),
    "Amazon Computers: 13752 goods, 245861 pairs bought together, 767 words of reviews, 10 classes",
    "200 train, 300 validation, 13252 test",
)
_CS = _graph(
    "coauthor_cs",
    "ms_academic_cs.npz",
    "9bdd7da943d86b74297e8d32e99eb64245b52835",
    ("CS/raw", "Coauthor/CS/raw"),
    "Coauthor CS: 18333 authors, 81894 pairs who wrote together, 6805 keywords, 15 fields",
    "300 train, 450 validation, 17583 test",
)
_PHYSICS = _graph(
    "coauthor_physics",
    "ms_academic_phy.npz",
    "8d8bc12e29aa67f6753a712080eae81079bd7d01",
    ("Physics/raw", "Coauthor/Physics/raw"),
    "Coauthor Physics: 34493 authors, 247962 pairs who wrote together, 8415 keywords, 5 fields",
    "100 train, 150 validation, 34243 test",
)


@register(about=_PHOTO.about)
def amazon_photo(*, root: str | os.PathLike[str] | None = None, download: bool = False, seed: int = 0) -> Graph:
    """Return Amazon Photo: 7650 goods, 119081 links, features `[7650, 745]` (0 or 1), 8 classes.

    160 / 240 / 7250 nodes. Looks for `amazon_electronics_photo.npz` in `<root>/gnn_benchmark`, `<root>/Photo/raw` and
    `<root>/Amazon/Photo/raw`.
    Which nodes are for training is drawn by `seed`.
    """
    return _PHOTO.read(root, download, seed)


@register(about=_COMPUTERS.about)
def amazon_computers(*, root: str | os.PathLike[str] | None = None, download: bool = False, seed: int = 0) -> Graph:
    """Return Amazon Computers: 13752 goods, 245861 links, features `[13752, 767]` (0 or 1), 10 classes.

    200 / 300 / 13252 nodes. Looks where `amazon_photo` looks, under its own name.
    """
    return _COMPUTERS.read(root, download, seed)


@register(about=_CS.about)
def coauthor_cs(*, root: str | os.PathLike[str] | None = None, download: bool = False, seed: int = 0) -> Graph:
    """Return Coauthor CS: 18333 authors, 81894 links, features `[18333, 6805]` (0 or 1, 0.5 GB), 15 classes.

    300 / 450 / 17583 nodes. Looks where `amazon_photo` looks, under its own name.
    """
    return _CS.read(root, download, seed)


@register(about=_PHYSICS.about)
def coauthor_physics(*, root: str | os.PathLike[str] | None = None, download: bool = False, seed: int = 0) -> Graph:
    """Return Coauthor Physics: 34493 authors, 247962 links, features `[34493, 8415]` (0 or 1, 1.2 GB), 5 classes.

    100 / 150 / 34243 nodes. Looks where `amazon_photo` looks, under its own name.
    """
    return _PHYSICS.read(root, download, seed)
