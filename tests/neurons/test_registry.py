import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

import rheobase as rb
import rheobase.neurons
from rheobase.neurons import IF, NEURONS, Atan, Neuron, create_neuron, list_neurons, register, registry


def test_neurons_are_made_by_name():
    assert isinstance(create_neuron("if", threshold=0.5), IF)
    assert list_neurons("i*lif") == ["ilif", "iterative_lif"]


def test_an_unknown_name_is_met_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'lif'"):
        create_neuron("liff")
    with pytest.raises(ValueError, match="there are adex, adlif"):
        create_neuron("hodgkin-huxley")


def test_a_fixed_number_of_steps_is_asked_for():
    assert create_neuron("psn", T=3).T == 3
    with pytest.raises(ValueError, match=r"'psn' is made for a fixed number of steps; pass T"):
        create_neuron("psn")


@pytest.mark.parametrize("name", sorted(NEURONS))
def test_docstring_has_equation_arguments_and_source(name):
    text = NEURONS[name].make.__doc__
    for part in ("_t", "$", "Args:", "Source:"):
        assert part in text


@pytest.mark.parametrize("name", sorted(NEURONS))
def test_repr_shows_what_was_chosen(name):
    neuron = create_neuron(name) if NEURONS[name].any_T else create_neuron(name, T=4)
    assert any(f"{part}=" in repr(neuron) for part in ("threshold", *neuron.scan.params))


def test_repr_shows_the_surrogate():
    assert "Atan(alpha=2.0)" in repr(create_neuron("lif"))


CELL = """
@rb.step(state={"v": 0.0, "a": 0.0})
def tiring(x, v, a, *, tau, beta, spike):
    h = v + (x - v) / tau
    s = spike(h - (1 + beta * a))
    return s, (h * (1 - s.detach()), 0.9 * a + s)


@register("tiring", closed_form=False)
class Tiring(Neuron):
    def __init__(self, surrogate=Atan()):
        super().__init__(tiring, tau=2.0, beta=nn.Parameter(torch.tensor(0.3)), spike=surrogate)
"""


def neurons_of(laws):
    """Law -> the neurons it is parametrised over."""
    for path in sorted(laws.glob("test_*.py")):
        spec = importlib.util.spec_from_file_location(f"laws_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, law in vars(module).items():
            for mark in getattr(law, "pytestmark", []) if name.startswith("test_") else []:
                if mark.name == "parametrize" and mark.args[0] == "neuron":
                    yield f"{path.stem}::{name}", mark.args[1]


@pytest.mark.parametrize("engine", ["cpu", pytest.param("triton", marks=pytest.mark.triton)])
def test_a_neuron_of_ten_lines_is_fused_and_obeys_all_laws(engine, monkeypatch):
    """Step and module together are ten lines of code; registering them is all that the laws need."""
    assert sum(bool(line.strip()) for line in CELL.splitlines()) <= 10
    monkeypatch.setattr(registry, "NEURONS", NEURONS | {})  # what the cell registers is gone afterwards
    names = {"rb": rb, "torch": torch, "nn": nn, "Atan": Atan, "Neuron": Neuron, "register": register}
    exec(CELL, names)
    neuron = create_neuron("tiring")
    x = (torch.randn(8, 2, 40) * 3).requires_grad_()
    found = []
    for e in (engine, "reference"):
        with rb.engine(e):
            y = neuron(x)
            found.append((y, *torch.autograd.grad(y.cumsum(0).sum(), [x, neuron.beta])))
    assert neuron.emits == "binary"
    assert found[0][0].any()
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1:], found[1][1:], rtol=1e-4, atol=1e-4)

    monkeypatch.setattr(rheobase.neurons, "NEURONS", registry.NEURONS)
    laws = dict(neurons_of(Path(__file__).parents[1] / "laws"))
    applied = {law for law, neurons in laws.items() if "tiring" in neurons}
    assert {law.partition("::")[0] for law in applied} >= {"test_twin", "test_parity", "test_time", "test_compile"}
    ordinary = {name for name, entry in NEURONS.items() if entry.any_T}
    everything = {law for law, neurons in laws.items() if ordinary <= set(neurons)}
    assert len(everything) >= 8
    assert everything <= applied
