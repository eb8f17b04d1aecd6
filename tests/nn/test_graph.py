import math

import pytest
import torch
from torch.nn import functional as F

from rheobase.nn import GraphAttention, GraphConv, Links, OnGraph, SparseInput, dirichlet_energy, propagate

N = 9
HALF = torch.randint(0, N - 1, (2, 14), generator=torch.Generator().manual_seed(5))  # node 8 is isolated
EDGES = torch.cat([HALF, HALF.flip(0)], 1).unique(dim=1)
EDGES = EDGES[:, EDGES[0] != EDGES[1]]


def normalised():
    """The matrix of the paper, dense."""
    A = torch.eye(N, dtype=torch.float64)
    A[EDGES[1], EDGES[0]] = 1
    root = A.sum(1).rsqrt()
    return root.view(-1, 1) * A * root


@pytest.fixture
def links():
    return Links.of_graph(EDGES, N)


def sequence(T=3, F=5):
    return torch.randn(T, N, F, dtype=torch.float64)


def test_sparse_and_dense_propagation_agree(links):
    x = sequence()
    torch.testing.assert_close(propagate(x, links), normalised() @ x)


def test_an_isolated_node_keeps_its_value_or_gets_zero(links):
    x = sequence()
    torch.testing.assert_close(propagate(x, links)[:, 8], x[:, 8])
    alone = propagate(x, Links.of_graph(EDGES, N, self_loops=False))
    assert torch.equal(alone[:, 8], torch.zeros(3, 5).double())
    assert alone.isfinite().all()


def test_a_node_that_nobody_reads_and_one_that_reads_nobody():
    """Of a graph with directions."""
    x = torch.randn(1, 3, 2)
    y = propagate(x, Links.of_graph(torch.tensor([[0, 0], [1, 2]]), 3, self_loops=False))
    torch.testing.assert_close(y[0], torch.stack([torch.zeros(2), *(x[0, 0] / math.sqrt(2),) * 2]))


def test_both_orders_of_a_convolution_are_equal(links):
    first, second = GraphConv(5, 4).double(), GraphConv(5, 4, first="links").double()
    second.load_state_dict(first.state_dict())
    x = sequence()
    torch.testing.assert_close(first(x, links), second(x, links))
    torch.testing.assert_close(first(x, links), normalised() @ (x @ first.weight.T) + first.bias)


def test_attention_is_that_of_the_equation(links):
    layer = GraphAttention(5, 4, heads=2).double()
    torch.nn.init.normal_(layer.bias)
    x = sequence()
    h = (x @ layer.weight.T).unflatten(2, (2, 4))
    scores = torch.einsum("tihc,hc->tih", h, layer.to_target).unsqueeze(2) + torch.einsum(
        "tjhc,hc->tjh", h, layer.to_source
    ).unsqueeze(1)
    linked = (normalised() != 0).view(1, N, N, 1)
    a = F.leaky_relu(scores, 0.2).masked_fill(~linked, float("-inf")).softmax(2)
    torch.testing.assert_close(layer(x, links), torch.einsum("tijh,tjhc->tihc", a, h).flatten(2) + layer.bias)
    mean = GraphAttention(5, 4, heads=2, concat=False, bias=False).double()
    mean.load_state_dict({k: v for k, v in layer.state_dict().items() if k != "bias"})
    torch.testing.assert_close(mean(x, links), torch.einsum("tijh,tjhc->tihc", a, h).mean(2))


def test_attention_sums_to_one_and_is_uniform_among_equals(links):
    layer = GraphAttention(5, 4, heads=2).double()
    h = torch.randn(3, N, 2, 4).double()
    a = layer.attention(h, links)
    sums = torch.zeros(3, N, 2).double().index_add(1, links.row, a)
    torch.testing.assert_close(sums, torch.ones_like(sums))
    assert torch.equal(a[:, links.row == 8], torch.ones(3, 1, 2).double())
    uniform = layer.attention(h[:, :1].expand(3, N, 2, 4), links)
    into, _ = links.degrees()
    torch.testing.assert_close(uniform, (1 / into[links.row].double()).view(1, -1, 1).expand_as(uniform))


def test_a_node_that_reads_nothing_gets_the_bias():
    layer = GraphAttention(5, 4, heads=1).double()
    torch.nn.init.normal_(layer.bias)
    y = layer(sequence(), Links.of_graph(EDGES, N, self_loops=False))
    assert torch.equal(y[:, 8], layer.bias.expand(3, 4))


@pytest.mark.parametrize("make", [GraphConv, GraphAttention])
@pytest.mark.parametrize("training", [False, True])
def test_sparse_expanded_and_repeated_features_are_alike(links, make, training):
    """Without dropout bit by bit the same sums, and one computation of what is the same at every step."""
    x = (torch.rand(N, 12) < 0.3).double() * torch.randn(N, 12).double()
    layer = make(12, 4).double().train(training)
    repeated = layer(x.repeat(3, 1, 1), links)
    for same in (x.expand(3, N, 12), SparseInput.of(x, 3)):
        assert same.shape == (3, N, 12)
        y = layer(same, links)
        assert y.stride(0) == 0
        torch.testing.assert_close(y, repeated)
        layer.zero_grad()
        y.square().sum().backward()
        grads = [p.grad.clone() for p in layer.parameters()]
        layer.zero_grad()
        layer(x.repeat(3, 1, 1), links).square().sum().backward()
        for grad, p in zip(grads, layer.parameters(), strict=True):
            torch.testing.assert_close(grad, p.grad)


@pytest.mark.parametrize("sparse", [False, True])
def test_dropout_is_drawn_once_for_all_steps_and_keeps_the_mean(links, sparse):
    layer = GraphConv(400, 3, bias=False, dropout=0.5).double()
    x = torch.ones(N, 400).double()
    y = layer(SparseInput.of(x, 4) if sparse else x.repeat(4, 1, 1), links)
    assert torch.equal(y[0], y[3])
    kept = layer.eval()(x.repeat(4, 1, 1), links)
    assert not torch.equal(y, kept)
    layer.train()
    with torch.no_grad():
        mean = torch.stack([layer(SparseInput.of(x, 1), links) for _ in range(400)]).mean(0)
    torch.testing.assert_close(mean, kept[:1], rtol=0, atol=0.2)


def test_dropped_spikes_are_still_spikes(links):
    """So that a layer that reads spikes may check them."""
    layer, seen = GraphConv(6, 3, "binary", dropout=0.5), []
    layer.linear.register_forward_hook(lambda _, inputs, y: seen.append(inputs[0]))
    layer((torch.rand(4, N, 6) < 0.5).float(), links)
    assert set(seen[0].unique().tolist()) == {0.0, 1.0}
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        layer(torch.randn(4, N, 6), links)


def test_features_stored_sparse_say_their_shape():
    x = SparseInput.of(torch.eye(3), 2)
    assert (x.shape, x.to("cpu").T) == ((2, 3, 3), 2)
    with pytest.raises(ValueError, match="T is 0"):
        SparseInput.of(torch.eye(3), 0)


def test_a_network_on_its_graph_takes_x_alone(links):
    layer, x = GraphConv(5, 4).double(), sequence()
    assert torch.equal(OnGraph(layer, links)(x), layer(x, links))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GraphConv(3, 4, dropout=1.0), "GraphConv: dropout is 1.0"),
        (lambda: GraphConv(3, 4, first="x"), "first is 'x'"),
        (lambda: GraphAttention(3, 4, heads=0), "heads is 0"),
        (lambda: GraphAttention(3, 4, dropout=-0.1), "GraphAttention: dropout is -0.1"),
    ],
)
def test_settings_out_of_range_are_said(untyped, make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_dirichlet_energy_is_that_of_the_laplacian(links):
    x = sequence()[0]
    expected = torch.einsum("ic,ij,jc->", x, torch.eye(N).double() - normalised(), x) / x.square().sum()
    torch.testing.assert_close(dirichlet_energy(x, links), expected)
    into, _ = links.degrees()
    smooth = into.double().sqrt().unsqueeze(1)
    torch.testing.assert_close(dirichlet_energy(smooth, links), torch.zeros(()).double())
