import pytest

from rheobase.nn.packing import Conv2d
from rheobase.recipes import build, list_recipes, recipe
from rheobase.recipes.depth import DEPTHS, KINDS


def test_every_kind_at_every_depth():
    expected = {f"depth-{block}-{layers}" for block in KINDS for layers in DEPTHS}
    assert {name for name in list_recipes() if name.startswith("depth-")} == expected | {"depth-482"}


@pytest.mark.parametrize("block", KINDS)
@pytest.mark.parametrize("layers", [8, 38])
def test_layers_are_counted_and_nothing_else_changes(block, layers):
    config = recipe(f"depth-{block}-{layers}")()
    task = build(config)
    assert sum(isinstance(module, Conv2d) for module in task.model.modules()) + 1 == layers
    assert {**vars(config), "model": None} == {**vars(recipe("depth-ms-8")()), "model": None}
    assert config.model == f"{block}_stack{DEPTHS[layers]}"
