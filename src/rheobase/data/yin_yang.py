"""Yin-Yang: points in a plane, in the yin, the yang or a dot of the symbol; the draw published with the paper."""

import os
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from rheobase.data.dataset import Dataset, Split
from rheobase.data.event_files import read_columns
from rheobase.data.fetch import Source, check_md5, obtain
from rheobase.data.provenance import image_dataset
from rheobase.data.registry import About, register

_SIZES = {"train": 5000, "validation": 1000, "test": 1000}
_FILES = {
    "train_samples.npy": "3fae7547e219eb404ccff4a25b22b222",
    "train_labels.npy": "7c2308419fa155778745d0bb5e25c6d8",
    "validation_samples.npy": "cea596192f395311c3f998e1e850023f",
    "validation_labels.npy": "06b2b61e504f5ce15a41bee3ec9372fc",
    "test_samples.npy": "b19247a98a2c785f761fa96bb76cbc8e",
    "test_labels.npy": "eac8c29460f0e17fffa75cb645c05d93",
}
_SOURCE = Source(
    dataset="yin_yang",
    files=_FILES,
    folders=("yin_yang", "yin_yang/publication_data"),
    addresses=("https://raw.githubusercontent.com/lkriener/yin_yang_data_set/master/publication_data/",),
    instead=dict.fromkeys(_FILES, ("yin_yang.npz",)),
    page="https://github.com/lkriener/yin_yang_data_set",
)
_ABOUT = About(
    title="Yin-Yang: 4 numbers, 3 classes that no straight line parts",
    kind="generated",
    source=_SOURCE.page,
    licence="MIT",
    citation="L. Kriener, J. Göltz, M. A. Petrovici. The Yin-Yang dataset. NICE 2022, 107-111. arXiv:2102.08211",
    split="the published draw: 5000 train, 1000 validation, 1000 test",
    size="284 kB",
    layout=_SOURCE.layout,
    checksums=_FILES,
)


@register(about=_ABOUT)
def yin_yang(
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    evaluate_on: Literal["test", "validation"] = "test",
) -> Dataset:
    """Return Yin-Yang: 5000 + 1000 points `[4]` = (x, y, 1 - x, 1 - y), all in (0, 1), classes yin, yang and dot.

    `evaluate_on="validation"` puts the published validation draw in the place of the test split. Looks in
    `<root>/yin_yang` for `yin_yang.npz` (`train_x` [5000, 4], `train_y` and so on) or the six published `.npy` files.

    Raises:
        ValueError: evaluate_on is neither, or a file is damaged.
    """
    if evaluate_on not in ("test", "validation"):
        raise ValueError(f"yin_yang: evaluate_on is {evaluate_on!r}; expected 'test' or 'validation'")
    paths = obtain(_SOURCE, root, download)
    train, test = (_read(paths, part) for part in ("train", evaluate_on))
    return image_dataset("yin_yang", _ABOUT, ("yin", "yang", "dot"), train, test)


def _read(paths: dict[str, Path], part: str) -> Split:
    path = paths[f"{part}_samples.npy"]
    if path.suffix == ".npz":
        x, y = read_columns(path, (f"{part}_x", f"{part}_y")).values()
    else:
        arrays = []
        for name in (f"{part}_samples.npy", f"{part}_labels.npy"):
            check_md5(paths[name], _FILES[name])
            arrays.append(np.load(paths[name]))
        x, y = arrays
    size = _SIZES[part]
    if x.shape != (size, 4) or y.shape != (size,) or not ((x >= 0) & (x <= 1)).all():
        raise ValueError(
            f"{path}: holds points {list(x.shape)} and labels {list(y.shape)}; expected [{size}, 4] in [0, 1] and "
            f"[{size}]: download it again"
        )
    return Split(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.int64)))
