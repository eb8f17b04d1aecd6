"""What the methods do while a network trains: masks, soft thresholds, quantised weights, ADMM, activity.

All of it changes gradients and weights around the optimiser's update (see `rheobase.train.Hooks`), so that any module
and any loop of ours is compressed unchanged. What must be remembered lies in buffers of the model, see `keep`.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from rheobase.lab.compress.quantise import fit_scale, quantised
from rheobase.lab.compress.threshold import thresholds
from rheobase.lab.compress.weights import Kind, Scope, has_kept, keep, kept, largest
from rheobase.nn import observe
from rheobase.train import Hooks, Step


class _OnWeights(Hooks):
    """Hooks on some weights of a model."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.model: nn.Module = nn.Identity()
        self.weights: dict[str, Tensor] = {}

    def begin(self, model: nn.Module, rates: Sequence[float]) -> None:  # noqa: ARG002
        """Find the weights, on the device where they are trained."""
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self.model = model
        self.weights = {name: parameters[name].data for name in self.names}

    def kept(self, name: str, kind: Kind) -> Tensor:
        """What is remembered beside a weight."""
        return kept(self.model, name, kind)

    def mask(self, name: str) -> Tensor | None:
        """Which of a weight's values are kept; None for all."""
        return self.kept(name, "mask") if has_kept(self.model, name, "mask") else None


def keep_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Remember masks beside the weights, and set what they drop to 0; what another one dropped stays dropped."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, mask in masks.items():
        both = mask & kept(model, name, "mask") if has_kept(model, name, "mask") else mask
        keep(model, name, "mask", both)
        parameters[name].data.masked_fill_(~both, 0.0)


class Masked(_OnWeights):
    """What a mask drops stays exactly 0, whatever momentum and weight decay do. Needs `keep_masks` before."""

    def after_update(self, step: Step) -> None:  # noqa: ARG002
        """Drop again."""
        for name, weight in self.weights.items():
            mask = self.mask(name)
            if mask is not None:
                weight.masked_fill_(~mask, 0.0)


class Gradual(Masked):
    """Magnitude pruning in small steps: after step k of n the share s (1 - (1 - k / n)^3) is zero, then all of s.

    A mask of the largest weights is made `updates` times in these n steps; what one dropped stays dropped.
    Source: Zhu and Gupta 2017, arXiv:1710.01878, eq. 1, from sparsity 0.

    Args:
        names: of the weights.
        sparsity, scope: see `largest`.
        ramp: n, as a share of the training.
        updates: how often the mask is made.
    """

    def __init__(
        self, names: Sequence[str], sparsity: float | Mapping[str, float], scope: Scope, ramp: float, updates: int
    ) -> None:
        super().__init__(names)
        self.sparsity, self.scope, self.ramp, self.updates = sparsity, scope, ramp, updates

    def attach(self, model: nn.Module) -> None:
        """Begin with masks that drop nothing; to call before `fit`."""
        self.begin(model, ())
        keep_masks(model, {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in self.weights.items()})

    def after_update(self, step: Step) -> None:
        """Raise the sparsity where it is due; drop again."""
        done, ramp = step.index + 1, max(1, round(self.ramp * step.total))
        if done > ramp or (done < ramp and done % max(1, ramp // self.updates)):
            super().after_update(step)
            return
        grown = 1 - (1 - done / ramp) ** 3
        now = (
            {name: share * grown for name, share in self.sparsity.items()}
            if isinstance(self.sparsity, Mapping)
            else self.sparsity * grown
        )
        keep_masks(self.model, largest(self.weights, now, self.scope))


class _Latent(_OnWeights):
    """The network uses a function of the weights that learn; its gradient goes straight through to them.

    Between two steps the parameters hold what the network uses, so that it is measured and saved as it is; during the
    optimiser's update they hold what learns. Weight decay and momentum act on what learns.
    """

    def attach(self, model: nn.Module) -> None:
        """Remember what learns, the weights as they are; to call before `fit`."""
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for name in self.names:
            keep(model, name, "latent", parameters[name])

    def shown(self, name: str, latent: Tensor) -> Tensor:
        """What the network uses."""
        raise NotImplementedError

    def show(self) -> None:
        """Let the parameters hold what the network uses."""
        for name, weight in self.weights.items():
            weight.copy_(self.shown(name, self.kept(name, "latent")))
            mask = self.mask(name)
            if mask is not None:
                weight.masked_fill_(~mask, 0.0)

    def before_update(self, step: Step) -> None:  # noqa: ARG002
        """Let the parameters hold what learns."""
        for name, weight in self.weights.items():
            weight.copy_(self.kept(name, "latent"))

    def after_update(self, step: Step) -> None:  # noqa: ARG002
        """Remember what was learned, and show again."""
        for name, weight in self.weights.items():
            self.kept(name, "latent").copy_(weight)
        self.show()


class SoftThreshold(_Latent):
    """w = sign(theta) max(|theta| - d, 0), with one rising d for all weights; dL/dtheta := dL/dw also where w = 0.

    d is set behind every update, for the next forward pass; it follows from the number of steps.
    Source: arXiv:2302.13019; its code computes w in a parametrisation, and loses d with the checkpoint.

    Args:
        names: of the weights.
        D: the last threshold.
        schedule, beta: see `thresholds`.
    """

    def __init__(self, names: Sequence[str], D: float, schedule: str = "lats", beta: float = 0.1) -> None:
        super().__init__(names)
        self.D, self.schedule, self.beta, self.d = D, schedule, beta, 0.0
        self.rates: Sequence[float] = ()
        self.shares: list[float] = []

    def attach(self, model: nn.Module) -> None:
        """See `_Latent`. With the schedule "constant" |theta| begins D larger, so that the network is the dense one."""
        super().attach(model)
        if self.schedule == "constant":
            for name in self.names:
                theta = kept(model, name, "latent")
                theta.add_(theta.sign(), alpha=self.D)

    def begin(self, model: nn.Module, rates: Sequence[float]) -> None:
        """Take the learning rates that the schedule may follow."""
        super().begin(model, rates)
        self.rates, self.shares = rates, []

    def shown(self, name: str, latent: Tensor) -> Tensor:  # noqa: ARG002
        """See the class."""
        return nn.functional.softshrink(latent, self.d)

    def after_update(self, step: Step) -> None:
        """Raise d, and show with it."""
        self.shares = self.shares or thresholds(self.schedule, self.rates, step.per_epoch, self.beta)
        self.d = self.D * self.shares[step.index + 1]
        super().after_update(step)


class Quantised(_Latent):
    """The network uses alpha Q, the levels nearest to what learns; masked weights are 0. alpha is fitted every epoch.

    Args:
        names: of the weights.
        table: see `levels`.
    """

    def __init__(self, names: Sequence[str], table: Tensor) -> None:
        super().__init__(names)
        self.table = table

    def attach(self, model: nn.Module) -> None:
        """See `_Latent`; fits alpha, and quantises."""
        super().attach(model)
        self.begin(model, ())
        for name, weight in self.weights.items():
            keep(model, name, "scale", fit_scale(weight, self.table, self.mask(name)))
        self.show()

    def shown(self, name: str, latent: Tensor) -> Tensor:
        """See the class."""
        return quantised(latent, self.kept(name, "scale"), self.table, self.mask(name))

    def after_update(self, step: Step) -> None:
        """Fit alpha where an epoch ends, then show."""
        if step.ends_epoch:
            for name, weight in self.weights.items():
                self.kept(name, "scale").copy_(fit_scale(weight, self.table, self.mask(name)))
        super().after_update(step)


class Admm(_OnWeights):
    """Alternating direction method of multipliers, scaled: pulls W to a set S.

    It adds rho (W - Z + U) to the gradient of W.

    Z and U are updated after every `every` epochs: Z = P(W + U), U = U + W - Z, where P projects onto S. They begin
    with Z = P(W), U = 0. Source: arXiv:1911.00822 with the squared penalty (rho / 2) |W - Z + U|^2 of its derivation;
    the code has 1e-4 |W - Z + U|, whose pull does not depend on the distance: `pull="constant"`.

    Args:
        names: of the weights.
        rho: strength.
        every: epochs of a round.
        pull: "squared", or "constant" for the gradient rho (W - Z + U) / |W - Z + U|, by layer.
    """

    def __init__(self, names: Sequence[str], rho: float, every: int = 1, pull: str = "squared") -> None:
        super().__init__(names)
        self.rho, self.every, self.pull = rho, every, pull

    def project(self, values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """P, for all weights together."""
        raise NotImplementedError

    def attach(self, model: nn.Module) -> None:
        """Begin with Z = P(W), U = 0; to call before `fit`."""
        self.begin(model, ())
        found = self.project(self.weights)
        for name, weight in self.weights.items():
            keep(model, name, "target", found[name])
            keep(model, name, "dual", torch.zeros_like(weight))

    def before_update(self, step: Step) -> None:  # noqa: ARG002
        """Add the pull to the gradients."""
        parameters = dict(self.model.named_parameters(remove_duplicate=False))
        for name in self.names:
            gradient, weight = parameters[name].grad, self.weights[name]
            if gradient is None:
                continue
            apart = weight - self.kept(name, "target") + self.kept(name, "dual")
            if self.pull == "constant":
                apart /= apart.norm().clamp_min(torch.finfo(apart.dtype).tiny)
            gradient.add_(apart, alpha=self.rho)

    def after_update(self, step: Step) -> None:
        """Update Z and U where a round ends."""
        if step.ends_epoch and ((step.index + 1) // step.per_epoch) % self.every == 0:
            found = self.project({name: w + self.kept(name, "dual") for name, w in self.weights.items()})
            for name, weight in self.weights.items():
                target, dual = self.kept(name, "target"), self.kept(name, "dual")
                target.copy_(found[name])
                dual.add_(weight).sub_(target)

    def residual(self) -> float:
        """|W - Z| / |W| over all weights together."""
        apart = sum(float((w - self.kept(name, "target")).square().sum()) for name, w in self.weights.items())
        return (apart / sum(float(w.square().sum()) for w in self.weights.values())) ** 0.5


class AdmmPruning(Admm):
    """ADMM whose set has an exact share of zeros; see `largest`."""

    def __init__(
        self,
        names: Sequence[str],
        rho: float,
        sparsity: float | Mapping[str, float],
        scope: Scope = "layer",
        **options: Any,
    ) -> None:
        super().__init__(names, rho, **options)
        self.sparsity, self.scope = sparsity, scope

    def project(self, values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Zero the smallest."""
        masks = largest(values, self.sparsity, self.scope)
        return {name: value.masked_fill(~masks[name], 0.0) for name, value in values.items()}


class AdmmQuantising(Admm):
    """ADMM whose set is alpha Q, of the weights that a mask keeps."""

    def __init__(self, names: Sequence[str], rho: float, table: Tensor, **options: Any) -> None:
        super().__init__(names, rho, **options)
        self.table = table

    def project(self, values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Fit alpha, and take the nearest levels."""
        return {
            name: quantised(value, fit_scale(value, self.table, self.mask(name)), self.table, self.mask(name))
            for name, value in values.items()
        }


class Quiet(Hooks):
    """Adds lambda R to the loss: R = (1/T) sum over steps and spiking layers of the mean output of their neurons.

    The mean over neurons makes lambda independent of their number; the gradient is the surrogate's. Input spikes do
    not count, output spikes do. Source: arXiv:1911.00822 (activity regularisation; the form is the sheet's, 1.4).

    Args:
        strength: lambda.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength
        self.means: list[Tensor] = []
        self.model: nn.Module = nn.Identity()
        self.watching: AbstractContextManager[Any] = ExitStack()

    def begin(self, model: nn.Module, rates: Sequence[float]) -> None:  # noqa: ARG002
        """Look at every spiking layer from now on."""
        self.model = model
        self.watching = observe(model, self._see)
        self.watching.__enter__()

    def _see(self, name: str, layer: nn.Module, output: Tensor) -> None:  # noqa: ARG002
        if not self.model.training:
            return
        if getattr(layer, "emits", "real") == "binary":
            self.means.append(output.mean(dtype=torch.float32))

    def penalty(self, x: Tensor, y: Tensor) -> Tensor:  # noqa: ARG002
        """lambda R of the last forward pass.

        Raises:
            ValueError: no layer emitted spikes, or they carry no gradient.
        """
        means, self.means = self.means, []
        if not means:
            raise ValueError("the activity of a network without spiking layers cannot be regularised")
        if not any(mean.requires_grad for mean in means):
            raise ValueError("the spikes carry no gradient; train with memory 'full' to regularise activity")
        return self.strength * torch.stack(means).sum()

    def end(self) -> None:
        """Look no longer."""
        self.watching.__exit__(None, None, None)
        self.watching = ExitStack()
        self.means = []
