import pickle
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from rheobase.data import from_pyg, from_pyg_batch, from_tonic, from_torchvision, load


@dataclass
class TonicLike:
    """What a data set of tonic has: samples (events, target), `targets`, `sensor_size`, `classes`, `data`."""

    events: list
    targets: list
    data: list = field(default_factory=list)
    sensor_size: tuple | None = (4, 3, 2)
    classes: tuple = ("left", "right")

    def __len__(self):
        return len(self.events)

    def __getitem__(self, k):
        return self.events[k], self.targets[k]


DTYPE = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)])


@pytest.fixture
def tonic():
    return TonicLike([np.array([(3, 2, 9, True), (0, 1, 4, False)], DTYPE), np.empty(0, DTYPE)], [1, 0])


def test_tonic_becomes_recordings(tonic):
    data = from_tonic(tonic, replace(tonic, targets=[0, 0]), name="toy", key="v1", licence="none")
    assert (data.name, data.sensor, data.classes, data.licence) == ("toy", (4, 3), ("left", "right"), "none")
    assert (data.train.y.tolist(), data.test.y.tolist()) == ([1, 0], [0, 0])
    events = pickle.loads(pickle.dumps(data.train.read))(0)
    assert (events.t.tolist(), events.x.tolist(), events.p.tolist()) == ([4, 9], [0, 3], [False, True])
    assert len(data.train[1]) == 0


def test_tonic_sound_has_no_rows(tonic):
    sound = np.dtype([("t", np.int64), ("x", np.int64), ("p", np.int64)])
    heard = replace(tonic, events=[np.array([(5, 699, 1)], sound)] * 2, sensor_size=(700, 1, 1))
    events = from_tonic(heard, heard, name="toy", key="v1").train[0]
    assert (events.sensor, events.y.tolist(), events.p.tolist()) == ((700, 1), [0], [True])


def test_tonic_key_is_made_of_its_files(tonic, tmp_path):
    paths = [tmp_path / name for name in ("a.bin", "b.bin")]
    for path in paths:
        path.write_bytes(b"1")
    listed = replace(tonic, data=[str(path) for path in paths])
    before = from_tonic(listed, listed, name="toy").train.key
    paths[1].write_bytes(b"12")
    assert from_tonic(listed, listed, name="toy").train.key != before


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ({}, {}, "does not list a file per sample"),
        ({"targets": [0]}, {"key": "a"}, "1 targets for 2 samples"),
        ({"sensor_size": None}, {"key": "a"}, r"pass sensor=\(width, height\)"),
    ],
)
def test_what_tonic_lacks_is_named(tonic, changed, options, message):
    wrong = replace(tonic, **changed)
    with pytest.raises(ValueError, match=message):
        from_tonic(wrong, wrong, name="toy", **options)


def test_tonic_samples_that_were_transformed_raise(tonic):
    frames = replace(tonic, events=[np.zeros((2, 2, 3, 4))] * 2)
    with pytest.raises(ValueError, match="sample 0 lacks p, t, x"):
        _ = from_tonic(frames, frames, name="toy", key="a").train[0]


@dataclass
class TorchvisionLike:
    data: object
    targets: object
    classes: list = field(default_factory=lambda: ["cat", "dog"])


IMAGES = np.arange(2 * 5 * 4 * 3, dtype=np.uint8).reshape(2, 5, 4, 3)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (IMAGES, IMAGES.transpose(0, 3, 1, 2)),
        (IMAGES.transpose(0, 3, 1, 2), IMAGES.transpose(0, 3, 1, 2)),
        (torch.from_numpy(IMAGES[..., 0].copy()), IMAGES[:, None, :, :, 0]),
    ],
)
def test_torchvision_becomes_splits(data, wanted):
    toy = TorchvisionLike(data, [0, 1])
    made = from_torchvision(toy, replace(toy, targets=torch.tensor([1, 1])), name="toy")
    assert (made.train.x.numpy() == wanted).all()
    assert (made.train.y.tolist(), made.test.y.tolist(), made.classes) == ([0, 1], [1, 1], ("cat", "dog"))
    assert made.mean == pytest.approx((wanted / 255).mean(axis=(0, 2, 3)).tolist())


def test_torchvision_labels_under_another_name():
    @dataclass
    class SvhnLike:
        data: object
        labels: object

    toy = SvhnLike(IMAGES.transpose(0, 3, 1, 2), np.array([0, 2]))
    assert from_torchvision(toy, toy, name="toy").classes == ("0", "1", "2")


@pytest.mark.parametrize("data", [IMAGES.astype(float), IMAGES[0, 0], IMAGES[..., [0, 1]]])
def test_torchvision_images_of_other_shapes_raise(data):
    toy = TorchvisionLike(data, [0, 1])
    with pytest.raises(ValueError, match="from_torchvision: data are"):
        from_torchvision(toy, toy, name="toy")
    with pytest.raises(ValueError, match="has no attribute 'data'"):
        from_torchvision(object(), toy, name="toy")


@dataclass
class PygLike:
    x: object
    edge_index: object
    y: object
    train_mask: object
    val_mask: object
    test_mask: object


def masks(graph):
    for part in (graph.train, graph.val, graph.test):
        mask = torch.zeros(len(graph), dtype=torch.bool)
        mask[part] = True
        yield mask


def test_pyg_becomes_a_graph():
    data = PygLike(
        torch.eye(3).double(),
        torch.tensor([[0, 0, 1], [1, 0, 2]]),
        torch.tensor([0, 1, 1]),
        *torch.eye(3, dtype=torch.bool),
    )
    graph = from_pyg(data, name="toy")
    assert graph.edge_index.T.tolist() == [[0, 1], [1, 0], [1, 2], [2, 1]]
    assert (graph.train.tolist(), graph.val.tolist(), graph.test.tolist()) == ([0], [1], [2])
    assert graph.x.dtype == torch.float32
    assert (graph.links, graph.listed) == (2, 3)
    several = PygLike(data.x, data.edge_index, data.y, *(torch.zeros(3, 10, dtype=torch.bool) for _ in range(3)))
    with pytest.raises(ValueError, match=r"a mask is torch\.bool \[3, 10\]; expected bool \[3\]: pick one"):
        from_pyg(several, name="toy")
    with pytest.raises(ValueError, match="PygLike has no attribute 'x'"):
        from_pyg(PygLike(None, data.edge_index, data.y, *[data.train_mask] * 3), name="toy")
    with pytest.raises(ValueError, match="edges run from 0 to 3; expected nodes 0 to 2"):
        from_pyg(replace(data, edge_index=torch.tensor([[0], [3]])), name="toy")
    with pytest.raises(ValueError, match="Graph toy: x holds NaN"):
        from_pyg(replace(data, x=torch.full((3, 3), torch.nan)), name="toy")
    del data.val_mask
    with pytest.raises(ValueError, match="PygLike has no attribute 'val_mask'"):
        from_pyg(data, name="toy")


def test_a_batch_of_pyg_becomes_a_part_of_a_graph():
    @dataclass
    class BatchLike:
        n_id: object = None
        edge_index: object = None
        batch_size: object = None

    part = from_pyg_batch(BatchLike(torch.tensor([7, 3, 5]), torch.tensor([[1, 2], [0, 1]]), 1))
    assert (part.nodes.tolist(), part.edge_index.tolist(), part.seeds) == ([7, 3, 5], [[1, 2], [0, 1]], 1)
    with pytest.raises(ValueError, match="BatchLike has no attribute 'n_id'"):
        from_pyg_batch(BatchLike())


def test_pyg_round_trip_of_a_real_graph():
    try:
        graph = load("cora")
    except FileNotFoundError:
        pytest.skip("cora is not below RHEOBASE_DATA")
    again = from_pyg(PygLike(graph.x, graph.edge_index, graph.y, *masks(graph)), name="cora")
    for part in ("x", "edge_index", "y", "train", "val", "test"):
        assert torch.equal(getattr(again, part), getattr(graph, part)), part
