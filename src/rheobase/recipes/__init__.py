"""Recipes: a file per claim, a function per config; the top of the import order, where any model meets any data."""

from rheobase.recipes import (  # noqa: F401  (registers)
    attack_studies,
    big_graph,
    cifar,
    compression,
    depth,
    events,
    gradients,
    graph_studies,
    graph_tasks,
    graphs,
    h2learn_densities,
    imagenet,
    images,
    psn,
    transformers,
    victims,
)
from rheobase.recipes.attack import attack
from rheobase.recipes.classification import (
    Classification,
    Task,
    classify,
    is_cross_validated,
    measure,
    report,
    resume,
    train,
)
from rheobase.recipes.compress import Compression, compress_run, resume_compress
from rheobase.recipes.cost import cost
from rheobase.recipes.floors import floors
from rheobase.recipes.h2learn import h2learn
from rheobase.recipes.nodes import NodeClassification, NodeTask
from rheobase.recipes.record import record, record_attack, record_compression, record_cost, record_floors
from rheobase.recipes.registry import list_recipes, recipe, register
from rheobase.recipes.studies import Measurement, list_studies, record_measurement, study
from rheobase.recipes.task import Trainable, build, config_of, recipe_of

__all__ = [
    "Classification",
    "Compression",
    "Measurement",
    "NodeClassification",
    "NodeTask",
    "Task",
    "Trainable",
    "attack",
    "build",
    "classify",
    "compress_run",
    "config_of",
    "cost",
    "floors",
    "h2learn",
    "is_cross_validated",
    "list_recipes",
    "list_studies",
    "measure",
    "recipe",
    "recipe_of",
    "record",
    "record_attack",
    "record_compression",
    "record_cost",
    "record_floors",
    "record_measurement",
    "register",
    "report",
    "resume",
    "resume_compress",
    "study",
    "train",
]
