import math

import pytest
import torch
from torch.nn import functional as F

from rheobase.models import MODELS, GraphNet, create_model, ga_snn, gat, gc_snn, gcn, graph_lif
from rheobase.neurons import LI, NEURONS, create_neuron
from rheobase.nn import STFN, Links, SparseInput, propagate

pytestmark = pytest.mark.usefixtures("one_thread")

N, CLASSES, WORDS = 160, 4, 60


def blocks(seed=0):
    """Words, links and classes of a stochastic block model: who shares a class shares links and words."""
    random = torch.Generator().manual_seed(seed)
    y = torch.arange(N) % CLASSES
    chance = torch.where(y.view(-1, 1) == y, 0.08, 0.012)
    A = (torch.rand(N, N, generator=random) < chance).triu(1)
    own = (torch.arange(WORDS) % CLASSES == y.view(-1, 1)).double()
    x = (torch.rand(N, WORDS, generator=random) < 0.04 + 0.14 * own).float()
    return x, (A | A.T).nonzero().T.contiguous(), y


@pytest.fixture(scope="module")
def graph():
    return blocks()


def rates(model, x, edge_index):
    """Mean spikes a step of each layer at the start."""
    seen = []
    for layer in model.layers:
        layer.neuron.register_forward_hook(lambda _, inputs, y: seen.append(y.mean().item()))
    with torch.no_grad():
        model(x, edge_index)
    return seen


def made(norm, threshold=0.25, **options):
    torch.manual_seed(2)
    return gc_snn(WORDS, CLASSES, 32, head="rate", norm=norm, neuron=lambda: graph_lif(threshold=threshold), **options)


def test_with_stfn_the_first_rates_do_not_depend_on_threshold_and_weights(graph):
    x, edge_index, _ = graph
    x = x.expand(8, *x.shape)
    expected = rates(made("stfn"), x, edge_index)
    assert min(expected) > 0.05
    small = made("stfn")
    with torch.no_grad():
        for layer in small.layers:
            layer.filter.weight.mul_(0.1)
    assert rates(made("stfn", 1.0), x, edge_index) == pytest.approx(expected, abs=0.02)
    assert rates(small, x, edge_index) == pytest.approx(expected, abs=0.02)
    plain = rates(made("none"), x, edge_index)
    assert abs(plain[0] - expected[0]) > 0.05
    assert rates(made("none", 1.0), x, edge_index)[0] < 0.01


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_rates_as_logits_keep_the_loss_above_a_floor(graph, scale):
    r"""Above $\ln(1 + (K-1)/e)$, which it comes near to; logits of ten times the rates go below."""
    x, edge_index, y = graph
    torch.manual_seed(0)
    model = made("stfn", logit_scale=scale)
    x, links = SparseInput.of(x, 8), Links.of_graph(edge_index, N)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(120):
        optimizer.zero_grad()
        losses.append(loss := F.cross_entropy(model(x, links).mean(0), y))
        loss.backward()
        optimizer.step()
    floor = math.log(1 + (CLASSES - 1) / math.e)
    if scale == 1:
        assert floor <= min(losses) < floor + 0.06
    else:
        assert min(losses) < floor / 2


def test_one_step_with_given_weights_is_a_binarised_gcn(graph):
    x, edge_index, _ = graph
    model = gc_snn(WORDS, CLASSES, 16, norm="none", neuron=lambda: graph_lif(threshold=0.1))
    first, second = (layer.filter for layer in model.layers)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randint(-1, 2, p.shape))
        links = Links.of_graph(edge_index, N)
        hidden = (propagate((x @ first.weight.T)[None], links) + first.bias >= 0.1).float()
        expected = propagate(hidden @ second.weight.T, links) + second.bias
        assert torch.equal(model(x[None], edge_index), expected)
    assert 0.1 < hidden.mean() < 0.9


@pytest.mark.parametrize("make", [gc_snn, ga_snn, gcn, gat])
def test_nodes_far_from_each_other_do_not_see_each_other(make):
    """Two layers look two links far."""
    torch.manual_seed(1)
    model = make(6, 3, 16).double().eval()
    path = torch.stack([torch.arange(7), torch.arange(1, 8)])
    path = torch.cat([path, path.flip(0)], 1)
    x = torch.randn(3, 8, 6).double()
    other = x.clone()
    other[:, 0] += 3
    with torch.no_grad():
        y, changed = model(x, path), model(other, path)
    assert torch.equal(y[:, 3:], changed[:, 3:])
    assert not torch.equal(y[:, :2], changed[:, :2])


def test_edges_links_and_features_may_be_prepared(graph):
    x, edge_index, _ = graph
    model = gc_snn(WORDS, CLASSES).double()
    x = x.double()
    y = model(x.repeat(4, 1, 1), edge_index)
    for prepared in (x.expand(4, N, WORDS), SparseInput.of(x, 4)):
        torch.testing.assert_close(model(prepared, Links.of_graph(edge_index, N)), y)


@pytest.mark.parametrize("neuron", sorted(NEURONS))
def test_any_neuron_fits(graph, neuron):
    x, edge_index, _ = graph
    options = {} if NEURONS[neuron].any_T else {"T": 3}
    for make in (gc_snn, ga_snn):
        model = make(WORDS, CLASSES, 8, neuron=lambda: create_neuron(neuron, **options))
        y = model(x.expand(3, *x.shape), edge_index)
        assert y.shape == (3, N, CLASSES)
        y.sum().backward()


@pytest.mark.parametrize("norm", ["stfn", "layer", "batch", "none"])
@pytest.mark.parametrize("head", ["linear", "membrane", "rate"])
def test_any_norm_meets_any_head(graph, norm, head):
    x, edge_index, _ = graph
    model = gc_snn(WORDS, CLASSES, 8, depth=3, norm=norm, head=head)
    y = model(x.expand(3, *x.shape), edge_index)
    assert y.shape == (3, N, CLASSES)
    assert ((y == 0) | (y == 1)).all() == (head == "rate")
    assert isinstance(model.layers[-1].neuron, LI) == (head == "membrane")
    assert sum(isinstance(m, STFN) for m in model.modules()) == (norm == "stfn") * (3 if head == "rate" else 2)


def test_the_membrane_head_integrates_with_the_decay_of_the_neuron(graph):
    x, edge_index, _ = graph
    torch.manual_seed(1)
    linear = gc_snn(WORDS, CLASSES, neuron=lambda: graph_lif(0.8))
    membrane = gc_snn(WORDS, CLASSES, neuron=lambda: graph_lif(0.8), head="membrane")
    membrane.load_state_dict(linear.state_dict())
    sums, m = linear(x.expand(5, *x.shape), edge_index), 0.0
    for t, found in enumerate(membrane(x.expand(5, *x.shape), edge_index)):
        m = 0.8 * m + 0.2 * sums[t]
        torch.testing.assert_close(found, m)


def test_the_last_layer_may_read_ranks(graph):
    x, edge_index, _ = graph
    seen = []
    for make in (gc_snn, ga_snn):
        torch.manual_seed(1)
        model = make(WORDS, CLASSES, 16, rank=0.5)
        model.layers[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        y = model(x.expand(4, *x.shape), edge_index)
        y.sum().backward()
        assert y.shape == (4, N, CLASSES)
        assert model.layers[0].filter.weight.grad.abs().sum() > 0
    assert ((seen[0] > 0).sum(0) <= 1).all()
    assert (seen[0] == 1).any()
    assert ((seen[0] > 0) & (seen[0] < 0.1)).any()


def test_parameters_of_each_node_are_the_literal_form(graph):
    x, edge_index, _ = graph
    model = gc_snn(WORDS, CLASSES, 8, affine="node", nodes=N)
    assert model.layers[0].norm.weight.shape == (N, 8)
    assert model(x.expand(3, *x.shape), edge_index).shape == (3, N, CLASSES)


def test_parameters_are_those_of_the_published_baselines():
    assert sum(p.numel() for p in gcn().parameters()) == 23063
    assert sum(p.numel() for p in gat().parameters()) == 92373


def test_isolated_nodes_and_no_links_give_finite_results():
    none = torch.empty(2, 0, dtype=torch.int64)
    for make in (gc_snn, ga_snn, gcn, gat):
        for self_loops in (True, False):
            model = make(5, 3, 8, self_loops=self_loops)
            y = model(torch.randn(3, 4, 5), none)
            assert y.isfinite().all()
            y.sum().backward()
            assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "group"}, "norm is 'group'; expected one of stfn"),
        ({"head": "vote"}, "head is 'vote'"),
        ({"kind": "mean"}, "kind is 'mean'"),
        ({"hidden": 0}, "hidden is 0"),
        ({"kind": "attention", "hidden": 12}, "hidden is 12; expected a multiple of heads"),
        ({"depth": 0}, "depth is 0"),
        ({"depth": 1, "rank": 0.5}, "rank is 0.5; expected None"),
        ({"logit_scale": 10.0}, "logit_scale is 10.0"),
        ({"neuron": "liff"}, "did you mean 'lif'"),
        ({"affine": "node"}, "nodes is None"),
    ],
)
def test_settings_that_do_not_fit_are_said(untyped, options, message):
    with pytest.raises(ValueError, match=message):
        GraphNet(**{"kind": "conv", "in_channels": 5, "classes": 3, **options})


def test_inputs_that_do_not_fit_are_said(graph):
    x, edge_index, _ = graph
    model = gc_snn(WORDS, CLASSES)
    with pytest.raises(ValueError, match=r"x has shape \(160, 60\); expected \[T, N, 60\]"):
        model(x, edge_index)
    with pytest.raises(ValueError, match=r"expected \[T, N, 60\]"):
        model(x[None, :, :5], edge_index)
    with pytest.raises(ValueError, match="edge_index runs from"):
        model(x[None, :10], edge_index)
    with pytest.raises(ValueError, match="self_loops=False for 160 nodes; make them with"):
        model(x[None], Links.of_graph(edge_index, N, self_loops=False))


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["test_gc_snn", "test_ga_snn"])
def test_exported_with_links_as_an_input(name):
    model = create_model(name).eval()
    x, edge_index = MODELS[name].inputs(3, 6)
    exported = torch.export.export(model, (x, edge_index)).module()
    other = torch.stack([edge_index[0], edge_index[1].roll(1)])
    for links in (edge_index, other):
        with torch.no_grad():
            assert torch.equal(exported(x, links), model(x, links))
