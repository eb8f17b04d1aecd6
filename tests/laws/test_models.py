"""Laws of every registered model, on its tiny test variant where the real one is large."""

import copy
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import rheobase as rb
from rheobase.models import MODELS, create_model, list_models, ring
from rheobase.neurons import NEURONS, create_neuron

TINY = list_models("test_*")


@pytest.fixture(params=TINY)
def name(request):
    return request.param


def made(name, T):
    """The model, for T steps if it is made for a number of them; one of graphs with the links of a ring."""
    torch.manual_seed(1)
    model = create_model(name, **({} if MODELS[name].any_T else {"T": T}))
    return model if MODELS[name].equivariance == "batch" else OnRing(model)


class OnRing(nn.Module):
    """A model of graphs whose nodes are a ring, as a model of x alone."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x, ring(x.shape[1]))


@pytest.fixture
def model(name):
    return made(name, 4)


@pytest.fixture
def example(name):
    """Makes input for the model: `example(T=3, B=2)`; always four steps where it is made for so many."""
    return lambda T=3, B=2: torch.randn(T if MODELS[name].any_T else 4, B, *MODELS[name].example())


@pytest.fixture
def streamable(name):
    if not MODELS[name].streamable:
        pytest.skip("needs the whole sequence: see test_what_cannot_be_streamed_says_so")


def settled(model, example):
    """The model in eval mode with running statistics that have seen data."""
    for _ in range(3):
        model(example(B=8))
    return model.eval()


def test_per_step_logits_that_are_finite(model, example):
    x = example()
    y = model(x)
    assert y.shape == (len(x), 2, 10)
    assert y.isfinite().all()


def test_one_step_works(name):
    assert made(name, 1)(torch.randn(1, 2, *MODELS[name].example())).shape == (1, 2, 10)


def test_every_parameter_learns(model, example):
    """Two steps of training: a branch that starts at zero passes a gradient from the second on."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(example(T=4, B=4) * 2).square().mean().backward()
        optimizer.step()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_saving_and_loading_is_the_identity(model, example, tmp_path):
    x = example()
    settled(model, example)
    before = model(x)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.add_(1)
    assert not torch.equal(model(x), before)
    model.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(model(x), before)


@pytest.mark.usefixtures("streamable")
def test_chunks_give_the_whole_exactly(model, example):
    """One step at a time, any chunking gives equal bits."""
    settled(model, example)
    x = example(T=5)
    with torch.no_grad():
        with rb.stream(model, exact=True) as run:
            whole = run(x)
        with rb.stream(model, exact=True) as run:
            halves = torch.cat([run(x[:2]), run(x[2:])])
    assert torch.equal(whole, halves)


@pytest.mark.usefixtures("streamable")
def test_chunks_give_the_whole_in_double_precision(model, example):
    settled(model, example).double()
    x = example(T=5).double()
    with torch.no_grad():
        with rb.stream(model) as run:
            halves = torch.cat([run(x[:2]), run(x[2:])])
        torch.testing.assert_close(halves, model(x))


def test_what_cannot_be_streamed_says_so(name, model, example):
    if MODELS[name].streamable:
        pytest.skip("it can be streamed")
    with pytest.raises(ValueError, match="needs the whole sequence and cannot be streamed"), rb.stream(model) as run:
        run(example()[:2])


def test_the_future_changes_the_past_only_where_the_model_is_not_causal(name, model, example):
    settled(model, example)
    x = example(T=4, B=8)
    other = x.clone()
    other[2:] += 1
    with torch.no_grad():
        assert torch.equal(model(x)[:2], model(other)[:2]) == MODELS[name].causal


def test_permuting_the_batch_permutes_the_output(name, model, example):
    if MODELS[name].equivariance != "batch":
        pytest.skip("samples see each other: see test_permuting_nodes_permutes_the_output")
    settled(model, example).double()
    x = example(B=4).double()
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        torch.testing.assert_close(model(x)[:, order], model(x[:, order]))


@pytest.mark.parametrize("name", [name for name in TINY if MODELS[name].equivariance == "node-permutation"])
def test_permuting_nodes_permutes_the_output(name):
    """Nodes and links together; permuting one of them alone does not."""
    model = create_model(name).double().eval()
    x, edge_index = MODELS[name].inputs(3, 6)
    order = torch.tensor([2, 0, 3, 1, 5, 4])
    x, place = x.double(), order.argsort()
    with torch.no_grad():
        y = model(x, edge_index)
        torch.testing.assert_close(model(x[:, order], place[edge_index]), y[:, order])
        assert not torch.allclose(model(x[:, order], edge_index), y[:, order])


def test_layers_that_read_spikes_see_only_zero_and_one(model, example):
    seen = {}

    def look(layer, inputs, _):
        seen[names[layer]] = (layer.reads, inputs[0])

    names = {module: name for name, module in model.named_modules() if hasattr(module, "reads")}
    if not names:
        pytest.skip("no layer of it declares what it reads")
    for layer in names:
        layer.register_forward_hook(look)
    model(example(T=4, B=4) * 2)
    assert seen
    for name, (reads, x) in seen.items():
        if reads == "binary":
            assert ((x == 0) | (x == 1)).all(), name
        elif reads == "graded":
            assert torch.equal(x, x.round()), name
        else:
            assert not ((x == 0) | (x == 1)).all(), name


def train_step(model, x):
    """Output, gradients and buffers that a step of training leaves; the model stays as it was."""
    model, x = copy.deepcopy(model), x.clone().requires_grad_()
    torch.manual_seed(7)  # of dropout
    y = model(x)
    y.square().sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in model.parameters()), *model.buffers()]


def equal(found, expected):
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_packed_spikes_do_not_change_a_bit(model, example):
    x = example(T=4, B=4) * 2
    packed = train_step(model, x)
    with rb.packing(False):
        assert equal(packed, train_step(model, x))
    assert packed[1].abs().sum() > 0


@pytest.mark.parametrize("autocast", [False, True])
def test_memory_in_bits_does_not_change_a_bit(model, example, autocast):
    x = example(T=4, B=4) * 2
    found, size = [], []
    for mode in ("full", "bits"):
        with rb.memory(mode), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            size.append(rb.nn.saved_bytes(copy.deepcopy(model), x))
            found.append(train_step(model, x))
    assert equal(*found)
    if any(isinstance(module, rb.nn.Blocks) for module in model.modules()):
        assert size[1] < size[0] / 2


@pytest.mark.usefixtures("streamable")
def test_memory_in_bits_does_not_change_a_stream(model, example):
    """States are handed over once, and gradients flow through them."""
    x, found = example(T=4, B=4) * 2, []
    for mode in ("full", "bits"):
        streamed = copy.deepcopy(model)
        torch.manual_seed(7)
        with rb.memory(mode), rb.stream(streamed) as run:
            y = torch.cat([run(x[:2]), run(x[2:])])
        y.square().sum().backward()
        states = [s for state in run.state.values() for s in state]
        found.append([y, *states, *(p.grad for p in streamed.parameters()), *streamed.buffers()])
    assert equal(*found)


def test_engines_agree(model, example):
    x = example()
    settled(model, example).double()
    with torch.no_grad(), rb.engine("reference"):
        expected = model(x.double())
    with torch.no_grad():
        assert torch.equal(model(x.double()), expected)


def test_check_names_the_layer_that_breaks(model, example):
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if p.dim() > 1).fill_(float("nan"))
    with pytest.raises(ValueError, match="put out"), rb.check(model):
        model(example())


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore")
def test_compiled_equals_eager(model, example):
    torch.compiler.reset()
    settled(model, example)
    x = example()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.equal(compiled(x), model(x))


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore")
def test_exported_equals_eager(model, example):
    settled(model, example)
    x = example()
    with torch.no_grad():
        exported = torch.export.export(model, (x,))
        assert torch.equal(exported.module()(x), model(x))


@pytest.mark.parametrize("neuron", sorted(NEURONS))
def test_any_neuron_fits(neuron):
    make = neuron if NEURONS[neuron].any_T else partial(create_neuron, neuron, T=3)
    y = create_model("test_ms_resnet", neuron=make)(torch.randn(3, 2, *MODELS["test_ms_resnet"].example()))
    assert y.shape == (3, 2, 10)


def test_an_unknown_name_is_met_with_the_nearest():
    with pytest.raises(ValueError, match="ms_resnet20"):
        create_model("ms_resnet21")
