"""Augmentation of training batches: mirrored, shifted, recoloured, erased and mixed samples, drawn anew in every epoch.

augment = Augment(flip=0.5, crop=4, cutmix=1.0)
for x, y in augment.over(batches(data.train, 128, seed=0, epoch=3), classes=10, seed=0, epoch=3):
    ...  # x: [B, C, H, W] as before, y: soft targets [B, 10]
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor
from torch.nn import functional as F

from rheobase.data.dataset import random_of

Auto = Literal["autoaugment-cifar10", "autoaugment-imagenet", "randaugment", "trivial"]

_BYTE_LEVELS = 255
_MAGNITUDES = 31
_ERASED_AREA = (0.02, 0.33)
_ERASED_LOG_RATIO = (math.log(0.3), math.log(3.3))
_TRIES = 10
_STREAM = 1  # keeps these draws apart from those of a picture's crop, which are seeded by (seed, epoch, picture)


@runtime_checkable
class EpochBatches(Protocol):
    """The (x, y) batches of one epoch, as `batches` gives them."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...


@dataclass(frozen=True)
class Augment:
    """What is done to training batches, in this order: crop and flip, `auto`, erasing, mixing.

    Samples are images `[C, H, W]`, or sequences of frames `[T, C, H, W]`, all steps of which are treated alike. Each
    sample has its own draw of all but mixing, which is drawn once a batch. Everything off is the default.

    Args:
        flip: probability of mirroring left and right.
        crop: pixels that are put around the image; a part of its old size is cut out at a random place.
        padding: what is put there: "zero", or "reflect", the image mirrored at its edge without repeating the edge.
        auto: a policy of torchvision, the extra `vision`: "autoaugment-cifar10" or "autoaugment-imagenet"
            (arXiv:1805.09501), "randaugment" (arXiv:1909.13719), or "trivial", the wide space of TrivialAugment
            (arXiv:2103.10158). It works on bytes: floats are rounded to 1/255. Images of one or three channels only.
        operations: how many operations "randaugment" does to each image.
        magnitude: of "randaugment", 0 to 30; a magnitude of m in ten, as other libraries count, is 3 m.
        erasing: probability of erasing a rectangle of 2 to 33 % of the area, its height / width 0.3 to 3.3, evenly
            drawn in the logarithm (Zhong et al. 2017, arXiv:1708.04896). Where ten draws do not fit, nothing is erased.
        mixup: a of Beta(a, a); x = l x_i + (1 - l) x_j, labels alike (Zhang et al. 2017, arXiv:1710.09412). 0 is off.
        cutmix: a of Beta(a, a); a rectangle of 1 - l of the area comes from x_j, and labels are mixed by the area that
            it really has (Yun et al. 2019, arXiv:1905.04899). 0 is off. With `mixup` too, each batch has one of them,
            either as likely.
        mix_probability: of mixing a batch at all.
        mix_epochs: mix in so many first epochs; None mixes in all.

    Mixing departs from its sources in the partner: x_j is the sample before x_i in the batch, which is in random order.

    Raises:
        ValueError: a setting that is out of range or unknown.
    """

    flip: float = 0.0
    crop: int = 0
    padding: Literal["zero", "reflect"] = "zero"
    auto: Auto | None = None
    operations: int = 2
    magnitude: int = 9
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0
    mix_epochs: int | None = None

    def __post_init__(self) -> None:
        policies = get_args(Auto)
        for name, fine, expected in (
            ("flip", 0 <= self.flip <= 1, "in [0, 1]"),
            ("crop", self.crop >= 0, "0 or more pixels"),
            ("padding", self.padding in ("zero", "reflect"), '"zero" or "reflect"'),
            ("auto", self.auto is None or self.auto in policies, f"None or one of {', '.join(policies)}"),
            ("operations", self.operations >= 1, "at least 1"),
            ("magnitude", 0 <= self.magnitude < _MAGNITUDES, f"0 to {_MAGNITUDES - 1}"),
            ("erasing", 0 <= self.erasing <= 1, "in [0, 1]"),
            ("mixup", 0 <= self.mixup < math.inf, "0, or above and finite"),
            ("cutmix", 0 <= self.cutmix < math.inf, "0, or above and finite"),
            ("mix_probability", 0 <= self.mix_probability <= 1, "in [0, 1]"),
            ("mix_epochs", self.mix_epochs is None or self.mix_epochs >= 0, "0 or more, or None"),
        ):
            if not fine:
                raise ValueError(f"Augment: {name} is {getattr(self, name)!r}; expected {expected}")

    def check(self, shape: tuple[int, ...]) -> None:
        """Do nothing if samples of this shape, `[C, H, W]` or `[T, C, H, W]`, can be augmented so.

        Raises:
            ValueError: they cannot.
        """
        spatial = [name for name in ("flip", "crop", "erasing", "cutmix") if getattr(self, name)]
        if spatial and len(shape) < 3:
            raise ValueError(f"Augment: {spatial[0]} needs images [C, H, W] or frames [T, C, H, W]; got {list(shape)}")
        if self.crop and self.padding == "reflect" and self.crop >= min(shape[-2:]):
            raise ValueError(
                f"Augment: crop is {self.crop}, but {list(shape)} can be reflected by {min(shape[-2:]) - 1} pixels at "
                'most; take less, or padding="zero"'
            )
        if self.auto is not None and (len(shape) != 3 or shape[0] not in (1, 3)):
            raise ValueError(f"Augment: auto={self.auto!r} needs images of 1 or 3 channels; got {list(shape)}")

    def check_installed(self) -> None:
        """Do nothing if what `auto` needs is installed.

        Raises:
            ValueError: it needs torchvision, which is not installed or does not fit torch.
        """
        if self.auto is not None:
            _policy(self.auto, self.operations, self.magnitude)

    def __call__(
        self,
        x: Tensor,
        y: Int64[Tensor, " B"],
        *,
        classes: int,
        seed: int = 0,
        epoch: int = 0,
        batch: int = 0,
        fill: tuple[float, ...] | None = None,
    ) -> tuple[Tensor, Int64[Tensor, " B"] | Float32[Tensor, "B K"]]:
        """Augment a batch x `[B, C, H, W]` or `[B, T, C, H, W]`, bytes or floats; the result has its shape and dtype.

        Everything is a function of the batch and of (seed, epoch, batch); no global random state is read or moved.

        Args:
            x: the batch, intensities in [0, 1] or bytes; counts of events.
            y: labels.
            classes: K.
            seed: of the training.
            epoch: number of the epoch.
            batch: number of the batch in its epoch.
            fill: intensity that erased parts become, for each channel: the mean of the data, which is 0 once
                standardised. None is 0.

        Returns:
            x, and labels: soft targets `[B, K]` in epochs in which batches are mixed, else y as it was.

        Raises:
            ValueError: as `check` and `check_installed`; seed, epoch or batch outside [0, 2**32).
        """
        self.check(tuple(x.shape[1:]))
        random = random_of("Augment", seed=seed, epoch=epoch, batch=batch, stream=_STREAM)
        if self.flip or self.crop:
            x = self._move(x, random)
        if self.auto is not None:
            x = _recolour(x, _policy(self.auto, self.operations, self.magnitude), random)
        if self.erasing:
            x = self._erase(x, random, fill)
        if (self.mixup or self.cutmix) and (self.mix_epochs is None or epoch < self.mix_epochs):
            return self._mix(x, F.one_hot(y, classes).float(), random)
        return x, y

    def over(
        self,
        batches: EpochBatches,
        *,
        classes: int,
        seed: int = 0,
        epoch: int = 0,
        fill: tuple[float, ...] | None = None,
    ) -> "AugmentedBatches":
        """The batches of one epoch, augmented one after the other as they are asked for; arguments as for a batch."""
        return AugmentedBatches(self, batches, classes, seed, epoch, fill)

    def _move(self, x: Tensor, random: np.random.RandomState) -> Tensor:
        B, (H, W), p = len(x), x.shape[-2:], self.crop
        planes = x.flatten(1, -3)
        top, left = (random.randint(2 * p + 1, size=(B, 1)) for _ in "yx")
        mirrored = random.random_sample((B, 1)) < self.flip
        rows, columns = top + np.arange(H), left + np.arange(W)
        columns = np.where(mirrored, columns[:, ::-1], columns)
        if self.padding == "reflect":
            rows, columns = _reflected(H, p)[rows], _reflected(W, p)[columns]
        elif p:
            planes = F.pad(planes, (p, p, p, p))
        places = torch.from_numpy(rows[:, :, None] * planes.shape[-1] + columns[:, None, :]).to(x.device)
        index = places.view(B, 1, H * W).expand(-1, planes.shape[1], -1)
        return planes.flatten(2).gather(2, index).view(x.shape)

    def _erase(self, x: Tensor, random: np.random.RandomState, fill: tuple[float, ...] | None) -> Tensor:
        B, (H, W) = len(x), x.shape[-2:]
        area = random.uniform(*_ERASED_AREA, (B, _TRIES)) * H * W
        ratio = np.exp(random.uniform(*_ERASED_LOG_RATIO, (B, _TRIES)))
        height, width = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
        fits = (height < H) & (width < W)
        happens = (random.random_sample(B) < self.erasing) & fits.any(1)
        first = (np.arange(B), fits.argmax(1))
        height, width = (np.where(happens, side[first], 0) for side in (height, width))
        top = np.floor(random.random_sample(B) * (H - height + 1))
        left = np.floor(random.random_sample(B) * (W - width + 1))
        inside = _boxes(top, left, top + height, left + width, (H, W)).to(x.device)
        level = 1 if x.is_floating_point() else _BYTE_LEVELS
        new = torch.tensor([level * value for value in fill or (0.0,)], dtype=torch.float64, device=x.device)
        new = (new if x.is_floating_point() else new.round()).to(x.dtype).view(-1, 1, 1)
        return torch.where(inside.view(B, *[1] * (x.ndim - 3), H, W), new, x)

    def _mix(
        self, x: Tensor, y: Float32[Tensor, "B K"], random: np.random.RandomState
    ) -> tuple[Tensor, Float32[Tensor, "B K"]]:
        if random.random_sample() >= self.mix_probability:
            return x, y
        cut = bool(self.cutmix) and (not self.mixup or random.random_sample() < 0.5)
        alpha = self.cutmix if cut else self.mixup
        share = random.beta(alpha, alpha)
        partner = x.roll(1, 0)
        if cut:
            H, W = x.shape[-2:]
            size = np.array([H, W])
            centre, half = random.randint(size), np.floor(0.5 * math.sqrt(1 - share) * size)
            top, left = np.maximum(centre - half, 0)
            bottom, right = np.minimum(centre + half, size)
            inside = _boxes([top], [left], [bottom], [right], (H, W)).to(x.device)
            x = torch.where(inside[0], partner, x)
            share = 1 - float((bottom - top) * (right - left)) / (H * W)
        else:
            wide = torch.promote_types(x.dtype, torch.float32)
            mixed = torch.lerp(partner.to(wide), x.to(wide), share)
            x = mixed.to(x.dtype) if x.is_floating_point() else mixed.round().to(x.dtype)
        return x, share * y + (1 - share) * y.roll(1, 0)


@dataclass(frozen=True, eq=False)
class AugmentedBatches:
    """The batches of one epoch. Has a length, and can be walked again with the same result. Made by `Augment.over`."""

    augment: Augment
    batches: EpochBatches
    classes: int
    seed: int
    epoch: int
    fill: tuple[float, ...] | None

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for place, (x, y) in enumerate(self.batches):
            yield self.augment(
                x, y, classes=self.classes, seed=self.seed, epoch=self.epoch, batch=place, fill=self.fill
            )


def _reflected(size: int, pad: int) -> np.ndarray:
    """The places 0 .. size - 1 with `pad` more on either side, mirrored at the edge without repeating it."""
    places = np.abs(np.arange(-pad, size + pad))
    return np.where(places < size, places, 2 * (size - 1) - places)


def _boxes(top: Any, left: Any, bottom: Any, right: Any, size: tuple[int, int]) -> Bool[Tensor, "B H W"]:
    """Where the rectangles lie: top <= row < bottom and left <= column < right."""
    row, column = (np.arange(length) for length in size)
    top, left, bottom, right = (np.asarray(edge)[:, None] for edge in (top, left, bottom, right))
    rows, columns = (row >= top) & (row < bottom), (column >= left) & (column < right)
    return torch.from_numpy(rows[:, :, None] & columns[:, None, :])


@cache
def _policy(auto: Auto, operations: int, magnitude: int) -> Callable[[Tensor], Tensor]:
    """The transform of torchvision, of one image of bytes.

    Raises:
        ValueError: torchvision is not installed, or does not fit torch.
    """
    try:
        from torchvision.transforms import v2
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise ValueError(
            f"Augment: auto={auto!r} needs torchvision, which could not be imported ({error}); install the version for "
            "your torch: pip install 'rheobase[vision]'"
        ) from error
    if auto == "randaugment":
        made: Callable[[Tensor], Tensor] = v2.RandAugment(operations, magnitude, _MAGNITUDES)
    elif auto == "trivial":
        made = v2.TrivialAugmentWide()
    else:
        made = v2.AutoAugment(v2.AutoAugmentPolicy(auto.removeprefix("autoaugment-")))
    return made


def _recolour(x: Tensor, policy: Callable[[Tensor], Tensor], random: np.random.RandomState) -> Tensor:
    """Each image through the policy. It draws from torch's global generator, which is put back afterwards."""
    pixels = (x * _BYTE_LEVELS).round().clamp(0, _BYTE_LEVELS).byte() if x.is_floating_point() else x
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(int(random.randint(2**31)))  # torch.manual_seed would reseed devices too
    try:
        pixels = torch.stack([policy(image) for image in pixels])
    finally:
        torch.set_rng_state(before)
    return pixels.to(x.dtype) / _BYTE_LEVELS if x.is_floating_point() else pixels
