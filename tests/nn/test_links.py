import pytest
import torch

import rheobase as rb
from rheobase.nn import Links, add_ends, add_neighbours, softmax_in_rows

N = 7
EDGES = torch.randint(0, N - 1, (2, 20), generator=torch.Generator().manual_seed(3))  # node 6 is isolated


def dense(self_loops):
    """The matrix of the graph: A[i, j] counts the links from j to i."""
    A = torch.zeros(N, N, dtype=torch.float64)
    for j, i in EDGES.T.tolist():
        A[i, j] += not (self_loops and i == j)
    return A + self_loops * torch.eye(N)


@pytest.fixture(params=[True, False], ids=["loops", "no loops"])
def loops(request):
    return request.param


@pytest.fixture
def links(loops):
    return Links.of_graph(EDGES, N, loops)


def values(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_sums_are_those_of_the_matrix(links, loops):
    x = values(3, N, 5)
    torch.testing.assert_close(add_neighbours(x, links), dense(loops) @ x)
    assert torch.autograd.gradcheck(lambda x: add_neighbours(x, links), x)
    assert torch.autograd.gradgradcheck(lambda x: add_neighbours(x, links), x)


@pytest.mark.parametrize("steps", [1, 3])
def test_weighted_sums_are_those_of_the_matrix(links, steps):
    x, weight = values(3, N, 2, 5), values(steps, len(links.row), 2)
    A = torch.zeros(3, 2, N, N, dtype=torch.float64)
    for e in range(int(links.start[-1])):
        A[:, :, links.row[e], links.column[e]] += weight.detach()[:, e]
    torch.testing.assert_close(add_neighbours(x, links, weight), torch.einsum("thij,tjhc->tihc", A, x))
    assert torch.autograd.gradcheck(lambda x, w: add_neighbours(x, links, w), (x, weight))


def test_softmax_sums_to_one_in_every_row_that_reads_something(links, loops):
    a = softmax_in_rows(add_ends(values(3, N, 2) * 3, values(3, N, 2) * 3, links), links)
    sums = torch.zeros(3, N, 2, dtype=torch.float64).index_add(1, links.row, a)
    into, _ = links.degrees()
    torch.testing.assert_close(sums, (into > 0).double().view(1, N, 1).expand_as(sums))
    assert (into[6] == 0) == (not loops)


def test_attention_has_the_gradient_of_its_equation(links):
    def attention(left, right):
        return softmax_in_rows(add_ends(left, right, links), links)[:, : int(links.start[-1])]

    ends = values(3, N, 2), values(3, N, 2)
    assert torch.autograd.gradcheck(attention, ends)
    with rb.engine("reference"):
        expected = attention(*ends)
        assert torch.autograd.gradgradcheck(attention, ends)
    assert torch.equal(attention(*ends), expected)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.gradgradcheck(attention, ends)


def test_large_scores_do_not_overflow(links):
    left, right = torch.zeros(1, N, 1), torch.linspace(-1000, 1000, N).view(1, N, 1)
    assert softmax_in_rows(add_ends(left, right, links), links).isfinite().all()


def test_engines_agree_bit_by_bit(links):
    x, weight = values(3, N, 2, 5), values(1, len(links.row), 2)
    with rb.engine("reference"):
        expected = add_neighbours(x[:, :, 0], links), add_neighbours(x, links, weight)
    assert torch.equal(add_neighbours(x[:, :, 0], links), expected[0])
    assert torch.equal(add_neighbours(x, links, weight), expected[1])


def test_sixteen_bits_add_up_in_thirty_two():
    star = torch.stack([torch.arange(1, 301), torch.zeros(300, dtype=torch.int64)])
    x = torch.ones(1, 301, 1, dtype=torch.bfloat16)
    y = add_neighbours(x, Links.of_graph(star, 301, self_loops=False))
    assert y.dtype == torch.bfloat16
    assert y[0, 0] == 300  # one by one in bfloat16 they stop at 256


def test_a_link_that_comes_twice_counts_twice_and_a_loop_once():
    links = Links.of_graph(torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]]), 2)
    y = add_neighbours(torch.tensor([[[1.0], [10.0]]]), links)
    assert y.flatten().tolist() == [11, 12]
    links = Links.of_graph(torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]]), 2, self_loops=False)
    assert add_neighbours(torch.tensor([[[1.0], [10.0]]]), links).flatten().tolist() == [10, 12]


def test_a_graph_without_links_reads_itself_or_nothing():
    none = torch.empty(2, 0, dtype=torch.int64)
    x = torch.randn(2, 3, 4)
    assert torch.equal(add_neighbours(x, Links.of_graph(none, 3)), x)
    assert torch.equal(add_neighbours(x, Links.of_graph(none, 3, self_loops=False)), torch.zeros_like(x))


def test_rectangular_matrices():
    row, column = torch.tensor([0, 0, 2]), torch.tensor([1, 3, 0])
    links = Links.of_matrix(row, column, 3, 4)
    x = values(2, 4, 5)
    A = torch.zeros(3, 4, dtype=torch.float64).index_put((row, column), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(add_neighbours(x, links), A @ x)
    assert torch.autograd.gradcheck(lambda x: add_neighbours(x, links), x)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (torch.tensor([[0, 7], [1, 2]]), "edge_index runs from 0 to 7; there are nodes 0 to 6"),
        (torch.tensor([[0, -1], [1, 2]]), "edge_index runs from -1 to 2"),
        (torch.tensor([[0.0], [1.0]]), "edge_index is torch.float32; expected an int64"),
        (torch.tensor([[0, 1, 2]]).T, r"has shape \(3, 1\)"),
        ([[0], [1]], "edge_index is list"),
    ],
)
def test_bad_links_are_said(untyped, edges, message):
    with pytest.raises(ValueError, match=message):
        Links.of_graph(edges, N)


def test_shapes_that_do_not_fit_are_said(links):
    with pytest.raises(ValueError, match=r"x has shape \(3, 8, 5\)"):
        add_neighbours(torch.randn(3, 8, 5), links)
    with pytest.raises(ValueError, match=r"weight has shape \(2, 3, 2\)"):
        add_neighbours(torch.randn(3, N, 2, 5), links, torch.randn(2, 3, 2))


def test_links_say_what_they_are_and_move(links, loops):
    assert repr(links) == f"Links(7 x 7, {20 + 7 * loops} links)"
    assert links.to("cpu").self_loops == loops
    into, out_of = links.degrees()
    assert torch.equal(into.double(), dense(loops).sum(1))
    assert torch.equal(out_of.double(), dense(loops).sum(0))
