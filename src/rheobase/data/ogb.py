"""Graphs of the Open Graph Benchmark for node classification, in its folder of packed tables.

`raw/edge.csv.gz`: two numbers a line, from and to; `raw/node-feat.csv.gz`: the features, a line a node;
`raw/node-label.csv.gz`: a label a line; `split/<name>/train.csv.gz`, `valid.csv.gz`, `test.csv.gz`: a node a line.
No table has a header. Other tables of the folder are not read.

Source: https://ogb.stanford.edu/docs/nodeprop/, arXiv:2005.00687
"""

import gzip
import os
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from rheobase.data.fetch import Source, obtain
from rheobase.data.graph import Graph, both_ways
from rheobase.data.registry import About, register

_TABLES = {"edge": "raw/edge.csv.gz", "feat": "raw/node-feat.csv.gz", "label": "raw/node-label.csv.gz"}
_PARTS = ("train", "valid", "test")


def tables(split: str) -> dict[str, str]:
    """What is read, by its path in the folder: "edge", "feat", "label", "train", "valid", "test"."""
    return {**_TABLES, **{part: f"split/{split}/{part}.csv.gz" for part in _PARTS}}


def read_ogb(
    paths: Mapping[str, Path], *, name: str, classes: int, source: str = "", licence: str = "", citation: str = ""
) -> Graph:
    """Read a graph from tables of the Open Graph Benchmark, packed or not; links go both ways, loops go.

    Departure from the source: a citation has a direction there. `listed` counts the lines of `edge`. A label "nan" is
    none.

    Args:
        paths: by what `tables` calls them.
        name: of the graph.
        classes: how many there are.
        source, licence, citation: the tables do not say.

    Raises:
        ValueError: a table is damaged or does not fit the others; names it.
    """
    edges = _table(paths["edge"], np.int64, 2)
    x = _table(paths["feat"], np.float32, None)
    labels = _table(paths["label"], np.float64, 1)[:, 0]
    train, val, test = (torch.from_numpy(np.sort(_table(paths[part], np.int64, 1)[:, 0])) for part in _PARTS)
    if len(labels) != len(x):
        raise ValueError(f"{paths['label']}: {len(labels)} labels for {len(x)} nodes; expected one each")
    y = np.where(np.isnan(labels), -1, labels)
    if (y != y.astype(np.int64)).any():
        raise ValueError(f"{paths['label']}: a label is no whole number; expected 0 to {classes - 1}")
    try:
        return Graph(
            name=name,
            x=torch.from_numpy(x),
            edge_index=both_ways(torch.from_numpy(np.ascontiguousarray(edges.T)), len(x)),
            y=torch.from_numpy(y.astype(np.int64)),
            train=train,
            val=val,
            test=test,
            classes=tuple(map(str, range(classes))),
            source=source,
            licence=licence,
            citation=citation,
            listed=len(edges),
        )
    except ValueError as error:
        raise ValueError(f"{paths['edge'].parent.parent}: {error}; download it again") from error


def _table(path: Path, dtype: type, columns: int | None) -> np.ndarray:
    """A table of numbers, with so many columns."""
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a table without lines
            table: np.ndarray = np.loadtxt(file, dtype, delimiter=",", ndmin=2)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(f"{path}: not a table of numbers ({error}); download it again") from error
    if not table.size:
        return np.empty((0, columns or 0), dtype)
    if columns is not None and table.shape[1] != columns:
        raise ValueError(f"{path}: {table.shape[1]} columns; expected {columns}")
    return table


_SPLIT = tables("time")
_SOURCE = Source(
    dataset="ogbn_arxiv",
    files=dict.fromkeys(_SPLIT.values(), ""),
    folders=("ogbn_arxiv", "ogb/ogbn_arxiv", "arxiv"),
    page="https://ogb.stanford.edu/docs/nodeprop/",
)
_ABOUT = About(
    title="ogbn-arxiv: 169343 papers on computer science, 1166243 citations as listed, 128 features, 40 subjects",
    kind="graphs",
    source=_SOURCE.page,
    licence="ODC-BY",
    citation=(
        "W. Hu, M. Fey, M. Zitnik, Y. Dong, H. Ren, B. Liu, M. Catasta, J. Leskovec. Open graph benchmark: datasets "
        "for machine learning on graphs. NeurIPS 2020. arXiv:2005.00687"
    ),
    split="official, by year: 90941 train, 29799 validation, 48603 test",
    size="one zip, whose folder `arxiv` is unpacked by hand",
    layout=_SOURCE.layout,
)


@register(about=_ABOUT)
def ogbn_arxiv(*, root: str | os.PathLike[str] | None = None, download: bool = False) -> Graph:
    """Return ogbn-arxiv: 169343 papers, features `[169343, 128]` (real), 40 classes; 90941 / 29799 / 48603 nodes.

    Looks in `<root>/ogbn_arxiv`, `<root>/ogb/ogbn_arxiv` and `<root>/arxiv` for the unpacked folder. Features are real:
    a network that wants spikes has to encode them.
    """
    paths = obtain(_SOURCE, root, download)
    return read_ogb(
        {part: paths[file] for part, file in _SPLIT.items()},
        name="ogbn_arxiv",
        classes=40,
        source=_ABOUT.source,
        licence=_ABOUT.licence,
        citation=_ABOUT.citation,
    )
