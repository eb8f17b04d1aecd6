import pytest

from rheobase.neurons import PSN, SlidingPSN
from rheobase.recipes import Classification
from rheobase.recipes.classification import build


@pytest.mark.parametrize(("neuron", "kind"), [("psn", PSN), ("sliding_psn", SlidingPSN)])
def test_a_neuron_for_a_fixed_number_of_steps_is_made_for_those_of_the_config(neuron, kind):
    task = build(Classification(model="plain_stack", neuron=neuron, width=4, T=3))
    made = [module for module in task.model.modules() if isinstance(module, kind)]
    assert len(made) == 7
    if kind is PSN:
        assert {module.T for module in made} == {3}
    x = task.prepare(task.train.intensities(slice(0, 2)), None)
    assert task.model(x).shape == (3, 2, 10)
