import pytest
import torch

import rheobase as rb
from rheobase.nn import STFN


def test_every_node_has_mean_zero_and_the_deviation_of_the_threshold():
    y = STFN(64, threshold=0.25, rho=2.0, affine="none")(torch.randn(8, 5, 64).double() * 3 + 1)
    torch.testing.assert_close(y.mean((0, 2)), torch.zeros(5).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(y.std((0, 2), correction=0), torch.full((5,), 0.5).double(), rtol=0, atol=1e-5)


def test_scale_and_shift_of_the_input_do_not_matter():
    norm, x = STFN(6, 0.5).double(), torch.randn(4, 5, 6).double()
    torch.testing.assert_close(norm(7 * x + 3), norm(x), rtol=0, atol=1e-4)  # epsilon


def test_nodes_do_not_see_each_other():
    norm, x = STFN(6), torch.randn(4, 5, 6)
    other = x.clone()
    other[:, 3] = torch.randn(4, 6)
    order = torch.tensor([2, 0, 4, 1, 3])
    assert torch.equal(norm(x)[:, :3], norm(other)[:, :3])
    assert torch.equal(norm(x[:, order]), norm(x)[:, order])


def test_training_and_evaluation_are_alike_and_there_are_no_buffers():
    norm, x = STFN(6), torch.randn(4, 5, 6)
    assert torch.equal(norm.train()(x), norm.eval()(x))
    assert list(norm.buffers()) == []


def test_the_gradient_is_that_of_the_equation():
    norm, x = STFN(3, 0.5).double(), torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)

    def equation(x):
        mean = x.mean((0, 2), keepdim=True)
        var = (x - mean).square().mean((0, 2), keepdim=True)
        return norm.weight * (0.5 * (x - mean) / torch.sqrt(var + norm.eps)) + norm.bias

    torch.testing.assert_close(norm(x), equation(x))
    assert torch.autograd.gradcheck(norm, x)


def test_an_input_that_is_the_same_at_every_step_is_normalised_once():
    norm, x = STFN(6), torch.randn(5, 6)
    y = norm(x.expand(4, 5, 6))
    assert y.stride(0) == 0
    torch.testing.assert_close(y, norm(x.repeat(4, 1, 1)))


def test_the_literal_form_has_parameters_for_every_node():
    norm = STFN(6, affine="node", nodes=5)
    assert norm.weight.shape == norm.bias.shape == (5, 6)
    assert norm(torch.randn(4, 5, 6)).shape == (4, 5, 6)
    with pytest.raises(ValueError, match=r"x has shape \(4, 3, 6\); expected \[T, 5, 6\]"):
        norm(torch.randn(4, 3, 6))


def test_a_node_of_equal_features_gives_the_shift():
    """No variance, no division by zero."""
    y = STFN(6)(torch.ones(4, 5, 6))
    assert torch.equal(y, torch.zeros(4, 5, 6))


def test_it_cannot_be_streamed():
    with (
        pytest.raises(ValueError, match="STFN needs the whole sequence and cannot be streamed"),
        rb.stream(STFN(6)) as run,
    ):
        run(torch.randn(2, 5, 6))
    with pytest.raises(ValueError, match="got a state"):
        STFN(6).sequence(torch.randn(2, 5, 6), (torch.zeros(1),))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 0}, "channels is 0"),
        ({"threshold": 0.0}, "threshold is 0.0"),
        ({"rho": -1.0}, "rho is -1.0"),
        ({"affine": "graph"}, "affine is 'graph'"),
        ({"affine": "node"}, "nodes is None; expected given"),
        ({"nodes": 5}, "nodes is 5; expected given with affine='node' and only then"),
        ({"eps": 0.0}, "eps is 0.0"),
    ],
)
def test_settings_out_of_range_are_said(untyped, settings, message):
    with pytest.raises(ValueError, match=message):
        STFN(**{"channels": 6, **settings})
