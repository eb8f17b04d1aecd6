import pytest
import torch

from rheobase.lab.attack import GradientPenalty, SpikeAttack, adversarial, attack_events, input_gradient_penalty
from rheobase.lab.attack.trap import input_gradient
from rheobase.models import create_model
from rheobase.neurons import IterativeLIF, Sigmoid
from rheobase.train import Batches, RunFolder, TrainConfig, fit


def smooth():
    """A small network whose surrogates are open everywhere."""
    torch.manual_seed(2)
    return create_model("pooled_snn", width=4, side=8, classes=3, neuron=lambda: IterativeLIF(0.25, 0.3, Sigmoid(2.0)))


def test_the_penalty_is_the_mean_square_of_the_gradient(events):
    x, y = events
    model = smooth().eval()
    expected = input_gradient(model, x, y).square().sum() / x.shape[1]
    torch.testing.assert_close(input_gradient_penalty(model, x, y), expected)


def test_descending_the_penalty_makes_gradients_smaller(events):
    x, y = events
    model = smooth()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    before = input_gradient_penalty(model, x, y).item()
    for _ in range(5):
        optimizer.zero_grad()
        input_gradient_penalty(model, x, y).backward()
        optimizer.step()
    assert input_gradient_penalty(model, x, y).item() < before / 2
    assert model.training


def test_in_training_a_part_of_the_batch_is_attacked(events):
    x, _ = events
    seen = []
    model = create_model("pooled_snn", width=4, side=8, classes=3)
    model.register_forward_pre_hook(lambda module, inputs: seen.append((module.training, inputs[0].detach())))
    apply = adversarial(SpikeAttack(iterations=2), share=0.25, seed=1)
    y = apply(model.train(), x)
    assert y.requires_grad
    training, read = seen[-1]
    assert training
    assert [mode for mode, _ in seen[:-1]] == [False] * (len(seen) - 1)
    assert ((read == 0) | (read == 1)).all()
    assert not torch.equal(read[:, :6], x[:, :6])
    assert torch.equal(read[:, 6:], x[:, 6:])
    y.sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_otherwise_the_input_is_left_alone(victim, events):
    x, _ = events
    with torch.no_grad():
        assert torch.equal(adversarial(SpikeAttack())(victim, x), victim(x))
    assert torch.equal(adversarial(SpikeAttack())(victim, x), victim(x))  # in eval mode
    with pytest.raises(ValueError, match="share is 0"):
        adversarial(SpikeAttack(), share=0.0)


def test_training_on_attacked_spikes_costs_the_attacker(events):
    """A few steps on the same halves with and without: the attack flips more, or fails more often."""
    x, y = events
    hardened = []
    for apply in (None, adversarial(SpikeAttack(iterations=2, threshold=1.0), seed=3)):
        torch.manual_seed(4)
        model = create_model("pooled_snn", width=4, side=8, classes=2).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(40):
            outputs = model(x) if apply is None else apply(model, x)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(4 * outputs.mean(0), y).backward()
            optimizer.step()
        budget = torch.full_like(y, 25)
        found = attack_events(
            model, x, y, SpikeAttack(threshold=1.0), budget=budget, generator=torch.Generator().manual_seed(0)
        )
        assert found.attacked.float().mean() > 0.8
        hardened.append(int(found.success.sum()))
    assert hardened[1] < hardened[0]


def test_the_penalty_is_a_hook_of_fit(events, tmp_path):
    """One step of `fit` with the hook changes the weights as the loss and the penalty together do."""
    x, y = events
    loop, own = smooth(), smooth()
    batches = Batches(lambda _: [(x, y)], 1)
    config = TrainConfig(epochs=1, optimizer="sgd", lr=0.1, momentum=0.0, schedule="constant", weight_decay=0.0)
    run = RunFolder.create(tmp_path, "a", {})
    fit(loop, batches, batches, config, run, hooks=GradientPenalty(3.0))
    (torch.nn.functional.cross_entropy(own(x).mean(0), y) + 3 * input_gradient_penalty(own, x, y)).backward()
    plain = smooth()
    for a, b, before in zip(loop.parameters(), own.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, before - 0.1 * b.grad, rtol=1e-4, atol=1e-6)
