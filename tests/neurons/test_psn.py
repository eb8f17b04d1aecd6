import copy
import math
import pickle
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

import rheobase as rb
from rheobase.models import create_model
from rheobase.neurons import IF, LIF, PSN, SURROGATES, Atan, MaskedPSN, SlidingPSN, Smooth, masking
from rheobase.neurons.psn import sliding_step

CASES = {
    "psn": lambda T, **a: PSN(T, **a),
    "masked": lambda T, **a: MaskedPSN(T, 2, **a),
    "half masked": lambda T, **a: MaskedPSN(T, 2, 0.5, **a),
    "sliding conv": lambda T, **a: SlidingPSN(3, form="conv", **a),
    "sliding gemm": lambda T, **a: SlidingPSN(3, form="gemm", **a),
}
CAUSAL = ["masked", "sliding conv", "sliding gemm"]


@pytest.fixture(params=CASES)
def make(request):
    return CASES[request.param]


def with_weights(neuron, weight, threshold=1.0):
    with torch.no_grad():
        neuron.weight.copy_(weight)
        neuron.bias.fill_(-threshold)
    return neuron


def jacobian(neuron, T):
    """Membrane's derivative `[t, i]`, in float64: the smooth spike is the membrane plus its bias."""
    x = torch.randn(T, 1, 1, dtype=torch.float64)
    with rb.engine("reference"):
        return torch.autograd.functional.jacobian(neuron.double(), x).view(T, T)


# Membranes


@pytest.mark.parametrize("engine", ["cpu", "reference"])
@pytest.mark.parametrize(("decay", "gain", "loop"), [(0.5, 0.5, LIF(tau=2.0, reset="none")), (1, 1, IF(reset="none"))])
def test_a_leak_without_reset_is_a_psn(decay, gain, loop, engine):
    T = 32
    t = torch.arange(T, dtype=torch.float64)
    weight = (gain * decay ** (t.unsqueeze(1) - t)).tril()
    x = torch.randn(T, 4, 100, dtype=torch.float64)
    with rb.engine(engine):
        s = with_weights(PSN(T).double(), weight)(x)
        assert torch.equal(s, loop(x))
        assert 0.01 < s.mean() < 0.5


def test_masks():
    T, x = 6, torch.randn(6, 3, 50, dtype=torch.float64) * 2
    plain = PSN(T).double()
    masked = {k: with_weights(MaskedPSN(T, k).double(), plain.weight) for k in (1, 2, T, T + 3)}
    assert torch.equal(masked[T](x), with_weights(PSN(T).double(), plain.weight.tril())(x))
    assert torch.equal(masked[T + 3](x), masked[T](x))
    diagonal = plain.weight.diagonal().view(T, 1, 1)
    assert torch.equal(masked[1](x), (diagonal * x >= 1).double())
    masked[2].set_lambda(0.0)
    assert torch.equal(masked[2](x), plain(x))
    masked[2].set_lambda(0.25)
    band = torch.ones(T, T).tril() - torch.ones(T, T).tril(-2)
    assert torch.equal(masked[2](x), with_weights(PSN(T).double(), plain.weight * (0.25 * band + 0.75))(x))


@pytest.mark.parametrize(
    ("name", "causal", "order"),
    [
        ("psn", False, 7),
        ("masked", True, 2),
        ("half masked", False, 7),
        ("sliding conv", True, 3),
        ("sliding gemm", True, 3),
    ],
)
def test_which_inputs_a_step_sees(name, causal, order):
    neuron, T = CASES[name](7, surrogate=Smooth(Atan())), 7
    seen = jacobian(neuron, T) != 0
    t = torch.arange(T)
    past = t.unsqueeze(1) - t
    assert torch.equal(seen, (past >= 0) & (past < order) if causal else torch.ones(T, T, dtype=torch.bool))


def test_every_step_has_its_own_threshold(make):
    neuron, x = make(6), torch.randn(6, 2, 50) * 5
    silenced = 2 if neuron.threshold.dim() else ...  # the sliding PSN has one for all
    expected = neuron(x).detach()
    assert expected[silenced].any()
    with torch.no_grad():
        neuron.bias[silenced] = -math.inf
    expected[silenced] = 0
    assert torch.equal(neuron(x), expected)


@pytest.mark.parametrize("k", [1, 2, 5, 6, 9])
def test_the_two_forms_agree(k):
    T = 6
    conv, gemm = (
        SlidingPSN(k, exp_init=False, form=form, surrogate=Smooth(Atan())).double() for form in ("conv", "gemm")
    )
    with_weights(gemm, conv.weight)
    found = []
    for neuron in (conv, gemm):
        x = torch.randn(T, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        with rb.engine("reference" if k > 2 else "cpu"):
            y = neuron(x)
            found.append((y, *torch.autograd.grad(y.cumsum(0).square().sum(), [x, neuron.weight, neuron.bias])))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert gemm(torch.randn(T + 5, 2, 3, dtype=torch.float64)).shape == (T + 5, 2, 3)


def test_the_form_goes_by_the_order():
    assert [SlidingPSN(k).form for k in (1, 4, 5)] == ["conv", "conv", "gemm"]


def test_sliding_weights_at_the_start():
    assert SlidingPSN(4).weight.tolist() == [0.125, 0.25, 0.5, 1.0]
    weight = SlidingPSN(4096, exp_init=False, form="gemm").weight
    assert 0.95 / 64 < weight.abs().max() < 1 / 64
    assert 0.9 / math.sqrt(100) < PSN(100).weight.abs().max() < 1 / math.sqrt(100)


def test_the_step_finds_its_weights_by_name():
    neuron = SlidingPSN(3)
    assert [getattr(neuron, name).item() for name in neuron.scan.params] == [-1.0, 0.25, 0.5, 1.0]
    with pytest.raises(AttributeError, match="w3"):
        _ = neuron.w3


# Gradients


def test_gradients_are_those_of_the_sheet():
    """dX = W'G, dW = G X' (times the mask), dB = -sum G with G = dL/dS g(H - B)."""
    T, upstream = 5, torch.randn(5, 3, 4, dtype=torch.float64)
    x = torch.randn(T, 3, 4, dtype=torch.float64, requires_grad=True)
    for neuron, mask in [
        (PSN(T), torch.ones(T, T)),
        (MaskedPSN(T, 2), torch.ones(T, T).tril() - torch.ones(T, T).tril(-2)),
    ]:
        neuron.double()
        of_x, of_weight, of_bias = torch.autograd.grad(neuron(x), [x, neuron.weight, neuron.bias], upstream)
        flat, mask = x.detach().flatten(1), mask.double()
        weight = neuron.weight.detach() * mask
        g = upstream.flatten(1) * Atan().derivative(weight @ flat - neuron.threshold.detach().unsqueeze(1))
        torch.testing.assert_close(of_x.flatten(1), weight.T @ g)
        torch.testing.assert_close(of_weight, g @ flat.T * mask)
        torch.testing.assert_close(of_bias, g.sum(1))
        assert (of_weight[mask == 0] == 0).all()


@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
def test_gradient_of_the_smooth_twin_is_exact(make, surrogate):
    neuron = make(4, surrogate=Smooth(SURROGATES[surrogate]())).double()
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    with rb.engine("reference"):
        assert gradcheck(lambda x, *_: neuron(x), (x, *neuron.parameters()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 3, 5, 3), (5, 2, 1050)], ids=str)
def test_engines_agree(make, shape, dtype):
    neuron, found = make(shape[0]), []
    x = (torch.randn(shape) * 2).to(dtype).requires_grad_()
    upstream = torch.randn_like(x)
    for engine in ("cpu", "reference"):
        with rb.engine(engine):
            y = neuron(x)
            found.append((y, *torch.autograd.grad(y, [x, *neuron.parameters()], upstream)))
    (y, of_x, *of_parameters), (y_, of_x_, *of_parameters_) = found
    assert y.dtype == of_x.dtype == dtype
    assert torch.equal(y, y_)
    digits = {torch.bfloat16: 2**-8, torch.float16: 2**-11}.get(dtype, 1e-5)
    torch.testing.assert_close(of_x, of_x_, rtol=digits, atol=digits)
    for a, b in zip(of_parameters, of_parameters_, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * float(of_x.abs().sum()))


def test_16_bit_input_is_summed_in_32(make):
    x = (torch.randn(4, 2, 500) * 2).bfloat16()
    neuron = make(4)
    assert torch.equal(neuron(x).float(), neuron(x.float()))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(neuron(x.float()), neuron(x.float().clone()))
        found = torch.autograd.grad(neuron(x.float()).sum(), neuron.weight)[0]
    assert torch.equal(found, torch.autograd.grad(neuron(x.float()).sum(), neuron.weight)[0])


def test_second_derivative_exists_on_the_reference_engine_only(make):
    x, neuron = torch.randn(3, 2, 4, requires_grad=True), make(3)
    with rb.engine("reference"):
        (g,) = torch.autograd.grad(neuron(x).square().sum(), x, create_graph=True)
        g.square().sum().backward()
    assert x.grad.isfinite().all()
    (g,) = torch.autograd.grad(neuron(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"no second derivative.*reference"):
        g.square().sum().backward()


def test_only_the_input_is_kept_for_backward(make):
    x, neuron, kept = torch.randn(4, 8, 1000, requires_grad=True), make(4), {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        neuron(x)
    assert x.untyped_storage().data_ptr() in kept
    assert sum(kept.values()) < 1.02 * x.untyped_storage().nbytes()


# Shapes and memory


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "strided", "expanded", "batch inside"])
def test_layouts(make, layout):
    x = torch.randn(4, 2, 3, 5, 6) * 2
    given = {
        "contiguous": lambda: x,
        "channels last": lambda: x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3),
        "strided": lambda: torch.stack([x, x], -1)[..., 0],
        "expanded": lambda: x[:1].expand(4, 2, 3, 5, 6),
        "batch inside": lambda: x.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3),
    }[layout]()
    neuron = make(4)
    y = neuron(given)
    assert torch.equal(y, neuron(given.contiguous()))
    if layout in ("contiguous", "channels last"):
        assert y.stride() == given.stride()
    upstream, found = torch.randn_like(x), []
    for leaf in (given.detach(), given.detach().contiguous()):
        leaf.requires_grad_()
        found.append(torch.autograd.grad(neuron(leaf), leaf, upstream)[0])
    torch.testing.assert_close(*found)


def test_an_empty_batch(make):
    assert make(4)(torch.zeros(4, 0, 3)).shape == (4, 0, 3)


def test_neurons_do_not_mix(make):
    x, neuron, order = torch.randn(4, 3, 40, dtype=torch.float64) * 2, make(4).double(), torch.randperm(40)
    assert torch.equal(neuron(x)[..., order], neuron(x[..., order]))


# Streams


@pytest.mark.parametrize("name", CAUSAL)
def test_single_steps_give_the_whole(name):
    x, neuron = torch.randn(7, 3, 50, dtype=torch.float64) * 2, CASES[name](7).double()
    with rb.stream(neuron) as one, rb.stream(neuron) as few:
        assert torch.equal(torch.cat([one(step) for step in x.split(1)]), neuron(x))
        assert torch.equal(torch.cat([few(x[:1]), few(x[1:5]), few(x[5:])]), neuron(x))
        assert all(torch.equal(a, b) for a, b in zip(one.state["#0"], few.state["#0"], strict=True))


def test_the_sliding_state_is_the_last_inputs():
    x = torch.randn(5, 2, 3)
    for form in ("conv", "gemm"):
        for T, expected in [(5, x[2:5]), (2, torch.cat([torch.zeros(1, 2, 3), x[:2]]))]:
            _, state = SlidingPSN(4, form=form).sequence(x[:T], None)
            assert torch.equal(torch.stack(state), expected)


def test_a_stream_goes_on_in_the_other_form():
    x, conv = torch.randn(6, 2, 20) * 2, SlidingPSN(3, form="conv")
    gemm = SlidingPSN(3, form="gemm")
    _, state = conv.sequence(x[:3], None)
    assert torch.equal(gemm.sequence(x[3:], state)[0], conv(x)[3:])


@pytest.mark.parametrize("name", CAUSAL)
def test_gradients_flow_through_the_state(name):
    x, neuron = torch.randn(6, 2, 20, requires_grad=True), CASES[name](6)
    wanted = [x, *neuron.parameters()]
    whole = torch.autograd.grad(neuron(x).cumsum(0).square().sum(), wanted)
    with rb.stream(neuron) as run:
        y = torch.cat([run(x[:2]), run(x[2:])])
    for a, b in zip(torch.autograd.grad(y.cumsum(0).square().sum(), wanted), whole, strict=True):
        torch.testing.assert_close(a, b)


def test_a_stream_of_a_masked_neuron_ends_after_all_steps():
    neuron = MaskedPSN(4)
    assert neuron(torch.randn(2, 1, 3)).shape == (2, 1, 3)
    with rb.stream(neuron) as run:
        run(torch.randn(3, 1, 3))
        with pytest.raises(ValueError, match=r"got 2 steps after 3; expected no more than T=4"):
            run(torch.randn(2, 1, 3))


def test_a_partly_masked_neuron_is_not_streamed():
    net = nn.Sequential(nn.Identity(), MaskedPSN(4, lambda_=0.5))
    with pytest.raises(ValueError, match=r"^1: MaskedPSN needs the whole sequence"), rb.stream(net) as run:
        run(torch.randn(1, 2, 3))
    with pytest.raises(ValueError, match=r"got 1 of T=4 steps with lambda=0.5, which is not causal"):
        net(torch.randn(1, 2, 3))
    net[1].set_lambda(1.0)
    with rb.stream(net) as run:
        assert run(torch.randn(1, 2, 3)).shape == (1, 2, 3)


# Settings


def test_parameter_counts():
    count = lambda neuron: sum(p.numel() for p in neuron.parameters())  # noqa: E731
    assert count(PSN(32)) == count(MaskedPSN(32, 4)) == 32 * 32 + 32
    assert count(SlidingPSN(32)) == count(SlidingPSN(32, form="gemm")) == 33


@pytest.mark.parametrize("epochs", [2, 9, 10, 16, 17, 18, 256])
def test_masking_grows_over_the_first_eighth(epochs):
    values = [masking(epoch, epochs) for epoch in range(epochs)]
    assert values[0] == 0
    first = math.ceil((epochs - 1) / 8)
    assert values[first:] == [1.0] * (epochs - first)
    assert all(a < b < 1 for a, b in pairwise([*values[:first], 0.999]))
    assert masking(0, 1) == 1.0


def test_lambda_is_saved():
    neuron = MaskedPSN(4, 2)
    neuron.set_lambda(masking(1, 33))
    assert sorted(neuron.state_dict()) == ["bias", "lambda_", "weight"]
    other = MaskedPSN(4, 2)
    other.load_state_dict(neuron.state_dict())
    assert other.lambda_ == 0.25
    x = torch.randn(4, 2, 50) * 2
    assert torch.equal(other(x), neuron(x))


def test_a_copy_and_a_pickle_do_the_same(make):
    neuron, x = make(4), torch.randn(4, 2, 50) * 2
    for other in (copy.deepcopy(neuron), pickle.loads(pickle.dumps(neuron))):
        assert torch.equal(other(x), neuron(x))
        assert repr(other) == repr(neuron)
    assert pickle.loads(pickle.dumps(sliding_step(3))) is sliding_step(3)


def test_emits_spikes(make):
    assert make(4).emits == "binary"
    assert make(4, surrogate=Smooth(Atan())).emits == "real"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: PSN(0), "T is 0; expected at least 1"),
        (lambda: MaskedPSN(0), "T is 0; expected at least 1"),
        (lambda: MaskedPSN(4, 0), "k is 0; expected at least 1, or None"),
        (lambda: MaskedPSN(4, lambda_=1.5), r"lambda is 1.5; expected 0 \(a PSN\) to 1"),
        (lambda: SlidingPSN(0), "k is 0; expected at least 1"),
        (lambda: masking(3, 3), "epoch is 3; expected 0 to 2 of 3 epochs"),
        (lambda: PSN(4)(torch.randn(3, 2, 5)), "x has 3 steps; expected T=4"),
        (lambda: PSN(4)(torch.randn(4)), r"shape \(4,\); expected \[T, B"),
        (lambda: PSN(4)(torch.ones(4, 2, 3, dtype=torch.int64)), r"torch.int64; expected floating point"),
        (lambda: PSN(4).sequence(torch.randn(4, 2, 3), (torch.ones(2, 3),)), "needs the whole sequence at once"),
        (lambda: MaskedPSN(4).sequence(torch.randn(1, 2, 3), (torch.ones(1, 3, 3),)), r"inputs of shape \(3, 3\)"),
        (lambda: SlidingPSN(3, form="gemm").sequence(torch.randn(1, 2), ()), "state of 0 inputs; expected 2, for k=3"),
    ],
)
def test_what_is_wrong_is_said(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_an_unknown_form_is_refused():
    with pytest.raises(Exception, match="form"):  # a typed run refuses it first
        SlidingPSN(form="fft")


# Use


def test_a_model_learns_with_them(make):
    model = create_model("test_ms_resnet", neuron=lambda: make(4))
    x, y = torch.randn(4, 6, 3, 8, 8), torch.arange(6)
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=0.02), []
    for _ in range(25):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x).mean(0), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert [name for name, p in model.named_parameters() if not p.grad.abs().sum() > 0] == []
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", ["masked", "sliding conv"])
def test_memory_ends_at_the_order(name):
    """Recall a sign d steps later through one neuron: learned for d < k, chance for d >= k."""
    order, found = {"masked": 2, "sliding conv": 3}[name], {}
    for delay in (order - 1, order):
        torch.manual_seed(3)
        neuron, cue = CASES[name](8), torch.randint(0, 2, (1, 256, 1)).float()
        x = torch.cat([cue * 2 - 1, torch.randn(7, 256, 1) * 0.1])
        optimizer = torch.optim.Adam(neuron.parameters(), lr=0.1)
        for _ in range(60):
            optimizer.zero_grad()
            (neuron(x)[delay] - cue[0]).square().mean().backward()
            optimizer.step()
        found[delay] = (neuron(x)[delay] == cue[0]).float().mean().item()
    assert found[order - 1] == 1
    assert found[order] < 0.6


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore")
def test_compiled_and_exported_equal_eager(make):
    torch.compiler.reset()
    model = nn.Sequential(rb.nn.PerStep(nn.Conv2d(2, 3, 3)), make(3), rb.nn.PerStep(nn.Conv2d(3, 2, 3)), make(3))
    x, parameters = torch.randn(3, 2, 2, 7, 7) * 3, list(model.parameters())
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), model(x))
    eager = torch.autograd.grad(model(x).cumsum(0).sum(), parameters)
    for a, b in zip(torch.autograd.grad(compiled(x).cumsum(0).sum(), parameters), eager, strict=True):
        torch.testing.assert_close(a, b)
    exported = torch.export.export(model, (x,))
    assert any("scan" in str(node.target) for node in exported.graph.nodes)
    assert torch.equal(exported.module()(x), model(x))
