"""Pure tones in noise as a spiking cochlea in hardware heard them: 8 tones in 13 conditions."""

import os
from pathlib import Path

import numpy as np
import torch

from rheobase.data.dataset import Dataset, Split
from rheobase.data.event_files import read_columns
from rheobase.data.fetch import Source, check_md5, obtain
from rheobase.data.folds import check_fold
from rheobase.data.provenance import sequence_dataset
from rheobase.data.registry import About, register

TONES_HZ = (130, 174, 261, 349, 523, 698, 1046, 1396)
CONDITIONS = (
    "No noise", "SNR--0_6357", "SNR--3_7187", "SNR--6_3897", "SNR--8_7457", "SNR-0", "SNR-1", "SNR-13_2273", "SNR-2",
    "SNR-21_3363", "SNR-35_1993", "SNR-3_0103", "SNR-7_4733",
)  # fmt: skip
"""Folders of the source: a signal-to-noise ratio in its notation, or none."""

_ADDRESSES, _MILLISECONDS = 128, 500
_SOURCE = Source(
    dataset="nas_tones",
    files={"nas_tones_1ms.npz": "13bdfe3ec620e1c6af3ce54851d3664f"},
    folders=("nas_tones",),
    instead={"nas_tones_1ms.npz": ("sample_tones",)},
    page="https://github.com/jpdominguez/Multilayer-SNN-for-audio-samples-classification-using-SpiNNaker",
)
_ABOUT = About(
    title="8 pure tones x 13 levels of noise, 0.5 s, as spikes of a 64-channel hardware cochlea with two signs",
    kind="sound",
    source=_SOURCE.page,
    licence="none stated for the data; its repository is under the GPL 3",
    citation=(
        "J. P. Dominguez-Morales, A. Jimenez-Fernandez, A. Rios-Navarro, E. Cerezuela-Escudero, D. Gutierrez-Galan, "
        "M. J. Dominguez-Morales, G. Jimenez-Moreno. Multilayer spiking neural network for audio samples "
        "classification using SpiNNaker. ICANN 2016, 45-53. doi:10.1007/978-3-319-44778-0_6"
    ),
    split="none official: 13 folds, each tests the 8 recordings of one condition and trains on the 96 others",
    size="370 MB as raw recordings (folder sample_tones of the repository), 3.5 MB as counts",
    layout=_SOURCE.layout,
    checksums=_SOURCE.files,
)


@register(about=_ABOUT, folds=len(CONDITIONS))
def nas_tones(
    *, root: str | os.PathLike[str] | None = None, download: bool = False, T: int = 50, fold: int = 0
) -> Dataset:
    """Return sequences `[T, 128]` of spikes per millisecond: 64 channels of two signs, 0.5 s in T equal steps.

    Fold k tests condition `CONDITIONS[k]`. Looks in `<root>/nas_tones` for the source's folder `sample_tones`
    (headerless `.aedat` files of address and microseconds, big-endian, 4 bytes each, not in order), or for
    `nas_tones_1ms.npz`: `counts` [104, 500, 128] per millisecond, `label`, `tone_hz` and `condition`.

    Raises:
        ValueError: T does not part 500 milliseconds evenly, no such fold, or a damaged file.
        FileNotFoundError: neither is there.
    """
    if T < 1 or _MILLISECONDS % T:
        raise ValueError(
            f"nas_tones: T is {T}; expected a divisor of {_MILLISECONDS} (milliseconds), such as 50 or 100"
        )
    check_fold("nas_tones", fold, len(CONDITIONS))
    (path,) = obtain(_SOURCE, root, download).values()
    counts, labels, conditions = _recordings(path) if path.is_dir() else _counts(path)
    width = _MILLISECONDS // T
    x = torch.from_numpy(counts.reshape(len(counts), T, width, _ADDRESSES).sum(2, dtype=np.float32))
    y = torch.from_numpy(labels.astype(np.int64))
    tested = conditions == CONDITIONS[fold]
    train, test = (
        Split(x, y[rows], width, rows)
        for rows in (torch.from_numpy(np.flatnonzero(part)) for part in (~tested, tested))
    )
    return sequence_dataset("nas_tones", _ABOUT, tuple(f"{tone} Hz" for tone in TONES_HZ), train, test, T)


def _counts(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    check_md5(path, _SOURCE.files[path.name])
    columns = read_columns(path, ("counts", "label", "condition"))
    return columns["counts"], columns["label"], columns["condition"]


def _recordings(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts per millisecond, labels and conditions of the source's own files, in the order of `CONDITIONS`."""
    counts = np.zeros((len(CONDITIONS) * len(TONES_HZ), _MILLISECONDS, _ADDRESSES), np.uint16)
    for k, out in enumerate(counts):
        condition, tone = CONDITIONS[k // len(TONES_HZ)], TONES_HZ[k % len(TONES_HZ)]
        inside = folder / condition if condition == "No noise" else folder / "tonesSNR" / condition
        path = inside / f"{tone}.aedat"
        if not path.is_file():
            raise FileNotFoundError(
                f"nas_tones: {path} is missing; copy the whole folder sample_tones of {_SOURCE.page}"
            )
        data = path.read_bytes()
        if not data or len(data) % 8:
            raise ValueError(
                f"{path}: ends at byte {len(data)}, inside an event of 8 bytes; copy it again from the source"
            )
        address, t = np.frombuffer(data, ">u4").reshape(-1, 2).T.astype(np.int64)
        if (wrong := (address >= _ADDRESSES) | (t >= _MILLISECONDS * 1000)).any():
            event = int(wrong.argmax())
            raise ValueError(
                f"{path}: address {address[event]} and time {t[event]} at byte offset {8 * event}; expected an address "
                f"below {_ADDRESSES} and a time below {_MILLISECONDS * 1000} us: copy it again from the source"
            )
        out += np.bincount(t // 1000 * _ADDRESSES + address, minlength=out.size).reshape(out.shape).astype(np.uint16)
    labels = np.tile(np.arange(len(TONES_HZ)), len(CONDITIONS))
    return counts, labels, np.repeat(CONDITIONS, len(TONES_HZ))
