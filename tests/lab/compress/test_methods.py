import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from rheobase.lab.compress import (
    METHODS,
    Activity,
    AdmmPrune,
    Channels,
    GradualMagnitude,
    Lats,
    Magnitude,
    Quantise,
    compress,
    method_from,
    method_to,
    shrink,
)
from rheobase.lab.compress.methods import interpolate
from rheobase.models import MODELS, create_model
from rheobase.neurons import LIF
from rheobase.nn import PerStep
from rheobase.train import Step

X = torch.rand(40, 6, generator=torch.Generator().manual_seed(1))
Y = (X @ torch.tensor([1.0, -1, 2, 0, 0.5, -2]) > 0.2).long()


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 2))


class Trains:
    """Full-batch SGD, four steps an epoch; notes what it was asked for."""

    def __init__(self, lr=0.2):
        self.lr, self.asked = lr, []

    def __call__(self, model, epochs, hooks, name):
        self.asked.append((name, epochs))
        total = 4 * epochs
        optimizer = torch.optim.SGD(model.parameters(), lr=self.lr, momentum=0.9)
        hooks.begin(model, [self.lr] * total)
        for k in range(total):
            optimizer.zero_grad()
            value = nn.functional.cross_entropy(model(X), Y)
            penalty = hooks.penalty(X, Y)
            (value if penalty is None else value + penalty).backward()
            hooks.before_update(Step(k, total, 4, self.lr))
            optimizer.step()
            hooks.after_update(Step(k, total, 4, self.lr))
        hooks.end()


@pytest.mark.parametrize("method", [Magnitude, GradualMagnitude, AdmmPrune])
@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_budgets_are_exact(method, scope, sparsity):
    made, report = compress(net(), method(sparsity=sparsity, scope=scope, epochs=4), Trains())
    assert report.zeros == report.weights - (
        round((1 - sparsity) * 256) if scope == "global" else round((1 - sparsity) * 192) + round((1 - sparsity) * 64)
    )
    assert report.epochs == 4
    assert list(made.state_dict()) == list(net().state_dict())


def test_shares_of_layers():
    _, report = compress(net(), AdmmPrune(sparsity={"0*": 0.75, "2*": 0.5}, epochs=4), Trains())
    assert [layer.zeros for layer in report.layers] == [144, 32]


@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.95])
def test_lats_closes_at_the_exact_budget_within_its_epochs(sparsity):
    trains = Trains()
    made, report = compress(net(), Lats(sparsity=sparsity, epochs=20), trains)
    assert sum(int(mask.sum()) for mask in report.masks.values()) == round((1 - sparsity) * 256)
    assert report.zeros == 256 - round((1 - sparsity) * 256)
    assert sum(epochs for _, epochs in trains.asked) == 20
    assert dict(trains.asked)["closing"] == 2
    pilots = [epochs for name, epochs in trains.asked if name.startswith("pilot")]
    assert len(pilots) <= 3
    assert set(pilots) == {3}
    assert report.stages[0]["D"] > 0
    assert 0 < report.stages[0]["raw_sparsity"] < 1
    assert list(made.state_dict()) == list(net().state_dict())


def test_lats_with_a_given_threshold_is_not_closed():
    trains = Trains()
    _, report = compress(net(), Lats(sparsity=None, D=0.3, epochs=7), trains)
    assert trains.asked == [("soft", 7)]
    assert report.stages[0]["raw_sparsity"] == report.sparsity


def test_larger_threshold_prunes_more():
    found = [compress(net(), Lats(sparsity=None, D=D, epochs=10), Trains())[1].sparsity for D in (0.0, 0.1, 0.5)]
    assert found[0] == 0
    assert found[0] < found[1] < found[2]


def test_interpolation_finds_the_line():
    def sparsity(D):
        return 1 - 0.5 * D**-1.5

    found = [(D, sparsity(D)) for D in (1.0, 2.0)]
    assert interpolate(found, sparsity(3.0), 1e-9) == pytest.approx(3.0)
    assert interpolate(found[:1], 0.75, 1e-9) == pytest.approx(2.0)  # slope -1: half as many are left
    assert interpolate([(1.0, 1.0)], 0.9, 1e-3) < 1.0


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_quantised_weights_have_their_bits(bits):
    made, report = compress(net(), Quantise(bits=bits, epochs=4), Trains(0.02))
    assert all(layer.bits <= bits for layer in report.layers)
    for name, table in report.tables.items():
        scale = report.scales[name]
        levels_used = made.get_parameter(name).detach() / scale
        assert bool(torch.isin(levels_used.round(), table).all())
        assert torch.equal(levels_used.round() * scale, made.get_parameter(name).detach())


def test_joint_pruning_keeps_its_zeros_and_counts_them_as_a_level():
    _, report = compress(net(), [AdmmPrune(sparsity=0.75, epochs=4), Quantise(bits=1, epochs=4)], Trains(0.05))
    assert report.sparsity == 0.75
    assert [layer.distinct for layer in report.layers] == [3, 3]
    assert [layer.bits for layer in report.layers] == [2, 2]
    assert report.storage() == pytest.approx(0.25 * 2 / 32)
    assert report.storage(8) == pytest.approx(0.25 * 10 / 32)
    assert [stage["method"] for stage in report.stages] == ["admm", "quantise"]


def test_the_model_is_not_changed():
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for method in (Magnitude(), Lats(), Quantise(epochs=2), AdmmPrune(epochs=2)):
        compress(model, method, Trains())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_excluded_layers_stay_dense():
    _, report = compress(net(), Magnitude(0, sparsity=0.9), Trains(), exclude=["2"])
    assert [layer.name for layer in report.layers] == ["0.weight"]


class Spiking(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.body = nn.Sequential(PerStep(nn.Linear(6, 12)), LIF(), PerStep(nn.Linear(12, 2)))

    def forward(self, x):
        return self.body(4 * x.expand(3, *x.shape)).mean(0)


def test_activity_takes_part_in_the_others_or_stands_alone():
    trains = Trains()
    _, report = compress(Spiking(), [Activity(strength=0.1), Magnitude(3, sparsity=0.5)], trains)
    assert trains.asked == [("masked", 3)]
    assert report.epochs == 3
    trains = Trains()
    _, report = compress(Spiking(), Activity(5, strength=0.1), trains)
    assert trains.asked == [("quiet", 5)]
    assert report.zeros == 0


def test_channels_stay_silent_in_training_and_can_be_taken_out():
    model, example = create_model("test_mnist_conv"), torch.rand(2, 3, 1, 8, 8)

    def fit(model, epochs, hooks, name):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
        hooks.begin(model, [0.1] * 5)
        for k in range(5):
            optimizer.zero_grad()
            (model(example).mean(0) - 1).square().mean().backward()
            hooks.before_update(Step(k, 5, 5, 0.1))
            optimizer.step()
            hooks.after_update(Step(k, 5, 5, 0.1))
        hooks.end()

    made, report = compress(model, Channels(1, share=0.5), fit, example=example)
    small = shrink(made, example)
    assert report.sparsity > 0.3
    assert sum(p.numel() for p in small.parameters()) < 0.6 * sum(p.numel() for p in made.parameters())
    made.eval()
    assert torch.allclose(small(example), made(example), atol=1e-5)
    with pytest.raises(ValueError, match="there is no example"):
        compress(model, Channels(), fit)


@pytest.mark.parametrize("name", [n for n, entry in MODELS.items() if n.startswith("test_") and entry.any_T])
def test_every_registered_model_is_pruned_and_quantised(name):
    model = create_model(name)
    asked = []
    fit = lambda model, epochs, hooks, name: asked.append(name)  # noqa: E731
    made, report = compress(model, [Magnitude(0, sparsity=0.9), Quantise(0, bits=2)], fit)
    assert report.sparsity == pytest.approx(0.9, abs=0.02)
    assert all(layer.bits <= 2 for layer in report.layers)
    create_model(name).load_state_dict(made.state_dict())


@pytest.mark.parametrize("kind", METHODS.values(), ids=METHODS)
def test_methods_survive_json(kind):
    method = kind()
    assert method_from(json.loads(json.dumps(method_to(method)))) == method


def test_bad_methods_are_refused():
    with pytest.raises(ValueError, match="no method 'melt'"):
        method_from({"method": "melt"})
    with pytest.raises(ValueError, match="no field 'size'"):
        method_from({"method": "lats", "size": 3})
    for make in (
        lambda: Magnitude(sparsity=1.0),
        lambda: Lats(sparsity=0.5, D=1.0),
        lambda: Lats(sparsity=None),
        lambda: Lats(epochs=3),
        lambda: Lats(schedule="steep"),
        lambda: Quantise(bits=0),
        lambda: AdmmPrune(rho=0.0),
        lambda: Activity(strength=-1.0),
    ):
        with pytest.raises(ValueError, match="expected"):
            make()
    with pytest.raises(ValueError, match="got 0 methods"):
        compress(net(), [], Trains())
    with pytest.raises(ValueError, match="2 of them Activity"):
        compress(net(), [Activity(), replace(Activity(), epochs=3)], Trains())
