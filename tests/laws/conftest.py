"""What the laws of neurons share: making one, feeding it so that it fires, seeing how close it came to firing."""

import inspect
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import torch

import rheobase as rb
from rheobase.neurons import NEURONS, Surrogate, create_neuron


@dataclass(frozen=True, eq=False)
class Watched(Surrogate):
    """A surrogate that keeps what enters the spike, h - threshold, for every step of the reference engine."""

    surrogate: object
    seen: list = field(default_factory=list)

    def __call__(self, x, strict=False):
        self.seen.append(x.detach())
        return self.surrogate(x, strict)


class Laws:
    """The laws' tools, handed out by the fixture `laws`."""

    @staticmethod
    def make(name, **wanted):
        """A registered neuron with those of the wanted arguments that its constructor takes."""
        takes = inspect.signature(NEURONS[name].make).parameters
        return create_neuron(name, **{key: value for key, value in wanted.items() if key in takes})

    @staticmethod
    def signal(name, *shape):
        """A white input under which the neuron fires."""
        return torch.randn(shape) * NEURONS[name].drive

    @staticmethod
    def warm(name, module, x):
        """A state that the neuron may well be in, of the shape of one step of x."""
        with rb.engine("reference"), torch.no_grad():
            before = torch.stack([Laws.signal(name, *x.shape[1:]) for _ in range(4)]).to(x.dtype)
            _, state = module.sequence(before, None)
        return tuple(s.clone() for s in state)

    @staticmethod
    @contextmanager
    def watching(module):
        """Collect h - threshold of every step that the reference engine takes inside; an empty list if none spikes."""
        constants = module.scan.constants
        watched = Watched(constants.get("spike"))
        if "spike" in constants:
            module.scan.constants = {**constants, "spike": watched}
        try:
            yield watched.seen
        finally:
            module.scan.constants = constants


@pytest.fixture
def laws():
    return Laws
