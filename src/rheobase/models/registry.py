"""The models by name, with the traits that their laws read."""

import difflib
import fnmatch
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

Make = TypeVar("Make", bound=Callable[..., nn.Module])


@dataclass(frozen=True)
class Entry:
    """A registered model and its traits.

    Attributes:
        make: the function that builds it.
        example: the shape `[C, ...]` of one sample at one step for the model built with the same keywords, small.
        causal: the output at t depends on inputs up to t only.
        any_T: takes sequences of any length, also of one step; if not, `make` takes the number of steps as `T=`.
        stochastic: draws random numbers in eval too.
        streamable: runs chunk by chunk with its state handed on.
        equivariance: samples of a "batch" do not see each other, so that permuting them permutes the output; of a
            graph, where they do, permuting nodes and links together does ("node-permutation"), and the model takes
            `(x, edge_index)`, x `[T, N, C]` and edge_index int64 `[2, E]`.
        reproduces: the source, and where it departs from it.
        tiny: the registered model that stands in for this one where tests run a recipe; None if it is small enough.
    """

    make: Callable[..., nn.Module]
    example: Callable[..., tuple[int, ...]]
    causal: bool = True
    any_T: bool = True  # noqa: N815
    stochastic: bool = False
    streamable: bool = True
    equivariance: Literal["batch", "node-permutation"] = "batch"
    reproduces: str = ""
    tiny: str | None = None

    def inputs(self, T: int, B: int, **options: Any) -> tuple[Tensor, ...]:
        """Random input of the model built with these keywords: x `[T, B, ...]`; of a graph also the links of a ring."""
        x = torch.randn(T, B, *self.example(**options))
        return (x,) if self.equivariance == "batch" else (x, ring(B))


def ring(N: int) -> Tensor:
    """The links of N nodes in a ring, both ways: int64 `[2, 2 N]`."""
    nodes = torch.arange(N)
    after = (nodes + 1) % N
    return torch.stack([torch.cat([nodes, after]), torch.cat([after, nodes])])


MODELS: dict[str, Entry] = {}


def register(
    example: Callable[..., tuple[int, ...]], *, name: str | None = None, **traits: Any
) -> Callable[[Make], Make]:
    """Enter a function that builds a model under its own name, or under `name`.

    Raises:
        ValueError: the name is taken.
    """

    def enter(make: Make) -> Make:
        key = name or make.__name__
        if key in MODELS:
            raise ValueError(f"register: there is already a model {key!r}; give this one another name")
        MODELS[key] = Entry(make, example, **traits)
        return make

    return enter


def image_of(side: int, channels: int = 3) -> Callable[..., tuple[int, ...]]:
    """The `example` of a model that takes `in_channels`: a square image of `channels` unless told otherwise."""
    return lambda in_channels=channels, **_: (in_channels, side, side)


def list_models(pattern: str = "*") -> list[str]:
    """Sorted names of the models that match a shell pattern: `list_models("ms_*")`."""
    return sorted(fnmatch.filter(MODELS, pattern))


def create_model(name: str, **options: Any) -> nn.Module:
    """Build a model: `create_model("ms_resnet20", classes=100)`; it maps `[T, B, ...]` to `[T, B, classes]`.

    Raises:
        ValueError: no such model (the message names the closest), or an option it does not take.
    """
    if name not in MODELS:
        close = difflib.get_close_matches(name, MODELS)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"there are {', '.join(list_models())}"
        raise ValueError(f"create_model: there is no model {name!r}; {hint}")
    make = MODELS[name].make
    known = inspect.signature(make).parameters
    if unknown := sorted(options.keys() - known.keys()):
        raise ValueError(
            f"create_model: {name!r} takes no option {', '.join(unknown)}; its options are {', '.join(known)}"
        )
    return make(**options)
