"""H2Learn, an accelerator for training spiking networks: what a real training step hands to its engines.

Source: Liang et al. 2021, arXiv:2107.11746, of which the abstract alone could be read.
"""

from rheobase.lab.cost.h2learn.trace import LayerTrace, NeuronTrace, StepTrace, Unmapped, trace_step

__all__ = ["LayerTrace", "NeuronTrace", "StepTrace", "Unmapped", "trace_step"]
