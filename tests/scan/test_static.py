"""A static sequence and its one step: the same numbers, and a gradient that does not pass through T steps of zeros."""

import pytest
import torch

from rheobase.nn import PerStep, TdBN
from rheobase.scan.static import is_static, once, repeat, step_of


def nodes_of(y):
    """Names of the autograd nodes above y."""
    found, todo = set(), [y.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None:
            found.add(node.name())
            todo += [each for each, _ in node.next_functions]
    return found


def test_what_was_repeated_comes_back():
    y = torch.rand(2, 3, requires_grad=True) * 1.0
    x = repeat(y, 4)
    assert is_static(x)
    assert step_of(x) is y
    assert torch.equal(once(x), x[:1])
    assert not nodes_of(once(x)) & {"SelectBackward0", "SliceBackward0", "ExpandBackward0"}


def test_a_sequence_that_is_not_static_is_left_alone():
    x = torch.rand(4, 2, 3)
    assert once(x) is x
    assert once(x[:1]).shape == (1, 2, 3)
    assert once(x[:0]).shape == (0, 2, 3)


@pytest.mark.parametrize("by_hook", [True, False])
def test_who_waits_for_the_gradient_of_the_sequence_gets_it(by_hook):
    seen = []
    x = repeat(torch.rand(2, 3, requires_grad=True) * 1.0, 4)
    if by_hook:
        x.register_hook(seen.append)
    else:
        x.retain_grad()
    step_of(x).sum().backward()
    gradient = seen[0] if by_hook else x.grad
    assert gradient.shape == (4, 2, 3)
    assert torch.equal(gradient.sum(0), torch.ones(2, 3))


def test_detached_it_has_no_gradient():
    x = repeat(torch.rand(2, 3, requires_grad=True) * 1.0, 4).detach()
    assert not step_of(x).requires_grad


def test_gradients_are_those_of_a_repeated_copy():
    torch.manual_seed(0)
    model = torch.nn.Sequential(PerStep(torch.nn.Conv2d(1, 8, 3)), PerStep(torch.nn.MaxPool2d(2)), TdBN(8)).double()
    image = torch.rand(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(4, 2, 8, 3, 3, dtype=torch.float64)
    found = []
    for copy in (False, True):
        x = image.expand(4, *image.shape)
        y = model(x.contiguous() if copy else x)
        found.append(torch.autograd.grad((y * weight).sum(), [image, *model.parameters()]))
    for once_only, all_steps in zip(*found, strict=True):
        torch.testing.assert_close(once_only, all_steps)
