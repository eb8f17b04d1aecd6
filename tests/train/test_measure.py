import math

import pytest
import torch
from torch import nn

from rheobase.train import TrainConfig, evaluate

CPU = TrainConfig(device="cpu")


class Echo(nn.Module):
    """Returns its input as logits, so that every number can be checked by hand."""

    def forward(self, x):
        return x


class Noisy(nn.Module):
    """Linear, BatchNorm, Dropout over the last axis of [T, B, 4]; 3 classes."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))

    def forward(self, x):
        return self.layers(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def certain(labels, scale=50.0, steps=2):
    """Logits [T, B, 3] that are sure of `labels`."""
    return scale * nn.functional.one_hot(torch.tensor(labels), 3).float().expand(steps, -1, -1)


def test_loss_and_accuracy_are_means_over_samples_not_over_batches():
    batches = [(certain([0, 1, 2]), torch.tensor([0, 1, 2])), (torch.zeros(2, 1, 3), torch.tensor([2]))]
    found = evaluate(Echo(), batches, CPU, predictions=True)
    assert found["count"] == 4
    assert found["accuracy"] == 0.75
    assert found["loss"] == pytest.approx(math.log(3) / 4)
    assert found["predictions"].tolist() == [0, 1, 2, 0]
    assert "predictions" not in evaluate(Echo(), batches, CPU)


def test_of_soft_labels_the_largest_is_right():
    soft = torch.tensor([[0.4, 0.3, 0.3], [0.6, 0.4, 0.0]])
    found = evaluate(Echo(), [(certain([0, 1], scale=1.0), soft)], CPU)
    assert found["accuracy"] == 0.5
    total = math.log(math.e + 2)
    assert found["loss"] == pytest.approx(total - (0.4 + 0.4) / 2)
    assert evaluate(Echo(), [(certain([0, 1]), soft.double())], CPU)["accuracy"] == 0.5


def test_the_class_has_the_largest_mean_over_time():
    logits = torch.tensor([[[5.0, 0.0, 0.0]], [[0.0, 4.0, 0.0]], [[0.0, 4.0, 0.0]]])
    assert evaluate(Echo(), [(logits, torch.tensor([1]))], CPU)["accuracy"] == 1.0


def test_the_config_chooses_the_loss():
    batch = (certain([0, 1]), torch.tensor([0, 1]))
    found = evaluate(Echo(), [batch], TrainConfig(device="cpu", loss="tet", tet_lambda=1.0, tet_target=50.0))
    assert found["loss"] == pytest.approx(50.0**2 * 2 / 3)


def test_evaluation_changes_nothing():
    model = Noisy().train()
    model.layers[1].eval()  # frozen by hand: must stay so
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    found = [evaluate(model, [(torch.randn(2, 5, 4), torch.zeros(5).long())], CPU) for _ in range(2)]
    torch.set_rng_state(generator)
    again = evaluate(model, [(torch.randn(2, 5, 4), torch.zeros(5).long())], CPU)
    assert again == found[0]
    assert [module.training for module in model.layers] == [True, False, True, True]
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_modes_come_back_after_an_error():
    model = Noisy().train()
    with pytest.raises(ValueError, match="labels"):
        evaluate(model, [(torch.randn(2, 5, 4), torch.full((5,), 9))], CPU)
    assert model.training


def test_an_encoder_draws_the_same_at_every_evaluation_and_anew_for_every_batch():
    drawn = []

    def prepare(x, generator):
        drawn.append(torch.rand(3, generator=generator))
        return x.expand(2, -1, -1)

    batches = [(torch.zeros(4, 3), torch.zeros(4).long())] * 2
    for config in (CPU, CPU, TrainConfig(device="cpu", seed=1)):
        evaluate(Echo(), batches, config, prepare=prepare)
    first, second, third = drawn[:2], drawn[2:4], drawn[4:]
    assert all(a.equal(b) for a, b in zip(first, second, strict=True))
    assert not first[0].equal(first[1])
    assert not first[0].equal(third[0])


def test_autocast_runs_the_model_in_bf16_and_the_loss_in_fp32():
    seen = []
    model = Noisy()
    model.layers[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    batch = (torch.randn(2, 5, 4), torch.zeros(5).long())
    mixed = evaluate(model, [batch], TrainConfig(device="cpu", autocast="bf16"))
    full = evaluate(model, [batch], CPU)
    assert seen == [torch.bfloat16, torch.float32]
    assert mixed["loss"] == pytest.approx(full["loss"], rel=0.05)
    assert mixed["loss"] != torch.tensor(mixed["loss"]).bfloat16().item()


def test_what_is_no_tensor_is_left_to_prepare():
    def prepare(texts, generator):
        return torch.stack([certain([len(text)])[:, 0] for text in texts], 1)

    assert evaluate(Echo(), [(["", "a", "bb"], torch.arange(3))], CPU, prepare=prepare)["accuracy"] == 1.0
    with pytest.raises(ValueError, match="the input at evaluation, batch 0 is a list; give `prepare`"):
        evaluate(Echo(), [(["", "a"], torch.arange(2))], CPU)


def test_a_data_loader_and_small_label_types_will_do():
    data = torch.utils.data.TensorDataset(torch.eye(3), torch.arange(3, dtype=torch.uint8))
    loader = torch.utils.data.DataLoader(data, batch_size=2)
    assert evaluate(Echo(), loader, CPU, prepare=lambda x, generator: x.expand(2, -1, -1))["accuracy"] == 1.0


GOOD = torch.zeros(2, 4, 3)
LABELS = torch.zeros(4).long()


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (GOOD[0], LABELS, r"output at .*batch 0 is \(4, 3\); per-step float logits \[T, B, K\]"),
        (GOOD.long(), LABELS, "per-step float logits"),
        (GOOD.transpose(0, 1), LABELS, r"is \(4, 2, 3\) for 4 labels; .*put time first"),
        (GOOD[:, :0], LABELS[:0], r"\(2, 0, 3\) for 0 labels"),
        (GOOD, LABELS.float(), r"labels at .* are torch.float32 \(4,\); integers \[B\] or floats \[B, K\]"),
        (GOOD, torch.full((4, 2), 0.5), "soft labels at .* are of 2 classes but the model has 3 outputs"),
        (GOOD, torch.full((4, 3), 0.5), r"rows that sum to 1\.5 \.\. 1\.5; rows of probabilities"),
        (GOOD, torch.tensor([[1.5, -0.5, 0.0]] * 4), r"have a least value of -0\.5"),
        (GOOD, torch.full((4, 3), math.nan), "least value of nan"),
        (GOOD, torch.full((3, 3), 1 / 3), r"is \(2, 4, 3\) for 3 labels"),
        (GOOD, LABELS.bool(), "torch.bool"),
        (GOOD, LABELS[:, None], r"torch.int64 \(4, 1\)"),
        (GOOD, LABELS + 3, "lie in 3 .. 3 but the model has 3 outputs; .* give the model 4 outputs"),
        (GOOD, LABELS - 1, "lie in -1 .. -1"),
        (GOOD.index_fill(0, torch.tensor([1]), math.nan), LABELS, "x at evaluation, batch 0 holds NaN or Inf"),
        (GOOD - math.inf, LABELS, "holds NaN or Inf"),
    ],
)
def test_what_does_not_fit_is_said(x, y, says):
    with pytest.raises(ValueError, match=says):
        evaluate(Echo(), [(x, y)], CPU)


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (torch.zeros(3), "is a Tensor; give a pair"),
        ((GOOD,), "is a tuple; give a pair"),
        ((GOOD, 3), "labels at .* are int"),
    ],
)
def test_what_is_no_batch_is_said(untyped, batch, says):
    with pytest.raises(ValueError, match=says):
        evaluate(Echo(), [batch], CPU)


def test_large_finite_inputs_pass():
    huge = torch.full((2, 4, 3), 3e38)  # finite, though the sum is not
    assert evaluate(Echo(), [(huge, LABELS)], CPU, prepare=lambda x, generator: torch.zeros_like(x))["count"] == 4


def test_nan_from_prepare_is_found_although_the_model_would_hide_it():
    class Deaf(Echo):
        def forward(self, x):
            return (x > 0).float()

    with pytest.raises(ValueError, match="what `prepare` gave at evaluation, batch 0 holds NaN"):
        evaluate(Deaf(), [(GOOD, LABELS)], CPU, prepare=lambda x, generator: x / 0)


def test_a_loss_that_is_not_finite_is_said():
    class Broken(Echo):
        def forward(self, x):
            return x / 0

    with pytest.raises(ValueError, match="the loss is nan at evaluation, batch 0; lower lr"):
        evaluate(Broken(), [(GOOD, LABELS)], CPU)


def test_no_batches_are_said():
    with pytest.raises(ValueError, match="evaluation: there are no batches"):
        evaluate(Echo(), [], CPU)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_missing_gpu_is_said():
    with pytest.raises(ValueError, match='device is "cuda" but torch sees no CUDA device'):
        evaluate(Echo(), [(GOOD, LABELS)], TrainConfig(device="cuda"))
