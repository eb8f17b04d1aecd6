"""MNIST and Fashion-MNIST from their four original idx files, packed (.gz) or unpacked."""

import os
from dataclasses import dataclass

from rheobase.data.dataset import Dataset, Split
from rheobase.data.fetch import Source, obtain
from rheobase.data.idx import read_idx
from rheobase.data.registry import About, register

MNIST_ADDRESSES = ("https://ossci-datasets.s3.amazonaws.com/mnist/",)
FASHION_MNIST_ADDRESSES = (
    "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
)

_BYTE_LEVELS = 255


@dataclass(frozen=True)
class IdxImages:
    """A data set kept as four idx files (train images, train labels, test images, test labels, in this order).

    `mean` and `std` are those of the train intensities, over all pixels.
    """

    source: Source
    classes: tuple[str, ...]
    mean: float
    std: float
    licence: str
    citation: str
    train_size: int = 60000
    test_size: int = 10000
    side: int = 28

    def read(self, root: str | os.PathLike[str] | None = None, download: bool = False) -> Dataset:
        """Find or download the files and read them; packed files must have the original MD5."""
        paths = obtain(self.source, root, download)
        arrays = []
        for (name, md5), shape in zip(self.source.files.items(), self._shapes(), strict=True):
            path = paths[name]
            arrays.append(read_idx(path, shape, md5 if path.name == name else None))
        train, test = (
            Split(images.unsqueeze(1), labels.long(), _BYTE_LEVELS) for images, labels in (arrays[:2], arrays[2:])
        )
        return Dataset(
            name=self.source.dataset,
            train=train,
            test=test,
            classes=self.classes,
            mean=(self.mean,),
            std=(self.std,),
            source=self.source.addresses[0],
            licence=self.licence,
            citation=self.citation,
        )

    def about(self, title: str, size: str) -> About:
        """What is to be known of it."""
        return About(
            title=title,
            kind="images",
            source=self.source.page or self.source.addresses[0],
            licence=self.licence,
            citation=self.citation,
            split=f"official: {self.train_size} train, {self.test_size} test",
            size=size,
            layout=self.source.layout,
            checksums=self.source.files,
        )

    def _shapes(self) -> list[tuple[int, ...]]:
        sizes = (self.train_size, self.test_size)
        return [shape for size in sizes for shape in ((size, self.side, self.side), (size,))]


_MNIST = IdxImages(
    source=Source(
        dataset="mnist",
        files={
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
        folders=("mnist/MNIST/raw", "MNIST/raw"),
        addresses=MNIST_ADDRESSES,
    ),
    classes=tuple(map(str, range(10))),
    mean=0.130660,
    std=0.308108,
    licence="CC BY-SA 3.0, as commonly stated",
    citation=(
        "Y. LeCun, L. Bottou, Y. Bengio, P. Haffner. Gradient-based learning applied to document recognition. "
        "Proceedings of the IEEE 86(11), 2278-2324, 1998. doi:10.1109/5.726791"
    ),
)

_FASHION_MNIST = IdxImages(
    source=Source(
        dataset="fashion_mnist",
        files={
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
        folders=("fashion_mnist/FashionMNIST/raw", "FashionMNIST/raw"),
        addresses=FASHION_MNIST_ADDRESSES,
        page="https://github.com/zalandoresearch/fashion-mnist",
    ),
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    mean=0.286041,
    std=0.353024,
    licence="MIT",
    citation=(
        "H. Xiao, K. Rasul, R. Vollgraf. Fashion-MNIST: a novel image dataset for benchmarking machine learning "
        "algorithms. arXiv:1708.07747, 2017"
    ),
)


@register(about=_MNIST.about("MNIST: handwritten digits 28 x 28", "11.6 MB"))
def mnist(*, root: str | os.PathLike[str] | None = None, download: bool = False) -> Dataset:
    """Return MNIST: 60000 + 10000 handwritten digits `[1, 28, 28]`, 11.6 MB to download.

    Looks in `<root>/mnist/MNIST/raw` and `<root>/MNIST/raw`.
    """
    return _MNIST.read(root, download)


@register(about=_FASHION_MNIST.about("Fashion-MNIST: pictures of clothes 28 x 28", "30.9 MB"))
def fashion_mnist(*, root: str | os.PathLike[str] | None = None, download: bool = False) -> Dataset:
    """Return Fashion-MNIST: 60000 + 10000 pictures of clothes `[1, 28, 28]`, 6000 + 1000 per class, 30.9 MB.

    Looks in `<root>/fashion_mnist/FashionMNIST/raw` and `<root>/FashionMNIST/raw`.
    """
    return _FASHION_MNIST.read(root, download)
