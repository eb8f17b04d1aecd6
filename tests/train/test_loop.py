import json
import math
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from rheobase.nn import Blocks, PerStep, recomputing
from rheobase.train import (
    Batches,
    RunFolder,
    TrainConfig,
    evaluate,
    fit,
    has_checkpoint,
    load_checkpoint,
    load_weights,
    loop,
)

DRIVER = Path(__file__).with_name("kill_driver.py")


class Net(nn.Module):
    """Linear, BatchNorm, Dropout over the last axis of [T, B, 4]; 3 classes."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))

    def forward(self, x):
        return self.layers(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def net():
    torch.manual_seed(3)
    return Net()


X = torch.rand(32, 4, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(1)


def shuffled(epoch):
    order = torch.randperm(32, generator=torch.Generator().manual_seed(epoch))
    return [(X[index], Y[index]) for index in order.split(8)]


def poisson(x, generator):
    return (torch.rand(2, *x.shape, generator=generator) < x).float()


TRAIN = Batches(shuffled, 4)
VALIDATION = Batches(lambda epoch: [(X[:16], Y[:16]), (X[16:], Y[16:])], 2)
SGD = TrainConfig(epochs=3, optimizer="sgd", lr=0.3, device="cpu")


def stop_after(step):
    def on_step(done, total):
        if done == step:
            raise KeyboardInterrupt

    return on_step


def same(one, other):
    """Equal bit for bit, tensors included; wall-clock times apart."""
    if isinstance(one, dict):
        keys = one.keys() - {"seconds"}
        return keys == other.keys() - {"seconds"} and all(same(one[key], other[key]) for key in keys)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one.equal(other) if isinstance(one, torch.Tensor) else one == other


def assert_same_runs(one, other, but=("random",)):
    """`random` is left out where type checking of the tests draws from Python's generator."""
    assert same(one.metrics(), other.metrics())
    assert same(one.result(), other.result())
    for which in ("last", "best"):
        a, b = load_checkpoint(one, which), load_checkpoint(other, which)
        assert same(a.weights, b.weights)
        assert a.state.keys() == b.state.keys()
        assert [name for name in a.state if not same(a.state[name], b.state[name])] in ([], list(but))


@pytest.fixture
def new_run(tmp_path):
    return lambda: RunFolder.create(tmp_path, "tiny", {})


# What a training does.


def test_training_learns_and_leaves_what_it_says(run):
    begun, epochs, steps = [], [], []
    config = TrainConfig(epochs=12, lr=0.05, optimizer="adamw", device="cpu", warmup_epochs=1)
    result = fit(
        net(),
        TRAIN,
        VALIDATION,
        config,
        run,
        prepare=lambda x, generator: x.expand(2, -1, -1),
        before_epoch=lambda epoch: begun.append((epoch, len(steps))),
        on_epoch=epochs.append,
        on_step=lambda done, total: steps.append((done, total)),
    )
    assert result.last["validation_accuracy"] > 0.8
    assert steps == [(step, 48) for step in range(1, 49)]
    assert begun == [(epoch, 4 * epoch) for epoch in range(12)]
    assert epochs == run.metrics()
    assert [line["epoch"] for line in epochs] == list(range(12))
    assert [line["step"] for line in epochs] == list(range(4, 49, 4))
    assert epochs[0].keys() == {
        *("epoch", "step", "lr", "train_loss", "train_accuracy"),
        *("validation_loss", "validation_accuracy", "seconds"),
    }
    assert (result.epochs, result.steps, result.stopped_early) == (12, 48, False)
    assert result.last == epochs[-1]
    assert result.best == max(epochs, key=lambda line: line["validation_accuracy"])  # max takes the first of equals
    assert run.result()["train"]["best"] == result.best


def test_checkpoints_hold_the_best_and_the_last_model(run):
    model = net()
    result = fit(model, TRAIN, VALIDATION, SGD, run, prepare=poisson)
    for which, line in (("last", result.last), ("best", result.best)):
        loaded = net()
        load_weights(loaded, run, which)
        found = evaluate(loaded, VALIDATION(0), SGD, prepare=poisson)
        assert found["loss"] == line["validation_loss"]
        assert found["accuracy"] == line["validation_accuracy"]
    assert same(load_checkpoint(run).weights, model.state_dict())


def test_sgd_is_the_textbook_rule(run):
    """One linear layer, two steps: momentum, decay, clipping and warm-up by hand."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    weight, bias = (p.detach().clone() for p in (model.weight, model.bias))
    config = TrainConfig(
        epochs=2, optimizer="sgd", lr=0.5, momentum=0.9, weight_decay=0.1, warmup_epochs=1, clip_norm=0.2, device="cpu"
    )
    batches = [(X[None, :8], Y[:8]), (X[None, 8:16], Y[8:16])]
    fit(model, Batches(lambda epoch: batches[epoch : epoch + 1], 1), VALIDATION, config, run, prepare=just_one_step)
    velocity = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for x, y in batches:  # warm-up of one step, then the first of one cosine step: both at the full rate
        error = torch.softmax(x[0] @ weight.T + bias, 1) - nn.functional.one_hot(y, 3)
        gradients = [error.T @ x[0] / 8, error.mean(0)]
        scale = min(1.0, 0.2 / math.sqrt(sum(float(g.square().sum()) for g in gradients)))
        assert scale < 1
        velocity = [0.9 * v + scale * g for v, g in zip(velocity, gradients, strict=True)]
        velocity[0] += 0.1 * weight  # the bias is a vector: no decay
        weight, bias = weight - 0.5 * velocity[0], bias - 0.5 * velocity[1]
    assert torch.allclose(model.weight, weight, atol=1e-6)
    assert torch.allclose(model.bias, bias, atol=1e-6)


def just_one_step(x, generator):
    return x if x.ndim == 3 else x[None]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "adam"])
def test_vectors_decay_only_if_asked(optimizer, new_run):
    class Still(nn.Module):
        """Parameters without gradient from the loss: decay alone moves them."""

        def __init__(self):
            super().__init__()
            self.matrix, self.vector = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3))
            self.channel, self.scalar = nn.Parameter(torch.ones(3, 1, 1)), nn.Parameter(torch.ones(()))

        def forward(self, x):
            return x[..., :3] + 0 * sum(p.sum() for p in self.parameters())

    for everything in (False, True):
        model = Still()
        config = TrainConfig(
            epochs=1, optimizer=optimizer, lr=0.1, weight_decay=0.5, decay_vectors=everything, schedule="constant"
        )
        fit(model, TRAIN, VALIDATION, config, new_run(), prepare=just_one_step)
        moved = [bool((p != 1).all()) for p in (model.matrix, model.vector, model.channel, model.scalar)]
        assert moved == [True] + [everything] * 3


def test_the_rate_follows_the_schedule(new_run):
    rates = [line["lr"] for line in fitted(new_run(), schedule="step", milestones=(1, 2), gamma=0.5).metrics()]
    assert rates == [0.3, 0.15, 0.075]
    assert [line["lr"] for line in fitted(new_run(), schedule="constant").metrics()] == [0.3] * 3
    rates = [line["lr"] for line in fitted(new_run()).metrics()]
    assert rates == pytest.approx([0.15 * (1 + math.cos(math.pi * at / 12)) for at in (3, 7, 11)])


def test_the_rate_rises_from_and_falls_to_what_the_config_says(new_run):
    steps = []
    config = TrainConfig(
        **{**vars(SGD), "epochs": 4, "warmup_epochs": 1, "warmup_lr": 0.06, "min_lr": 0.03, "cooldown_epochs": 1}
    )
    fit(net(), TRAIN, VALIDATION, config, new_run(), prepare=poisson, on_epoch=lambda line: steps.append(line["lr"]))
    last = 0.03 + 0.27 * (1 + math.cos(math.pi * 7 / 8)) / 2
    assert steps == pytest.approx([0.3, 0.03 + 0.27 * (1 + math.cos(math.pi * 3 / 8)) / 2, last, 0.03])


def fitted(run, **settings):
    fit(net(), TRAIN, VALIDATION, TrainConfig(**{**vars(SGD), **settings}), run, prepare=poisson)
    return run


def test_the_same_seed_gives_the_same_run_and_another_seed_another(new_run):
    one = fitted(new_run())
    torch.manual_seed(99)
    assert_same_runs(one, fitted(new_run()))
    assert fitted(new_run(), seed=1).metrics()[0]["train_loss"] != one.metrics()[0]["train_loss"]


def test_the_encoder_draws_anew_for_every_batch_and_epoch_whatever_else_draws(new_run):
    def record(drawn, waste):
        def prepare(x, generator):
            torch.rand(waste)
            drawn.append(generator.initial_seed())
            return poisson(x, generator)

        return prepare

    one, other = [], []
    for drawn, waste in ((one, 0), (other, 3)):
        fit(net(), TRAIN, VALIDATION, SGD, new_run(), prepare=record(drawn, waste))
    assert one == other
    assert len(one) == 2 + 3 * (4 + 2)  # two tries, then training and validation
    assert len(set(one)) == 3 * 4 + 2  # every validation draws alike


@pytest.mark.parametrize(
    "settings", [{"loss": "tet"}, {"label_smoothing": 0.2}, {"autocast": "bf16"}, {"readout": "max"}]
)
def test_loss_and_precision_are_used(new_run, settings):
    plain, other = fitted(new_run()).metrics(), fitted(new_run(), **settings).metrics()
    assert plain[0]["train_loss"] != other[0]["train_loss"]
    assert all(math.isfinite(line["validation_loss"]) for line in other)


def test_autocast_keeps_weights_in_fp32(run):
    model = net()
    fit(model, TRAIN, VALIDATION, TrainConfig(epochs=1, autocast="bf16", device="cpu"), run, prepare=poisson)
    assert {value.dtype for value in model.parameters()} == {torch.float32}


class Scripted(nn.Module):
    """After training in epoch e, every validation label gets the logit `scores[e]`; the others get 0."""

    def __init__(self, scores):
        super().__init__()
        self.scores = scores
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.steps += self.training
        epoch = max(0, (int(self.steps) - 1) // 4)
        return (x[None, :, :3] == x[None, :, :3].amax(-1, keepdim=True)) * self.scores[epoch] + 0 * self.scale


@pytest.mark.parametrize(
    ("monitor", "scores", "patience", "epochs", "best"),
    [
        ("loss", [1, 3, 2, 2, 9], 2, 4, 1),  # two epochs without a better loss
        ("loss", [1, 3, 2, 4, 3, 3], 2, 6, 3),  # a better one starts the count anew
        ("loss", [1, 3, 2, 2, 9], 0, 5, 4),  # off
        ("accuracy", [-1, 1, 9, 9, 9], 2, 4, 1),  # all right from epoch 1 on: a tie is not better
        ("accuracy", [1, 1, 1], 1, 2, 0),
        ("loss", [3, 2], 1, 2, 0),  # patience runs out together with the epochs
    ],
)
def test_early_stop_and_best(run, monitor, scores, patience, epochs, best):
    config = TrainConfig(epochs=len(scores), monitor=monitor, patience=patience, device="cpu")
    result = fit(Scripted(scores), TRAIN, VALIDATION, config, run)
    assert (result.epochs, result.best["epoch"], result.stopped_early) == (epochs, best, epochs < len(scores))
    assert len(run.metrics()) == epochs
    assert int(load_checkpoint(run, "best").weights["steps"]) == 4 * (best + 1)
    assert int(load_checkpoint(run, "last").weights["steps"]) == 4 * epochs


# Resuming.


@pytest.mark.parametrize(
    "settings",
    [
        {"checkpoint_every_steps": 3, "momentum": 0.9, "weight_decay": 0.01, "clip_norm": 0.5},
        {"optimizer": "adamw", "lr": 0.01, "checkpoint_every_steps": 1},
        {"loss": "tet", "warmup_epochs": 1},
        {"autocast": "bf16", "checkpoint_every_steps": 2},
    ],
    ids=["sgd", "adamw", "tet", "bf16"],
)
def test_stopped_anywhere_and_resumed_is_bit_equal(new_run, settings):
    whole = fitted(new_run(), **settings)
    config = TrainConfig(**{**vars(SGD), **settings})
    for stops in ([1], [4], [7], [12], [2, 6, 10]):
        run, resume = new_run(), False
        for stop in stops:
            with pytest.raises(KeyboardInterrupt):
                fit(net(), TRAIN, VALIDATION, config, run, prepare=poisson, on_step=stop_after(stop), resume=resume)
            resume = True
        model = net()
        fit(model, TRAIN, VALIDATION, config, run, prepare=poisson, resume=True)
        assert_same_runs(whole, run)
        assert same(load_checkpoint(run).weights, model.state_dict())


def test_memory_in_bits_trains_the_same_and_may_change_on_resuming(new_run):
    """Dropout and running statistics included."""
    seen = []

    def blocks():
        torch.manual_seed(3)
        layers = [PerStep(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.3))) for _ in range(4)]
        layers[0].register_forward_hook(lambda *_: seen.append(recomputing()))
        return nn.Sequential(Blocks(*layers), PerStep(nn.Linear(4, 3)))

    every = {**vars(SGD), "checkpoint_every_steps": 1}
    full, bits = TrainConfig(**every), TrainConfig(**{**every, "memory": "bits"})
    whole, other, run = new_run(), new_run(), new_run()
    fit(blocks(), TRAIN, VALIDATION, full, whole, prepare=poisson)
    assert not any(seen)
    fit(blocks(), TRAIN, VALIDATION, bits, other, prepare=poisson)
    assert sum(seen) == 12
    assert_same_runs(whole, other)
    for config, stop in ((bits, 3), (full, 6), (bits, 10)):
        with pytest.raises(KeyboardInterrupt):
            fit(blocks(), TRAIN, VALIDATION, config, run, prepare=poisson, on_step=stop_after(stop), resume=stop > 3)
    fit(blocks(), TRAIN, VALIDATION, full, run, prepare=poisson, resume=True)
    assert_same_runs(whole, run)


@pytest.mark.parametrize("patience", [0, 2])
def test_saving_after_several_epochs_changes_no_bit(new_run, patience, monkeypatch):
    """Also where the best epoch lies between two saves, and where a stop falls there."""
    config = replace(SGD, epochs=8, patience=patience)
    seldom = replace(config, checkpoint_every_epochs=3)
    whole, spaced, stopped = new_run(), new_run(), new_run()
    fit(net(), TRAIN, VALIDATION, config, whole, prepare=poisson)
    saves = []
    save = loop.save_checkpoint
    monkeypatch.setattr(
        loop, "save_checkpoint", lambda run, names, *rest: saves.extend(names) or save(run, names, *rest)
    )
    fit(net(), TRAIN, VALIDATION, seldom, spaced, prepare=poisson)
    monkeypatch.undo()
    assert saves.count("last") == 1 + -(-len(spaced.metrics()) // 3)
    assert_same_runs(spaced, whole)
    with pytest.raises(KeyboardInterrupt):
        fit(net(), TRAIN, VALIDATION, seldom, stopped, prepare=poisson, on_step=stop_after(4 * 4 + 2))
    assert len(stopped.metrics()) == 4
    fit(net(), TRAIN, VALIDATION, seldom, stopped, prepare=poisson, resume=True)
    assert_same_runs(stopped, whole)


def test_apply_says_how_the_model_runs(new_run):
    """Here on rows of a table that the batches number; the model itself is what is saved."""
    table = X.expand(2, -1, -1)
    numbered = Batches(lambda epoch: [(torch.arange(32), Y)], 1)
    plain = Batches(lambda epoch: [(X, Y)], 1)
    one, other = new_run(), new_run()

    def apply(model, x):
        return model(table[:, x])

    fit(net(), numbered, numbered, SGD, one, prepare=lambda x, _: x, apply=apply)
    fit(net(), plain, plain, SGD, other, prepare=lambda x, _: x.expand(2, -1, -1))
    assert_same_runs(one, other)
    model = net()
    load_weights(model, one)
    found = evaluate(model, numbered(0), SGD, prepare=lambda x, _: x, apply=apply)
    assert found["loss"] == one.result()["train"]["best"]["validation_loss"]


def test_a_shuffling_data_loader_resumes_bit_equal(new_run):
    """It draws its order from the global generator, and Dropout draws from the same."""
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=8, shuffle=True)
    source = Batches(lambda epoch: loader, 4)
    config = TrainConfig(**{**vars(SGD), "checkpoint_every_steps": 1})
    whole, run = new_run(), new_run()
    fit(net(), source, VALIDATION, config, whole, prepare=poisson)
    with pytest.raises(KeyboardInterrupt):
        fit(net(), source, VALIDATION, config, run, prepare=poisson, on_step=stop_after(7))
    fit(net(), source, VALIDATION, config, run, prepare=poisson, resume=True)
    assert_same_runs(whole, run)
    assert len({line["train_loss"] for line in run.metrics()}) == 3


def test_batches_done_are_not_run_again(run):
    seen = []
    model = net()
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]) if module.training else None)
    config = TrainConfig(**{**vars(SGD), "checkpoint_every_steps": 1})
    with pytest.raises(KeyboardInterrupt):
        fit(model, TRAIN, VALIDATION, config, run, prepare=poisson, on_step=stop_after(7))
    assert len(seen) == 7
    fit(model, TRAIN, VALIDATION, config, run, prepare=poisson, resume=True)
    assert len(seen) == 13  # step 7 was stopped before its checkpoint, so it is the only one to run twice
    assert seen[6].equal(seen[7])


@pytest.mark.parametrize("patience", [0, 1])
def test_resuming_a_finished_run_changes_nothing(run, patience):
    scores, config = [1, 3, 2, 9], TrainConfig(epochs=4, monitor="loss", patience=patience, device="cpu")
    first = fit(Scripted(scores), TRAIN, VALIDATION, config, run)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    model = Scripted(scores)
    assert fit(model, TRAIN, VALIDATION, config, run, resume=True) == first
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    assert int(model.steps) == first.steps


def test_patience_goes_on_counting_after_a_stop(run):
    scores, config = [3, 2, 1, 9, 9], TrainConfig(epochs=5, monitor="loss", patience=2, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        fit(Scripted(scores), TRAIN, VALIDATION, config, run, on_step=stop_after(10))
    result = fit(Scripted(scores), TRAIN, VALIDATION, config, run, resume=True)
    assert (result.epochs, result.best["epoch"]) == (3, 0)


def test_resume_from_best_when_last_is_damaged(new_run):
    scores, config = [1, 3, 2, 4], TrainConfig(epochs=4, monitor="loss", device="cpu")
    whole, run = new_run(), new_run()
    fit(Scripted(scores), TRAIN, VALIDATION, config, whole)
    with pytest.raises(KeyboardInterrupt):
        fit(Scripted(scores), TRAIN, VALIDATION, config, run, on_step=stop_after(13))
    next(run.checkpoints.glob("last-*/state.pt")).write_bytes(b"")
    with pytest.raises(ValueError, match=r"'last' is damaged.*resume from 'best'"):
        fit(Scripted(scores), TRAIN, VALIDATION, config, run, resume=True)
    with pytest.raises(KeyboardInterrupt):
        fit(Scripted(scores), TRAIN, VALIDATION, config, run, on_step=stop_after(9), resume="best")
    assert len(run.metrics()) == 2
    fit(Scripted(scores), TRAIN, VALIDATION, config, run, resume=True)
    assert_same_runs(whole, run)


def test_resume_without_a_checkpoint_is_said(run):
    with pytest.raises(ValueError, match="has no checkpoint 'last'"):
        fit(net(), TRAIN, VALIDATION, SGD, run, prepare=poisson, resume=True)


def test_starting_over_a_run_is_refused(run):
    fitted(run)
    lines = run.metrics()
    with pytest.raises(ValueError, match="holds a checkpoint already; pass resume=True"):
        fitted(run)
    assert run.metrics() == lines


def test_resuming_with_other_settings_is_refused(run):
    fitted(run)
    config = TrainConfig(**{**vars(SGD), "lr": 0.2, "epochs": 9})
    with pytest.raises(
        ValueError, match=r"other settings: epochs was 3 and is 9; lr was 0\.3 and is 0\.2; resume with"
    ):
        fit(net(), TRAIN, VALIDATION, config, run, resume=True)
    with pytest.raises(ValueError, match="batches per epoch was 4 and is 5"):
        fit(net(), Batches(shuffled, 5), VALIDATION, SGD, run, resume=True)


def test_a_run_from_before_a_setting_existed_is_gone_on_with(new_run, monkeypatch):
    whole, part, other = new_run(), new_run(), new_run()
    fitted(whole)
    settings = loop._Training._settings
    with monkeypatch.context() as patch:
        patch.setattr(
            loop._Training, "_settings", lambda self: {n: v for n, v in settings(self).items() if n != "min_lr"}
        )
        for run in (part, other):
            with pytest.raises(KeyboardInterrupt):
                fit(net(), TRAIN, VALIDATION, SGD, run, prepare=poisson, on_step=stop_after(5))
    fit(net(), TRAIN, VALIDATION, SGD, part, prepare=poisson, resume=True)
    assert_same_runs(whole, part)
    with pytest.raises(ValueError, match=r"min_lr was 0\.0 and is 0\.1"):
        fit(net(), TRAIN, VALIDATION, TrainConfig(**{**vars(SGD), "min_lr": 0.1}), other, resume=True)


def test_soft_labels_are_learned_and_resumed_bit_equal(new_run):
    def soft(epoch):
        return [(x, 0.8 * nn.functional.one_hot(y, 3).float() + 0.2 / 3) for x, y in shuffled(epoch)]

    runs = new_run(), new_run()
    config = TrainConfig(**{**vars(SGD), "label_smoothing": 0.1, "checkpoint_every_steps": 1})
    found = fit(net(), Batches(soft, 4), VALIDATION, config, runs[0], prepare=poisson)
    assert found.last["train_loss"] < runs[0].metrics()[0]["train_loss"]
    assert found.last["train_accuracy"] > 0.4
    with pytest.raises(KeyboardInterrupt):
        fit(net(), Batches(soft, 4), VALIDATION, config, runs[1], prepare=poisson, on_step=stop_after(6))
    fit(net(), Batches(soft, 4), VALIDATION, config, runs[1], prepare=poisson, resume=True)
    assert_same_runs(*runs)


def test_resuming_another_model_is_refused(run):
    fitted(run)
    with pytest.raises(ValueError, match=r"the weights of .* \(last\) do not fit the model"):
        fit(nn.Linear(4, 3), TRAIN, VALIDATION, SGD, run, resume=True)


# Kill -9.


def test_a_killed_process_resumes_bit_equal_in_a_new_one(tmp_path):
    step = random.Random(20260101).randrange(1, 5)
    died = subprocess.run([sys.executable, DRIVER, "die", tmp_path, str(step)], capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert not (tmp_path / "killed" / "result.json").exists()
    resumed = subprocess.run([sys.executable, DRIVER, "resume", tmp_path], capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout) == {"different": []}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that uses torch")
def test_killed_at_every_step_and_within_every_write(tmp_path):
    """Before every call that changes the disk, and with any file torn in its middle: a checkpoint is never lost."""
    done = subprocess.run([sys.executable, DRIVER, "everywhere", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    for how, least in (("step", 4), ("call", 50), ("tear", 15)):
        assert report[how]["different"] == {}
        assert report[how]["kills"] >= least
        assert report[how]["steps"] == sorted(report[how]["steps"])
    assert report["call"]["steps"][-1] == 4
    assert (
        sum(step < 0 for step in report["call"]["steps"]) <= 10
    )  # only within the very first save there is nothing yet


# What goes wrong.


class Fragile(Net):
    """Breaks at the given forward pass in training mode."""

    def __init__(self, at, how):
        super().__init__()
        self.left, self.how = at, how

    def forward(self, x):
        y = super().forward(x)
        self.left -= self.training
        return self.how(y) if self.training and self.left < 0 else y


class BadGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient / 0


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (lambda y: y * math.nan, "the loss is nan at epoch 1, step 6; lower lr"),
        (lambda y: y * math.inf, "the loss is nan at epoch 1, step 6"),
        (BadGradient.apply, r"the gradient of layers\.0\.weight is NaN or Inf at epoch 1, step 6; lower lr"),
    ],
)
def test_a_training_that_blows_up_stops_and_keeps_its_checkpoint(run, how, says):
    torch.manual_seed(3)
    model = Fragile(6, how)
    config = TrainConfig(**{**vars(SGD), "checkpoint_every_steps": 5})
    with pytest.raises(ValueError, match=says):
        fit(model, TRAIN, VALIDATION, config, run, prepare=poisson)
    assert all(p.isfinite().all() for p in model.parameters())
    assert load_checkpoint(run).state["progress"]["batch"] == 1
    fit(net(), TRAIN, VALIDATION, config, run, prepare=poisson, resume=True)
    assert len(run.metrics()) == 3


def test_a_validation_that_blows_up_names_the_epoch(run):
    calls = []

    def batches(epoch):
        calls.append(epoch)
        return [(X * (math.nan if len(calls) == 3 else 1), Y)]

    with pytest.raises(ValueError, match="x at validation after epoch 1, batch 0 holds NaN"):
        fit(net(), TRAIN, Batches(batches, 1), SGD, run, prepare=poisson)
    assert len(run.metrics()) == 1
    assert calls == [0, 0, 0]


@pytest.mark.parametrize(
    ("train", "validation", "says"),
    [
        (Batches(lambda epoch: [(X, Y + 1)], 1), VALIDATION, "labels at training data, batch 0 lie in 1 .. 3"),
        (TRAIN, Batches(lambda epoch: [(X, Y + 1)], 1), "labels at validation data, batch 0 lie in 1 .. 3"),
        (Batches(lambda epoch: [], 1), VALIDATION, "training data: there are no batches"),
        (Batches(lambda epoch: [(X[:, :2] / 0, Y)], 1), VALIDATION, "x at training data, batch 0 holds NaN or Inf"),
    ],
)
def test_data_are_tried_before_anything_is_written(run, train, validation, says):
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=says):
        fit(model, train, validation, SGD, run, prepare=poisson)
    assert not has_checkpoint(run)
    assert not (run.path / "metrics.jsonl").exists()
    assert same(before, model.state_dict())


def test_an_output_of_the_wrong_shape_is_said_before_training(run):
    with pytest.raises(ValueError, match=r"output at training data, batch 0 is \(8, 3\); per-step float logits"):
        fit(nn.Linear(4, 3), TRAIN, VALIDATION, SGD, run)


@pytest.mark.parametrize(("given", "said"), [(3, 4), (5, 4), (1, 4)])
def test_a_source_with_another_number_of_batches_is_said(run, given, said):
    source = Batches(lambda epoch: [(X, Y)] * given, said)
    with pytest.raises(ValueError, match=f"gave {given} batches in epoch 0 but its len is {said}"):
        fit(net(), source, VALIDATION, SGD, run, prepare=poisson)
    assert run.metrics() == []


@pytest.mark.parametrize("source", [[(X, Y)], Batches(shuffled, 0), None])
def test_what_is_no_source_is_said(untyped, run, source):
    with pytest.raises(ValueError, match=r"train is a .*; give a BatchSource with at least one batch"):
        fit(net(), source, VALIDATION, SGD, run)


def test_a_frozen_model_is_said(run):
    with pytest.raises(ValueError, match="has no parameter that requires a gradient"):
        fit(net().requires_grad_(False), TRAIN, VALIDATION, SGD, run, prepare=poisson)


def test_frozen_parameters_stay(run):
    model = net()
    model.layers[0].requires_grad_(False)
    before = model.layers[0].weight.clone()
    fit(model, TRAIN, VALIDATION, SGD, run, prepare=poisson)
    assert model.layers[0].weight.equal(before)
    assert not model.layers[4].weight.equal(net().layers[4].weight)
