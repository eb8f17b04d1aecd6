import math

import pytest
import torch

from rheobase.train import cross_entropy, loss, mse, tet

LOGITS = torch.tensor([[[1.0, 2.0, -1.0], [0.0, 0.5, 3.0]], [[-2.0, 0.0, 4.0], [1.0, 1.0, 1.0]]], dtype=torch.float64)
LABELS = torch.tensor([1, 2])


def softmax_error(row, label):
    return math.log(sum(math.exp(v) for v in row)) - row[label]


def test_cross_entropy_is_that_of_the_mean_over_time():
    mean = [[(a + b) / 2 for a, b in zip(*rows, strict=True)] for rows in zip(*LOGITS.tolist(), strict=True)]
    expected = (softmax_error(mean[0], 1) + softmax_error(mean[1], 2)) / 2
    assert cross_entropy(LOGITS, LABELS).item() == pytest.approx(expected, rel=1e-12)


def test_label_smoothing_mixes_in_the_mean_over_classes():
    mean = LOGITS.mean(0).tolist()
    plain = sum(softmax_error(row, y) for row, y in zip(mean, [1, 2], strict=True)) / 2
    uniform = sum(softmax_error(row, k) for row in mean for k in range(3)) / 6
    smoothed = cross_entropy(LOGITS, LABELS, label_smoothing=0.3).item()
    assert smoothed == pytest.approx(0.7 * plain + 0.3 * uniform, rel=1e-12)


@pytest.mark.parametrize(("lam", "target"), [(0.05, 1.0), (0.0, 1.0), (1.0, -0.5), (0.3, 2.0)])
def test_tet_is_the_hand_formula(lam, target):
    steps = LOGITS.tolist()
    error = sum(softmax_error(step[b], LABELS[b].item()) for step in steps for b in range(2)) / 4
    square = sum((v - target) ** 2 for step in steps for row in step for v in row) / 12
    assert tet(LOGITS, LABELS, lam, target).item() == pytest.approx((1 - lam) * error + lam * square, rel=1e-12)


def test_tet_pairs_labels_with_samples_not_with_steps():
    confident = torch.full((5, 2, 3), -20.0)
    confident[:, 0, 1] = confident[:, 1, 2] = 20.0
    assert tet(confident, LABELS, 0.0).item() < 1e-6
    assert tet(confident, LABELS.flip(0), 0.0).item() > 30


def test_mse_is_the_squared_distance_of_the_rates_to_the_label():
    mean = LOGITS.mean(0).tolist()
    wanted = [[0, 1, 0], [0, 0, 1]]
    errors = [(r - w) ** 2 for row, want in zip(mean, wanted, strict=True) for r, w in zip(row, want, strict=True)]
    assert mse(LOGITS, LABELS).item() == pytest.approx(sum(errors) / 6, rel=1e-12)
    last = mse(LOGITS, LABELS, readout="last").item()
    assert last == pytest.approx((4 + 1 + 16 + 1 + 1 + 0) / 6, rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_mse_of_soft_targets(smoothing):
    rows = (1 - smoothing) * SOFT.double() + smoothing / 3
    assert mse(LOGITS, SOFT, smoothing).item() == pytest.approx(
        (LOGITS.mean(0) - rows).square().mean().item(), rel=1e-6
    )


SOFT = torch.tensor([[0.2, 0.5, 0.3], [0.0, 0.9, 0.1]])


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_soft_targets_weigh_the_classes(smoothing):
    mean, rows = LOGITS.mean(0).tolist(), ((1 - smoothing) * SOFT.double() + smoothing / 3).tolist()
    expected = sum(rows[b][k] * softmax_error(mean[b], k) for b in range(2) for k in range(3)) / 2
    assert cross_entropy(LOGITS, SOFT, label_smoothing=smoothing).item() == pytest.approx(expected, rel=1e-6)
    expected = sum(
        rows[b][k] * softmax_error(step[b], k) for step in LOGITS.tolist() for b in range(2) for k in range(3)
    )
    assert tet(LOGITS, SOFT, 0.0, label_smoothing=smoothing).item() == pytest.approx(expected / 4, rel=1e-6)


@pytest.mark.parametrize("function", [cross_entropy, tet])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_certain_soft_targets_are_the_classes(function, smoothing):
    certain = torch.nn.functional.one_hot(LABELS, 3).float()
    hard = function(LOGITS, LABELS, label_smoothing=smoothing)
    torch.testing.assert_close(function(LOGITS, certain, label_smoothing=smoothing), hard)


@pytest.mark.parametrize("function", [cross_entropy, tet])
def test_gradients_are_right(function):
    assert torch.autograd.gradcheck(lambda z: function(z, LABELS), LOGITS.clone().requires_grad_())


def test_lookup():
    assert loss("cross_entropy") is cross_entropy
    assert loss("mse") is mse
    assert loss("tet") is tet
    with pytest.raises(ValueError, match="'hinge'; choose one of cross_entropy, mse, tet"):
        loss("hinge")


def test_cross_entropy_is_of_the_readout():
    expected = torch.nn.functional.cross_entropy(LOGITS[-1], LABELS)
    torch.testing.assert_close(cross_entropy(LOGITS, LABELS, readout="last"), expected)
