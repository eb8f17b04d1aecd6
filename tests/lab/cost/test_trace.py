import pytest
import torch
from torch import nn
from torch.nn import functional as F

import rheobase as rb
from rheobase.lab.cost import spike_driven, trace, tracing
from rheobase.lab.cost.count import values_of
from rheobase.models import MODELS, create_model
from rheobase.neurons import IF, LIF
from rheobase.nn import DelayedLinear, PerStep, Recurrent


class PerStepped(nn.Module):
    """Any function of `[T, B, ...]` as a model."""

    def __init__(self, run, *layers):
        super().__init__()
        self.run, self.layers = run, nn.ModuleList(layers)

    def forward(self, x):
        return self.run(self, x)


def only(model, x):
    (product,) = trace(model, x).products
    return product


def spikes(*shape, rate=0.3):
    return (torch.rand(shape) < rate).float()


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ([0.0, 1.0, 1.0], "binary"),
        ([0.0, 0.0, 0.0], "binary"),
        ([0.0, 2.0, 1.0], "graded"),
        ([0.0, -1.0, 1.0], "graded"),
        ([0.0, 0.5, 1.0], "real"),
        ([0.0, float("nan"), 1.0], "real"),
    ],
)
def test_what_values_are(x, expected):
    assert values_of(torch.tensor(x)) == expected


def brute_force_pairs(x, conv):
    """Non-zero values times the taps that they reach, one value at a time."""
    found = 0
    for at in x.nonzero():
        one = torch.zeros_like(x)
        one[tuple(at)] = 1
        ones = torch.func.functional_call(conv, {"weight": (conv.weight != 0).float()}, (one,))
        found += int(ones.sum())
    return found


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, 3, padding=1, bias=False),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=False),
        nn.Conv2d(4, 6, 3, padding=2, dilation=2, bias=False),
        nn.Conv2d(4, 4, 2, stride=3, groups=4, bias=False),
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, bias=False),
    ],
)
def test_convolutions_are_counted_to_the_border(conv):
    with torch.no_grad():
        conv.weight[0, 0, 0, 0] = 0.0
    x = spikes(2, 3, 4, 5, 6)
    product = only(PerStep(conv), x)
    y = conv(x[0])
    inside = x[0, 0] if isinstance(conv, nn.ConvTranspose2d) else y[0]
    assert product.macs == inside.numel() * conv.weight[0].numel()
    assert product.effective * 6 == brute_force_pairs(x.flatten(0, 1), conv)
    assert product.activations[0].density == pytest.approx(float(x.mean()), rel=1e-6)
    assert (product.kind, product.name, product.bias_adds) == ("convolution", "module", 0)


def test_a_biased_linear_layer_is_one_product_whatever_its_shape():
    for x in (spikes(2, 3, 5), spikes(2, 3, 7, 5), spikes(2, 3, 5, 7).transpose(2, 3)):
        product = only(nn.Linear(5, 4), x)
        tokens = x[0, 0].numel() // 5
        assert (product.macs, product.bias_adds, product.executed) == (20 * tokens, 4 * tokens, 2)
        assert product.effective * 6 == int(x.sum()) * 4
        assert product.kind == "linear"


def test_products_of_functions_are_seen_like_those_of_modules():
    weight = nn.Parameter(torch.randn(4, 5))
    runs = {
        "linear": lambda m, x: F.linear(x, m.weight),
        "matmul": lambda m, x: x @ m.weight.t(),
        "einsum": lambda m, x: torch.einsum("tbi,oi->tbo", x, m.weight),
        "conv": lambda m, x: F.conv1d(x.flatten(0, 1).unsqueeze(-1), m.weight.unsqueeze(-1)),
        "mv": lambda m, x: torch.stack([torch.stack([m.weight.mv(v) for v in step]) for step in x]),
        "masked": lambda m, x: x @ (m.weight * torch.ones(4, 1)).t(),
        "normed": lambda m, x: F.linear(x, m.weight / m.weight.norm(dim=1, keepdim=True)),
    }
    for name, run in runs.items():
        model = PerStepped(run)
        model.weight = weight
        product = only(model, spikes(2, 3, 5))
        assert len(product.activations) == 1, name
        assert product.activations[0].holds == "binary"
        assert (product.macs, product.executed) == (20, 2)
        with torch.inference_mode():
            assert only(model, spikes(2, 3, 5)).kind == product.kind


def test_a_weight_is_told_from_an_activation_of_the_same_shape():
    model = PerStepped(lambda m, x: (x @ m.layers[0].weight) @ x.transpose(-1, -2), nn.Linear(4, 4, bias=False))
    first, second = trace(model, spikes(2, 3, 4, 4)).products
    assert [operand.weight for operand in first.operands] == [False, True]
    assert [operand.weight for operand in second.operands] == [False, False]
    assert (first.name, first.kind, second.kind) == ("layers.0", "linear", "matmul")
    assert [operand.holds for operand in second.operands] == ["real", "binary"]


def attention(order):
    def run(_, x):
        q, k, v = (x.roll(s, -1) for s in range(3))
        return q @ (k.transpose(-1, -2) @ v) if order == "kv" else (q @ k.transpose(-1, -2)) @ v

    return PerStepped(run)


@pytest.mark.parametrize("order", ["kv", "qk"])
def test_attention_of_spikes_adds(order):
    x = spikes(2, 3, 2, 9, 4, rate=0.6)
    report = spike_driven(attention(order), x)
    first, second = report.products
    assert [product.kind for product in report.products] == ["matmul"] * 2
    assert first.strict
    assert not second.strict
    assert second.spike_driven
    assert sorted(operand.holds for operand in second.operands) == ["binary", "graded"]
    assert first.macs == second.macs == (2 * 9 * 4 * 4 if order == "kv" else 2 * 9 * 9 * 4)
    a, b = (x.roll(1, -1).transpose(-1, -2), x.roll(2, -1)) if order == "kv" else (x, x.roll(1, -1).transpose(-1, -2))
    assert first.effective * 6 == float((a @ b).sum())
    assert report.spike_driven


def test_softmax_attention_is_two_products_and_needs_multipliers():
    model = PerStepped(lambda m, x: F.scaled_dot_product_attention(x, x, x))
    scores, values = trace(model, spikes(2, 3, 2, 9, 4, rate=0.6)).products
    assert scores.macs == values.macs == 2 * 9 * 9 * 4
    assert [operand.holds for operand in values.operands] == ["real", "binary"]


def test_projections_cut_from_one_matrix_are_products_of_their_own():
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    model = PerStepped(lambda m, x: m.layers[0](x[0], x[0], x[0])[0], layer)
    products = trace(model, spikes(4, 3, 5, 8)).products
    assert [(p.kind, p.macs, p.executed) for p in products] == [
        *[("linear", 320, 1)] * 3,
        *[("matmul", 2 * 5 * 5 * 4, 1)] * 2,
        ("linear", 320, 1),
    ]
    assert products[-1].name == "layers.0.out_proj"


def test_a_loop_that_begins_with_zeros_counts_its_first_step():
    def run(m, x):
        h, rows = torch.zeros(3, 4), []
        for step in x:
            h = torch.relu(step + F.linear(h, m.layers[0].weight))
            rows.append(h)
        return torch.stack(rows)

    assert only(PerStepped(run, nn.Linear(4, 4)), torch.rand(5, 3, 4)).executed == 5


def test_an_operator_whose_products_are_hidden_is_refused():
    model = PerStepped(lambda m, x: m.layers[0](x[0], x[0]), nn.Bilinear(8, 8, 3))
    with pytest.raises(ValueError, match="whose matrix products cannot be seen"):
        trace(model, spikes(1, 3, 5, 8))
    trace(PerStep(nn.Linear(3, 4)), spikes(2, 2, 3))  # nothing is left behind


@pytest.mark.parametrize(
    "run",
    [
        lambda w, x: torch.addbmm(torch.zeros(5, 3), x[0].unsqueeze(0), w.T.unsqueeze(0)),
        lambda w, x: torch._addmm_activation(torch.zeros(3), x[0], w.T),
        lambda w, x: torch.sparse.mm(x[0].to_sparse(), w.T),
    ],
)
def test_products_that_cannot_be_told_are_refused(run):
    model = PerStepped(lambda m, x: run(m.layers[0].weight, x), nn.Linear(8, 3, bias=False))
    with pytest.raises(ValueError, match=r"cannot be seen|multiplies sparse tensors"):
        trace(model, spikes(1, 5, 8))


def test_products_that_add_in_place_are_seen():
    model = PerStepped(lambda m, x: torch.zeros(5, 3).addmm_(x[0], m.layers[0].weight.T), nn.Linear(8, 3, bias=False))
    product = only(model, spikes(1, 5, 8))
    assert (product.kind, product.macs) == ("linear", 24)


def small():
    return nn.Sequential(PerStep(nn.Conv2d(2, 3, 3, bias=False)), LIF(threshold=0.1), PerStep(nn.Conv2d(3, 4, 3)))


def test_a_static_image_is_computed_once_and_counts_for_every_step():
    model, image = small(), torch.rand(1, 2, 2, 6, 6)
    expanded, copied = trace(model, image.expand(5, -1, -1, -1, -1)), trace(model, image.repeat(5, 1, 1, 1, 1))
    assert [(p.executed, p.steps, p.once) for p in expanded.products] == [(1, 5, 1), (5, 5, 1)]
    assert [(p.executed, p.steps, p.once) for p in copied.products] == [(5, 5, 1), (5, 5, 1)]
    assert [p.macs for p in expanded.products] == [p.macs for p in copied.products]
    assert [p.effective for p in expanded.products] == pytest.approx([p.effective for p in copied.products])
    assert expanded.macs == copied.macs == 3 * 2 * 9 * 16 + 4 * 3 * 9 * 4


def test_a_model_that_is_one_layer_sees_its_static_image_too():
    layer = PerStep(nn.Linear(3, 2))
    assert [(p.executed, p.steps) for p in trace(layer, torch.rand(1, 2, 3).expand(5, -1, -1)).products] == [(1, 5)]


def test_half_formats_and_cast_weights_are_told_apart_like_others():
    with torch.autocast("cpu", torch.bfloat16):
        report = trace(small(), torch.rand(4, 2, 2, 6, 6))
    assert [p.name for p in report.products] == ["0.module", "2.module"]
    assert [[o.weight for o in p.operands] for p in report.products] == [[False, True]] * 2
    assert report.products[1].activations[0].holds == "binary"


def test_copies_of_weights_that_autocast_keeps_stay_weights():
    model, batches = small(), [torch.rand(4, 2, 2, 6, 6) for _ in range(3)]
    expected = trace(model, batches)
    with torch.autocast("cpu", torch.bfloat16):
        report = trace(model, batches)
    assert [p.name for p in report.products] == ["0.module", "2.module"]
    assert report.macs == expected.macs
    assert [p.executed for p in report.products] == [4, 4]


def test_a_layer_after_the_mean_over_time_runs_once():
    model = PerStepped(lambda m, x: m.layers[1](m.layers[0](x).mean(0)), PerStep(nn.Linear(5, 4)), nn.Linear(4, 3))
    body, head = trace(model, spikes(6, 2, 5)).products
    assert (body.executed, body.macs) == (6, 20)
    assert (head.executed, head.steps, head.once, head.macs) == (1, 1, 1, 12)


def test_loops_over_time_count_every_step():
    feedback = nn.Linear(4, 4, bias=False)
    found = trace(Recurrent(LIF(), feedback), torch.randn(5, 3, 4)).products[0]
    assert (found.name, found.executed, found.macs, found.activations[0].holds) == ("feedback", 5, 16, "binary")
    loop = PerStepped(lambda m, x: torch.stack([x[t] @ m.layers[0].weight.t() for t in range(5)]), feedback)
    assert only(loop, torch.randn(5, 3, 4)).executed == 5


def test_a_layer_that_runs_twice_in_a_step_counts_twice():
    layer = PerStep(nn.Linear(4, 4, bias=False))
    found = only(nn.Sequential(layer, layer), spikes(3, 2, 4))
    assert (found.executed, found.steps, found.once, found.macs) == (6, 6, 2, 16)


def test_delays_and_parallel_neurons_are_products_too():
    delayed = only(DelayedLinear(4, 3, max_delay=5), spikes(6, 2, 4))
    assert delayed.macs == 4 * 3 * (5 + 0)
    assert delayed.activations[0].holds == "binary"
    psn = rb.neurons.create_neuron("psn", T=4)
    found = trace(nn.Sequential(psn), torch.randn(4, 2, 7))
    assert found.products[0].macs * found.products[0].executed == 4 * 4 * 7
    assert not spike_driven(psn, torch.randn(4, 2, 7)).spike_driven
    assert trace(psn, torch.randn(4, 3, 7)).products[0].operands[1].shape == (7,)


def test_a_sliding_neuron_multiplies_in_every_form():
    """The window of k inputs that the fused step weighs is a product as the banded matrix of the other form is."""
    x = torch.randn(6, 2, 5)
    x[1] = 0
    conv, gemm = (rb.neurons.SlidingPSN(3, form=form) for form in ("conv", "gemm"))
    product = only(conv, x)
    assert (product.macs, product.executed, product.declared) == (3 * 5, 6, None)
    assert product.effective * 6 == 5 * (3 + 0 + 3 + 3 + 2 + 1)
    assert not product.spike_driven
    assert not spike_driven(gemm, x).spike_driven
    assert spike_driven(conv, (x > 0).float()).spike_driven
    both = trace(nn.Sequential(PerStep(nn.Linear(5, 4)), conv, PerStep(nn.Linear(4, 2))), x).products
    assert [p.stem for p in both] == [True, False, False]
    assert [p.readout for p in both] == [False, False, True]


@pytest.mark.parametrize("name", ["psn", "masked_psn"])
def test_the_first_neurons_own_product_is_no_stem(name):
    neuron = rb.neurons.create_neuron(name, T=4)
    found = trace(nn.Sequential(nn.Sequential(PerStep(nn.Linear(3, 5)), neuron)), torch.randn(4, 2, 3)).products
    assert [p.stem for p in found] == [True, False]


def test_feedback_of_spikes_is_no_stem():
    report = trace(create_model("test_recurrent_snn"), spikes(4, 2, *MODELS["test_recurrent_snn"].example()))
    assert [p.name for p in report.products if p.stem] == ["body.0.0.module"]


def test_one_neuron_in_two_places_counts_twice():
    neuron = LIF(threshold=0.1)
    model = PerStepped(lambda m, x: neuron(m.layers[0](neuron(x))), PerStep(nn.Linear(5, 5)))
    model.neuron = neuron
    (layer,) = trace(model, torch.randn(4, 2, 5)).neurons
    assert (layer.units, layer.updates) == (10, 40)


def test_sums_over_batches_equal_one_batch():
    model, x = small(), torch.rand(4, 6, 2, 6, 6)
    whole, parts = trace(model, x), trace(model, [x[:, :2], x[:, 2:]])
    assert whole.samples == parts.samples == 6
    for a, b in zip(whole.products, parts.products, strict=True):
        assert (a.macs, a.executed, a.effective) == (b.macs, b.executed, pytest.approx(b.effective))
        assert [o.density for o in a.activations] == pytest.approx([o.density for o in b.activations])
    assert whole.neurons[0].spikes == pytest.approx(parts.neurons[0].spikes)


def test_what_an_operand_holds_is_the_least_special_of_all_batches():
    model = nn.Sequential(PerStep(nn.Linear(3, 2)))
    assert only(model, [spikes(2, 2, 3), 2 * spikes(2, 2, 3, rate=1.0)]).activations[0].holds == "graded"
    assert only(model, [torch.rand(2, 2, 3), spikes(2, 2, 3)]).activations[0].holds == "real"


@pytest.mark.parametrize("name", ["test_ms_resnet", "test_vanilla_resnet", "test_sew_resnet", "test_recurrent_snn"])
def test_a_trace_changes_nothing(name):
    model, x = create_model(name, neuron="lif").train(), torch.rand(3, 2, *MODELS[name].example()) * 4
    with torch.no_grad():
        for norm in (m for m in model.modules() if isinstance(m, rb.nn.TdBN)):
            norm.weight.fill_(3.0)
        before = model.eval()(x)
        model.train()
        model[0].eval() if isinstance(model, nn.Sequential) else None
        modes = [module.training for module in model.modules()]
        state = {key: value.clone() for key, value in model.state_dict().items()}
        trace(model, x)
        assert [module.training for module in model.modules()] == modes
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
        with tracing(model.eval()):
            assert torch.equal(model(x), before)
        assert torch.equal(model(x), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("mode", ["full", "bits"])
def test_forward_passes_of_training_count_and_backward_does_not(mode):
    model, x = create_model("test_ms_resnet", neuron="lif").train(), torch.rand(3, 2, 3, 8, 8)
    with tracing(model) as tracer, rb.memory(mode):
        model(x).sum().backward()
    found, expected = tracer.report(), trace(model, x)
    assert [(p.name, p.macs, p.executed) for p in found.products] == [
        (p.name, p.macs, p.executed) for p in expected.products
    ]
    assert [(n.name, n.updates) for n in found.neurons] == [(n.name, n.updates) for n in expected.neurons]


def test_neurons_are_counted_as_they_fire():
    model, seen = small(), {}
    x = torch.rand(4, 3, 2, 6, 6)
    with torch.no_grad(), rb.observe(model, lambda name, layer, y: seen.update({name: y})):
        model(x)
    (layer,) = trace(model, x).neurons
    assert (layer.name, layer.units, layer.updates, layer.emits) == ("1", 48, 192, "binary")
    assert layer.spikes == pytest.approx(float(seen["1"].sum()) / 3)
    assert layer.spikes > 0
    assert layer.rate == pytest.approx(float(seen["1"].mean()))


def test_shapes_alone_are_enough_for_the_count():
    with torch.device("meta"):
        model, x = small(), torch.empty(5, 1, 2, 6, 6)
    found = trace(model, x)
    assert found.macs == trace(small(), torch.rand(5, 1, 2, 6, 6)).macs
    assert found.products[0].activations[0].holds is None
    with pytest.raises(ValueError, match="trace the model on the CPU"):
        spike_driven(model, x)
    assert "unknown" in str(found)


def test_mistakes_are_said():
    model = PerStep(nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"of shape \(3,\); expected a tensor"):
        trace(model, torch.rand(3))
    with pytest.raises(ValueError, match="a batch has 3 steps, one before had 2"):
        trace(model, [torch.rand(2, 1, 3), torch.rand(3, 1, 3)])
    with pytest.raises(ValueError, match="has not run yet"):
        trace(model, [])
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        trace(model, torch.rand(2, 1, 4))
    with (
        tracing(small()) as tracer,
        rb.stream(tracer.model) as run,
        pytest.raises(ValueError, match="the model runs in a stream, whose chunks are no samples"),
    ):
        run(torch.rand(2, 1, 2, 6, 6))
    assert trace(model, torch.rand(2, 1, 3)).samples == 1


@pytest.mark.parametrize(
    ("norm", "counted"),
    [
        (nn.BatchNorm2d(4), (1, 1, 0, 0)),
        (nn.BatchNorm2d(4, affine=False), (1, 1, 0, 0)),
        (nn.BatchNorm2d(4, track_running_stats=False), (1, 1, 3, 2)),
        (nn.GroupNorm(2, 4), (1, 1, 3, 2)),
        (nn.LayerNorm(6, elementwise_affine=False), (0, 0, 3, 2)),
    ],
    ids=["batch", "batch, no parameters", "batch, own statistics", "group", "layer"],
)
def test_norms_in_one_operator_are_counted(norm, counted):
    """An element: scaled, shifted, added, multiplied."""
    model = nn.Sequential(PerStep(nn.Conv2d(2, 4, 3, padding=1)), PerStep(norm), IF())
    (found,) = trace(model, torch.rand(3, 2, 2, 6, 6)).elementwise
    n = 3 * 4 * 6 * 6
    assert (found.scaled, found.shifted, found.added, found.multiplied) == tuple(n * each for each in counted)
