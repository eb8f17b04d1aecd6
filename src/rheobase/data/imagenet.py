"""ImageNet (ILSVRC 2012), and any folder of class folders: pictures that are read when a batch asks for them.

    data = load("imagenet")
    for x, y in data.train.batches(256, train=True, seed=0, epoch=3, workers=8):  # x: [256, 3, 224, 224] in [0, 1]
        ...

Layout: `train/<wnid>/*.JPEG`, and `val/<wnid>/*.JPEG` or all of `val/*.JPEG` beside `ILSVRC2012_devkit_t12`, whose
`data/ILSVRC2012_validation_ground_truth.txt` holds a class number a line, and `data/meta.mat` says which it is.
"""

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from rheobase.data.dataset import check_labels, random_of, standardise
from rheobase.data.encode import get_encoder
from rheobase.data.fetch import Source, obtain
from rheobase.data.registry import About, register

_SUFFIXES = (".jpeg", ".jpg", ".png")
_BYTE_LEVELS = 255
_AREA = (0.08, 1.0)
_RATIO = (3 / 4, 4 / 3)
_TRIES = 10


@dataclass(frozen=True, eq=False, repr=False)
class ImageFolder:
    """N pictures below a folder, and their labels `y` `[N]`; nothing is read before it is asked for.

    Attributes:
        folder: where they lie.
        names: their paths below it, by sample.
        y: labels, int64 `[N]`.

    Raises:
        ValueError: y is not int64 `[N]` with a label per picture.
    """

    folder: Path
    names: tuple[str, ...]
    y: Int64[Tensor, " N"]

    def __post_init__(self) -> None:
        if self.y.dtype != torch.int64 or self.y.shape != (len(self.names),):
            raise ValueError(
                f"ImageFolder: y must be int64 [{len(self.names)}], got {self.y.dtype} {list(self.y.shape)}"
            )

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"ImageFolder({len(self)} pictures below {self.folder})"

    def select(self, index: Int64[Tensor, " B"]) -> "ImageFolder":
        """Return the pictures at `index`, in that order."""
        return replace(self, names=tuple(self.names[k] for k in index.tolist()), y=self.y[index])

    def centre_crop(self, k: int, size: int = 224, resize: int | None = None) -> UInt8[Tensor, "3 size size"]:
        """Picture k for evaluation: its shorter side made `resize` pixels long (bilinear), the middle size x size cut
        out. `resize` None means size * 256 / 224, rounded: 256 for 224.

        Raises:
            ValueError: the file is no picture, or damaged; resize < size.
        """
        resize = round(size * 256 / 224) if resize is None else resize
        if not 1 <= size <= resize:
            raise ValueError(f"centre_crop: expected 1 <= size <= resize, got size {size} and resize {resize}")
        image = self._open(k)
        width, height = image.size
        scale = resize / min(width, height)
        width, height = (max(resize, round(length * scale)) for length in (width, height))
        left, top = (width - size) // 2, (height - size) // 2
        image = image.resize((width, height), _bilinear()).crop((left, top, left + size, top + size))
        return _tensor(image)

    def random_crop(self, k: int, size: int = 224, *, seed: int, epoch: int) -> UInt8[Tensor, "3 size size"]:
        """Picture k for training: a random part, made size x size (bilinear). `Augment` mirrors it.

        The part covers 8 to 100 % of the area, evenly drawn, its width / height 3/4 to 4/3, evenly drawn in the
        logarithm; if ten draws do not fit, the largest such part in the middle (Szegedy et al. 2014, arXiv:1409.4842).
        The draw is a function of (seed, epoch, k) alone.

        Raises:
            ValueError: the file is no picture, or damaged; seed or epoch outside [0, 2**32).
        """
        random = random_of("random_crop", seed=seed, epoch=epoch, k=k % len(self))
        image = self._open(k)
        return _tensor(image.resize((size, size), _bilinear(), box=_random_box(random, *image.size)))

    def batches(
        self,
        batch_size: int,
        *,
        train: bool,
        seed: int = 0,
        epoch: int = 0,
        size: int = 224,
        resize: int | None = None,
        workers: int = 0,
        device: torch.device | str | None = None,
    ) -> "ImageBatches":
        """The (x, y) batches of one epoch: x float32 intensities `[B, 3, size, size]`, y int64 `[B]`.

        With `train` random crops in an order that (seed, epoch) fix, else centre crops, for which `resize` is, in
        stored order. `workers` threads read at once, a batch ahead; they change nothing but the time.

        Raises:
            ValueError: batch_size < 1, workers < 0, or seed or epoch outside [0, 2**32).
        """
        if batch_size < 1 or workers < 0:
            raise ValueError(
                f"batches: expected batch_size >= 1 and workers >= 0, got batch_size {batch_size} and workers {workers}"
            )
        crop: Callable[[int], Tensor] = (
            partial(self.random_crop, size=size, seed=seed, epoch=epoch)
            if train
            else partial(self.centre_crop, size=size, resize=resize)
        )
        random = random_of("batches", seed=seed, epoch=epoch)
        order = random.permutation(len(self)) if train else np.arange(len(self))
        return ImageBatches(self.y, crop, torch.from_numpy(order), batch_size, workers, device)

    def _open(self, k: int) -> Any:
        from PIL import Image

        path = self.folder / self.names[k]
        try:
            with Image.open(path) as image:
                if image.mode[0] in "IF":
                    raise ValueError(f"its pixels are {image.mode}, not bytes, and would be clipped; convert it")
                return image.convert("RGB")
        except (FileNotFoundError, PermissionError):
            raise
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{path}: not a whole picture of bytes ({error}); unpack it again") from error


@dataclass(frozen=True, eq=False)
class ImageBatches:
    """The batches of one epoch. Has a length, and can be walked again with the same result. Made by `batches`."""

    y: Int64[Tensor, " N"]
    crop: Callable[[int], Tensor]
    order: Int64[Tensor, " N"]
    batch_size: int
    workers: int
    device: torch.device | str | None

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Float32[Tensor, "B 3 H W"], Int64[Tensor, " B"]]]:
        windows = self.order.split(self.batch_size)
        if not self.workers:
            for window in windows:
                yield self._batch(window, map(self.crop, window.tolist()))
            return
        with ThreadPoolExecutor(self.workers) as pool:
            ahead = [pool.submit(self.crop, k) for k in windows[0].tolist()] if windows else []
            for place, window in enumerate(windows):
                ready, ahead = ahead, []
                if place + 1 < len(windows):
                    ahead = [pool.submit(self.crop, k) for k in windows[place + 1].tolist()]
                yield self._batch(window, (task.result() for task in ready))

    def _batch(self, window: Tensor, crops: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
        x, y = torch.stack(list(crops)), self.y[window]
        if self.device is not None:
            x, y = x.to(self.device), y.to(self.device)
        return x.to(torch.float32) / _BYTE_LEVELS, y


@dataclass(frozen=True, eq=False)
class ImageFolders:
    """A data set of pictures that stay on the disk: `train` and `test`, class names by label, provenance.

    They are still: `T` is None, as that of a `Dataset` of images.

    Raises:
        ValueError: a label names no class.
    """

    name: str
    train: ImageFolder
    test: ImageFolder
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    licence: str
    citation: str
    T: ClassVar[None] = None

    def __post_init__(self) -> None:
        check_labels(f"ImageFolders {self.name}", self.train.y, self.test.y, len(self.classes))

    def standardise(self, x: Float[Tensor, "B C *rest"]) -> Float[Tensor, "B C *rest"]:
        """Return `(x - mean) / std` per channel (axis 1) for intensities x in [0, 1]."""
        return standardise(x, self.mean, self.std, self.name)

    def encode(
        self,
        x: Float[Tensor, "B *sample"],
        T: int,
        encoder: str = "direct",
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "T B *shape"]:
        """Turn a batch of intensities into a network's input over T steps; see `Dataset.encode`."""
        chosen = get_encoder(encoder)
        return chosen(x if chosen.binary else self.standardise(x), T, generator)


def _random_box(random: np.random.RandomState, width: int, height: int) -> tuple[int, int, int, int]:
    low, high = map(math.log, _RATIO)
    for _ in range(_TRIES):
        area = width * height * random.uniform(*_AREA)
        ratio = math.exp(random.uniform(low, high))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(width - w + 1), random.randint(height - h + 1)
            return left, top, left + w, top + h
    w = min(width, max(1, round(height * _RATIO[1])))
    h = min(height, max(1, round(width / _RATIO[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _bilinear() -> Any:
    from PIL import Image

    return Image.Resampling.BILINEAR


def _tensor(image: Any) -> UInt8[Tensor, "3 H W"]:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


_ARCHIVES = {
    "ILSVRC2012_img_train.tar": "1d675b47d978889d74fa0da5fadfb00e",
    "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
}
_DEVKIT = "ILSVRC2012_devkit_t12"
_SOURCE = Source(
    dataset="imagenet",
    files=_ARCHIVES,
    folders=("imagenet", "ImageNet", "ILSVRC2012"),
    instead={"ILSVRC2012_img_train.tar": ("train",), "ILSVRC2012_img_val.tar": ("val",)},
    page="https://image-net.org/challenges/LSVRC/2012/2012-downloads.php",
)
_ABOUT = About(
    title="ImageNet (ILSVRC 2012): photographs of 1000 classes",
    kind="images",
    source=_SOURCE.page,
    licence="for research and teaching, under the terms of image-net.org",
    citation=(
        "O. Russakovsky et al. ImageNet Large Scale Visual Recognition Challenge. IJCV 115, 211-252, 2015. "
        "doi:10.1007/s11263-015-0816-y"
    ),
    split="official: 1281167 train; the 50000 of the validation set as test, as is usual",
    size="144 GB, by hand: the source asks for an account",
    layout=_SOURCE.layout,
    checksums={**_ARCHIVES, f"{_DEVKIT}.tar.gz": "fa75699e90414af021442c21a62c3abf"},
)


@register(about=_ABOUT)
def imagenet(*, root: str | os.PathLike[str] | None = None, download: bool = False) -> ImageFolders:
    """Return ImageNet from its unpacked folders; classes are the names of the train folders (wnid), sorted.

    Some of the classes, or other pictures in the same layout, are read as well. The archives have to be fetched and
    unpacked by hand. Looks in `<root>/imagenet`, `<root>/ImageNet` and `<root>/ILSVRC2012` for `train` and `val`; if
    `val` has no class folders, for `ILSVRC2012_devkit_t12` beside it. Mean and std are the usual ones of ImageNet.

    Raises:
        ValueError: an archive is there but not unpacked, a folder is empty, `val` has classes that `train` lacks, or
            the devkit does not fit.
        FileNotFoundError: there is no `train` or `val`, or `val` needs the devkit.
    """
    paths = obtain(_SOURCE, root, download)
    for path in paths.values():
        if path.is_file():
            raise ValueError(f"{path}: is packed; unpack it into a folder per class beside it (train/<wnid>/*.JPEG)")
    train, val = paths.values()
    classes = tuple(sorted(folder.name for folder in train.iterdir() if folder.is_dir()))
    return ImageFolders(
        name="imagenet",
        train=read_class_folders(train, classes),
        test=_flat_validation(val, classes) if not _folders(val) else read_class_folders(val, classes),
        classes=classes,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        source=_ABOUT.source,
        licence=_ABOUT.licence,
        citation=_ABOUT.citation,
    )


def read_class_folders(folder: Path, classes: tuple[str, ...]) -> ImageFolder:
    """The pictures (.jpeg, .jpg, .png, in any case) of `<folder>/<class>/`, sorted by class, then by name.

    Raises:
        ValueError: there is none, or a folder whose class is not among `classes`.
    """
    if unknown := sorted(set(_folders(folder)) - set(classes)):
        raise ValueError(f"{folder}: has a folder {unknown[0]}, expected only classes that the train folder has too")
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = _pictures(folder / name) if (folder / name).is_dir() else []
        names += [f"{name}/{picture}" for picture in found]
        labels += [label] * len(found)
    if not names:
        raise ValueError(f"{folder}: holds no pictures, expected <class>/*.JPEG; unpack the archive again")
    return ImageFolder(folder, tuple(names), torch.tensor(labels, dtype=torch.int64))


def _flat_validation(folder: Path, classes: tuple[str, ...]) -> ImageFolder:
    truth = folder.parent / _DEVKIT / "data" / "ILSVRC2012_validation_ground_truth.txt"
    meta = truth.with_name("meta.mat")
    for path in (truth, meta):
        if not path.is_file():
            raise FileNotFoundError(
                f"imagenet: {folder} has no class folders, and {path} is missing, which says what its pictures show. "
                f"Get {_DEVKIT}.tar.gz (MD5 {_ABOUT.checksums[f'{_DEVKIT}.tar.gz']}) from {_SOURCE.page} and unpack it "
                f"in {folder.parent}, or sort the pictures into {folder}/<wnid>/"
            )
    wnids = _wnids(meta)
    names = _pictures(folder)
    try:
        shown = [wnids[int(number)] for number in truth.read_text().split()]
        labels = [classes.index(wnid) for wnid in shown]
    except (KeyError, ValueError) as error:
        raise ValueError(f"{truth}: names a class that {meta} or the train folder lacks ({error})") from error
    if len(labels) != len(names):
        raise ValueError(f"{truth}: holds {len(labels)} labels for {len(names)} pictures in {folder}; expected as many")
    return ImageFolder(folder, tuple(names), torch.tensor(labels, dtype=torch.int64))


def _wnids(meta: Path) -> dict[int, str]:
    """From class number to wnid, as the devkit's table has it."""
    from scipy.io import loadmat

    try:
        table = loadmat(meta, squeeze_me=True)["synsets"]
        return {int(number): str(wnid) for number, wnid in zip(table["ILSVRC2012_ID"], table["WNID"], strict=True)}
    except Exception as error:  # a damaged file can raise almost anything
        raise ValueError(f"{meta}: not the table of classes ({error}); unpack the devkit again") from error


def _folders(folder: Path) -> list[str]:
    return [entry.name for entry in os.scandir(folder) if entry.is_dir()]


def _pictures(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.name.lower().endswith(_SUFFIXES))
