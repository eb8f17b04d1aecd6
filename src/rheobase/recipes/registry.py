"""Recipes by name. A recipe is a function that returns a frozen config; its docstring is the claim."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Entry = TypeVar("Entry")
Make = TypeVar("Make", bound=Callable[[], Any])

_RECIPES: dict[str, Callable[[], Any]] = {}


def register(make: Make) -> Make:
    """Enter a recipe under its function's name, with '-' for '_'."""
    _RECIPES[make.__name__.replace("_", "-")] = make
    return make


def list_recipes() -> list[str]:
    """Names of all recipes."""
    return sorted(_RECIPES)


def recipe(name: str) -> Callable[[], Any]:
    """The recipe of that name.

    Raises:
        ValueError: there is none.
    """
    return found("recipe", "recipes", _RECIPES, name)


def found(kind: str, plural: str, known: Mapping[str, Entry], name: str) -> Entry:
    """What is known under a name.

    Raises:
        ValueError: nothing; the message has the nearest name and all names.
    """
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"there is no {kind} {name!r}; {hint}{plural}: {', '.join(sorted(known))}")
    return known[name]
