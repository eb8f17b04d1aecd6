import pytest

from rheobase.neurons import IF, NEURONS, create_neuron, list_neurons


def test_neurons_are_made_by_name():
    assert isinstance(create_neuron("if", threshold=0.5), IF)
    assert list_neurons("*lif") == ["iterative_lif", "lif", "plif"]


def test_an_unknown_name_is_met_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'lif'"):
        create_neuron("liff")
    with pytest.raises(ValueError, match="there are if, iterative_lif"):
        create_neuron("hodgkin-huxley")


@pytest.mark.parametrize("name", sorted(NEURONS))
def test_docstring_has_equation_arguments_errors_and_source(name):
    text = NEURONS[name].make.__doc__
    for part in ("$h_t", "Args:", "Raises:", "Source:"):
        assert part in text


@pytest.mark.parametrize("name", sorted(NEURONS))
def test_repr_shows_what_was_chosen(name):
    assert "threshold=" in repr(create_neuron(name))
    assert "Atan(alpha=2.0)" in repr(create_neuron("lif"))
