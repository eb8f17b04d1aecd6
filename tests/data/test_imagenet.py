import pickle

import numpy as np
import pytest
import torch

from rheobase.data import hold_out, load
from rheobase.data.encode import direct
from rheobase.data.imagenet import read_class_folders

WNIDS = ("n01440764", "n01443537")


def write_jpeg(path, width=40, height=30, colour=(200, 100, 50)):
    """A picture of one colour with a ramp of red from left to right."""
    from PIL import Image

    pixels = np.full((height, width, 3), colour, np.uint8)
    pixels[:, :, 0] = np.linspace(0, 255, width).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "jpeg", quality=95)


@pytest.fixture
def root(tmp_path):
    for label, wnid in enumerate(WNIDS):
        for k in range(5):
            write_jpeg(tmp_path / f"imagenet/train/{wnid}/{wnid}_{k}.JPEG", 40 + k, 30, (0, 10 * k, 100 * label))
        for k in range(2):
            write_jpeg(tmp_path / f"imagenet/val/{wnid}/ILSVRC2012_val_{label}{k}.JPEG", 30, 50)
    return tmp_path


def test_folders_become_splits(root):
    data = load("imagenet", root=root)
    assert data.classes == WNIDS
    assert data.train.y.tolist() == [0] * 5 + [1] * 5
    assert data.test.y.tolist() == [0, 0, 1, 1]
    assert "ImageFolder(10 pictures" in repr(data.train)
    assert data.train.names[6] == f"{WNIDS[1]}/{WNIDS[1]}_1.JPEG"


def test_centre_crop_is_the_middle_of_the_resized_picture(root):
    from PIL import Image

    folder = load("imagenet", root=root).train
    crop = folder.centre_crop(0, size=14)
    with Image.open(folder.folder / folder.names[0]) as image:
        whole = image.resize((21, 16), Image.Resampling.BILINEAR)  # shorter side 14 * 256 / 224 = 16
    assert torch.equal(crop, torch.from_numpy(np.array(whole)[1:15, 3:17]).permute(2, 0, 1))
    assert folder.centre_crop(0).shape == (3, 224, 224)
    assert folder.centre_crop(0, size=20, resize=20).shape == (3, 20, 20)
    with pytest.raises(ValueError, match="got size 20 and resize 19"):
        folder.centre_crop(0, size=20, resize=19)


def test_random_crop_is_a_function_of_seed_epoch_and_picture(root):
    folder = load("imagenet", root=root).train
    crop = folder.random_crop(3, 16, seed=1, epoch=2)
    torch.manual_seed(5)
    np.random.seed(5)
    assert torch.equal(crop, folder.random_crop(3, 16, seed=1, epoch=2))
    assert torch.equal(crop, pickle.loads(pickle.dumps(folder)).random_crop(3, 16, seed=1, epoch=2))
    assert not torch.equal(crop, folder.random_crop(3, 16, seed=1, epoch=3))
    assert not torch.equal(crop, folder.random_crop(3, 16, seed=0, epoch=2))
    with pytest.raises(ValueError, match="epoch must lie in"):
        folder.random_crop(3, 16, seed=1, epoch=-1)


def test_random_crops_cover_many_parts_and_mirror_none(root):
    folder = load("imagenet", root=root).train
    reds = torch.stack([folder.random_crop(0, 8, seed=0, epoch=k)[0].float().mean(0) for k in range(200)])
    span = reds[:, -1] - reds[:, 0]
    assert 0 < float(span.min()) < 80
    assert float(span.max()) > 170


def test_a_part_of_a_folder_has_its_own_numbers(root):
    folder = load("imagenet", root=root).train
    part = folder.select(torch.tensor([7, 2]))
    assert part.y.tolist() == [1, 0]
    assert torch.equal(part.centre_crop(1, 8), folder.centre_crop(2, 8))
    kept, held = hold_out(folder, 0.4, seed=0)
    assert held.y.tolist() == [0, 0, 1, 1]
    assert sorted(kept.names + held.names) == sorted(folder.names)


def test_thin_pictures_are_cropped_too(tmp_path):
    write_jpeg(tmp_path / "a/long.jpg", 400, 4)
    write_jpeg(tmp_path / "a/tall.png.jpeg", 3, 300)
    folder = read_class_folders(tmp_path, ("a",))
    for epoch in range(5):
        for k in range(2):
            assert folder.random_crop(k, 8, seed=0, epoch=epoch).shape == (3, 8, 8)


@pytest.mark.parametrize("workers", [0, 3])
def test_batches_of_training_cover_everything_once(root, workers):
    folder = load("imagenet", root=root).train
    batches = folder.batches(4, train=True, seed=1, epoch=2, size=8, workers=workers)
    assert len(batches) == 3
    drawn = list(batches)
    assert [len(y) for _, y in drawn] == [4, 4, 2]
    assert torch.cat([y for _, y in drawn]).bincount().tolist() == [5, 5]
    x = torch.cat([x for x, _ in drawn])
    assert (x.dtype, x.shape) == (torch.float32, (10, 3, 8, 8))
    assert 0 <= float(x.min()) <= float(x.max()) <= 1
    alone = torch.cat([x for x, _ in folder.batches(10, train=True, seed=1, epoch=2, size=8)])
    assert torch.equal(x, alone)
    other = torch.cat([x for x, _ in folder.batches(10, train=True, seed=1, epoch=3, size=8)])
    assert not torch.equal(x, other)


def test_batches_of_evaluation_keep_the_order(root):
    data = load("imagenet", root=root)
    ((x, y),) = data.test.batches(10, train=False, size=8)
    assert y.tolist() == [0, 0, 1, 1]
    assert torch.equal(x[1], data.test.centre_crop(1, 8) / 255)
    ((tight, _),) = data.test.batches(10, train=False, size=8, resize=8)
    assert torch.equal(tight[1], data.test.centre_crop(1, 8, resize=8) / 255)
    for wrong in ({"batch_size": 0}, {"batch_size": 1, "workers": -1}, {"batch_size": 1, "seed": -1}):
        with pytest.raises(ValueError, match="batches: "):
            data.test.batches(**wrong, train=True)


def test_standardised_and_encoded(root):
    data = load("imagenet", root=root)
    x = torch.full((2, 3, 4, 4), 0.5)
    wanted = [(0.5 - mean) / std for mean, std in zip(data.mean, data.std, strict=True)]
    assert data.standardise(x)[0, :, 0, 0].tolist() == pytest.approx(wanted)
    assert torch.equal(data.encode(x, T=3), direct(data.standardise(x), 3))
    spikes = data.encode(x, T=3, encoder="poisson", generator=torch.Generator().manual_seed(0))
    assert set(spikes.unique().tolist()) <= {0.0, 1.0}
    with pytest.raises(ValueError, match="imagenet has 3 channel"):
        data.standardise(x[:, :2])


def test_damaged_pictures_are_one_error(root):
    folder = load("imagenet", root=root).train
    path = folder.folder / folder.names[0]
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"no picture", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"n01440764_0\.JPEG: not a whole picture"):
            folder.centre_crop(0)


def test_pictures_that_are_no_bytes_or_not_there_are_told_apart(root):
    from PIL import Image

    folder = load("imagenet", root=root).train
    path = folder.folder / folder.names[0]
    deep = Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64))
    deep.save(path, format="PNG")
    with pytest.raises(ValueError, match=r"not a whole picture of bytes \(its pixels are I;16"):
        folder.centre_crop(0)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        folder.centre_crop(0)


def flatten(root, truth=(2, 1, 1, 2)):
    """The layout of the original archive: no class folders, and the devkit's table."""
    from scipy.io import savemat

    val = root / "imagenet/val"
    for k, path in enumerate(sorted(val.rglob("*.JPEG"))):
        path.rename(val / f"ILSVRC2012_val_{k + 1:08}.JPEG")
    for wnid in WNIDS:
        (val / wnid).rmdir()
    devkit = root / "imagenet/ILSVRC2012_devkit_t12/data"
    devkit.mkdir(parents=True)
    synsets = np.zeros(3, [("ILSVRC2012_ID", object), ("WNID", object), ("num_children", object)])
    for k, wnid in enumerate((WNIDS[1], WNIDS[0], "n00001740")):  # not in the order of their names; one is no leaf
        synsets[k] = (float(k + 1), wnid, float(k == 2))
    savemat(devkit / "meta.mat", {"synsets": synsets})
    (devkit / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{number}\n" for number in truth))
    return devkit


def test_flat_validation_takes_its_labels_from_the_devkit(root):
    flatten(root)
    data = load("imagenet", root=root)
    assert data.test.y.tolist() == [0, 1, 1, 0]
    assert data.test.names[0] == "ILSVRC2012_val_00000001.JPEG"


@pytest.mark.parametrize("truth", [(2, 1, 1), (2, 1, 1, 7), (2, 1, 1, 3)])
def test_devkit_that_does_not_fit_raises(root, truth):
    flatten(root, truth)
    with pytest.raises(ValueError, match=r"ILSVRC2012_validation_ground_truth\.txt: "):
        load("imagenet", root=root)


def test_damaged_table_raises(root):
    (flatten(root) / "meta.mat").write_bytes(b"no table")
    with pytest.raises(ValueError, match=r"meta\.mat: not the table of classes"):
        load("imagenet", root=root)


def test_missing_devkit_is_asked_for(root):
    devkit = flatten(root)
    (devkit / "meta.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"meta\.mat is missing.*fa75699e90414af021442c21a62c3abf"):
        load("imagenet", root=root)


def test_packed_or_foreign_or_empty_folders_raise(root):
    write_jpeg(root / "imagenet/val/n99999999/a.JPEG")
    with pytest.raises(ValueError, match="val: has a folder n99999999"):
        load("imagenet", root=root)
    with pytest.raises(ValueError, match="holds no pictures"):
        read_class_folders(root / "imagenet/train" / WNIDS[0], ("absent",))
    packed = root / "ImageNet"
    packed.mkdir()
    for name in ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"):
        (packed / name).write_bytes(b"")
    (root / "imagenet").rename(root / "elsewhere")
    with pytest.raises(ValueError, match=r"ILSVRC2012_img_train\.tar: is packed; unpack it"):
        load("imagenet", root=root)
