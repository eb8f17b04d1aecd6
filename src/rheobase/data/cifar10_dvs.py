"""CIFAR10-DVS: 1000 pictures of each CIFAR-10 class, moved before an event camera.

Format: a file `<class>/cifar10_<class>_<number>` per picture, `.aedat` (AEDAT 2, as published) or `.aedat4`.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from rheobase.data.archives import unpack
from rheobase.data.event_files import class_files, file_recordings
from rheobase.data.fetch import Source, check_md5, obtain
from rheobase.data.provenance import event_dataset
from rheobase.data.recordings import EventDataset
from rheobase.data.registry import About, register

_SENSOR = (128, 128)
_FIGSHARE = "https://ndownloader.figshare.com/files/"
_ARCHIVES = {
    "airplane": ("7712788", "0afd5c4bf9ae06af762a77b180354fdd"),
    "automobile": ("7712791", "8438dfeba3bc970c94962d995b1b9bdd"),
    "bird": ("7712794", "a9c207c91c55b9dc2002dc21c684d785"),
    "cat": ("7712812", "52c63c677c2b15fa5146a8daf4d56687"),
    "deer": ("7712815", "b6bf21f6c04d21ba4e23fc3e36c8a4a3"),
    "dog": ("7712818", "f379ebdf6703d16e0a690782e62639c3"),
    "frog": ("7712842", "cad6ed91214b1c7388a5f6ee56d08803"),
    "horse": ("7712851", "e7cbbf77bec584ffbf913f00e682782a"),
    "ship": ("7712836", "41c7bd7d6b251be82557c6cce9a7d5c9"),
    "truck": ("7712839", "89f3922fd147d9aeff89e76a2b0b70a7"),
}
_SOURCE = Source(
    dataset="cifar10_dvs",
    files={f"{label}.zip": md5 for label, (_, md5) in _ARCHIVES.items()},
    folders=("cifar10_dvs", "CIFAR10DVS", "CIFAR10DVS/extract"),
    instead={f"{label}.zip": (label,) for label in _ARCHIVES},
    urls={f"{label}.zip": _FIGSHARE + number for label, (number, _) in _ARCHIVES.items()},
    page="https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671",
)
_ABOUT = About(
    title="CIFAR10-DVS: pictures of CIFAR-10 seen by an event camera, 128 x 128",
    kind="events",
    source=_SOURCE.page,
    licence="CC BY 4.0, as commonly stated",
    citation=(
        "H. Li, H. Liu, X. Ji, G. Li, L. Shi. CIFAR10-DVS: an event-stream dataset for object classification. "
        "Frontiers in Neuroscience 11:309, 2017. doi:10.3389/fnins.2017.00309"
    ),
    split="none official; the common one, of every class the first 900 by name for training: 9000 train, 1000 test",
    size="7.9 GB in ten archives",
    layout=_SOURCE.layout,
    checksums=_SOURCE.files,
)


@dataclass(frozen=True)
class ClassFolders:
    """A data set of the CIFAR10-DVS kind: `per_class` recordings a class, the first `train_per_class` for training."""

    source: Source
    about: About
    per_class: int = 1000
    train_per_class: int = 900

    def read(self, root: str | os.PathLike[str] | None = None, download: bool = False) -> EventDataset:
        """Find, download or unpack the recordings; archives must have the original MD5.

        Raises:
            ValueError: an archive is damaged, or a class does not have its number of recordings.
            FileNotFoundError, ConnectionError: as `obtain`.
        """
        paths = obtain(self.source, root, download)
        classes = tuple(name.removesuffix(".zip") for name in paths)
        folders = {self._folder(name, path) for name, path in paths.items()}
        if len(folders) != 1:
            raise ValueError(
                f"{self.source.dataset}: the classes lie in {', '.join(map(str, sorted(folders)))}; "
                "expected all in one folder: move them together"
            )
        (folder,) = folders
        train: list[tuple[str, int]] = []
        test: list[tuple[str, int]] = []
        for label, group in enumerate(class_files(folder, classes, (".aedat", ".aedat4"))):
            stems = [name.rpartition(".")[0] for name in group]
            if len(set(stems)) != self.per_class or len(group) != self.per_class:
                raise ValueError(
                    f"{folder / classes[label]}: holds {len(group)} recordings under {len(set(stems))} names, expected "
                    f"{self.per_class} of either .aedat or .aedat4; delete the folder and unpack it again"
                )
            train += [(name, label) for name in group[: self.train_per_class]]
            test += [(name, label) for name in group[self.train_per_class :]]
        parts = [
            file_recordings(folder, [name for name, _ in part], [label for _, label in part], _SENSOR, "us")
            for part in (train, test)
        ]
        return event_dataset(self.source.dataset, self.about, classes, parts[0], parts[1], _SENSOR)

    def _folder(self, name: str, path: Path) -> Path:
        if path.is_file():
            check_md5(path, self.source.files[name])
            unpack(path, name.removesuffix(".zip"))
        return path.parent


@register(about=_ABOUT)
def cifar10_dvs(*, root: str | os.PathLike[str] | None = None, download: bool = False) -> EventDataset:
    """Return CIFAR10-DVS: 10000 recordings of about 1.3 s on 128 x 128 pixels in 10 classes, 7.9 GB to download.

    There is no official split. This is the common one: of every class the first 900, by name as text
    (`..._0`, `..._1`, `..._10`, `..._100`), are for training, the other 100 for testing.

    Looks in `<root>/cifar10_dvs`, `<root>/CIFAR10DVS` and `<root>/CIFAR10DVS/extract` for a folder per class with 1000
    `.aedat` or `.aedat4` files, or for the archive of a class, which is unpacked beside itself.
    """
    return ClassFolders(_SOURCE, _ABOUT).read(root, download)
