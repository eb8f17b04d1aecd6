"""H2Learn, an accelerator for training spiking networks: traced steps, engines, and what comes out against a GPU.

`trace_step` sees what a real training step hands to each layer; `works_of` counts it for a design, `simulate` runs it,
`ratios` and `sensitivity` compare with a GPU model, `ablation` says what each part brings.

Source: Liang et al. 2021, arXiv:2107.11746, of which the abstract alone could be read: all sizes are derived here.
"""

from rheobase.lab.cost.h2learn.design import PRESETS, REF_L, REF_S, UNITS, Design, Silicon, Units, preset
from rheobase.lab.cost.h2learn.gpu import PUBLISHED, Gpu, Ratios, ratios, sensitivity
from rheobase.lab.cost.h2learn.simulate import LayerResult, Roof, Simulation, ablation, simulate
from rheobase.lab.cost.h2learn.trace import LayerTrace, NeuronTrace, StepTrace, Unmapped, trace_step
from rheobase.lab.cost.h2learn.work import LayerWork, NeuronWork, cifarnet, measured, network, works_of

__all__ = [
    "PRESETS",
    "PUBLISHED",
    "REF_L",
    "REF_S",
    "UNITS",
    "Design",
    "Gpu",
    "LayerResult",
    "LayerTrace",
    "LayerWork",
    "NeuronTrace",
    "NeuronWork",
    "Ratios",
    "Roof",
    "Silicon",
    "Simulation",
    "StepTrace",
    "Units",
    "Unmapped",
    "ablation",
    "cifarnet",
    "measured",
    "network",
    "preset",
    "ratios",
    "sensitivity",
    "simulate",
    "trace_step",
    "works_of",
]
