"""What compression made of a network: layer by layer, and in sums."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rheobase.lab.compress.quantise import FLOAT_BITS, bits_of


@dataclass(frozen=True)
class LayerReport:
    """One weight.

    Attributes:
        name: of the parameter.
        weights: how many numbers it has.
        zeros: how many of them are zero.
        distinct: how many different values, zero included.
        bits: of a code for each of them where it is quantised, see `bits_of`; else 32.
    """

    name: str
    weights: int
    zeros: int
    distinct: int
    bits: int

    @classmethod
    def of(cls, name: str, weight: Tensor, quantised: bool) -> "LayerReport":
        """Count."""
        distinct, zeros = len(torch.unique(weight)), int((weight == 0).sum())
        return cls(name, weight.numel(), zeros, distinct, bits_of(weight) if quantised else FLOAT_BITS)

    @property
    def sparsity(self) -> float:
        """Zeros over weights."""
        return self.zeros / self.weights


@dataclass(frozen=True)
class CompressionReport:
    """What was done, and what the weights are now. Biases, norms and neurons are not compressed and not counted.

    Attributes:
        layers: the weights that were compressed.
        stages: what every method noted, in order: its settings, epochs, and what it found, such as D of LATS.
        masks: which weights each method was allowed to keep, by parameter; of pruned networks alone.
        scales: alpha of quantised weights, by parameter.
        tables: their levels.
    """

    layers: tuple[LayerReport, ...]
    stages: tuple[Mapping[str, Any], ...]
    masks: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    scales: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    tables: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def weights(self) -> int:
        """All of them."""
        return sum(layer.weights for layer in self.layers)

    @property
    def zeros(self) -> int:
        """How many are zero."""
        return sum(layer.zeros for layer in self.layers)

    @property
    def sparsity(self) -> float:
        """Zeros over weights."""
        return self.zeros / self.weights

    @property
    def bits(self) -> float:
        """Mean bits of a code over the weights that are not zero; 0 where all are."""
        left = self.weights - self.zeros
        return sum((layer.weights - layer.zeros) * layer.bits for layer in self.layers) / left if left else 0.0

    def storage(self, index_bits: int = 0) -> float:
        """Bits of what is not zero, with `index_bits` to say where each lies, over 32 bits a weight.

        Source: arXiv:1911.00822; `index_bits=0` is its ideal, 4 to 8 are what such indices cost.
        """
        bits = sum((layer.weights - layer.zeros) * (layer.bits + index_bits) for layer in self.layers)
        return bits / (FLOAT_BITS * self.weights)

    @property
    def epochs(self) -> int:
        """Of all stages."""
        return sum(int(stage["epochs"]) for stage in self.stages)

    def summary(self) -> dict[str, Any]:
        """The sums, as JSON holds them."""
        return {
            "weights": self.weights,
            "zeros": self.zeros,
            "sparsity": self.sparsity,
            "bits": self.bits,
            "storage": self.storage(),
            "storage_with_8_bit_index": self.storage(8),
            "epochs": self.epochs,
            "stages": [dict(stage) for stage in self.stages],
        }
