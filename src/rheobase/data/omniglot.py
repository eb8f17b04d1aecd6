"""Omniglot: 1623 characters of 50 alphabets, each drawn by 20 people; few drawings of many classes, in episodes.

As published: two zips (or folders) of `<alphabet>/<character>/<number>_<drawer>.png`, 105 x 105, black ink on white. As
npz: `bits` uint8 `[N, 105, 14]`, rows packed by numpy.packbits, 1 = ink, `label` `[N]`, `class_alphabet`,
`class_character` `[C]`, `alphabets`.

Source: https://github.com/brendenlake/omniglot
"""

import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from rheobase.data.archives import read_entries
from rheobase.data.event_files import read_columns
from rheobase.data.fetch import Source, check_md5, obtain
from rheobase.data.registry import About, register

_SIDE = 105
_PACKED = 14  # bytes of a row of 105 bits


@dataclass(frozen=True, eq=False, repr=False)
class Drawings:
    """Drawings of characters, kept packed: a byte holds 8 pixels of a row.

    Attributes:
        bits: uint8 `[N, 105, 14]`, as numpy.packbits packs rows of 105; 1 is ink.
        y: labels, int64 `[N]`.
        classes: `<alphabet>/<character>` by label.

    Raises:
        ValueError: a shape or dtype differs, or the labels are not 0 to the number of classes less one.
    """

    bits: UInt8[Tensor, "N 105 14"]
    y: Int64[Tensor, " N"]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.bits.dtype != torch.uint8 or self.bits.shape[1:] != (_SIDE, _PACKED):
            raise ValueError(
                f"Drawings: bits are {self.bits.dtype} {list(self.bits.shape)}, expected uint8 [N, {_SIDE}, {_PACKED}]"
            )
        if self.y.dtype != torch.int64 or self.y.shape != (len(self.bits),):
            raise ValueError(f"Drawings: y is {self.y.dtype} {list(self.y.shape)}, expected int64 [{len(self.bits)}]")
        if not torch.equal(self.y.unique(), torch.arange(len(self.classes))):
            raise ValueError(
                f"Drawings: labels are {self.y.unique().tolist()[:5]} and so on, expected each of 0 to "
                f"{len(self.classes) - 1}, one per class"
            )

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        return f"Drawings({len(self)} of {len(self.classes)} characters)"

    @property
    def alphabets(self) -> tuple[str, ...]:
        """The alphabets, sorted."""
        return tuple(sorted({name.partition("/")[0] for name in self.classes}))

    def images(self, index: Int64[Tensor, " B"], side: int = _SIDE) -> Float32[Tensor, "B 1 side side"]:
        """The drawings at `index`, ink 1 on paper 0; with another `side`, each pixel the mean of the area it covers."""
        if not 1 <= side <= _SIDE:
            raise ValueError(f"images: side must be 1 to {_SIDE}, got {side}")
        pixels = np.unpackbits(self.bits[index].numpy(), axis=2, count=_SIDE)
        images = torch.from_numpy(pixels).to(torch.float32).unsqueeze(1)
        return images if side == _SIDE else torch.nn.functional.adaptive_avg_pool2d(images, side)

    def of_alphabets(self, names: tuple[str, ...]) -> "Drawings":
        """The drawings of some alphabets, labels counted anew: for class-disjoint parts.

        Raises:
            ValueError: there is no such alphabet.
        """
        if unknown := sorted(set(names) - set(self.alphabets)):
            raise ValueError(f"of_alphabets: there is no {', '.join(unknown)}; there are {', '.join(self.alphabets)}")
        kept = [label for label, name in enumerate(self.classes) if name.partition("/")[0] in names]
        place = torch.full((len(self.classes),), -1).index_copy(0, torch.tensor(kept), torch.arange(len(kept)))
        rows = (place[self.y] >= 0).nonzero().squeeze(1)
        return replace(
            self, bits=self.bits[rows], y=place[self.y[rows]], classes=tuple(self.classes[label] for label in kept)
        )


@dataclass(frozen=True, eq=False)
class Omniglot:
    """Omniglot: `background` to learn from, `evaluation` with other alphabets to judge by."""

    name: str
    background: Drawings
    evaluation: Drawings
    source: str
    licence: str
    citation: str


@dataclass(frozen=True, eq=False)
class Episode:
    """A task: tell `ways` characters apart after seeing a few drawings of each.

    Attributes:
        support: drawings with known labels, float32 `[ways * shots, 1, side, side]`, by label.
        support_y: their labels 0 to ways - 1, int64.
        query: drawings to name, float32 `[ways * queries, 1, side, side]`, by label.
        query_y: their labels.
        classes: which character of the drawings each label is, int64 `[ways]`.
    """

    support: Float32[Tensor, "S 1 side side"]
    support_y: Int64[Tensor, " S"]
    query: Float32[Tensor, "Q 1 side side"]
    query_y: Int64[Tensor, " Q"]
    classes: Int64[Tensor, " ways"]


@dataclass(frozen=True, eq=False)
class Episodes:
    """N-way K-shot episodes: `episodes[k]` is a function of (seed, k) alone.

    Attributes:
        drawings: where they are drawn from.
        ways: characters an episode (N).
        shots: drawings of each in the support (K).
        queries: drawings of each to be named, others than those of the support.
        count: episodes there are.
        seed: of the draw.
        side: pixels across; 28 is usual.

    Raises:
        ValueError: a number is below 1, the seed outside [0, 2**32), or there are fewer characters than ways or fewer
            drawings of one than shots + queries.
    """

    drawings: Drawings
    ways: int = 5
    shots: int = 1
    queries: int = 5
    count: int = 1000
    seed: int = 0
    side: int = 28

    def __post_init__(self) -> None:
        for name in ("ways", "shots", "queries", "count"):
            if getattr(self, name) < 1:
                raise ValueError(f"Episodes: {name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"Episodes: seed must lie in [0, 2**32), got {self.seed}")
        fewest = int(self.drawings.y.bincount().min())
        if self.ways > len(self.drawings.classes) or self.shots + self.queries > fewest:
            raise ValueError(
                f"Episodes: {self.ways} ways of {self.shots} + {self.queries} drawings cannot be drawn from "
                f"{len(self.drawings.classes)} characters with {fewest} drawings each; lower them"
            )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, k: int) -> Episode:
        if not -self.count <= k < self.count:
            raise IndexError(f"Episodes: there is no episode {k}; there are {self.count}")
        random = np.random.RandomState([self.seed, k % self.count])
        classes = random.permutation(len(self.drawings.classes))[: self.ways]
        labels = self.drawings.y.numpy()
        drawn = [random.permutation(np.flatnonzero(labels == label))[: self.shots + self.queries] for label in classes]
        support, query = np.split(np.stack(drawn), [self.shots], axis=1)
        ways = torch.arange(self.ways)
        return Episode(
            support=self.drawings.images(torch.from_numpy(support.reshape(-1)), self.side),
            support_y=ways.repeat_interleave(self.shots),
            query=self.drawings.images(torch.from_numpy(query.reshape(-1)), self.side),
            query_y=ways.repeat_interleave(self.queries),
            classes=torch.from_numpy(classes),
        )

    def __iter__(self) -> Iterator[Episode]:
        return (self[k] for k in range(self.count))


_FILES = {
    "images_background.zip": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation.zip": "6b91aef0f799c5bb55b94e3f2daec811",
}
_SIZES = {"images_background": 964, "images_evaluation": 659, "background": 964, "evaluation_a": 307}
_SOURCE = Source(
    dataset="omniglot",
    files=_FILES,
    folders=("omniglot", "omniglot-py", "omniglot/omniglot-py"),
    addresses=("https://raw.githubusercontent.com/brendenlake/omniglot/master/python/",),
    instead={
        "images_background.zip": ("images_background", "background.npz"),
        "images_evaluation.zip": ("images_evaluation", "evaluation_a.npz"),
    },
    page="https://github.com/brendenlake/omniglot",
)
_ABOUT = About(
    title="Omniglot: handwritten characters of many alphabets, 20 drawings each, 105 x 105",
    kind="episodes",
    source=_SOURCE.page,
    licence="MIT",
    citation=(
        "B. M. Lake, R. Salakhutdinov, J. B. Tenenbaum. Human-level concept learning through probabilistic program "
        "induction. Science 350, 1332-1338, 2015. doi:10.1126/science.aab3050"
    ),
    split=(
        "official, by alphabet: 964 background characters (19280 drawings), 659 for evaluation (13180 drawings); "
        "evaluation_a.npz holds 10 of the 20 evaluation alphabets, 307 characters (6140 drawings)"
    ),
    size="16 MB",
    layout=_SOURCE.layout,
    checksums=_FILES,
)


@register(about=_ABOUT)
def omniglot(*, root: str | os.PathLike[str] | None = None, download: bool = False) -> Omniglot:
    """Return Omniglot: 964 background characters and 659 others for evaluation, 20 drawings each, 16 MB to download.

    Looks in `<root>/omniglot`, `<root>/omniglot-py` and `<root>/omniglot/omniglot-py` for the published zips or the
    folders in them (needs Pillow), or for `background.npz` and `evaluation_a.npz`. With the latter there are only 307
    evaluation characters, and the name is "omniglot (10 evaluation alphabets)".

    Raises:
        ValueError: a file is damaged, or holds another number of characters.
    """
    paths = obtain(_SOURCE, root, download)
    background, evaluation = (_read(name, path) for name, path in paths.items())
    whole = len(evaluation.classes) == _SIZES["images_evaluation"]
    return Omniglot(
        name="omniglot" if whole else "omniglot (10 evaluation alphabets)",
        background=background,
        evaluation=evaluation,
        source=_ABOUT.source,
        licence=_ABOUT.licence,
        citation=_ABOUT.citation,
    )


def _read(name: str, path: Path) -> Drawings:
    if path.suffix == ".npz":
        drawings = _read_npz(path)
    elif path.is_dir():
        drawings = read_drawings(path, {file.relative_to(path).as_posix(): file for file in path.rglob("*.png")})
    else:
        check_md5(path, _FILES[name])
        drawings = read_drawings(path, read_entries(path, lambda entry: entry.endswith(".png")))
    expected = _SIZES[path.stem]
    if len(drawings.classes) != expected or len(drawings) != 20 * expected:
        raise ValueError(
            f"{path}: holds {len(drawings)} drawings of {len(drawings.classes)} characters, expected {20 * expected} "
            f"of {expected}; delete it and download it again"
        )
    return drawings


def _read_npz(path: Path) -> Drawings:
    names = ("bits", "label", "class_alphabet", "class_character", "alphabets")
    bits, label, alphabet, character, alphabets = read_columns(path, names).values()
    try:
        classes = tuple(f"{alphabets[a]}/{c}" for a, c in zip(alphabet, character, strict=True))
        return Drawings(torch.from_numpy(bits), torch.from_numpy(label.astype(np.int64)), classes)
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path}: {error}; download it again") from error


def read_drawings(path: Path, files: Mapping[str, bytes | Path]) -> Drawings:
    """Read PNG files, given by their names `.../<alphabet>/<character>/<file>.png` as bytes or paths, sorted by name.

    Raises:
        ValueError: there is none, or one is not a picture of 105 x 105; names `path` and the file.
    """
    from PIL import Image

    if not files:
        raise ValueError(f"{path}: holds no .png file, expected <alphabet>/<character>/*.png; download it again")
    ordered = sorted(files.items(), key=lambda item: PurePosixPath(item[0]).parts[-3:])
    names = ["/".join(PurePosixPath(name).parts[-3:-1]) for name, _ in ordered]
    classes = tuple(sorted(set(names), key=lambda name: name.split("/")))
    place = {name: label for label, name in enumerate(classes)}
    bits = np.empty((len(ordered), _SIDE, _PACKED), np.uint8)
    for k, (name, content) in enumerate(ordered):
        try:
            with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
                paper = np.asarray(image.convert("1"))
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{path}: {name} is damaged ({error}); download it again") from error
        if paper.shape != (_SIDE, _SIDE):
            raise ValueError(f"{path}: {name} is {paper.shape[1]} x {paper.shape[0]}, expected {_SIDE} x {_SIDE}")
        bits[k] = np.packbits(~paper, axis=1)
    return Drawings(torch.from_numpy(bits), torch.tensor([place[name] for name in names]), classes)
