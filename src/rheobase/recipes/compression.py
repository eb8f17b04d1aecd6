"""What compression costs: every method on digits, and the network of arXiv:1911.00822 on MNIST."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from rheobase.lab.compress import Activity, AdmmPrune, GradualMagnitude, Lats, Magnitude, Method, Quantise
from rheobase.recipes.classification import Classification, load_run, train
from rheobase.recipes.compress import COUNTED, Compression, compress_run, counts
from rheobase.recipes.registry import register as recipe
from rheobase.recipes.studies import Measurement, register
from rheobase.recipes.task import build
from rheobase.train import RunFolder, TrainConfig

SPARSITIES, BITS = (0.5, 0.75, 0.9, 0.95, 0.98), (8, 4, 3, 2, 1)
STRENGTH = 0.3
LEADER = "LATS"


@recipe
def digits_dense() -> Classification:
    """A fully connected network 64-256-256-10 on scikit-learn's digits, for the study `compression-digits`.

    Small enough for a grid of the methods of arXiv:1911.00822 and arXiv:2302.13019. Measured: see that study.
    Command: `rheobase train digits-dense`
    """
    return Classification(
        data="digits",
        model="feedforward_snn",
        neuron="iterative_lif",
        T=4,
        batch_size=50,
        threads=1,
        train=TrainConfig(epochs=30, optimizer="sgd", lr=0.1, checkpoint_every_epochs=30),
    )


@recipe
def mnist_conv() -> Classification:
    """32C3-MP-32C3-MP-128-10 on MNIST, direct input, T = 4: what is compressed in the study `compression-mnist`.

    Network: arXiv:1911.00822. Claim: at least 98.8 % before it is compressed. Measured: see the study.
    Command: `rheobase train mnist-conv`
    """
    return Classification(
        data="mnist",
        model="mnist_conv",
        T=4,
        batch_size=100,
        validation=0.05,
        train=TrainConfig(epochs=6, optimizer="sgd", lr=0.1, weight_decay=1e-4),
    )


def pruning(epochs: int, sparsity: float) -> dict[str, Method]:
    """Every method that prunes, at equal epochs."""
    return {
        "LATS": Lats(epochs, sparsity),
        "ADMM": AdmmPrune(epochs, sparsity),
        "magnitude": Magnitude(epochs, sparsity),
        "gradual magnitude": GradualMagnitude(epochs, sparsity),
        "linear threshold": Lats(epochs, sparsity, schedule="linear"),
    }


@dataclass(frozen=True)
class _Dense:
    """The run that all others begin with, and what it counts."""

    run: RunFolder
    counts: Mapping[str, Any]
    folder: Path

    @classmethod
    def of(cls, config: Classification, folder: Path) -> "_Dense":
        """Train it."""
        run, _ = train("dense", config, folder)
        task = build(config)
        load_run(task, run, None)
        return cls(run, counts(task, task.model, COUNTED, {}), folder)

    def compressed(
        self, run: RunFolder, method: Method, lr: float, subject: str, zeros: float = 0.0
    ) -> tuple[RunFolder, list[Measurement]]:
        """A run compressed further, and its rows, all beside the dense network."""
        made, result = compress_run(run, Compression((method,), lr=lr), self.folder)
        found, before = result["compress"], self.counts
        after = found["after"]
        values: dict[str, Any] = {
            "accuracy, %": 100 * after["accuracy"],
            "lost points": 100 * (before["accuracy"] - after["accuracy"]),
            "zeros, %": 100 * found["sparsity"],
            "storage, % of fp32": 100 * found["storage"],
        }
        for key, metric in _BESIDE.items():
            values[metric] = 100 * after[key] / before[key]
        raw = [stage for stage in found["stages"] if "raw_sparsity" in stage]
        if raw:
            values |= {"zeros before closing, %": 100 * raw[0]["raw_sparsity"], "D": raw[0]["D"]}
        return made, [Measurement(subject, round(zeros), metric, value) for metric, value in values.items()]


_BESIDE = {
    "spikes_per_neuron": "spikes, % of dense",
    "operations": "operations, % of dense",
    "bit_operations": "bit operations, % of dense",
}


def against(leader: float, rival: float, name: str, sparsity: float) -> Measurement:
    """What LATS has more than a rival at equal zeros and epochs, in points, and in its tag who won."""
    won = LEADER if leader > rival else name if leader < rival else "neither"
    return Measurement(f"{LEADER} against {name}", round(100 * sparsity), "points", leader - rival, tag=f"{won} won")


def _grid(
    config: Classification,
    seed: int,
    sparsities: Sequence[float],
    bits: Sequence[int],
    names: Sequence[str],
    epochs: tuple[int, int, int],
    lr: float,
) -> Iterator[Measurement]:
    """Train, then prune by every method, and quantise what is left; then quantise and quieten the dense network."""
    prune, quantise, quiet = epochs
    with tempfile.TemporaryDirectory() as place:
        dense = _Dense.of(replace(config, train=replace(config.train, seed=seed)), Path(place))
        yield Measurement("dense", 0, "accuracy, %", 100 * dense.counts["accuracy"])
        reached: dict[tuple[str, float], float] = {}
        for sparsity, name in product(sparsities, names):
            method = pruning(prune, sparsity)[name]
            made, rows = dense.compressed(dense.run, method, lr, name, 100 * sparsity)
            yield from rows
            reached[name, sparsity] = rows[0].value
            if name != LEADER and (LEADER, sparsity) in reached:
                yield against(reached[LEADER, sparsity], reached[name, sparsity], name, sparsity)
            for count in bits:
                subject = f"{name}, {count} bits"
                yield from dense.compressed(made, Quantise(quantise, count), lr / 10, subject, 100 * sparsity)[1]
        for count in bits:
            yield from dense.compressed(dense.run, Quantise(quantise, count), lr / 10, f"dense, {count} bits")[1]
        yield from dense.compressed(dense.run, Activity(quiet, STRENGTH), lr, "activity")[1]


@register
def compression_digits(seed: int) -> Iterator[Measurement]:
    """The whole grid on digits: five methods that prune, 50 to 98 % zeros, then 8 to 1 bits.

    Deng et al. 2021, arXiv:1911.00822; Chen et al. 2023, arXiv:2302.13019. Network 64-256-256-10, T = 4. All rows
    are beside the dense network. Command: `rheobase study compression-digits`
    """
    names = list(pruning(30, 0.5))
    yield from _grid(digits_dense(), seed, SPARSITIES, BITS, names, (30, 10, 20), 0.1)


@register
def compression_mnist(seed: int) -> Iterator[Measurement]:
    """LATS, ADMM, magnitude and a linear threshold on MNIST: 90 and 95 % zeros, then 8 and 3 bits; activity alone.

    Deng et al. 2021, arXiv:1911.00822; Chen et al. 2023, arXiv:2302.13019. Claims: 95 % zeros lose less than 0.5
    points, 90 % with 3 bits less than 1; activity regularisation takes 40 % of the spikes for less than 0.5 points.
    Every method gets 6 epochs, quantising 1 more, activity 3. Command: `rheobase study compression-mnist`
    """
    names = ("LATS", "ADMM", "magnitude", "linear threshold")
    yield from _grid(mnist_conv(), seed, (0.9, 0.95), (8, 3), names, (6, 1, 3), 0.05)
