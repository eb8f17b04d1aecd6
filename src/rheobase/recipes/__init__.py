"""Recipes: a file per claim, a function per config; the top of the import order, where any model meets any data."""

from rheobase.recipes import images  # noqa: F401  (registers)
from rheobase.recipes.classification import (
    Classification,
    Task,
    build,
    classify,
    config_of,
    measure,
    recipe_of,
    report,
    resume,
    train,
)
from rheobase.recipes.record import record
from rheobase.recipes.registry import list_recipes, recipe, register

__all__ = [
    "Classification",
    "Task",
    "build",
    "classify",
    "config_of",
    "list_recipes",
    "measure",
    "recipe",
    "recipe_of",
    "record",
    "register",
    "report",
    "resume",
    "train",
]
