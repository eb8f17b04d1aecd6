"""Recipes by name. A recipe is a function that returns a frozen config; its docstring is the claim."""

import difflib
from collections.abc import Callable

from rheobase.recipes.classification import Classification

_RECIPES: dict[str, Callable[[], Classification]] = {}


def register(make: Callable[[], Classification]) -> Callable[[], Classification]:
    """Enter a recipe under its function's name, with '-' for '_'."""
    _RECIPES[make.__name__.replace("_", "-")] = make
    return make


def list_recipes() -> list[str]:
    """Names of all recipes."""
    return sorted(_RECIPES)


def recipe(name: str) -> Callable[[], Classification]:
    """The recipe of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in _RECIPES:
        near = difflib.get_close_matches(name, _RECIPES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"there is no recipe {name!r}; {hint}recipes: {', '.join(list_recipes())}")
    return _RECIPES[name]
