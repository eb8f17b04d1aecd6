"""The Heidelberg spiking data sets: spoken digits (SHD) and commands (SSC) as spikes of a modelled inner ear.

Format: HDF5, `spikes/times` (seconds) and `spikes/units` (0 to 699) by recording, `labels`, `extra/keys` (class names).
Spikes that a file has out of order are put in the order of their times.
"""

import os
from dataclasses import dataclass
from typing import Literal

from rheobase.data.archives import unpack
from rheobase.data.fetch import Source, check_md5, obtain
from rheobase.data.provenance import event_dataset
from rheobase.data.recordings import EventDataset
from rheobase.data.registry import About, register

_SENSOR = (700, 1)
_WINDOW_US = 1_400_000
"""What frames span from time 0 on; the longest recording of SHD takes 1.37 s."""
_PAGE = "https://zenkelab.org/resources/spiking-heidelberg-datasets-shd/"
_ADDRESSES = ("https://zenkelab.org/datasets/", "https://compneuro.net/datasets/")
_LICENCE = "CC BY 4.0"
_CITATION = (
    "B. Cramer, Y. Stradmann, J. Schemmel, F. Zenke. The Heidelberg spiking data sets for the systematic evaluation of "
    "spiking neural networks. IEEE TNNLS 33(7), 2744-2757, 2022. doi:10.1109/TNNLS.2020.3044364"
)


@dataclass(frozen=True)
class SpikeFiles:
    """A data set of HDF5 files, with the number of recordings that each file must have."""

    source: Source
    about: About
    sizes: tuple[int, ...]

    def read(
        self, train: int, test: int, root: str | os.PathLike[str] | None = None, download: bool = False
    ) -> EventDataset:
        """Find, download or unpack the files, and take file `train` for training and file `test` for testing.

        Raises:
            ValueError: an archive or a file is damaged, or does not have its number of recordings.
            FileNotFoundError, ConnectionError: as `obtain`.
            ImportError: h5py is missing.
        """
        from rheobase.data.formats.hdf5 import read_spike_labels, spike_recordings

        paths = list(obtain(self.source, root, download).items())
        parts = []
        classes: tuple[str, ...] = ()
        for chosen in (train, test):
            name, path = paths[chosen]
            if path.suffix == ".zip":
                check_md5(path, self.source.files[name])
                path = unpack(path, name.removesuffix(".zip"))
            recordings = spike_recordings(path, sort=True)
            if len(recordings) != self.sizes[chosen]:
                raise ValueError(
                    f"{path}: holds {len(recordings)} recordings, expected {self.sizes[chosen]}; download it again"
                )
            classes = classes or read_spike_labels(path).keys
            parts.append(recordings)
        classes = classes or tuple(map(str, range(int(parts[0].y.max()) + 1)))
        return event_dataset(self.source.dataset, self.about, classes, parts[0], parts[1], _SENSOR, _WINDOW_US)


def _source(dataset: str, sums: dict[str, str]) -> Source:
    return Source(
        dataset=dataset,
        files=sums,
        folders=(dataset, dataset.upper(), f"heidelberg/{dataset}"),
        addresses=_ADDRESSES,
        instead={name: (name.removesuffix(".zip"),) for name in sums},
        page=_PAGE,
    )


def _about(source: Source, title: str, split: str, size: str) -> About:
    return About(
        title=title,
        kind="sound",
        source=_PAGE,
        licence=_LICENCE,
        citation=_CITATION,
        split=split,
        size=size,
        layout=source.layout,
        checksums=source.files,
    )


_SHD_SOURCE = _source(
    "shd",
    {"shd_train.h5.zip": "f3252aeb598ac776c1b526422d90eecb", "shd_test.h5.zip": "1503a5064faa34311c398fb0a1ed0a6f"},
)
_SHD = SpikeFiles(
    _SHD_SOURCE,
    _about(
        _SHD_SOURCE,
        "Spiking Heidelberg Digits: spoken digits, English and German, as spikes of 700 channels",
        "official: 8156 train, 2264 test; two speakers are in test only",
        "163 MB",
    ),
    (8156, 2264),
)
_SSC_SOURCE = _source(
    "ssc",
    {
        "ssc_train.h5.zip": "d102be95e7144fcc0553d1f45ba94170",
        "ssc_valid.h5.zip": "b4eee3516a4a90dd0c71a6ac23a8ae43",
        "ssc_test.h5.zip": "a35ff1e9cffdd02a20eb850c17c37748",
    },
)
_SSC = SpikeFiles(
    _SSC_SOURCE,
    _about(
        _SSC_SOURCE,
        "Spiking Speech Commands: 35 spoken commands as spikes of 700 channels",
        "official: 75466 train, 9981 validation, 20382 test",
        "1.9 GB",
    ),
    (75466, 9981, 20382),
)


@register(about=_SHD.about)
def shd(*, root: str | os.PathLike[str] | None = None, download: bool = False) -> EventDataset:
    """Return the Spiking Heidelberg Digits: 8156 + 2264 recordings of 700 channels, 20 classes, 163 MB to download.

    Looks in `<root>/shd`, `<root>/SHD` and `<root>/heidelberg/shd` for `shd_train.h5` and `shd_test.h5`, or their
    archives, which are unpacked beside themselves. Needs h5py.
    """
    return _SHD.read(0, 1, root, download)


@register(about=_SSC.about)
def ssc(
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    evaluate_on: Literal["test", "valid"] = "test",
) -> EventDataset:
    """Return the Spiking Speech Commands: 75466 + 20382 recordings of 700 channels, 35 classes, 1.9 GB to download.

    `evaluate_on="valid"` puts the 9981 recordings of the official validation file in the place of the test split.
    Looks in `<root>/ssc`, `<root>/SSC` and `<root>/heidelberg/ssc` for the three `.h5` files or their archives, which
    are unpacked beside themselves. Needs h5py.

    Raises:
        ValueError: evaluate_on is neither, or a file is damaged.
    """
    places = {"valid": 1, "test": 2}
    if evaluate_on not in places:
        raise ValueError(f"ssc: evaluate_on is {evaluate_on!r}; expected 'test' or 'valid'")
    return _SSC.read(0, places[evaluate_on], root, download)
