"""Writes neurobench.json beside this file: what NeuroBench counts of small networks, for the test to compare with.

Run once in an environment of its own: `pip install torch==2.13.0 neurobench==2.3.0`, then
`python tests/lab/cost/golden/make_neurobench.py`. The networks are here, in plain torch; the test builds the same ones
from them with layers of its own. All numbers are multiples of 1/64 and small, so that every sum is exact in fp32 and
the same neurons fire everywhere.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

T, SAMPLES, BATCH = 5, 6, 3
NETWORKS = ("mlp", "mlp-bias", "convolutions", "real-input", "graded", "pruned")


class Fire(nn.Module):
    """Integrates its input and fires at 1, from where it falls to 0; plain torch, one step a call."""

    def __init__(self):
        super().__init__()
        self.v = 0.0

    def forward(self, x):
        h = self.v + x
        s = (h >= 1).to(x.dtype)
        self.v = h * (1 - s)
        return s


class Sum(nn.Module):
    """x + f(x): sums of spikes where both are spikes."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


def network(name, layer=lambda module: module, neuron=Fire):
    """A network by name; `layer` wraps what has no state over time, `neuron` makes neurons."""
    random = np.random.default_rng(NETWORKS.index(name))

    def weighted(module, kept=1.0):
        for parameter in module.parameters():
            values = random.integers(-24, 40, parameter.shape) / 64 * (random.random(parameter.shape) < kept)
            parameter.data = torch.tensor(values, dtype=torch.float32)
        return layer(module)

    flat = layer(nn.Flatten())
    if name.startswith("mlp"):
        bias = name == "mlp-bias"
        return nn.Sequential(
            weighted(nn.Linear(12, 16, bias=bias)),
            neuron(),
            weighted(nn.Linear(16, 10, bias=bias)),
            neuron(),
            weighted(nn.Linear(10, 4, bias=bias)),
        )
    if name in ("convolutions", "pruned"):
        kept = 0.4 if name == "pruned" else 1.0
        return nn.Sequential(
            weighted(nn.Conv2d(2, 6, 3, padding=1, bias=False), kept),
            neuron(),
            weighted(nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2, bias=False), kept),
            neuron(),
            weighted(nn.Conv2d(8, 4, 3, padding=2, dilation=2, bias=False), kept),
            neuron(),
            flat,
            weighted(nn.Linear(64, 4, bias=False), kept),
        )
    if name == "real-input":
        return nn.Sequential(
            weighted(nn.Conv2d(2, 5, (3, 2), stride=(1, 2), padding=(1, 0))),
            neuron(),
            flat,
            weighted(nn.Linear(5 * 8 * 4, 4)),
        )
    return nn.Sequential(
        weighted(nn.Conv2d(2, 4, 3, padding=1, bias=False)),
        neuron(),
        Sum(nn.Sequential(weighted(nn.Conv2d(4, 4, 3, padding=1, bias=False)), neuron())),
        weighted(nn.Conv2d(4, 4, 3, padding=1, stride=2)),
        neuron(),
        flat,
        weighted(nn.Linear(64, 4)),
    )


def inputs(name):
    """Samples `[SAMPLES, T, ...]`: spikes, or multiples of 1/16 with zeros among them."""
    random = np.random.default_rng(100 + NETWORKS.index(name))
    shape = (SAMPLES, T, 12) if name.startswith("mlp") else (SAMPLES, T, 2, 8, 8)
    if name == "real-input":
        values = random.integers(0, 17, shape) / 16 * (random.random(shape) < 0.7)
    else:
        values = random.random(shape) < np.linspace(0.03, 0.4, T).reshape(1, T, *(1,) * (len(shape) - 2))
    return torch.tensor(values, dtype=torch.float32)


class Steps(nn.Module):
    """Runs a network step by step on `[B, T, ...]`."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        for module in self.net.modules():
            if isinstance(module, Fire):
                module.v = 0.0
        return torch.stack([self.net(x[:, t]) for t in range(x.shape[1])]).mean(0)


def measure(name):
    """What NeuroBench reports of a network."""
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.static import ConnectionSparsity
    from neurobench.metrics.workload import ActivationSparsity, SynapticOperations
    from neurobench.models import TorchModel
    from torch.utils.data import DataLoader, TensorDataset

    x = inputs(name)
    loader = DataLoader(TensorDataset(x, torch.zeros(len(x), dtype=torch.long)), batch_size=BATCH)
    model = TorchModel(Steps(network(name)))
    model.add_activation_module(Fire)
    with torch.no_grad():
        return Benchmark(model, loader, [], [], [[ConnectionSparsity], [ActivationSparsity, SynapticOperations]]).run()


def main():
    """Write the file."""
    from importlib.metadata import version

    found = {
        "neurobench": version("neurobench"),
        "torch": torch.__version__.partition("+")[0],
        "networks": {name: measure(name) for name in NETWORKS},
    }
    Path(__file__).with_name("neurobench.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
