"""The neurons by name, with the traits that their laws read."""

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from rheobase.neurons.neuron import Neuron


@dataclass(frozen=True)
class Entry:
    """A registered neuron and its traits.

    Attributes:
        make: the constructor; takes `surrogate=` if it spikes, `detach_reset=` if it resets, and its own arguments.
        causal: the output at t depends on inputs up to t only.
        streamable: runs chunk by chunk with its state handed on.
        any_T: takes sequences of any length; if not, `make` takes the number of steps as `T=`.
        stochastic: draws random numbers.
        closed_form: has `membrane(x, t)`, what step t compares with the threshold (or, if it does not spike, gives out)
            under constant current x from rest, up to the first spike.
        drive: standard deviation of a white input under which it fires within a few steps.
    """

    make: Callable[..., Neuron]
    causal: bool = True
    streamable: bool = True
    any_T: bool = True  # noqa: N815
    stochastic: bool = False
    closed_form: bool = True
    drive: float = 2.0


NEURONS: dict[str, Entry] = {}


def register(name: str, **traits: Any) -> Callable[[type[Neuron]], type[Neuron]]:
    """Enter a neuron class under `name`."""

    def enter(make: type[Neuron]) -> type[Neuron]:
        NEURONS[name] = Entry(make, **traits)
        return make

    return enter


def list_neurons(pattern: str = "*") -> list[str]:
    """Names of the registered neurons that match a shell pattern."""
    return sorted(name for name in NEURONS if fnmatch(name, pattern))


def create_neuron(name: str, **arguments: object) -> Neuron:
    """Make a registered neuron.

    Raises:
        ValueError: no neuron of that name, one that needs T without it, or an argument that it does not take.
    """
    if name not in NEURONS:
        near = difflib.get_close_matches(name, NEURONS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(NEURONS))}"
        raise ValueError(f"no neuron is called {name!r}; {hint}")
    if not NEURONS[name].any_T and "T" not in arguments:
        raise ValueError(
            f"{name!r} is made for a fixed number of steps; pass T, for example create_neuron({name!r}, T=4), or to a "
            f"model neuron=lambda: create_neuron({name!r}, T=4)"
        )
    takes = inspect.signature(NEURONS[name].make).parameters
    if unknown := sorted(arguments.keys() - takes.keys()):
        raise ValueError(f"{name!r} takes no argument {', '.join(unknown)}; its arguments are {', '.join(takes)}")
    return NEURONS[name].make(**arguments)
