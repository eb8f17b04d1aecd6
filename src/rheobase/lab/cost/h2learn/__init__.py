"""H2Learn, an accelerator for training spiking networks: its engines, and what a real training step hands to them.

`forward_engine` and `weight_update_engine` multiply by spikes through look-up tables, to the bit; `backward_engine`
computes the gradients that are needed from those that are not zero. `trace_step` traces a step of training; `works_of`
counts it for a design, `simulate` runs it, `ratios` and `sensitivity` compare with a GPU model, `ablation` says what
each part brings.

Source: Liang et al. 2021, arXiv:2107.11746, of which the abstract alone could be read: all sizes are derived here.
"""

from rheobase.lab.cost.h2learn.backward import Backward, backward_engine, operands, work
from rheobase.lab.cost.h2learn.design import PRESETS, REF_L, REF_S, UNITS, Design, Silicon, Units, preset
from rheobase.lab.cost.h2learn.gpu import PUBLISHED, Gpu, Ratios, ratios, sensitivity
from rheobase.lab.cost.h2learn.lut import (
    FORMATS,
    Quantised,
    additions_per_synapse,
    best_fusion,
    forward_engine,
    quantise,
    weight_update_engine,
)
from rheobase.lab.cost.h2learn.simulate import LayerResult, Roof, Simulation, ablation, simulate
from rheobase.lab.cost.h2learn.trace import LayerTrace, NeuronTrace, StepTrace, Unmapped, trace_step
from rheobase.lab.cost.h2learn.workload import LayerWork, NeuronWork, cifarnet, measured, network, works_of

__all__ = [
    "FORMATS",
    "PRESETS",
    "PUBLISHED",
    "REF_L",
    "REF_S",
    "UNITS",
    "Backward",
    "Design",
    "Gpu",
    "LayerResult",
    "LayerTrace",
    "LayerWork",
    "NeuronTrace",
    "NeuronWork",
    "Quantised",
    "Ratios",
    "Roof",
    "Silicon",
    "Simulation",
    "StepTrace",
    "Units",
    "Unmapped",
    "ablation",
    "additions_per_synapse",
    "backward_engine",
    "best_fusion",
    "cifarnet",
    "forward_engine",
    "measured",
    "network",
    "operands",
    "preset",
    "quantise",
    "ratios",
    "sensitivity",
    "simulate",
    "trace_step",
    "weight_update_engine",
    "work",
    "works_of",
]
