"""N-Caltech101: the pictures of Caltech-101, moved three times before an event camera.

Format: a file `<class>/image_<number>.bin` per picture, events as in N-MNIST.
"""

import os

import numpy as np

from rheobase.data.archives import unpack
from rheobase.data.event_files import class_files, file_recordings
from rheobase.data.fetch import Source, check_md5, obtain
from rheobase.data.provenance import event_dataset
from rheobase.data.recordings import EventDataset
from rheobase.data.registry import About, register

_SENSOR = (240, 180)
_SOURCE = Source(
    dataset="ncaltech101",
    files={"Caltech101.zip": "66201824eabb0239c7ab992480b50ba3"},
    folders=("ncaltech101", "NCALTECH101", "N-Caltech101"),
    instead={"Caltech101.zip": ("Caltech101", "N-Caltech101-archive.zip")},
    urls={
        "Caltech101.zip": (
            "https://data.mendeley.com/public-files/datasets/cy6cvx3ryv/files/"
            "36b5c52a-b49d-4853-addb-a836a8883e49/file_downloaded"
        )
    },
    page="https://www.garrickorchard.com/datasets/n-caltech101",
)
_ABOUT = About(
    title="N-Caltech101: Caltech-101 seen by a moving event camera, 240 x 180; 100 objects, one background",
    kind="events",
    source=_SOURCE.page,
    licence="CC BY 4.0, as commonly stated",
    citation=(
        "G. Orchard, A. Jayawant, G. K. Cohen, N. Thakor. Converting static image datasets to spiking neuromorphic "
        "datasets using saccades. Frontiers in Neuroscience 9:437, 2015. doi:10.3389/fnins.2015.00437"
    ),
    split="none official; of every class a tenth, drawn with a fixed seed, for testing: 8709 recordings in all",
    size="3.1 GB",
    layout=_SOURCE.layout,
    checksums=_SOURCE.files,
)


def draw_tenth(groups: list[list[str]], seed: int) -> tuple[list[int], list[int]]:
    """Tell train from test, class by class: positions in the concatenated groups.

    Of a class of n, `max(1, round(n / 10))` are drawn for testing without replacement. The draw of a class depends on
    the seed, the class's place and n alone, and NumPy promises never to change it.

    Raises:
        ValueError: a class has fewer than two, or the seed lies outside [0, 2**32).
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"draw_tenth: seed must lie in [0, 2**32), got {seed}")
    train: list[int] = []
    test: list[int] = []
    start = 0
    for place, group in enumerate(groups):
        if len(group) < 2:
            raise ValueError(f"draw_tenth: class {place} has {len(group)} recording(s), expected at least 2")
        order = np.random.RandomState([seed, place]).permutation(len(group))
        held = max(1, round(len(group) / 10))
        test += sorted(start + int(k) for k in order[:held])
        train += sorted(start + int(k) for k in order[held:])
        start += len(group)
    return train, test


@register(about=_ABOUT)
def ncaltech101(*, root: str | os.PathLike[str] | None = None, download: bool = False, seed: int = 0) -> EventDataset:
    """Return N-Caltech101: 8709 recordings of 0.3 s on up to 240 x 180 pixels in 101 classes, 3.1 GB to download.

    There is no official split. This one draws a tenth of every class, at least one, for testing: see `draw_tenth`.
    Another `seed` draws another; name it with a result.

    Looks in `<root>/ncaltech101`, `<root>/NCALTECH101` and `<root>/N-Caltech101` for the folder `Caltech101`, or its
    archive, which is unpacked beside itself.
    """
    (path,) = obtain(_SOURCE, root, download).values()
    if path.is_file():
        check_md5(path, _SOURCE.files["Caltech101.zip"])
        path = unpack(path, "Caltech101")
    classes = tuple(sorted(folder.name for folder in path.iterdir() if folder.is_dir()))
    if not classes:
        raise ValueError(f"{path}: holds no folders, expected one per class; delete it and unpack it again")
    groups = class_files(path, classes, (".bin",))
    names = [name for group in groups for name in group]
    labels = [label for label, group in enumerate(groups) for _ in group]
    train, test = (
        file_recordings(path, [names[k] for k in part], [labels[k] for k in part], _SENSOR, "us")
        for part in draw_tenth(groups, seed)
    )
    return event_dataset("ncaltech101", _ABOUT, classes, train, test, _SENSOR)
