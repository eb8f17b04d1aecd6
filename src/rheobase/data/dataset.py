"""What every data set looks like: two splits, their classes, and where they come from."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from rheobase.data.encode import get_encoder

_SEED_LIMIT = 2**32
_STATISTICS_CHUNK = 8192


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """N samples as they are stored, `x` `[N, C, ...]` (images `[N, C, H, W]`), and their labels `y` `[N]`.

    `x` is uint8 or float32 with values from 0 to `full_scale`, which means intensity 1. A set of bytes stays a set of
    bytes: only the batch in hand becomes float, `intensities` returning `x / full_scale`, float32 in [0, 1].

    A part of a split shares its `x`, which may lie on the disk: `rows` says which samples of x it holds, None all.

    Raises:
        ValueError: x is neither uint8 nor float32 or lacks a channel axis, y is not int64 with a label per sample,
            rows is not int64 `[N]`, full_scale <= 0.
    """

    x: Tensor
    y: Tensor
    full_scale: int | float = 1
    rows: Tensor | None = None

    def __post_init__(self) -> None:
        if self.x.dtype not in (torch.uint8, torch.float32) or self.x.ndim < 2:
            raise ValueError(
                f"Split: x must be uint8 or float32 of shape [N, C, ...], got {self.x.dtype} {list(self.x.shape)}"
            )
        if self.rows is not None and (self.rows.dtype != torch.int64 or self.rows.ndim != 1):
            raise ValueError(f"Split: rows must be int64 [N], got {self.rows.dtype} {list(self.rows.shape)}")
        if self.y.dtype != torch.int64 or self.y.shape != (len(self),):
            raise ValueError(
                f"Split: y must be int64 of shape [{len(self)}], one label per sample of x, "
                f"got {self.y.dtype} {list(self.y.shape)}"
            )
        if not self.full_scale > 0:
            raise ValueError(f"Split: full_scale must be positive, got {self.full_scale}")

    def __len__(self) -> int:
        return len(self.x if self.rows is None else self.rows)

    def __repr__(self) -> str:
        return f"Split({len(self)} samples of {list(self.x.shape[1:])}, {self.x.dtype}, full_scale={self.full_scale})"

    def samples(self, index: Int64[Tensor, " B"] | slice = slice(None)) -> Tensor:
        """Return the samples at `index` (all by default) as they are stored."""
        return self.x[index if self.rows is None else self.rows[index]]

    def intensities(self, index: Int64[Tensor, " B"] | slice = slice(None)) -> Float32[Tensor, "B C *rest"]:
        """Return the samples at `index` (all by default) as float32 intensities in [0, 1]: stored / full_scale."""
        return self.samples(index).to(torch.float32) / self.full_scale

    def select(self, index: Int64[Tensor, " B"]) -> "Split":
        """Return the samples at `index`, in that order, as a split on the same x: nothing is copied."""
        return replace(self, y=self.y[index], rows=index if self.rows is None else self.rows[index])

    def statistics(self) -> tuple[Float64[Tensor, " C"], Float64[Tensor, " C"]]:
        """Return mean and population standard deviation of the intensities, per channel, over samples and space.

        Summed in float64, which is exact for bytes.
        """
        axes = [axis for axis in range(self.x.ndim) if axis != 1]
        total = torch.zeros(self.x.shape[1], dtype=torch.float64, device=self.x.device)
        squares = torch.zeros_like(total)
        for start in range(0, len(self), _STATISTICS_CHUNK):
            values = self.samples(slice(start, start + _STATISTICS_CHUNK)).double()
            total += values.sum(dim=axes)
            squares += values.square().sum(dim=axes)
        count = len(self) * (self.x[:1].numel() // self.x.shape[1])
        mean = total / count
        deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
        return mean / self.full_scale, deviation / self.full_scale


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named data set: fixed `train` and `test` splits, class names by label, provenance.

    Batches carry intensities in [0, 1], which spike encoders and attacks need; `standardise` turns them into what a
    real-valued input layer wants, `(x - mean) / std` with the per-channel statistics of the whole train split.

    Sets of sequences (frames of events, counts of spikes) have `T`: their samples are `[T, C, ...]`, values as they
    are, and `encode` only puts time first. Their mean and std are empty.

    Raises:
        ValueError: the splits disagree in sample shape, a label names no class, mean and std are not one finite
            number per channel, or a std is not positive; a sample of a set of sequences is not `[T, C, ...]`.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    licence: str
    citation: str
    T: int | None = None

    def __post_init__(self) -> None:
        shape = self.train.x.shape[1:]
        if self.test.x.shape[1:] != shape:
            raise ValueError(
                f"Dataset {self.name}: train samples are {list(shape)}, test samples {list(self.test.x.shape[1:])}; "
                "they must agree"
            )
        check_labels(f"Dataset {self.name}", self.train.y, self.test.y, len(self.classes))
        if self.T is not None:
            if len(shape) < 2 or shape[0] != self.T or self.mean or self.std:
                raise ValueError(
                    f"Dataset {self.name}: samples of a set of sequences must be [T, C, ...] with T={self.T}, and mean "
                    f"and std empty; got samples {list(shape)}, mean={self.mean}, std={self.std}"
                )
            return
        channels = shape[0]
        finite = all(math.isfinite(value) for value in self.mean + self.std)
        if len(self.mean) != channels or len(self.std) != channels or not finite or min(self.std) <= 0:
            raise ValueError(
                f"Dataset {self.name}: mean and std must hold {channels} finite numbers (one per channel), std > 0, "
                f"got mean={self.mean}, std={self.std}"
            )

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape `[C, ...]` of a sample at one step."""
        return tuple(self.train.x.shape[1 if self.T is None else 2 :])

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
        """Turn a batch of intensities into a network's input over T steps.

        Encoders that emit spikes read the intensities, the others the standardised values; see `get_encoder`. Sequences
        keep their steps: `[B, T, C, ...]` becomes `[T, B, C, ...]`, a view for "direct", spikes where there is anything
        for "presence"; they take no other encoder.

        Raises:
            ValueError: no such encoder, or it refuses its input; sequences of another T, or an encoder for them.
        """
        if self.T is not None:
            if encoder not in ("direct", "presence") or T != self.T:
                raise ValueError(
                    f"encode: {self.name} holds sequences of T={self.T} steps, which are taken as they are; got T={T} "
                    f"and encoder {encoder!r}; expected T={self.T} and 'direct' or 'presence' (load it with another T)"
                )
            steps = x.transpose(0, 1)
            return (steps > 0).to(x.dtype) if encoder == "presence" else steps
        chosen = get_encoder(encoder)
        return chosen(x if chosen.binary else self.standardise(x), T, generator)


def check_labels(what: str, train: Int64[Tensor, " N"], test: Int64[Tensor, " M"], classes: int) -> None:
    """Do nothing if all labels name one of so many classes.

    Raises:
        ValueError: one does not; says of which split.
    """
    for part, y in (("train", train), ("test", test)):
        wrong = y[(y < 0) | (y >= classes)]
        if len(wrong):
            raise ValueError(
                f"{what}: {part} has label {int(wrong[0])}, but the labels of {classes} classes are 0 to {classes - 1}"
            )


def standardise(
    x: Float[Tensor, "B C *rest"], mean: tuple[float, ...], std: tuple[float, ...], name: str
) -> Float[Tensor, "B C *rest"]:
    """Return `(x - mean) / std` per channel (axis 1); `name` is the data set's, for the message.

    Raises:
        ValueError: x has another number of channels.
    """
    if x.ndim < 2 or x.shape[1] != len(mean):
        raise ValueError(
            f"standardise: {name} has {len(mean)} channel(s) on axis 1, got shape {list(x.shape)}; "
            "pass a batch [B, C, ...], before it is encoded in time"
        )
    per_channel = [-1] + [1] * (x.ndim - 2)
    return (x - x.new_tensor(mean).view(per_channel)) / x.new_tensor(std).view(per_channel)


@dataclass(frozen=True, eq=False)
class Batches:
    """The batches of one epoch. Has a length, and can be walked again with the same result. Made by `batches`."""

    split: Split
    batch_size: int
    order: Int64[Tensor, " N"] | None
    drop_last: bool
    device: torch.device | str | None

    def __len__(self) -> int:
        full, rest = divmod(len(self.split), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            window = slice(start, start + self.batch_size)
            index = window if self.order is None else self.order[window]
            x, y = self.split.intensities(index), self.split.y[index]
            yield (x, y) if self.device is None else (x.to(self.device), y.to(self.device))


def batches(
    split: Split,
    batch_size: int,
    *,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = True,
    drop_last: bool = False,
    device: torch.device | str | None = None,
) -> Batches:
    """Return the (x, y) batches of one epoch: x float32 intensities in [0, 1] `[B, C, ...]`, y int64 `[B]`.

    The order is a function of (seed, epoch) alone: it neither reads nor moves any global random state, and NumPy
    promises never to change the stream it is drawn from. `shuffle=False` keeps the stored order.

    Raises:
        ValueError: batch_size < 1, or `drop_last` would drop every batch, or seed or epoch outside [0, 2**32).
    """
    if batch_size < 1:
        raise ValueError(f"batches: batch_size must be at least 1, got {batch_size}")
    if drop_last and batch_size > len(split):
        raise ValueError(
            f"batches: drop_last with batch_size {batch_size} leaves no batch of {len(split)} samples; lower batch_size"
        )
    random = random_of("batches", seed=seed, epoch=epoch)
    order = torch.from_numpy(random.permutation(len(split))).to(split.x.device) if shuffle else None
    return Batches(split, batch_size, order, drop_last, device)


@runtime_checkable
class Labelled(Protocol):
    """Samples with labels that a part can be taken of: a `Split`, an `ImageFolder`."""

    @property
    def y(self) -> Int64[Tensor, " N"]:
        """Labels."""

    def __len__(self) -> int: ...

    def select(self, index: Int64[Tensor, " B"]) -> Any:
        """The samples at `index`."""


Part = TypeVar("Part", bound=Labelled)


def hold_out(split: Part, fraction: float, seed: int) -> tuple[Part, Part]:
    """Carve a validation split: return (kept, held), held having `round(fraction * N)` samples drawn per class.

    Each class gives its share, rounded by largest remainder (ties to the lower label), so a class with very few
    samples may give none. Both parts keep the stored order, and the draw is fixed by `seed` as in `batches`.

    Raises:
        ValueError: fraction is outside (0, 1) or leaves one part empty, or seed is outside [0, 2**32).
    """
    size = len(split)
    wanted = round(fraction * size) if 0 < fraction < 1 else 0
    if not 0 < wanted < size:
        raise ValueError(
            f"hold_out: fraction must lie in (0, 1) and leave both parts at least one of {size} samples, got {fraction}"
        )
    random = random_of("hold_out", seed=seed)
    labels = split.y.cpu().numpy()
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    shares = np.array([len(member) * wanted for member in members])
    quotas = shares // size
    quotas[np.argsort(-(shares % size), kind="stable")[: wanted - quotas.sum()]] += 1
    held = np.zeros(size, dtype=bool)
    for member, quota in zip(members, quotas, strict=True):
        held[random.permutation(member)[:quota]] = True
    kept, taken = (torch.from_numpy(np.flatnonzero(mask)).to(split.y.device) for mask in (~held, held))
    return split.select(kept), split.select(taken)


def random_of(caller: str, **seeds: int) -> np.random.RandomState:
    """Return a private generator; RandomState, because its streams are frozen across NumPy versions (NEP 19).

    Raises:
        ValueError: a seed outside [0, 2**32); the message names `caller`.
    """
    for name, value in seeds.items():
        if not 0 <= value < _SEED_LIMIT:
            raise ValueError(f"{caller}: {name} must lie in [0, 2**32), got {value}")
    return np.random.RandomState(list(seeds.values()))
