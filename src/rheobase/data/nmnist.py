"""N-MNIST: every MNIST digit, moved three times before an event camera.

Format: a file `<label>/<number>.bin` per digit, events of 5 bytes: x, y, then 1 bit polarity and 23 bits microseconds.
"""

import os
from dataclasses import dataclass

from rheobase.data.archives import unpack
from rheobase.data.event_files import class_files, file_recordings
from rheobase.data.fetch import Source, check_md5, obtain
from rheobase.data.provenance import event_dataset
from rheobase.data.recordings import EventDataset, Recordings
from rheobase.data.registry import About, register

_FILES = "https://data.mendeley.com/public-files/datasets/468j46mzdv/files/"
_SOURCE = Source(
    dataset="nmnist",
    files={"Train.zip": "20959b8e626244a1b502305a9e6e2031", "Test.zip": "69ca8762b2fe404d9b9bad1103e97832"},
    folders=("nmnist", "NMNIST", "N-MNIST"),
    instead={"Train.zip": ("Train", "train.zip"), "Test.zip": ("Test", "test.zip")},
    urls={
        "Train.zip": f"{_FILES}39c25547-014b-4137-a934-9d29fa53c7a0/file_downloaded",
        "Test.zip": f"{_FILES}05a4d654-7e03-4c15-bdfa-9bb2bcbea494/file_downloaded",
    },
    page="https://www.garrickorchard.com/datasets/n-mnist",
)
_ABOUT = About(
    title="N-MNIST: MNIST seen by a moving event camera, 34 x 34",
    kind="events",
    source=_SOURCE.page,
    licence="CC BY-SA 4.0, as commonly stated",
    citation=(
        "G. Orchard, A. Jayawant, G. K. Cohen, N. Thakor. Converting static image datasets to spiking neuromorphic "
        "datasets using saccades. Frontiers in Neuroscience 9:437, 2015. doi:10.3389/fnins.2015.00437"
    ),
    split="official, that of MNIST: 60000 train, 10000 test",
    size="1.2 GB",
    layout=_SOURCE.layout,
    checksums=_SOURCE.files,
)


@dataclass(frozen=True)
class DigitFolders:
    """A data set of the N-MNIST kind, with the number of recordings that each of its two parts must have."""

    source: Source
    about: About
    train_size: int = 60000
    test_size: int = 10000

    def read(self, root: str | os.PathLike[str] | None = None, download: bool = False) -> EventDataset:
        """Find, download or unpack the recordings; archives must have the original MD5.

        Raises:
            ValueError: an archive is damaged, or a part does not have its number of recordings.
            FileNotFoundError, ConnectionError: as `obtain`.
        """
        classes = tuple(map(str, range(10)))
        parts: list[Recordings] = []
        for (name, path), size in zip(
            obtain(self.source, root, download).items(), (self.train_size, self.test_size), strict=True
        ):
            if path.is_file():
                check_md5(path, self.source.files[name])
                path = unpack(path, name.removesuffix(".zip"))
            files = class_files(path, classes, (".bin",))
            names = [name for group in files for name in group]
            if len(names) != size:
                raise ValueError(
                    f"{path}: holds {len(names)} recordings, expected {size}; delete the folder and unpack it again"
                )
            labels = [label for label, group in enumerate(files) for _ in group]
            parts.append(file_recordings(path, names, labels, (34, 34), "us"))
        return event_dataset(self.source.dataset, self.about, classes, parts[0], parts[1], (34, 34))


@register(about=_ABOUT)
def nmnist(*, root: str | os.PathLike[str] | None = None, download: bool = False) -> EventDataset:
    """Return N-MNIST: 60000 + 10000 recordings of 0.3 s on 34 x 34 pixels, 1.2 GB to download.

    Looks in `<root>/nmnist`, `<root>/NMNIST` and `<root>/N-MNIST` for the folders `Train/<0-9>/*.bin` and
    `Test/<0-9>/*.bin`, or their archives, which are unpacked beside themselves. Sorted by digit.
    """
    return DigitFolders(_SOURCE, _ABOUT).read(root, download)
