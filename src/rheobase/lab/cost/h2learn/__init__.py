"""H2Learn, an accelerator for training spiking networks: its engines, and what a real training step hands to them.

`forward_engine` and `weight_update_engine` multiply by spikes through look-up tables, to the bit; `backward_engine`
computes the gradients that are needed from those that are not zero. `trace_step` traces a step of training.

Source: Liang et al. 2021, arXiv:2107.11746, of which the abstract alone could be read.
"""

from rheobase.lab.cost.h2learn.backward import Backward, backward_engine, operands, work
from rheobase.lab.cost.h2learn.lut import (
    FORMATS,
    Quantised,
    additions_per_synapse,
    best_fusion,
    forward_engine,
    quantise,
    weight_update_engine,
)
from rheobase.lab.cost.h2learn.trace import LayerTrace, NeuronTrace, StepTrace, Unmapped, trace_step

__all__ = [
    "FORMATS",
    "Backward",
    "LayerTrace",
    "NeuronTrace",
    "Quantised",
    "StepTrace",
    "Unmapped",
    "additions_per_synapse",
    "backward_engine",
    "best_fusion",
    "forward_engine",
    "operands",
    "quantise",
    "trace_step",
    "weight_update_engine",
    "work",
]
