import gzip

import pytest

from rheobase.data import load, ogb, read_ogb

TABLES = {
    "edge": "0,1\n1,0\n3,2\n2,2\n",
    "feat": "0.5,-1\n0,0\n1e-3,2\n4,5\n",
    "label": "1\n0\nnan\n2\n",
    "train": "1\n0\n",
    "valid": "3\n",
    "test": "",
}


def write(folder, **changed):
    """The tables below a folder, packed or, where told, not; returns their paths."""
    paths = {}
    for part, name in ogb.tables("time").items():
        text = {**TABLES, **changed}[part]
        paths[part] = folder / name
        paths[part].parent.mkdir(parents=True, exist_ok=True)
        paths[part].write_bytes(gzip.compress(text.encode()))
    return paths


def read(folder, **changed):
    return read_ogb(write(folder, **changed), name="toy", classes=3)


def test_tables_become_a_graph(tmp_path):
    graph = read(tmp_path)
    assert graph.x.tolist() == [[0.5, -1], [0, 0], [pytest.approx(1e-3), 2], [4, 5]]
    assert graph.edge_index.T.tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]
    assert graph.y.tolist() == [1, 0, -1, 2]
    assert [part.tolist() for part in (graph.train, graph.val, graph.test)] == [[0, 1], [3], []]
    assert (graph.links, graph.listed, graph.classes) == (2, 4, ("0", "1", "2"))


def test_tables_may_be_unpacked(tmp_path):
    paths = write(tmp_path)
    paths["edge"] = paths["edge"].with_suffix("")
    paths["edge"].write_text(TABLES["edge"])
    assert read_ogb(paths, name="toy", classes=3).links == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"edge": "0,1,2\n"}, r"edge\.csv\.gz: 3 columns; expected 2"),
        ({"edge": "0,1\n2\n"}, r"edge\.csv\.gz: not a table"),
        ({"edge": "0,a\n"}, r"edge\.csv\.gz: not a table"),
        ({"edge": "0,4\n"}, "edges run from 0 to 4"),
        ({"feat": "nan,1\n" * 4}, "x holds NaN"),
        ({"label": "0\n"}, r"node-label\.csv\.gz: 1 labels for 4 nodes"),
        ({"label": "0.5\n" * 4}, r"node-label\.csv\.gz: a label is no whole number"),
        ({"label": "3\n" * 4}, "labels run from 3 to 3"),
        ({"label": "0,1\n" * 4}, r"node-label\.csv\.gz: 2 columns; expected 1"),
        ({"train": "2\n"}, "a node without label"),
        ({"valid": "0\n"}, "share nodes"),
    ],
)
def test_tables_that_do_not_fit_raise(tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, **changed)


@pytest.mark.parametrize("part", ["edge", "feat", "test"])
def test_damaged_tables_raise(tmp_path, part):
    paths = write(tmp_path, test="2,2\n" * 50)
    whole = paths[part].read_bytes()
    for damaged in (whole[:-1], whole[: len(whole) // 2], b"plain", whole[:12] + bytes([whole[12] ^ 255]) + whole[13:]):
        paths[part].write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{paths[part].name}: not a table of numbers"):
            read_ogb(paths, name="toy", classes=3)


def test_the_registered_graph_is_found_where_its_zip_unpacks_to(tmp_path):
    write(tmp_path / "arxiv")
    graph = load("ogbn_arxiv", root=tmp_path)
    assert (graph.name, graph.licence, len(graph.classes)) == ("ogbn_arxiv", "ODC-BY", 40)
