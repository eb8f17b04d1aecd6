"""The Free Spoken Digit Dataset through a spiking cochlea: ten digits, six speakers, 2700 + 300 recordings."""

import os
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rheobase.data.cochlea import Cochlea
from rheobase.data.event_files import files_key, kept_columns
from rheobase.data.events import Events
from rheobase.data.fetch import Source, check_md5, obtain
from rheobase.data.provenance import event_dataset
from rheobase.data.recordings import EventDataset, Recordings
from rheobase.data.registry import About, register

RATE_HZ = 8000
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
_DIGITS, _TAKES, _TEST_TAKES = 10, 50, 5
_WINDOW_US = 1_024_000
_MU = 255
_NAMES = ("mulaw", "offsets", "label", "speaker", "index")
_SOURCE = Source(
    dataset="spoken_digits",
    files={"fsdd_mulaw.npz": "13e3f467738bc64c03d36cb3b003d141"},
    folders=("spoken_digits",),
    instead={"fsdd_mulaw.npz": ("recordings",)},
    page="https://github.com/Jakobovski/free-spoken-digit-dataset",
)
_ABOUT = About(
    title="Free Spoken Digit Dataset: 10 digits, 6 speakers, 8 kHz, as spikes of a cochlea of 64 channels",
    kind="sound",
    source=_SOURCE.page,
    licence="CC BY-SA 4.0",
    citation="Z. Jackson, C. Souza, J. Flaks, Y. Pan, H. Nicolas, A. Thite. Free Spoken Digit Dataset. "
    "doi:10.5281/zenodo.1342401",
    split="the official one, by number of the take: 0 to 4 test (300), 5 to 49 train (2700); every speaker is in both",
    size="16 MB as the source's folder recordings, 8.5 MB in 8-bit mu-law",
    layout=_SOURCE.layout,
    checksums=_SOURCE.files,
)


@register(about=_ABOUT)
def spoken_digits(
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    cochlea: Cochlea | None = None,
    without: str | None = None,
) -> EventDataset:
    """Return 2700 + 300 recordings on a sensor of one row; frames span the first 1.024 s (99 % are shorter).

    Looks in `<root>/spoken_digits` for the source's folder `recordings` (`<digit>_<speaker>_<take>.wav`, 16 bits), or
    for `fsdd_mulaw.npz`: `mulaw` int8, `offsets`, `label`, `speaker`, `index`.

    Args:
        root: see `load`.
        download: see `load`; the source is a repository, which has to be cloned.
        cochlea: what hears; `Cochlea()` by default.
        without: a speaker who is left out of training and alone is tested, in place of the official split: harder.

    Raises:
        ValueError: no such speaker, or a damaged file.
        FileNotFoundError: neither is there.
    """
    if without is not None and without not in SPEAKERS:
        raise ValueError(f"spoken_digits: there is no speaker {without!r}; expected one of {', '.join(SPEAKERS)}")
    cochlea = cochlea or Cochlea()
    (path,) = obtain(_SOURCE, root, download).values()
    names = [(digit, speaker, take) for digit in range(_DIGITS) for speaker in SPEAKERS for take in range(_TAKES)]
    if path.is_dir():
        files = ["_".join(map(str, name)) + ".wav" for name in names]
        if missing := [name for name in files if not (path / name).is_file()]:
            raise FileNotFoundError(
                f"spoken_digits: {path} lacks {len(missing)} of {len(files)} files, {missing[0]} first; clone "
                f"{_SOURCE.page} and put its folder recordings there"
            )
        waves: _Waves | _MuLaw = _Waves(path, tuple(files))
        key = files_key(path, files)
    else:
        check_md5(path, _SOURCE.files["fsdd_mulaw.npz"])
        columns = kept_columns(path, _NAMES)
        names = list(zip(columns["label"], np.array(SPEAKERS)[columns["speaker"]], columns["index"], strict=True))
        waves, key = _MuLaw(path), _SOURCE.files["fsdd_mulaw.npz"]
    tested = np.array([speaker == without if without else take < _TEST_TAKES for _, speaker, take in names])
    labels = torch.tensor([int(digit) for digit, _, _ in names])
    train, test = (
        Recordings(
            _Heard(waves, cochlea, tuple(rows.tolist())),
            labels[torch.from_numpy(rows)],
            f"{key} {cochlea!r} without={without} {part}",
        )
        for part, rows in (("train", np.flatnonzero(~tested)), ("test", np.flatnonzero(tested)))
    )
    classes = tuple(map(str, range(_DIGITS)))
    return event_dataset("spoken_digits", _ABOUT, classes, train, test, (cochlea.channels, 1), _WINDOW_US)


@dataclass(frozen=True)
class _Heard:
    """Reads recording `rows[k]` and hears it."""

    waves: "_Waves | _MuLaw"
    cochlea: Cochlea
    rows: tuple[int, ...]

    def __call__(self, k: int) -> Events:
        return self.cochlea.hear(self.waves(self.rows[k]), RATE_HZ)


@dataclass(frozen=True)
class _MuLaw:
    """Reads sound k of the npz, in [-1, 1]."""

    path: Path

    def __call__(self, k: int) -> np.ndarray:
        columns = kept_columns(self.path, _NAMES)
        code = columns["mulaw"][slice(*columns["offsets"][k : k + 2])].astype(np.float64)
        return np.sign(code) * np.expm1(np.abs(code) / 127 * np.log(1 + _MU)) / _MU


@dataclass(frozen=True)
class _Waves:
    """Reads sound k of the source's folder, in [-1, 1]."""

    folder: Path
    names: tuple[str, ...]

    def __call__(self, k: int) -> np.ndarray:
        path = self.folder / self.names[k]
        try:
            with wave.open(str(path)) as file:
                form = (file.getnchannels(), file.getsampwidth(), file.getframerate())
                samples = file.readframes(file.getnframes())
                promised = file.getnframes() * file.getsampwidth()
        except (wave.Error, EOFError) as error:
            raise ValueError(f"{path}: not a sound file ({error}); copy it again from the source") from error
        if form != (1, 2, RATE_HZ) or len(samples) != promised:
            raise ValueError(
                f"{path}: (channels, bytes, rate) is {form}, and {len(samples)} of {promised} bytes are there; "
                f"expected {(1, 2, RATE_HZ)} and all of them: copy it again from the source"
            )
        return np.frombuffer(samples, "<i2").astype(np.float64) / 2**15
