import hashlib
import io
import zipfile

import numpy as np
import pytest
import torch

from rheobase.data import Drawings, Episodes, load
from rheobase.data.omniglot import read_drawings


@pytest.fixture
def drawings():
    """Six characters of three alphabets, 4 drawings each; the ink of a drawing is a row of its own."""
    pixels = np.zeros((24, 105, 105), np.uint8)
    pixels[np.arange(24), 4 * np.arange(24)] = 1
    classes = tuple(f"{alphabet}/{character}" for alphabet in "ABC" for character in "12")
    return Drawings(torch.from_numpy(np.packbits(pixels, axis=2)), torch.arange(6).repeat_interleave(4), classes)


def png(pixels):
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def test_images_are_ink_on_paper(drawings):
    images = drawings.images(torch.tensor([0, 5]))
    assert (images.shape, images.dtype) == ((2, 1, 105, 105), torch.float32)
    assert images[1, 0, 20].sum() == images[1].sum() == 105
    small = drawings.images(torch.tensor([5]), side=21)
    assert small[0, 0, 4].tolist() == pytest.approx([0.2] * 21)
    for side in (0, 106):
        with pytest.raises(ValueError, match="side must be 1 to 105"):
            drawings.images(torch.tensor([0]), side)


def test_episode_has_other_drawings_of_the_same_characters(drawings):
    episodes = Episodes(drawings, ways=3, shots=1, queries=2, count=50, side=105)
    assert len(list(episodes)) == len(episodes) == 50
    seen = set()
    for episode in episodes:
        assert episode.support_y.tolist() == [0, 1, 2]
        assert episode.query_y.tolist() == [0, 0, 1, 1, 2, 2]
        support, query = (images.squeeze(1).sum(2).argmax(1) // 4 for images in (episode.support, episode.query))
        assert not set(support.tolist()) & set(query.tolist())
        assert torch.equal(support // 4, episode.classes)
        assert torch.equal(query // 4, episode.classes.repeat_interleave(2))
        seen |= set(episode.classes.tolist())
    assert seen == set(range(6))


def test_episode_is_a_function_of_seed_and_place(drawings):
    first, again, other = (Episodes(drawings, ways=2, shots=1, queries=1, seed=seed) for seed in (0, 0, 1))
    np.random.seed(1)
    assert torch.equal(first[7].query, again[7].query)
    assert torch.equal(first[-1].support, again[999].support)
    assert any(not torch.equal(first[k].support, other[k].support) for k in range(5))
    with pytest.raises(IndexError, match="no episode 1000"):
        first[1000]


@pytest.mark.parametrize("wrong", [{"ways": 7}, {"shots": 3, "queries": 2}, {"ways": 0}, {"count": 0}, {"seed": -1}])
def test_impossible_episodes_raise(drawings, wrong):
    with pytest.raises(ValueError, match="Episodes: "):
        Episodes(drawings, **{"ways": 2, "queries": 1, **wrong})


def test_alphabets_part_the_classes(drawings):
    part = drawings.of_alphabets(("C", "A"))
    assert part.classes == ("A/1", "A/2", "C/1", "C/2")
    assert part.y.bincount().tolist() == [4] * 4
    assert torch.equal(part.bits, drawings.bits[[*range(8), *range(16, 24)]])
    with pytest.raises(ValueError, match="there is no D; there are A, B, C"):
        drawings.of_alphabets(("D",))


@pytest.mark.parametrize(
    ("bits", "y", "message"),
    [
        (torch.zeros(2, 105, 13, dtype=torch.uint8), [0, 1], "bits are"),
        (torch.zeros(2, 105, 14), [0, 1], "bits are"),
        (torch.zeros(2, 105, 14, dtype=torch.uint8), [0], "y is"),
        (torch.zeros(2, 105, 14, dtype=torch.uint8), [0, 2], "labels are"),
    ],
)
def test_wrong_drawings_raise(untyped, bits, y, message):
    with pytest.raises(ValueError, match=f"Drawings: {message}"):
        Drawings(bits, torch.tensor(y), ("A/1", "A/2"))


@pytest.mark.parametrize("packed", [True, False])
def test_png_files_are_read_in_the_order_of_alphabets(tmp_path, packed):
    paper = np.full((105, 105), True)
    files = {}
    for k, name in enumerate(
        ("B/character01/1_02", "A b/character01/1_01", "A/character02/1_01", "A/character01/1_01")
    ):
        paper[k, :] = False  # ink
        files[f"images/{name}.png"] = png(paper)
    if not packed:
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True)
            (tmp_path / name).write_bytes(content)
        files = {name: tmp_path / name for name in files}
    read = read_drawings(tmp_path, files)
    assert read.classes == ("A/character01", "A/character02", "A b/character01", "B/character01")
    assert read.images(torch.arange(4)).sum(dim=(1, 2, 3)).tolist() == [420, 315, 210, 105]


def test_wrong_png_files_raise(tmp_path):
    whole = png(np.full((105, 105), True))
    damaged = "a/b/1.png is damaged"
    for content, message in (
        (b"no picture", damaged),
        (whole[:10] + b"\x00\x00" + whole[12:], damaged),  # what Pillow has other errors for: a header cut short,
        (whole.replace(b"IDAT", b"\xb0\xae%\xdd"), damaged),  # a chunk without a name
        (png(np.full((3, 2), True)), "is 2 x 3"),
    ):
        with pytest.raises(ValueError, match=message):
            read_drawings(tmp_path, {"a/b/1.png": content})
    with pytest.raises(ValueError, match=r"holds no \.png"):
        read_drawings(tmp_path, {})


def test_zips_must_be_the_original(tmp_path):
    (tmp_path / "omniglot-py").mkdir()
    for name in ("images_background.zip", "images_evaluation.zip"):
        with zipfile.ZipFile(tmp_path / "omniglot-py" / name, "w") as archive:
            archive.writestr("images/A/1/1.png", b"")
    with pytest.raises(ValueError, match=r"images_background\.zip: .*expected MD5 68d2efa1"):
        load("omniglot", root=tmp_path)


def test_another_number_of_characters_raises(tmp_path, monkeypatch):
    from rheobase.data import omniglot

    (tmp_path / "omniglot").mkdir()
    sums = {}
    for name in ("images_background.zip", "images_evaluation.zip"):
        path = tmp_path / "omniglot" / name
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images/A/1/1.png", png(np.full((105, 105), True)))
        sums[name] = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(omniglot, "_FILES", sums)
    with pytest.raises(ValueError, match="holds 1 drawings of 1 characters, expected 19280 of 964"):
        load("omniglot", root=tmp_path)


@pytest.fixture(scope="module")
def real():
    try:
        return load("omniglot")
    except FileNotFoundError:
        pytest.skip("omniglot is not below RHEOBASE_DATA; rheobase.data.load can download it")


def test_real_sizes(real):
    assert (len(real.background), len(real.background.classes)) == (19280, 964)
    assert real.background.y.bincount().tolist() == [20] * 964
    assert len(real.background.alphabets) == 30
    assert len(real.evaluation.classes) in (307, 659)
    assert ("10 evaluation" in real.name) == (len(real.evaluation.classes) == 307)
    assert not set(real.background.alphabets) & set(real.evaluation.alphabets)
    ink = real.background.images(torch.arange(0, 19280, 97)).mean()
    assert 0.02 < float(ink) < 0.15


@pytest.mark.parametrize(("ways", "floor"), [(5, 0.49), (20, 0.31)])
def test_cosine_neighbour_reaches_its_measured_floor(real, ways, floor):
    if len(real.evaluation.classes) != 307:
        pytest.skip("the floor was measured on 10 evaluation alphabets")
    right = total = 0
    for episode in Episodes(real.evaluation, ways=ways, queries=5, count=60, side=21):
        support, query = (
            torch.nn.functional.normalize(images.flatten(1)) for images in (episode.support, episode.query)
        )
        right += int(((query @ support.T).argmax(1) == episode.query_y).sum())
        total += len(query)
    assert right / total == pytest.approx(floor, abs=0.05)


def test_a_damaged_copy_raises(real, tmp_path):
    from rheobase.data.fetch import data_root

    source = data_root() / "omniglot"
    if not (source / "background.npz").is_file():
        pytest.skip("there are no npz files of omniglot")
    (tmp_path / "omniglot").mkdir()
    for name in ("background.npz", "evaluation_a.npz"):
        data = (source / name).read_bytes()
        (tmp_path / "omniglot" / name).write_bytes(data[:-100] if name == "background.npz" else data)
    with pytest.raises(ValueError, match=r"background\.npz: "):
        load("omniglot", root=tmp_path)
