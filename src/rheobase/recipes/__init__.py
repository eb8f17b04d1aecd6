"""Recipes: a file per claim, a function per config; the top of the import order, where any model meets any data."""

from rheobase.recipes import depth, events, images, psn  # noqa: F401  (registers)
from rheobase.recipes.classification import (
    Classification,
    Task,
    build,
    classify,
    config_of,
    is_cross_validated,
    measure,
    recipe_of,
    report,
    resume,
    train,
)
from rheobase.recipes.floors import floors
from rheobase.recipes.record import record, record_floors
from rheobase.recipes.registry import list_recipes, recipe, register

__all__ = [
    "Classification",
    "Task",
    "build",
    "classify",
    "config_of",
    "floors",
    "is_cross_validated",
    "list_recipes",
    "measure",
    "recipe",
    "recipe_of",
    "record",
    "record_floors",
    "register",
    "report",
    "resume",
    "train",
]
