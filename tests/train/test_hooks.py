import pytest
import torch
from torch import nn

from rheobase.train import Batches, Hooks, RunFolder, Step, Together, TrainConfig, fit, load_checkpoint

X = torch.rand(12, 4, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(1)
SOURCE = Batches(lambda _: [(X[None, k : k + 4], Y[k : k + 4]) for k in (0, 4, 8)], 3)
CONFIG = TrainConfig(epochs=2, optimizer="sgd", lr=0.1, momentum=0.0, device="cpu")


def net():
    torch.manual_seed(1)
    return nn.Linear(4, 3)


class Told(Hooks):
    def __init__(self):
        self.calls = []

    def begin(self, model, rates):
        self.calls.append(("begin", type(model).__name__, len(rates), rates[0]))

    def penalty(self, x, y):
        self.calls.append("penalty")

    def before_update(self, step):
        self.calls.append(("before", step.index))

    def after_update(self, step):
        self.calls.append(("after", step.index, step.ends_epoch))

    def end(self):
        self.calls.append("end")


def test_fit_calls_in_order(tmp_path):
    told = Told()
    fit(net(), SOURCE, SOURCE, CONFIG, RunFolder.create(tmp_path, "a", {}), hooks=told)
    assert told.calls[0] == ("begin", "Linear", 6, 0.1)
    assert told.calls[1:4] == ["penalty", ("before", 0), ("after", 0, False)]
    assert [call for call in told.calls if call[0] == "after"] == [("after", k, k in (2, 5)) for k in range(6)]
    assert told.calls[-1] == "end"


def test_end_is_called_when_training_breaks_off(tmp_path):
    class Breaks(Told):
        def before_update(self, step):
            raise RuntimeError("stop")

    told = Breaks()
    with pytest.raises(RuntimeError, match="stop"):
        fit(net(), SOURCE, SOURCE, CONFIG, RunFolder.create(tmp_path, "a", {}), hooks=told)
    assert told.calls[-1] == "end"


class Pull(Hooks):
    """Half the square of all weights, as a term of the loss or as a gradient."""

    def __init__(self, as_term):
        self.as_term = as_term

    def begin(self, model, rates):
        self.model = model

    def penalty(self, x, y):
        return sum(p.square().sum() for p in self.model.parameters()) / 2 if self.as_term else None

    def before_update(self, step):
        if not self.as_term:
            for p in self.model.parameters():
                p.grad.add_(p.data)


def trained(path, hooks, **changes):
    model = net()
    run = RunFolder.create(path, "a", {})
    fit(model, SOURCE, SOURCE, TrainConfig(**{**vars(CONFIG), **changes}), run, hooks=hooks)
    return model, run


def test_penalty_is_a_term_of_the_loss(tmp_path):
    by_term, _ = trained(tmp_path, Pull(True))
    by_gradient, _ = trained(tmp_path, Pull(False))
    by_decay, _ = trained(tmp_path, None, weight_decay=1.0, decay_vectors=True)
    plain, _ = trained(tmp_path, None)
    assert torch.allclose(by_term.weight, by_gradient.weight, atol=1e-7)
    assert torch.allclose(by_term.weight, by_decay.weight, atol=1e-7)
    assert not torch.allclose(by_term.weight, plain.weight, atol=1e-3)


def test_gradients_are_clipped_behind_the_hooks(tmp_path):
    class Push(Hooks):
        def begin(self, model, rates):
            self.model = model

        def before_update(self, step):
            self.model.weight.grad.fill_(1e6)

    model, _ = trained(tmp_path, Push(), clip_norm=1e-3, epochs=1)
    assert (model.weight - net().weight).norm() < 1.01 * 0.2 * 1e-3


def test_together_adds_terms_and_keeps_the_order():
    class Term(Hooks):
        def __init__(self, value):
            self.value = value

        def penalty(self, x, y):
            return None if self.value is None else torch.tensor(self.value)

    x = torch.empty(0)
    assert Together([Term(1.0), Term(None), Term(2.5)]).penalty(x, x) == 3.5
    assert Together([Term(None)]).penalty(x, x) is None
    first, second = Told(), Told()
    both = Together([first, second])
    both.begin(net(), [0.1])
    both.before_update(Step(0, 1, 1, 0.1))
    both.after_update(Step(0, 1, 1, 0.1))
    both.end()
    assert (
        first.calls
        == second.calls
        == [
            ("begin", "Linear", 1, 0.1),
            ("before", 0),
            ("after", 0, True),
            "end",
        ]
    )


def test_what_lies_in_the_model_survives_a_stop(tmp_path):
    class Counts(Hooks):
        """Adds a number to the weights that follows from how many steps were made, which the model remembers."""

        stop_at = 99

        def begin(self, model, rates):
            self.model = model

        def after_update(self, step):
            self.model.made.add_(1)
            with torch.no_grad():
                self.model.weight.add_(float(self.model.made) * 1e-3)
            if step.index == self.stop_at:
                raise KeyboardInterrupt

    def made():
        model = net()
        model.register_buffer("made", torch.zeros(()))
        return model

    config = TrainConfig(**{**vars(CONFIG), "checkpoint_every_steps": 1})
    whole, run = made(), RunFolder.create(tmp_path, "a", {})
    fit(whole, SOURCE, SOURCE, config, run, hooks=Counts())
    stopped = Counts()
    stopped.stop_at = 3
    run = RunFolder.create(tmp_path, "b", {})
    with pytest.raises(KeyboardInterrupt):
        fit(made(), SOURCE, SOURCE, config, run, hooks=stopped)
    model = made()
    fit(model, SOURCE, SOURCE, config, run, hooks=Counts(), resume=True)
    assert float(model.made) == 6
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), whole.state_dict().values(), strict=True))
    assert torch.equal(load_checkpoint(run).weights["weight"], whole.weight)
