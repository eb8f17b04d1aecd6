"""Cora, CiteSeer and PubMed: papers that cite each other, with the public split of Planetoid.

As published: eight files `ind.<name>.*`. `x`, `tx`, `allx`: features of the labelled training papers, of the test
papers and of all but the test papers, SciPy CSR; `y`, `ty`, `ally`: their labels, one-hot; `graph`: dict from a paper
to the papers it is linked with; `test.index`: the numbers of the test papers, in the order of tx. As one file
`<name>.npz`: `x_data`, `x_indices`, `x_indptr`, `x_shape` (CSR), `edges` `[E, 2]`, `y` `[N]` (-1: none), `train`,
`val`, `test`.

The published `graph` lists a link with both its papers, some links several times, and some papers with themselves. Half
of its entries are the edges that the literature counts; what remains without repetitions and loops is fewer:

| | in the published files | different links |
|---|---|---|
| Cora | 5429 | 5278 |
| CiteSeer | 4732 | 4552 |
| PubMed | 44338 | 44324 |

Source: https://github.com/kimiyoung/planetoid
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rheobase.data.csr import dense
from rheobase.data.event_files import read_columns
from rheobase.data.fetch import Source, check_md5, obtain
from rheobase.data.graph import Graph as Graph
from rheobase.data.graph import both_ways as both_ways
from rheobase.data.pickles import read_pickle
from rheobase.data.registry import About, register

_VALIDATION_SIZE = 500


@dataclass(frozen=True)
class CitationGraph:
    """A graph of Planetoid: where it lies, what is known of it, and its classes."""

    source: Source
    about: About
    classes: tuple[str, ...]

    def read(self, root: str | os.PathLike[str] | None = None, download: bool = False) -> Graph:
        """Find or download the files and read them, the npz if there is one.

        Raises:
            ValueError: a file is damaged; published ones must have the original MD5.
            FileNotFoundError, ConnectionError: as `obtain`.
        """
        paths = obtain(self.source, root, download)
        packed = next((path for path in paths.values() if path.suffix == ".npz"), None)
        if packed is not None:
            return self._graph(packed, **_read_npz(packed))
        for name, path in paths.items():
            check_md5(path, self.source.files[name])
        return self._graph(next(iter(paths.values())), **_read_published(list(paths.values())))

    def _graph(self, path: Path, listed: int, **parts: np.ndarray) -> Graph:
        indices = {
            name: torch.from_numpy(np.asarray(parts[name], np.int64)) for name in ("y", "train", "val", "test", "edges")
        }
        edges = indices.pop("edges")
        try:
            return Graph(
                name=self.source.dataset,
                x=torch.from_numpy(parts["x"]),
                edge_index=both_ways(edges, len(parts["x"])),
                **indices,
                classes=self.classes,
                source=self.about.source,
                licence=self.about.licence,
                citation=self.about.citation,
                listed=listed,
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}; download it again") from error


def _read_npz(path: Path) -> dict[str, Any]:
    names = ("x_data", "x_indices", "x_indptr", "x_shape", "edges", "y", "train", "val", "test")
    columns = read_columns(path, names)
    data, indices, indptr, shape, edges, y, train, val, test = columns.values()
    x = dense(path, data, indices, indptr, tuple(shape.tolist()))
    parts = {"train": np.sort(train), "val": np.sort(val), "test": np.sort(test)}
    return {"x": x, "edges": edges.T, "listed": len(edges), "y": y, **parts}


class _PickledCsr:
    """What stands in for SciPy's matrix while a pickle is read: it keeps the fields and does nothing."""


def _read_published(paths: list[Path]) -> dict[str, Any]:
    """The eight files in the order x, tx, allx, y, ty, ally, graph, test.index."""
    *pickled, index_path = paths
    allowed = {
        ("scipy.sparse.csr", "csr_matrix"): _PickledCsr,
        ("scipy.sparse._csr", "csr_matrix"): _PickledCsr,
        ("collections", "defaultdict"): lambda *_: {},
        ("__builtin__", "list"): list,
        ("builtins", "list"): list,
    }
    read = [read_pickle(path, path.read_bytes(), allowed) for path in pickled]
    tx, allx = (_features(path, matrix) for path, matrix in zip(pickled[1:3], read[1:3], strict=True))
    y, ty, ally, graph = read[3:]
    shuffled = np.array(index_path.read_text().split(), dtype=np.int64)
    known, N = len(allx), max(len(allx), int(shuffled.max()) + 1)
    if len(shuffled) != len(tx) or len(ty) != len(tx) or len(ally) != known or shuffled.min() < known:
        raise ValueError(
            f"{index_path}: names {len(shuffled)} nodes from {shuffled.min()}, beside {len(tx)} test features and "
            f"{known} others; expected one per test node, after the others: download the files again"
        )
    x = np.zeros((N, allx.shape[1]), np.float32)
    x[:known], x[shuffled] = allx, tx
    hot = np.zeros((N, ally.shape[1]), np.int64)
    hot[:known], hot[shuffled] = ally, ty
    labels = np.where(hot.any(axis=1), hot.argmax(axis=1), -1)
    edges = [(paper, other) for paper, others in graph.items() for other in others]
    train = np.arange(len(y))
    return {
        "x": x,
        "edges": np.array(edges, dtype=np.int64).T,
        "listed": len(edges) // 2,
        "y": labels,
        "train": train,
        "val": np.arange(len(y), len(y) + _VALIDATION_SIZE),
        "test": np.sort(shuffled),
    }


def _features(path: Path, matrix: Any) -> np.ndarray:
    fields = vars(matrix) if isinstance(matrix, _PickledCsr) else {}
    if missing := {"data", "indices", "indptr", "_shape"} - set(fields):
        raise ValueError(f"{path}: not a sparse matrix, it lacks {', '.join(sorted(missing))}; download it again")
    return dense(path, fields["data"], fields["indices"], fields["indptr"], fields["_shape"])


_PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")


def _citation_graph(
    name: str, folder: str, what: str, split: str, classes: int, sums: tuple[str, ...]
) -> CitationGraph:
    files = {f"ind.{name}.{part}": md5 for part, md5 in zip(_PARTS, sums, strict=True)}
    source = Source(
        dataset=name,
        files=files,
        folders=("planetoid", "planetoid/raw", f"{folder}/raw", f"planetoid/{folder}/raw"),
        addresses=("https://raw.githubusercontent.com/kimiyoung/planetoid/master/data/",),
        instead=dict.fromkeys(files, (f"{name}.npz",)),
        page="https://github.com/kimiyoung/planetoid",
    )
    about = About(
        title=what,
        kind="graphs",
        source=source.page,
        licence="MIT",
        citation=(
            "Z. Yang, W. W. Cohen, R. Salakhutdinov. Revisiting semi-supervised learning with graph embeddings. "
            "ICML 2016. arXiv:1603.08861"
        ),
        split=f"official (Planetoid): {split}",
        size="up to 6 MB",
        layout=source.layout,
        checksums=files,
    )
    return CitationGraph(source, about, tuple(map(str, range(classes))))


_CORA = _citation_graph(
    "cora",
    "Cora",
    "Cora: 2708 papers on machine learning, 5278 citations (listed: 5429), 1433 words, 7 classes",
    "140 train, 500 validation, 1000 test",
    7,
    (
        "190831eee19d8f330d89d94b40a65c5a",
        "b29c36916768e1d2f55391c1aa9317ac",
        "c9083193a57057dd1238321e140194d7",
        "78344284e3ff7fd24eb9c307d51351eb",
        "48bf43f54fa5b86089a4bd0299795f10",
        "125d70817fe1fdbfdcad991995e81579",
        "b37c419cec179f45834467630c278e4c",
        "9b822cae1d01f41e8bf8782e20367c0e",
    ),
)
_CITESEER = _citation_graph(
    "citeseer",
    "CiteSeer",
    "CiteSeer: 3327 papers on computer science, 4552 citations (listed: 4732), 3703 words, 6 classes; 15 papers "
    "without any of them",
    "120 train, 500 validation, 1000 test",
    6,
    (
        "baeb0100b5a8af8d41f928113ce0a4e5",
        "c25ab826a7e95c0922ab625de705f7df",
        "28486b4b9c4ee076b4eee2febd89ba86",
        "8b99f50aa950fbbf9a7a2b71ff9cac97",
        "356894a73b7a7eff43c3580f2fcf92a4",
        "f0df7e5f859245e32987bfd224d01657",
        "5f88483d5f5cc2b26b987bbbfb695005",
        "70af39d4dff8aaa5c63f8dc526b16534",
    ),
)
_PUBMED = _citation_graph(
    "pubmed",
    "PubMed",
    "PubMed: 19717 papers on diabetes, 44324 citations (listed: 44338), 500 word weights, 3 classes",
    "60 train, 500 validation, 1000 test",
    3,
    (
        "2e93a89281c7597939cfb24976696f54",
        "30d5abd15cf10e46ebd9514b256e0347",
        "d6ecf5ffbdc9f8b181962d6829c7a8ac",
        "520bb2899bb8fb705181b8e34a973573",
        "3082e367753e3a81c457f644316ca17d",
        "ab5def164b4c5b33e215b6397a84ee4b",
        "601ee2ffa59197989ff7267383a4ea46",
        "57cdfacfa20179b9b92e077fba394d1c",
    ),
)


@register(about=_CORA.about)
def cora(*, root: str | os.PathLike[str] | None = None, download: bool = False) -> Graph:
    """Return Cora: 2708 papers, 5278 links, features `[2708, 1433]` (0 or 1), 7 classes; 140 / 500 / 1000 nodes.

    Looks in `<root>/planetoid`, `<root>/planetoid/raw`, `<root>/Cora/raw` and `<root>/planetoid/Cora/raw` for
    `cora.npz` or the eight published files `ind.cora.*`.
    """
    return _CORA.read(root, download)


@register(about=_CITESEER.about)
def citeseer(*, root: str | os.PathLike[str] | None = None, download: bool = False) -> Graph:
    """Return CiteSeer: 3327 papers, 4552 links, features `[3327, 3703]` (0 or 1), 6 classes; 120 / 500 / 1000 nodes.

    15 papers have neither features nor label (-1). Looks where `cora` looks, under its own name.
    """
    return _CITESEER.read(root, download)


@register(about=_PUBMED.about)
def pubmed(*, root: str | os.PathLike[str] | None = None, download: bool = False) -> Graph:
    """Return PubMed: 19717 papers, 44324 links, features `[19717, 500]` (tf-idf), 3 classes; 60 / 500 / 1000 nodes.

    Looks where `cora` looks, under its own name.
    """
    return _PUBMED.read(root, download)
