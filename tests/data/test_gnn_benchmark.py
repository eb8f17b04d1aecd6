import hashlib

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from rheobase.data import gnn_benchmark, load, read_gnn_benchmark

N = 130


@pytest.fixture
def arrays():
    """130 nodes of two classes; links 0-1 (both ways), 0-2, 5-5 (a loop); counts of words."""
    links = csr_matrix((np.ones(4, "f4"), ([0, 1, 0, 5], [1, 0, 2, 5])), (N, N))
    words = np.random.default_rng(0).integers(0, 3, (N, 4)).astype("f4")
    words[7] = 0
    matrix = csr_matrix(words)
    return words, {
        "adj_data": links.data,
        "adj_indices": links.indices,
        "adj_indptr": links.indptr,
        "adj_shape": np.array(links.shape),
        "attr_data": matrix.data,
        "attr_indices": matrix.indices,
        "attr_indptr": matrix.indptr,
        "attr_shape": np.array(matrix.shape),
        "labels": (np.arange(N) % 2).astype("i1"),
        "node_names": np.array(["a"] * N, object),
    }


def test_a_file_becomes_a_graph(arrays, tmp_path):
    words, parts = arrays
    np.savez(tmp_path / "toy.npz", **parts)
    graph = read_gnn_benchmark(tmp_path / "toy.npz", name="toy", seed=1, licence="none")
    assert (graph.x.numpy() == (words > 0)).all()
    assert graph.edge_index.T.tolist() == [[0, 1], [0, 2], [1, 0], [2, 0]]
    assert (graph.links, graph.listed, graph.licence, graph.classes) == (2, 4, "none", ("0", "1"))
    assert graph.y.tolist() == [0, 1] * (N // 2)
    assert (len(graph.train), len(graph.val), len(graph.test)) == (40, 60, 30)
    other = read_gnn_benchmark(tmp_path / "toy.npz", name="toy", seed=2)
    assert graph.train.tolist() != other.train.tolist()


def test_features_may_be_dense(arrays, tmp_path):
    words, parts = arrays
    plain = {name: part for name, part in parts.items() if not name.startswith("attr")}
    np.savez(tmp_path / "toy.npz", **plain, attr_matrix=words)
    assert (read_gnn_benchmark(tmp_path / "toy.npz", name="toy").x.numpy() == (words > 0)).all()
    np.savez(tmp_path / "toy.npz", **plain)
    with pytest.raises(ValueError, match=r"toy\.npz: it lacks attr_data, .*attr_matrix"):
        read_gnn_benchmark(tmp_path / "toy.npz", name="toy")
    words[3, 3] = np.nan
    np.savez(tmp_path / "toy.npz", **plain, attr_matrix=words)
    with pytest.raises(ValueError, match=r"toy\.npz: features hold NaN"):
        read_gnn_benchmark(tmp_path / "toy.npz", name="toy")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": np.zeros(3, "i1")}, "labels are int8 \\[3\\]"),
        ({"labels": np.zeros((N, 2), "i1")}, "labels are int8 \\[130, 2\\]"),
        ({"labels": np.zeros(N)}, "labels are float64"),
        ({"labels": np.array([0, 1] * 20 + [-1] * (N - 40))}, "class 0 has 20 nodes"),
        ({"adj_indices": np.array([0, 1, 0, N], "i4")}, "does not agree"),
        ({"adj_indices": np.array([1, N, 0, 5], "i4"), "adj_shape": np.array([N, N + 1])}, "edges run from 0 to 130"),
        ({"attr_shape": np.array([N + 1, 4])}, "does not agree"),
    ],
)
def test_arrays_that_do_not_fit_raise(arrays, tmp_path, changed, message):
    np.savez(tmp_path / "toy.npz", **{**arrays[1], **changed})
    with pytest.raises(ValueError, match=rf"toy\.npz: .*{message}"):
        read_gnn_benchmark(tmp_path / "toy.npz", name="toy")


GRAPHS = {
    "amazon_photo": gnn_benchmark._PHOTO,
    "amazon_computers": gnn_benchmark._COMPUTERS,
    "coauthor_cs": gnn_benchmark._CS,
    "coauthor_physics": gnn_benchmark._PHYSICS,
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_registered_file_must_be_the_original(arrays, tmp_path, name):
    (file,) = GRAPHS[name].source.files
    (tmp_path / "gnn_benchmark").mkdir()
    np.savez(tmp_path / "gnn_benchmark" / file, **arrays[1])
    with pytest.raises(ValueError, match=r"with git blob [0-9a-f]{40}, expected git blob"):
        load(name, root=tmp_path)


def test_the_original_is_read(arrays, tmp_path, monkeypatch):
    path = tmp_path / "Photo/raw/amazon_electronics_photo.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, **arrays[1])
    data = path.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    monkeypatch.setitem(gnn_benchmark._PHOTO.source.files, path.name, blob)
    graph = load("amazon_photo", root=tmp_path, seed=4)
    assert (graph.name, graph.licence, len(graph)) == ("amazon_photo", "MIT", N)
    assert graph.train.tolist() == load("amazon_photo", root=tmp_path, seed=4).train.tolist()
