"""Defences: training on attacked spikes, and a penalty on the gradient of the input."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rheobase.lab.attack.spikes import Loss, SpikeAttack, attack_events, loss_of, mean_outputs
from rheobase.nn.packing import packing
from rheobase.scan import engine
from rheobase.train import Hooks


def adversarial(
    how: SpikeAttack, share: float = 0.5, seed: int = 0
) -> Callable[[nn.Module, Float[Tensor, "T B *rest"]], Float[Tensor, "T B K"]]:
    """What `fit` takes as `apply`: in training the model reads the first `share` of each batch attacked.

    The attack leads away from what the model says of the clean input, which stands in for the label: `apply` knows
    none, and a label would leak through the attack (Kurakin et al. 2017, arXiv:1611.01236). Samples keep their labels.
    Where gradients are off, as in validation, the input is left alone.

    Args:
        how: the attack, few iterations of it: each costs a forward and a backward pass.
        share: of a batch that is attacked, in (0, 1].
        seed: of the attack's draws.

    Raises:
        ValueError: no such share.
    """
    if not 0 < share <= 1:
        raise ValueError(f"adversarial: share is {share}; expected a part of the batch, in (0, 1]")
    generators: dict[torch.device, torch.Generator] = {}

    def apply(model: nn.Module, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and model.training:
            if x.device not in generators:
                generators[x.device] = torch.Generator(x.device).manual_seed(seed)
            first = x[:, : max(1, round(share * x.shape[1]))]
            with torch.no_grad():
                said = _said(model, first)
            found = attack_events(model, first, said, how, generator=generators[x.device])
            x = torch.cat([found.x.detach(), x[:, first.shape[1] :]], 1)
        y: Tensor = model(x)
        return y

    return apply


def _said(model: nn.Module, x: Tensor) -> Tensor:
    """The classes that a model names in eval mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        return mean_outputs(model, x).argmax(1)
    finally:
        for module, mode in modes:
            module.training = mode


def input_gradient_penalty(
    model: nn.Module,
    x: Float[Tensor, "T B *rest"],
    y: Int[Tensor, " B"],
    loss: Loss = "cross_entropy",
) -> Float[Tensor, ""]:
    r"""Mean over the samples of $\|\partial L / \partial x\|_2^2$, to be added to the loss of training.

    Its own gradient is a second derivative: the forward pass runs on the reference engine, without bits. A closed
    window adds nothing, so a model whose gradients are zero everywhere is not penalised; wide surrogates learn from it.

    Source: Ross and Doshi-Velez 2018, arXiv:1711.09404.

    Args:
        model: in the mode it is in.
        x: input `[T, B, ...]`.
        y: classes.
        loss: whose gradient is kept small.
    """
    with engine("reference"), packing(False):
        leaf = x.detach().requires_grad_()
        error = loss_of(mean_outputs(model, leaf), y, loss)
        (gradient,) = torch.autograd.grad(error, leaf, create_graph=True)
    return gradient.square().sum() / x.shape[1]


class GradientPenalty(Hooks):
    """Adds `weight` times `input_gradient_penalty` to the loss of every training step; give it to `fit` as `hooks`.

    It runs the model once more, in training mode: norms see the batch twice, dropout draws anew.

    Args:
        weight: of the penalty.
        loss: whose gradient is kept small.
    """

    def __init__(self, weight: float, loss: Loss = "cross_entropy") -> None:
        self.weight, self.loss = weight, loss
        self.model: nn.Module = nn.Identity()

    def begin(self, model: nn.Module, rates: Sequence[float]) -> None:  # noqa: ARG002
        """The model whose gradients are penalised."""
        self.model = model

    def penalty(self, x: Tensor, y: Tensor) -> Tensor:
        """The penalty of a batch."""
        return self.weight * input_gradient_penalty(self.model, x, y, self.loss)
