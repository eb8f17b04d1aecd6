"""The methods as frozen dataclasses, and `compress`, which runs one or several of them on a copy of a network.

Epochs are those of training: every method says how many it takes in all, and splits them itself.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rheobase.lab.compress.channels import Criterion, zero_channels
from rheobase.lab.compress.hooks import (
    AdmmPruning,
    AdmmQuantising,
    Gradual,
    Masked,
    Quantised,
    Quiet,
    SoftThreshold,
    keep_masks,
)
from rheobase.lab.compress.quantise import Levels, levels
from rheobase.lab.compress.report import CompressionReport, LayerReport
from rheobase.lab.compress.threshold import SCHEDULES
from rheobase.lab.compress.weights import (
    Scope,
    compressible,
    forget,
    has_kept,
    kept,
    largest,
    sparsity_of,
)
from rheobase.train import Hooks, Together

Shares = float | Mapping[str, float]
PILOTS, PILOT_SHARE, NEAR = 3, 6, 0.1
"""LATS looks for D with at most so many pilots, each of one sixth of the epochs, until ln(1 - sparsity) is so near."""


Fit = Callable[[nn.Module, int, Hooks, str], None]
"""`fit(model, epochs, hooks, name)` trains a network in place, always to the last epoch, with a learning-rate schedule
of its own; `name` tells the phases of a method apart."""


@dataclass
class Work:
    """A network while it is compressed.

    Attributes:
        model: the copy that is changed.
        names: the parameters that are compressed.
        fit: trains.
        quiet: regularises activity in every phase, if asked for.
        tables: levels of what is quantised, by parameter.
        example: an input of the model, for the methods that must see it run.
    """

    model: nn.Module
    names: tuple[str, ...]
    fit: Fit
    quiet: Quiet | None = None
    tables: dict[str, Tensor] = field(default_factory=dict)
    example: Tensor | None = None

    @property
    def weights(self) -> dict[str, Tensor]:
        """What is compressed."""
        parameters = dict(self.model.named_parameters(remove_duplicate=False))
        return {name: parameters[name].data for name in self.names}

    def train(self, epochs: int, hooks: Sequence[Hooks], name: str) -> None:
        """Some epochs; none if that is 0."""
        if epochs:
            also = () if self.quiet is None else (self.quiet,)
            self.fit(self.model, epochs, Together((*hooks, *also)), name)

    def keep_mask_of_zeros(self) -> None:
        """Let what is zero stay zero, where no mask says so yet."""
        for name, weight in self.weights.items():
            if not has_kept(self.model, name, "mask") and bool((weight == 0).any()):
                keep_masks(self.model, {name: weight != 0})


@dataclass(frozen=True)
class _Method:
    """What all have.

    Attributes:
        epochs: all together.
    """

    epochs: int = 10

    name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for what, fine, expected in self.limits():
            if not fine:
                raise ValueError(f"{self.name}: {what} is {getattr(self, what)!r}; expected {expected}")

    def limits(self) -> list[tuple[str, bool, str]]:
        """Fields, whether each is in range, and what the range is."""
        return [("epochs", self.epochs >= 0, "0 or above")]

    def run(self, work: Work) -> dict[str, Any]:
        """Compress, and say what was found."""
        raise NotImplementedError


def _is_share(sparsity: Shares | None) -> bool:
    shares = list(sparsity.values()) if isinstance(sparsity, Mapping) else [sparsity]
    return all(share is not None and 0 <= share < 1 for share in shares)


@dataclass(frozen=True)
class Magnitude(_Method):
    """Keep the largest weights at once, then train what is left.

    Attributes:
        sparsity: share of zeros, in [0, 1); or shares by patterns of names, with the scope "layer".
        scope: whether every "layer" has this share, or all together ("global").
        epochs: of training under the mask; 0 for none.
    """

    sparsity: Shares = 0.9
    scope: Scope = "layer"

    name: ClassVar[str] = "magnitude"

    def limits(self) -> list[tuple[str, bool, str]]:
        """See `_Method`."""
        return [*super().limits(), ("sparsity", _is_share(self.sparsity), "a share in [0, 1)")]

    def run(self, work: Work) -> dict[str, Any]:
        """See `_Method`."""
        keep_masks(work.model, largest(work.weights, self.sparsity, self.scope))
        work.train(self.epochs, [Masked(work.names)], "masked")
        return {}


@dataclass(frozen=True)
class GradualMagnitude(Magnitude):
    """Magnitude pruning in small steps, see `Gradual`.

    Attributes:
        ramp: share of the epochs in which the sparsity rises.
        updates: how often, in these.
    """

    ramp: float = 0.7
    updates: int = 50

    name: ClassVar[str] = "gradual"

    def limits(self) -> list[tuple[str, bool, str]]:
        """See `_Method`."""
        return [
            *super().limits(),
            ("epochs", self.epochs >= 1, "at least 1"),
            ("ramp", 0 < self.ramp <= 1, "a share in (0, 1]"),
            ("updates", self.updates >= 1, "at least 1"),
        ]

    def run(self, work: Work) -> dict[str, Any]:
        """See `_Method`."""
        hook = Gradual(work.names, self.sparsity, self.scope, self.ramp, self.updates)
        hook.attach(work.model)
        work.train(self.epochs, [hook], "gradual")
        return {}


@dataclass(frozen=True)
class AdmmPrune(Magnitude):
    """Pull the weights to an exact sparsity by ADMM, prune, then train what is left; see `Admm`.

    Attributes:
        rho: strength of the pull.
        share: of the epochs that ADMM gets; the rest trains under the mask.
        every: epochs of a round.
        pull: see `Admm`.
    """

    rho: float = 1e-2
    share: float = 0.5
    every: int = 1
    pull: str = "squared"

    name: ClassVar[str] = "admm"

    def limits(self) -> list[tuple[str, bool, str]]:
        """See `_Method`."""
        return [*super().limits(), *_limits_of_admm(self)]

    def run(self, work: Work) -> dict[str, Any]:
        """See `_Method`."""
        pulled = _floor(self.share * self.epochs)
        admm = AdmmPruning(work.names, self.rho, self.sparsity, self.scope, every=self.every, pull=self.pull)
        admm.attach(work.model)
        work.train(pulled, [admm], "admm")
        residual = admm.residual()
        forget(work.model, ("target", "dual"))
        keep_masks(work.model, largest(work.weights, self.sparsity, self.scope))
        work.train(self.epochs - pulled, [Masked(work.names)], "masked")
        return {"residual": residual}


@dataclass(frozen=True)
class Quantise(_Method):
    """Pull the weights to few levels by ADMM, quantise, then train on with quantised weights, straight through.

    What is zero already and was pruned stays zero, and is left out when scale and levels are fitted.

    Attributes:
        bits: 1 to 8; see `levels`.
        levels: see `levels`.
        rho, share, every, pull: of ADMM, see `AdmmPrune`; share 0 is without.
    """

    bits: int = 3
    levels: Levels = "auto"
    rho: float = 0.1
    share: float = 0.5
    every: int = 1
    pull: str = "squared"

    name: ClassVar[str] = "quantise"

    def limits(self) -> list[tuple[str, bool, str]]:
        """See `_Method`."""
        levels(self.bits, self.levels)
        return [*super().limits(), *_limits_of_admm(self)]

    def run(self, work: Work) -> dict[str, Any]:
        """See `_Method`."""
        table, pulled = levels(self.bits, self.levels), _floor(self.share * self.epochs)
        work.keep_mask_of_zeros()
        found: dict[str, Any] = {}
        if pulled:
            admm = AdmmQuantising(work.names, self.rho, table, every=self.every, pull=self.pull)
            admm.attach(work.model)
            work.train(pulled, [admm, Masked(work.names)], "admm")
            found["residual"] = admm.residual()
            forget(work.model, ("target", "dual"))
        hook = Quantised(work.names, table)
        hook.attach(work.model)
        work.train(self.epochs - pulled, [hook], "quantised")
        forget(work.model, ("latent",))
        work.tables |= dict.fromkeys(work.names, table)
        return found


def _limits_of_admm(method: Any) -> list[tuple[str, bool, str]]:
    return [
        ("rho", method.rho > 0, "above 0"),
        ("share", 0 <= method.share <= 1, "a share in [0, 1]"),
        ("every", method.every >= 1, "at least 1"),
        ("pull", method.pull in ("squared", "constant"), "'squared' or 'constant'"),
    ]


@dataclass(frozen=True)
class Lats(_Method):
    """Soft-threshold pruning with a rising threshold, see `SoftThreshold`; the end value D is its one knob.

    With `D` given the sparsity is what comes out, and nothing is closed. With `sparsity` given, D is found by at most 3
    pilots on copies of the network, each of a sixth of the epochs, by interpolating ln D over ln(1 - sparsity), from
    the D that would prune so many weights at once. In the end exactly the round((1 - sparsity) N) largest |theta| are
    kept, and at most a tenth of the epochs trains them under this mask. Pilots, main part and closing are `epochs`
    together.

    Attributes:
        sparsity: share of zeros of all weights together, in [0, 1); None if D is given.
        D: the last threshold, 0 or above; None if the sparsity is given. With 0 nothing is done but to train.
        schedule: how the threshold rises, see `thresholds`: "lats" for a constant pressure whatever the learning rate
            does, "lats-closed", "s-lats", "pgh", "linear", "sine" (STDS), "constant".
        beta: of "pgh".
        closing: share of the epochs that trains under the mask, at most 0.1.
    """

    sparsity: float | None = 0.9
    D: float | None = None
    schedule: str = "lats"
    beta: float = 0.1
    closing: float = 0.1

    name: ClassVar[str] = "lats"

    def limits(self) -> list[tuple[str, bool, str]]:
        """See `_Method`."""
        return [
            ("epochs", self.epochs >= (1 if self.D is not None else PILOT_SHARE), "at least 6, or 1 with D given"),
            ("sparsity", (self.sparsity is None) != (self.D is None), "None where D is given, and a share where not"),
            ("sparsity", self.sparsity is None or _is_share(self.sparsity), "a share in [0, 1)"),
            ("D", self.D is None or self.D >= 0, "0 or above"),
            ("schedule", self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
            ("closing", 0 <= self.closing <= 0.1, "a share in [0, 0.1]"),
        ]

    def run(self, work: Work) -> dict[str, Any]:
        """See `_Method`."""
        if self.D is not None:
            raw = self._soften(work, self.D, self.epochs, "soft")
            forget(work.model, ("latent",))
            return {"D": self.D, "raw_sparsity": raw, "pilots": []}
        assert self.sparsity is not None
        D, pilots = self._search(work, self.sparsity)
        closing = _floor(self.closing * self.epochs)
        main = self.epochs - closing - len(pilots) * self._pilot_epochs
        raw = self._soften(work, D, main, "soft")
        thetas = {name: kept(work.model, name, "latent").clone() for name in work.names}
        forget(work.model, ("latent",))
        keep_masks(work.model, largest(thetas, self.sparsity, "global"))
        work.train(closing, [Masked(work.names)], "closing")
        return {"D": D, "raw_sparsity": raw, "pilots": [list(pilot) for pilot in pilots], "main_epochs": main}

    @property
    def _pilot_epochs(self) -> int:
        return max(1, self.epochs // PILOT_SHARE)

    def _soften(self, work: Work, D: float, epochs: int, name: str) -> float:
        """Train with a rising threshold; the share of zeros."""
        hook = SoftThreshold(work.names, D, self.schedule, self.beta)
        hook.attach(work.model)
        work.train(epochs, [hook], name)
        return sparsity_of(work.weights)

    def _search(self, work: Work, sparsity: float) -> tuple[float, list[tuple[float, float]]]:
        """D, and the pilots: pairs of D and the sparsity that it gave."""
        sizes = torch.cat([w.abs().flatten() for w in work.weights.values()])
        kept_few = sizes.sort(descending=True).values[min(len(sizes) - 1, round((1 - sparsity) * len(sizes)))]
        guess = max(float(kept_few), float(sizes.mean()) * 1e-3)
        found: list[tuple[float, float]] = []
        while len(found) < PILOTS:
            pilot = replace(work, model=copy.deepcopy(work.model))
            found.append((guess, self._soften(pilot, guess, self._pilot_epochs, f"pilot{len(found) + 1}")))
            guess = interpolate(found, sparsity, 0.5 / len(sizes))
            if abs(_left(found[-1][1], 0.5 / len(sizes)) - _left(sparsity, 0.0)) < NEAR:
                return found[-1][0], found
        return guess, found


def interpolate(found: Sequence[tuple[float, float]], sparsity: float, least: float) -> float:
    """The D of a sparsity: a line of ln D over ln(1 - sparsity) through the two nearest of what was found.

    Through a single point, or where the two do not fall, with slope -1.

    Args:
        found: pairs of D and sparsity.
        sparsity: that is wanted.
        least: the smallest share of weights left that counts, where nothing was left.
    """
    wanted = _left(sparsity, least)
    near = sorted(found, key=lambda pair: abs(_left(pair[1], least) - wanted))[:2]
    slope = -1.0
    if len(near) == 2:
        (a, _), (b, _) = near
        across = _left(near[1][1], least) - _left(near[0][1], least)
        if across and math.log(b / a) / across < 0:
            slope = max(-3.0, math.log(b / a) / across)
    D, at = near[0]
    return D * math.exp(slope * (wanted - _left(at, least)))


def _left(sparsity: float, least: float) -> float:
    return math.log(max(1 - sparsity, least))


@dataclass(frozen=True)
class Channels(_Method):
    """Zero the least channels between layers that follow each other, then train what is left; see `zero_channels`.

    The weights keep their shapes; `shrink` takes such channels out, and the network runs the faster for it.

    Attributes:
        share: of the channels, in [0, 1), rounded down.
        criterion: "l1" of the weights, or "scale" of the norm.
        scope: whether every "layer" loses this share, or all together the least ("global").
    """

    share: float = 0.5
    criterion: Criterion = "l1"
    scope: Scope = "layer"

    name: ClassVar[str] = "channels"

    def limits(self) -> list[tuple[str, bool, str]]:
        """See `_Method`."""
        return [*super().limits(), ("share", _is_share(self.share), "a share in [0, 1)")]

    def run(self, work: Work) -> dict[str, Any]:
        """See `_Method`."""
        if work.example is None:
            raise ValueError("channels: there is no example; give `compress` an input of the model")
        zeroed = zero_channels(work.model, self.share, work.example, criterion=self.criterion, scope=self.scope)
        after = dict(zeroed.named_parameters())
        masks = {name: (after[name] != 0) | (p == 0) for name, p in work.model.named_parameters()}
        masks = {name: mask for name, mask in masks.items() if not bool(mask.all())}
        keep_masks(work.model, masks)
        work.train(self.epochs, [Masked(list(masks))], "masked")
        return {}


@dataclass(frozen=True)
class Activity(_Method):
    """Regularise activity, see `Quiet`: in all other stages too, or for `epochs` of its own where it is the only one.

    Attributes:
        strength: lambda.
    """

    strength: float = 0.1

    name: ClassVar[str] = "activity"

    def limits(self) -> list[tuple[str, bool, str]]:
        """See `_Method`."""
        return [*super().limits(), ("strength", self.strength > 0, "above 0")]

    def run(self, work: Work) -> dict[str, Any]:
        """See `_Method`."""
        work.train(self.epochs, [Masked(work.names)], "quiet")
        return {}


def _floor(epochs: float) -> int:
    return math.floor(epochs + 1e-9)


METHODS: dict[str, type[_Method]] = {
    kind.name: kind for kind in (Magnitude, GradualMagnitude, AdmmPrune, Quantise, Lats, Channels, Activity)
}
Method = Magnitude | GradualMagnitude | AdmmPrune | Quantise | Lats | Channels | Activity


def method_from(values: Mapping[str, Any]) -> Method:
    """The method that `method_to` wrote.

    Raises:
        ValueError: no such method, a field that it does not have, or a value out of range.
    """
    values = dict(values)
    name = values.pop("method", None)
    if name not in METHODS:
        raise ValueError(f"there is no method {name!r}; expected one of {', '.join(METHODS)}")
    known = METHODS[name].__dataclass_fields__.keys()
    if unknown := values.keys() - known:
        raise ValueError(f"{name} has no field {min(unknown)!r}; expected {', '.join(known)}")
    made: Any = METHODS[name](**values)
    return made  # type: ignore[no-any-return]


def method_to(method: Method) -> dict[str, Any]:
    """A method as JSON holds it."""
    return {"method": method.name, **asdict(method)}


def compress(
    model: nn.Module,
    config: Method | Sequence[Method],
    fit: Fit,
    *,
    exclude: Sequence[str] = (),
    example: Tensor | None = None,
) -> tuple[nn.Module, CompressionReport]:
    """A compressed copy of a network, and what was done: pruned, quantised, quietened, in the order that is given.

    What an earlier method pruned stays pruned. The copy has plain weights, and the names of the original.

    Args:
        model: any module; not changed.
        config: one method or several. `Activity` among others takes part in all of them.
        fit: trains a network in place, see `Fit`.
        exclude: see `compressible`; `Channels` does not know it.
        example: an input of the model, which `Channels` needs.

    Raises:
        ValueError: no method, two that regularise activity, or nothing to compress.
    """
    methods = list(config) if isinstance(config, Sequence) else [config]
    quiet = [method for method in methods if isinstance(method, Activity)]
    others = [method for method in methods if not isinstance(method, Activity)]
    if not methods or len(quiet) > 1:
        raise ValueError(
            f"compress: got {len(methods)} methods, {len(quiet)} of them Activity; expected at most 1 of it"
        )
    made = copy.deepcopy(model)
    work = Work(
        made,
        tuple(compressible(made, exclude)),
        fit,
        Quiet(quiet[0].strength) if quiet else None,
        example=example,
    )
    stages = []
    for method in others or quiet:
        found = method.run(work)
        stages.append({**method_to(method), **found, "sparsity_after": sparsity_of(work.weights)})
    if quiet and others:
        stages.append({**method_to(quiet[0]), "epochs": 0})
    weights = {name: weight.clone() for name, weight in work.weights.items()}
    masks = {name: kept(made, name, "mask").clone() for name in work.names if has_kept(made, name, "mask")}
    scales = {name: kept(made, name, "scale").clone() for name in work.tables}
    forget(made)
    layers = tuple(LayerReport.of(name, weight, name in scales) for name, weight in weights.items())
    return made, CompressionReport(layers, tuple(stages), masks, scales, dict(work.tables))
