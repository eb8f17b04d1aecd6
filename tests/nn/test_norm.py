import math

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn

import rheobase as rb
from rheobase.neurons import IterativeLIF
from rheobase.nn import PerStep
from rheobase.nn.norm import TdBN, fold, fold_all, synchronise

REFUSED = (ValueError, TypeCheckError)  # the typed run refuses a wrong literal before the constructor does

pytestmark = pytest.mark.usefixtures("one_thread")


def as_batch_norm_3d(x):
    """[T, B, C, H, W] as torch's [B, C, T, H, W]."""
    return x.permute(1, 2, 0, 3, 4)


def around_start(norm):
    """Give a norm parameters and statistics that are not those of the start."""
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor.add_(torch.randn_like(tensor) * 0.3)
        norm.running_var.mul_(torch.rand_like(norm.running_var) + 0.5)
    return norm


@pytest.mark.parametrize("alpha", [1.0, 1 / math.sqrt(2)])
@pytest.mark.parametrize("form", ["merged", "explicit"])
def test_starts_at_the_threshold_ahead(form, alpha):
    x = torch.randn(4, 8, 6, 7, 5) * 3 + 2
    y = TdBN(6, threshold=0.5, alpha=alpha, form=form)(x)
    assert y.mean((0, 1, 3, 4)).abs().max() < 1e-5
    torch.testing.assert_close(y.std((0, 1, 3, 4), correction=0), torch.full((6,), alpha * 0.5), rtol=0, atol=1e-4)


def test_two_added_branches_have_the_deviation_of_one():
    norms = [TdBN(6, threshold=0.5, alpha=1 / math.sqrt(2)) for _ in range(2)]
    total = sum(norm(torch.randn(4, 16, 6, 8, 8)) for norm in norms)
    torch.testing.assert_close(total.std((0, 1, 3, 4)), torch.full((6,), 0.5), rtol=0.03, atol=0)


def test_time_is_pooled():
    x = torch.randn(5, 4, 3, 6, 6) * torch.arange(1.0, 6).view(5, 1, 1, 1, 1)
    forth, back, each = TdBN(3), TdBN(3), nn.BatchNorm2d(3)
    order = torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(forth(x)[order], back(x[order]))
    torch.testing.assert_close(forth.running_mean, back.running_mean)
    torch.testing.assert_close(forth.running_var, back.running_var)
    per_step = torch.stack([each(step) for step in x])
    assert (per_step - forth(x)).abs().max() > 0.5


def test_one_step_is_batch_norm():
    x, other = torch.randn(6, 3, 5, 5), nn.BatchNorm2d(3)
    torch.testing.assert_close(TdBN(3)(x.unsqueeze(0))[0], other(x))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "batch_first"])
def test_agrees_with_batch_norm_over_time(layout):
    ours, theirs = around_start(TdBN(3)).double(), nn.BatchNorm3d(3).double()
    theirs.load_state_dict(ours.state_dict())
    for _ in range(3):
        x = torch.randn(4, 2, 3, 5, 6, dtype=torch.float64) * 2 + 1
        if layout == "channels_last":
            x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (4, 2))
        if layout == "batch_first":
            x = x.transpose(0, 1).contiguous().transpose(0, 1)
        a, b = (x.clone(memory_format=torch.preserve_format).requires_grad_() for _ in range(2))
        y, expected = ours(a), theirs(as_batch_norm_3d(b))
        torch.testing.assert_close(as_batch_norm_3d(y), expected)
        grad = torch.randn_like(y)
        found = torch.autograd.grad(y, [a, ours.weight, ours.bias], grad)
        wanted = torch.autograd.grad(expected, [b, theirs.weight, theirs.bias], as_batch_norm_3d(grad))
        torch.testing.assert_close(found, wanted)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value)
    torch.testing.assert_close(as_batch_norm_3d(ours.eval()(x)), theirs.eval()(as_batch_norm_3d(x)))


@pytest.mark.parametrize("form", ["merged", "explicit"])
def test_first_and_second_derivative(form):
    norm = TdBN(2, threshold=0.5, form=form).double()
    x = torch.randn(2, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    parameters = [p.detach().requires_grad_() for p in norm.parameters()]

    def run(x, weight, bias):
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(run, (x, *parameters))
    with rb.engine("reference"):
        assert torch.autograd.gradcheck(run, (x, *parameters))
        assert torch.autograd.gradgradcheck(run, (x, *parameters))


def test_merged_and_explicit_differ_only_in_how_they_learn():
    x = torch.randn(4, 2, 3, 5, 5, dtype=torch.float64)
    grad = torch.randn_like(x)
    found = {}
    for form in ("merged", "explicit"):
        norm, a = TdBN(3, threshold=0.5, alpha=0.7, form=form).double(), x.clone().requires_grad_()
        y = norm(a)
        y.backward(grad)
        found[form] = y.detach(), a.grad, norm.bias.grad, norm.weight.grad
    *merged, dgamma = found["merged"]
    *explicit, dlambda = found["explicit"]
    torch.testing.assert_close(merged, explicit)
    torch.testing.assert_close(dlambda, 0.35 * dgamma)


@pytest.mark.parametrize("form", ["merged", "explicit"])
def test_init_is_the_gain_in_both_forms(form):
    x = torch.randn(4, 8, 3, 5, 5)
    assert TdBN(3, threshold=0.5, form=form, init=0.1)(x).std().item() == pytest.approx(0.1, abs=1e-3)
    assert TdBN(3, threshold=0.5, form=form, init=0.0)(x).abs().max() == 0


def test_running_statistics_settle_on_a_batch_that_stays():
    x = torch.randn(4, 2, 3, 5, 5, dtype=torch.float64) * 3 + 1
    norm = TdBN(3, momentum=0.5).double()
    for _ in range(60):
        norm(x)
    var, mean = torch.var_mean(x, (0, 1, 3, 4))
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, var)
    assert norm.num_batches_tracked == 60


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 5, 5), (1, 3)])
def test_an_expanded_input_is_as_good_as_a_copied_one(shape, training):
    image = torch.randn(shape, dtype=torch.float64)
    found = []
    for copied in (False, True):
        norm = TdBN(3, threshold=0.5).double().train(training)
        a = image.clone().requires_grad_()
        x = a.expand(4, *shape)
        y = norm(x.contiguous() if copied else x)
        assert (y.stride(0) == 0) != copied
        y.mul(torch.arange(y.numel(), dtype=torch.float64).view_as(y).cos()).sum().backward()
        found.append([y.detach(), a.grad, norm.weight.grad, norm.bias.grad, *norm.buffers()])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_statistics_of_half_formats_are_single(dtype):
    x = (torch.randn(4, 8, 3, 16, 16) + 5).to(dtype)
    norm = TdBN(3, momentum=1.0)
    y = norm(x)
    assert y.dtype == dtype
    assert norm.eval()(x).dtype == dtype
    assert norm.running_mean.dtype == torch.float32
    var, mean = torch.var_mean(x.double(), (0, 1, 3, 4))
    torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-5, atol=0)
    torch.testing.assert_close(norm.running_var.double(), var, rtol=1e-4, atol=0)


def test_under_autocast_parameters_learn_in_single():
    block = nn.Sequential(PerStep(nn.Conv2d(2, 3, 3)), TdBN(3))
    with torch.autocast("cpu", torch.bfloat16):
        y = block(torch.randn(2, 4, 2, 6, 6))
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    assert block[1].weight.grad.dtype == torch.float32
    assert block[1].running_var.dtype == torch.float32


def chain(norm, layers=20):
    """Convolutions and neurons with hardly any leak left: the membrane is the input."""
    threshold = 0.5 if norm else 1.0
    blocks = []
    for _ in range(layers):
        blocks.append(PerStep(nn.Conv2d(32, 32, 3, padding=1, bias=False)))
        blocks.extend([TdBN(32, threshold)] if norm else [])
        blocks.append(IterativeLIF(decay=1e-30, threshold=threshold))
    return nn.Sequential(*blocks)


@torch.no_grad()
def test_rate_at_the_start_is_the_same_in_every_layer():
    x, rates = torch.randn(4, 8, 32, 8, 8), []
    for layer in chain(norm=True):
        x = layer(x)
        if isinstance(layer, IterativeLIF):
            rates.append(x.mean().item())
    assert rates == pytest.approx([0.1587] * 20, abs=0.01)
    assert chain(norm=False)(torch.randn(4, 8, 32, 8, 8)).sum() == 0


@pytest.mark.parametrize("form", ["merged", "explicit"])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.Conv2d(4, 6, 3, padding=1), (4, 7, 7)),
        (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=False), (4, 7, 7)),
        (lambda: nn.Conv1d(4, 6, 3), (4, 9)),
        (lambda: nn.Conv3d(4, 6, 2), (4, 3, 3, 3)),
        (lambda: nn.Linear(4, 6), (4,)),
    ],
    ids=["conv2d", "strided and grouped", "conv1d", "conv3d", "linear"],
)
def test_folding_leaves_the_output(make, shape, form):
    layer = make()
    norm = around_start(TdBN(6, threshold=0.5, form=form)).eval()
    x = torch.randn(3, 2, *shape)
    before = [p.clone() for p in layer.parameters()]
    folded = fold(layer, norm)
    expected = norm(PerStep(layer)(x))
    assert (PerStep(folded)(x) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert all(torch.equal(a, b) for a, b in zip(before, layer.parameters(), strict=True))


def test_a_folded_net_fires_the_same_spikes():
    net = nn.Sequential(
        *[PerStep(nn.Conv2d(2, 8, 3, padding=1)), around_start(TdBN(8, 0.5)), IterativeLIF()],
        *[PerStep(nn.Conv2d(8, 8, 3, stride=2, bias=False)), around_start(TdBN(8, 0.5)), IterativeLIF()],
        *[PerStep(nn.Conv2d(8, 8, 3, padding=1, groups=4)), around_start(TdBN(8, 0.5)), IterativeLIF()],
    ).double()
    folded, x = fold_all(net), torch.randn(6, 4, 2, 12, 12, dtype=torch.float64)
    assert not [layer for layer in folded if isinstance(layer, TdBN)]
    for depth in (3, 6, 9):
        spikes = net.eval()[:depth](x)
        assert torch.equal(folded[:depth](x), spikes)
        assert 0 < spikes.mean() < 1
    assert len([layer for layer in net if isinstance(layer, TdBN)]) == 3


def test_folding_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="puts out 5 channels but the norm has 6"):
        fold(nn.Conv2d(4, 5, 3), TdBN(6))
    with pytest.raises(ValueError, match=r"got ConvTranspose2d; expected one of Conv1d, .*Linear"):
        fold(nn.ConvTranspose2d(4, 6, 3), TdBN(6))


@pytest.mark.parametrize(
    "setting",
    [{"channels": 0}, {"threshold": 0.0}, {"alpha": -1.0}, {"form": "other"}, {"eps": 0.0}, {"momentum": 0.0}],
    ids=str,
)
def test_settings_out_of_range(setting):
    with pytest.raises(REFUSED, match=next(iter(setting))):
        TdBN(**{"channels": 3, **setting})


def test_inputs_that_do_not_fit():
    norm = TdBN(3)
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4, 5\); expected .* C = 3"):
        norm(torch.randn(2, 3, 4, 5))
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        norm(torch.randn(2, 3))
    with pytest.raises(ValueError, match="more than one value per channel"):
        norm(torch.randn(1, 1, 3))
    assert norm.eval()(torch.randn(1, 1, 3)).shape == (1, 1, 3)
    assert norm.num_batches_tracked == 0


@pytest.fixture
def process_group(tmp_path):
    """Of this process alone: all is communicated, with itself. Two are in tests/train/test_distributed.py."""
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("engine", ["reference", "cpu"])
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("form", ["merged", "explicit"])
def test_synchronised_alone_is_the_norm_itself(process_group, form, static, engine):
    x = torch.randn(3, 4, 5, 6, 6, dtype=torch.float64) * 2 + 1
    grad, found = torch.randn_like(x), []
    for on in (False, True):
        torch.manual_seed(1)
        model = rb.nn.Sequential(around_start(TdBN(5, threshold=0.5, form=form)), IterativeLIF()).double()
        assert synchronise(model, on) is model
        a = (x[0] if static else x).clone().requires_grad_()
        with rb.engine(engine):
            y = model(a.expand(x.shape))
        found.append([y, *torch.autograd.grad(y, [a, *model.parameters()], grad), *model.buffers()])
    torch.testing.assert_close(*found)


def test_synchronised_half_formats_keep_their_format(process_group):
    norm, x = synchronise(TdBN(3)), torch.randn(2, 4, 3, 5).bfloat16().requires_grad_()
    with rb.engine("reference"):
        y = norm(x)
        y.float().square().sum().backward()
    assert (y.dtype, x.grad.dtype, norm.weight.grad.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)


def test_synchronised_has_no_second_derivative(process_group):
    norm, x = synchronise(TdBN(3)), torch.randn(2, 4, 3, 5, requires_grad=True)
    with rb.engine("reference"):
        y = norm(x).square().sum()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(y, x, create_graph=True)


def test_synchronising_needs_a_process_group():
    with pytest.raises(ValueError, match="there is no process group"):
        synchronise(TdBN(3))
    assert not synchronise(TdBN(3), on=False).synchronised
