import math

import pytest
import torch
from torch import nn

import rheobase as rb
from rheobase.lab.compress import (
    AdmmPruning,
    AdmmQuantising,
    Gradual,
    Masked,
    Quantised,
    Quiet,
    SoftThreshold,
    forget,
    keep_masks,
    largest,
    levels,
)
from rheobase.lab.compress.weights import has_kept, kept
from rheobase.neurons import LIF
from rheobase.nn import PerStep
from rheobase.train import Hooks, Step


def drive(model, loss, rates, hooks, per_epoch=1, momentum=0.0, weight_decay=0.0):
    """What `fit` does around an update, with SGD; returns the losses."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=momentum, weight_decay=weight_decay)
    hooks.begin(model, rates)
    seen = []
    for k, lr in enumerate(rates):
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        value = loss(model)
        penalty = hooks.penalty(torch.empty(0), torch.empty(0))
        (value if penalty is None else value + penalty).backward()
        step = Step(k, len(rates), per_epoch, lr)
        hooks.before_update(step)
        optimizer.step()
        hooks.after_update(step)
        seen.append(float(value.detach()))
    hooks.end()
    return seen


def cosine(n, lr=0.1):
    return [lr * (1 + math.cos(math.pi * k / n)) / 2 for k in range(n)]


def lasso(p=60, n=200, lam=0.3):
    """0.5 / n |Xw - y|^2 of a linear layer, and the minimum with lam |w|_1, by ISTA."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(n, p, generator=generator, dtype=torch.float64)
    truth = torch.zeros(p, dtype=torch.float64)
    truth[:10] = torch.randn(10, generator=generator, dtype=torch.float64) * 2
    y = X @ truth + 0.1 * torch.randn(n, generator=generator, dtype=torch.float64)
    step = 1 / float(torch.linalg.matrix_norm(X.T @ X / n, 2))
    w = torch.zeros(p, dtype=torch.float64)
    for _ in range(5000):
        w = nn.functional.softshrink(w - step * (X.T @ (X @ w - y)) / n, step * lam)
    layer = nn.Linear(p, 1, bias=False).double()
    with torch.no_grad():
        layer.weight.zero_()
    return layer, lambda m: 0.5 / n * (m(X)[:, 0] - y).square().sum(), w


@pytest.mark.parametrize("rates", [[0.1] * 3000, cosine(3000)], ids=["constant", "cosine"])
def test_lats_ends_at_the_minimum_of_lasso(rates):
    model, loss, expected = lasso()
    hook = SoftThreshold(["weight"], D=0.3 * math.fsum(rates))
    hook.attach(model)
    drive(model, loss, rates, hook)
    assert (model.weight[0] - expected).norm() < 1e-3
    assert torch.equal(model.weight[0] == 0, expected.abs() < 1e-6)


def test_linear_thresholds_with_a_cosine_end_elsewhere():
    model, loss, expected = lasso()
    rates = cosine(3000)
    hook = SoftThreshold(["weight"], 0.3 * math.fsum(rates), "linear")
    hook.attach(model)
    drive(model, loss, rates, hook)
    assert (model.weight[0] - expected).norm() > 0.5


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


DATA = torch.rand(20, 6, generator=torch.Generator().manual_seed(1))


def error(model):
    return model(DATA).square().mean() + (model(DATA) - 1).abs().mean()


NAMES = ["0.weight", "2.weight"]


def test_threshold_zero_is_dense_training_bit_by_bit():
    plain, soft = small(), small()
    rates = cosine(30, 0.2)
    hook = SoftThreshold(NAMES, 0.0)
    hook.attach(soft)
    options = {"momentum": 0.9, "weight_decay": 1e-3}
    assert drive(plain, error, rates, Hooks(), **options) == drive(soft, error, rates, hook, **options)
    assert torch.equal(plain[0].weight, soft[0].weight)


def test_gradient_reaches_pruned_weights_which_grow_again():
    model = small()
    hook = SoftThreshold(NAMES, 1.0)
    hook.attach(model)
    hook.begin(model, [0.5] * 4)
    hook.d = 10.0
    hook.show()
    assert bool((model[2].weight == 0).all())
    kept(model, "2.weight", "latent").fill_(9.0)
    model[2].weight.grad = torch.full_like(model[2].weight, -4.0)
    hook.before_update(Step(0, 4, 1, 0.5))
    assert bool((model[2].weight == 9).all())
    with torch.no_grad():
        model[2].weight.sub_(0.5 * model[2].weight.grad)
    hook.after_update(Step(0, 4, 1, 0.5))
    assert hook.d == 0.25
    assert torch.allclose(model[2].weight, torch.full_like(model[2].weight, 11 - 0.25))


def test_constant_threshold_begins_with_the_dense_network():
    model, dense = small(), small()
    hook = SoftThreshold(NAMES, 0.7, "constant")
    hook.attach(model)
    hook.begin(model, [0.1])
    hook.d = 0.7
    hook.show()
    assert torch.allclose(model[0].weight, dense[0].weight, atol=1e-6)


def test_what_is_shown_is_what_is_saved_and_nothing_stays():
    model = small()
    before = list(model.state_dict())
    hook = SoftThreshold(NAMES, 0.2)
    hook.attach(model)
    drive(model, error, cosine(20), hook)
    assert bool((model.state_dict()["0.weight"] == 0).any())
    assert not bool(torch.signbit(model[0].weight[model[0].weight == 0]).any())
    forget(model)
    assert list(model.state_dict()) == before


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_masked_weights_stay_exactly_zero(momentum):
    model = small()
    weights = {name: model.get_parameter(name) for name in NAMES}
    keep_masks(model, largest(weights, 0.75))
    drive(model, error, cosine(15), Masked(NAMES), momentum=momentum, weight_decay=0.1)
    assert [(model[k].weight == 0).sum().item() for k in (0, 2)] == [36, 18]
    assert not bool(torch.signbit(model[0].weight[model[0].weight == 0]).any())


def test_gradual_pruning_follows_the_cubic_and_ends_exact():
    model = small()
    seen = []

    class Look(Gradual):
        def after_update(self, step):
            super().after_update(step)
            seen.append(int((self.weights["0.weight"] == 0).sum()))

    hook = Look(NAMES, 0.75, "layer", 0.5, 10)
    hook.attach(model)
    names = list(model.state_dict())
    drive(model, error, [0.01] * 20, hook)
    assert list(model.state_dict()) == names  # else a killed training could not go on
    expected = [round(48 * 0.75 * (1 - (1 - k / 10) ** 3)) for k in range(1, 11)]
    assert seen[:10] == pytest.approx(expected, abs=1)
    assert seen[9:] == [36] * 11


def quadratic(target):
    def loss(model):
        return 0.5 * (model.weight - target).square().sum()

    return loss


class Exact(AdmmPruning):
    """ADMM with the W-step in closed form for f = |W - A|^2 / 2."""

    def run(self, model, A, rounds):
        self.attach(model)
        for k in range(rounds):
            Z, U = kept(model, "weight", "target"), kept(model, "weight", "dual")
            model.weight.data.copy_((A + self.rho * (Z - U)) / (1 + self.rho))
            self.after_update(Step(k, rounds, 1, 0.1))
        return self.residual()


@pytest.mark.parametrize("rho", [1.0, 3.0])
def test_admm_converges_to_the_projection(rho):
    A = torch.randn(8, 10, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    model = nn.Linear(10, 8, bias=False).double()
    model.weight.data.copy_(A)
    assert Exact(["weight"], rho, 0.75).run(model, A, 200) < 1e-12
    mask = largest({"weight": A}, 0.75)["weight"]
    assert torch.allclose(model.weight, A * mask, atol=1e-12)


def test_admm_with_a_small_rho_goes_in_circles():
    A = torch.randn(8, 10, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    model = nn.Linear(10, 8, bias=False).double()
    model.weight.data.copy_(A)
    assert Exact(["weight"], 0.3, 0.75).run(model, A, 200) > 1e-3


def test_admm_adds_its_gradient_and_leaves_the_weights_alone_at_the_start():
    model = small()
    before = model[0].weight.detach().clone()
    hook = AdmmPruning(NAMES, 0.5, 0.5)
    hook.attach(model)
    assert torch.equal(model[0].weight, before)  # the released code prunes here, by aliasing
    error(model).backward()
    plain = model[0].weight.grad.clone()
    hook.before_update(Step(0, 1, 1, 0.1))
    Z = kept(model, "0.weight", "target")
    assert torch.allclose(model[0].weight.grad, plain + 0.5 * (before - Z))
    assert int((Z == 0).sum()) == 24


def test_admm_with_constant_pull_has_a_gradient_of_one_length():
    model = small()
    hook = AdmmPruning(NAMES, 0.5, 0.5, pull="constant")
    hook.attach(model)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    hook.before_update(Step(0, 1, 1, 0.1))
    assert model[0].weight.grad.norm() == pytest.approx(0.5, rel=1e-5)


def test_admm_quantising_brings_weights_to_their_levels():
    A = torch.randn(8, 10, generator=torch.Generator().manual_seed(4))
    model = nn.Linear(10, 8, bias=False)
    model.weight.data.copy_(A)
    hook = AdmmQuantising(["weight"], 2.0, levels(2))
    hook.attach(model)
    first = hook.residual()
    drive(model, quadratic(A), [0.3] * 300, hook, per_epoch=10)
    assert hook.residual() < 0.1 * first


def test_quantised_network_uses_few_values_and_learns_beneath():
    model = small()
    hook = Quantised(NAMES, levels(3))
    hook.attach(model)
    before = error(model).item()
    assert len(model[0].weight.unique()) <= 7
    seen = drive(model, error, cosine(60, 0.05), hook, per_epoch=10)
    assert seen[-1] < before
    assert len(model[0].weight.unique()) <= 7
    assert float(kept(model, "0.weight", "scale")) > 0


def test_quantised_keeps_masks():
    model = small()
    keep_masks(model, largest({n: model.get_parameter(n) for n in NAMES}, 0.5))
    hook = Quantised(NAMES, levels(1))
    hook.attach(model)
    drive(model, error, cosine(20), hook, per_epoch=5)
    assert int((model[0].weight == 0).sum()) == 24
    assert len(model[0].weight.unique()) == 3


class Spiking(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.first, self.fires = PerStep(nn.Linear(6, 12)), LIF()
        self.second, self.also = PerStep(nn.Linear(12, 5)), LIF()

    def forward(self, x):
        return self.also(self.second(self.fires(self.first(x))))


def test_activity_is_the_sum_of_the_layers_mean_outputs():
    model, x = Spiking(), 4 * torch.rand(5, 7, 6, generator=torch.Generator().manual_seed(0))
    seen = []
    hook = Quiet(0.3)
    hook.begin(model, [])
    with rb.nn.observe(model, lambda name, layer, y: seen.append(y)):
        model(x)
    term = hook.penalty(torch.empty(0), torch.empty(0))
    hook.end()
    expected = 0.3 * sum(y.detach().sum() / (5 * 7 * y.shape[2]) for y in seen)
    assert float(term.detach()) == pytest.approx(float(expected), rel=1e-6)
    assert float(term.detach()) > 0
    term.backward()
    assert bool(model.first.module.weight.grad.any())


def test_activity_looks_at_training_alone_and_ends():
    model, x = Spiking(), torch.rand(2, 3, 6)
    hook = Quiet(1.0)
    hook.begin(model, [])
    model.eval()
    model(x)
    assert hook.means == []
    hook.end()
    model.train()
    model(x)
    assert hook.means == []


def test_activity_falls():
    x = 6 * torch.rand(5, 7, 6, generator=torch.Generator().manual_seed(0))

    def rate(strength):
        model = Spiking()
        hook = Quiet(strength) if strength else Hooks()
        drive(model, lambda m: (m(x).mean(0)[:, 0] - 0.5).square().mean(), [0.5] * 40, hook)
        found = []
        with rb.nn.observe(model, lambda name, layer, y: found.append(float(y.detach().mean()))):
            model(x)
        return sum(found)

    assert rate(0.5) < 0.6 * rate(0.0)


def test_activity_of_a_network_without_spikes_is_refused():
    hook = Quiet(1.0)
    hook.begin(small(), [])
    with pytest.raises(ValueError, match="without spiking layers"):
        hook.penalty(torch.empty(0), torch.empty(0))


def test_nothing_is_remembered_of_other_weights():
    model = small()
    hook = SoftThreshold(["0.weight"], 0.1)
    hook.attach(model)
    assert has_kept(model, "0.weight", "latent")
    assert not has_kept(model, "2.weight", "latent")
