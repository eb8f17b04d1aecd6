"""H2Learn, arXiv:2107.11746: the engines of an accelerator that trains spiking networks."""
