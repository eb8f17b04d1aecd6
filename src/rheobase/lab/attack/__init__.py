"""Robustness: attacks on spikes and on images, what the threshold does to them, and defences.

attacked = attack_events(model, x, y, SpikeAttack(threshold=1.0))
print(Share.of(attacked.success, attacked.attacked).interval)
"""

from rheobase.lab.attack.defend import GradientPenalty, adversarial, input_gradient_penalty
from rheobase.lab.attack.evaluate import (
    Share,
    fooled,
    fooled_by_chance,
    random_flips,
    success_curve,
    transferred,
    wilson,
)
from rheobase.lab.attack.images import BoxAttack, attack_images
from rheobase.lab.attack.spikes import (
    Attacked,
    SpikeAttack,
    attack_coded,
    attack_events,
    convert,
    flip,
    is_fooled,
    is_silent,
    mean_outputs,
    update,
    within_budget,
)
from rheobase.lab.attack.threshold import as_victim, firing_at, hidden_layer, spiking_layers, surrogates
from rheobase.lab.attack.trap import Trap, distances, input_gradient, silent_samples, traps

__all__ = [
    "Attacked",
    "BoxAttack",
    "GradientPenalty",
    "Share",
    "SpikeAttack",
    "Trap",
    "adversarial",
    "as_victim",
    "attack_coded",
    "attack_events",
    "attack_images",
    "convert",
    "distances",
    "firing_at",
    "flip",
    "fooled",
    "fooled_by_chance",
    "hidden_layer",
    "input_gradient",
    "input_gradient_penalty",
    "is_fooled",
    "is_silent",
    "mean_outputs",
    "random_flips",
    "silent_samples",
    "spiking_layers",
    "success_curve",
    "surrogates",
    "transferred",
    "traps",
    "update",
    "wilson",
    "within_budget",
]
