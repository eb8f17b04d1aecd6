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


def test_a_fixed_number_of_steps_is_asked_for():
    assert create_neuron("psn", T=3).T == 3
    with pytest.raises(ValueError, match=r"'psn' is made for a fixed number of steps; pass T"):
        create_neuron("psn")


@pytest.mark.parametrize("name", sorted(NEURONS))
def test_docstring_has_equation_arguments_errors_and_source(name):
    text = NEURONS[name].make.__doc__
    for part in ("$h_t", "Args:", "Raises:", "Source:"):
        assert part in text


@pytest.mark.parametrize("name", sorted(NEURONS))
def test_repr_shows_what_was_chosen(name):
    made = create_neuron(name) if NEURONS[name].any_T else create_neuron(name, T=4)
    assert "threshold=" in repr(made)
    assert "Atan(alpha=2.0)" in repr(create_neuron("lif"))
