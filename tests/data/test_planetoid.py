import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rheobase.data import about, full_supervised, load
from rheobase.data.fetch import data_root
from rheobase.data.planetoid import _CORA, _PARTS

SIZES = {
    "cora": (2708, 1433, 49216, 5278, 140),
    "citeseer": (3327, 3703, 105165, 4552, 120),
    "pubmed": (19717, 500, 988031, 44324, 60),
}
LISTED = {"cora": 5429, "citeseer": 4732, "pubmed": 44338}
FULL = {"cora": 1208, "citeseer": 1812, "pubmed": 18217}


def csr(dense):
    """A SciPy matrix as Python 2 pickled it: the name of its old module, then its fields."""
    from scipy.sparse import csr_matrix

    matrix = csr_matrix(np.asarray(dense, np.float32))
    fields = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "_shape": matrix.shape}
    state = pickle.dumps(fields, 2)[2:-1]
    return b"\x80\x02cscipy.sparse.csr\ncsr_matrix\n)\x81" + state + b"b."


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A graph of 506 + 3 papers: 4 for training, 500 for validation, nodes 506 and 508 for testing, 507 by itself."""
    from rheobase.data import planetoid

    monkeypatch.setattr(planetoid, "check_md5", lambda path, md5: None)
    random = np.random.default_rng(0)
    x = (random.random((509, 5)) < 0.5) * 1.0
    x[507] = 0
    hot = np.eye(2, dtype=np.int32)[random.integers(0, 2, 509)]
    graph = {0: [1, 1, 0], 1: [0], 506: [508, 0], 508: [506]}
    order = [508, 506]
    contents = {
        "x": csr(x[:4]),
        "tx": csr(x[order]),
        "allx": csr(x[:506]),
        "y": pickle.dumps(hot[:4], 2),
        "ty": pickle.dumps(hot[order], 2),
        "ally": pickle.dumps(hot[:506], 2),
        "graph": pickle.dumps(graph, 2),
        "test.index": b"508\n506\n",
    }
    folder = tmp_path / "planetoid/raw"
    folder.mkdir(parents=True)
    for part in _PARTS:
        (folder / f"ind.cora.{part}").write_bytes(contents[part])
    return tmp_path, x, hot


def small(root):
    return replace(_CORA, classes=("a", "b")).read(root)


def test_published_files(published):
    root, x, hot = published
    graph = small(root)
    assert (graph.x.numpy() == x).all()
    labels = hot.argmax(1)
    labels[507] = -1
    assert graph.y.tolist() == labels.tolist()
    assert graph.edge_index.T.tolist() == [[0, 1], [0, 506], [1, 0], [506, 0], [506, 508], [508, 506]]
    assert graph.test.tolist() == [506, 508]
    assert (graph.train.tolist(), graph.val.tolist()) == ([0, 1, 2, 3], list(range(4, 504)))
    assert (graph.listed, graph.links) == (3, 3)


@pytest.mark.parametrize("part", ["tx", "allx", "ally", "graph"])
def test_damaged_files_are_one_error(published, part):
    root, *_ = published
    path = root / f"planetoid/raw/ind.cora.{part}"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"cos\nsystem\n(S'true'\ntR."):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"ind\.cora\.{part}: "):
            small(root)


def test_test_nodes_must_follow_the_others(published):
    root, *_ = published
    (root / "planetoid/raw/ind.cora.test.index").write_text("1\n508\n")
    with pytest.raises(ValueError, match=r"test\.index: names 2 nodes from 1"):
        small(root)


def test_published_files_must_be_the_original(tmp_path):
    folder = tmp_path / "Cora/raw"
    folder.mkdir(parents=True)
    for part in _PARTS:
        (folder / f"ind.cora.{part}").write_bytes(b"")
    with pytest.raises(ValueError, match=r"ind\.cora\.x: 0 bytes with MD5"):
        load("cora", root=tmp_path)


@pytest.fixture(scope="module", params=sorted(SIZES))
def real(request):
    try:
        return load(request.param)
    except FileNotFoundError:
        pytest.skip(f"{request.param} is not below RHEOBASE_DATA; rheobase.data.load can download it")


def test_real_sizes(real):
    nodes, features, numbers, links, train = SIZES[real.name]
    assert real.x.shape == (nodes, features)
    assert int((real.x != 0).sum()) == numbers
    assert real.edge_index.shape == (2, 2 * links)
    assert (len(real.train), len(real.val), len(real.test)) == (train, 500, 1000)
    assert int((real.y < 0).sum()) == (15 if real.name == "citeseer" else 0)
    assert len(real.classes) == int(real.y.max()) + 1
    assert len(full_supervised(real).train) == FULL[real.name]


def test_both_counts_of_links_are_told(real):
    title = about(real.name).title
    assert f" {real.links} citations" in title
    assert f"(listed: {LISTED[real.name]})" in title


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    archive = data_root() / "planetoid/planetoid_raw.tar.xz"
    if not archive.is_file():
        pytest.skip("the published files of Planetoid are not below RHEOBASE_DATA")
    root = tmp_path_factory.mktemp("published")
    (root / "planetoid").mkdir()
    with tarfile.open(archive) as opened:
        opened.extractall(root / "planetoid", filter="data")
    return root


def test_both_forms_are_equal(real, raw):
    published = load(real.name, root=raw)
    for part in ("x", "edge_index", "y", "train", "val", "test"):
        assert torch.equal(getattr(real, part), getattr(published, part)), part
    assert published.listed == LISTED[real.name]


def test_a_damaged_copy_raises(real, tmp_path):
    source = data_root() / f"planetoid/{real.name}.npz"
    if not source.is_file():
        pytest.skip("there is no npz")
    copy = tmp_path / "planetoid" / source.name
    copy.parent.mkdir()
    data = source.read_bytes()
    for content in (data[: len(data) // 2], data[:-1], b""):
        copy.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{real.name}\.npz: "):
            load(real.name, root=tmp_path)


def test_a_wrong_npz_raises(tmp_path):
    path = Path(tmp_path / "planetoid/cora.npz")
    path.parent.mkdir()
    good = {
        "x_data": np.ones(2, "f4"),
        "x_indices": np.array([0, 1]),
        "x_indptr": np.array([0, 1, 2]),
        "x_shape": np.array([2, 2]),
        "edges": np.array([[0, 1]]),
        "y": np.array([0, 1]),
        "train": np.array([0]),
        "val": np.array([1]),
        "test": np.array([], int),
    }
    np.savez(path, **good)
    assert load("cora", root=tmp_path).x.tolist() == [[1, 0], [0, 1]]
    for name, array in (
        ("x_indices", np.array([0, 2])),
        ("x_indptr", np.array([0, 2, 1])),
        ("x_shape", np.array([3, 2])),
        ("edges", np.array([[0, 2]])),
        ("y", np.array([0, 7])),
        ("train", np.array([1])),
    ):
        np.savez(path, **{**good, name: array})
        with pytest.raises(ValueError, match=r"cora\.npz: "):
            load("cora", root=tmp_path)
