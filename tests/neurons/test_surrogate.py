import pytest
import torch

from rheobase.neurons import Atan, FastSigmoid, Gaussian, Rectangle, Sigmoid, Triangle
from rheobase.neurons.surrogate import SURROGATES, Smooth


@pytest.mark.parametrize(
    ("surrogate", "at_zero", "at_one"),
    [
        (Atan(2.0), 1.0, 1 / (1 + torch.pi**2)),
        (Rectangle(1.0), 1.0, 0.0),
        (Rectangle(4.0), 0.25, 0.25),
        (Triangle(2.0), 0.5, 0.25),
        (Sigmoid(4.0), 1.0, 4 * 0.0176627),
        (FastSigmoid(10.0), 1.0, 1 / 121),
        (Gaussian(0.5), 0.797885, 0.107982),
    ],
)
def test_values_of_the_literature(surrogate, at_zero, at_one):
    g = surrogate.derivative(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert g.tolist() == pytest.approx([at_zero, at_one], rel=1e-4)


@pytest.mark.parametrize("name", sorted(SURROGATES))
def test_the_window_is_where_the_derivative_is_not_zero(name):
    x = torch.linspace(-2, 2, 401)
    for surrogate in (SURROGATES[name](), Smooth(SURROGATES[name]())):
        assert torch.equal(surrogate.window(x), surrogate.derivative(x) != 0)
    assert SURROGATES[name]().window(torch.zeros(1))


def test_threshold_itself_fires_unless_strict():
    h = torch.tensor([-1e-7, 0.0, 1e-7])
    assert Atan()(h).tolist() == [0, 1, 1]
    assert Atan()(h, strict=True).tolist() == [0, 0, 1]


def test_rectangle_of_ms_resnet():
    """Gradient one on (0, 1) around a threshold of one half, and zero outside."""
    u = torch.tensor([-0.01, 0.01, 0.5, 0.99, 1.01], requires_grad=True)
    s = Rectangle()(u - 0.5, strict=True)
    s.sum().backward()
    assert s.tolist() == [0, 0, 0, 1, 1]
    assert u.grad.tolist() == [0, 1, 1, 1, 0]


def test_spikes_keep_the_format_of_the_input():
    for dtype in (torch.float64, torch.bfloat16):
        assert Atan()(torch.zeros(3, dtype=dtype)).dtype == dtype
