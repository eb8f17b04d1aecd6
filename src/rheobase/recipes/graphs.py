"""Citation graphs, 20 labelled papers of each class: spiking networks, and those they are measured against."""

from dataclasses import replace

from rheobase.recipes.nodes import NodeClassification
from rheobase.recipes.registry import register
from rheobase.train import TrainConfig

_USUAL = TrainConfig(
    epochs=200, optimizer="adam", schedule="constant", lr=0.01, weight_decay=5e-4, checkpoint_every_epochs=20
)
_GC = NodeClassification(
    neuron="iterative_lif",
    neuron_options=(("decay", 0.9), ("threshold", 0.25), ("detach_reset", False), ("strict", False)),
    dropout=0.8,
    train=_USUAL,
)


@register
def cora_gc_snn() -> NodeClassification:
    """x. arXiv rheobase train cora-gc-snn."""
    return replace(_GC, train=replace(_USUAL, lr=0.005, weight_decay=1e-2))
