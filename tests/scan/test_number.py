import torch

from rheobase.scan import number as module
from rheobase.scan.number import is_number, number


def test_a_number_is_made_once_for_each_format():
    one = number(0.1234, torch.float32)
    assert number(0.1234, torch.float32) is one
    assert number(0.1234, torch.float64) is not one
    assert one.shape == ()
    assert one.item() == torch.tensor(0.1234).item()
    assert is_number(one)


def test_an_equal_tensor_is_no_number():
    assert not is_number(number(0.5, torch.float32).clone())


def test_what_is_too_much_is_made_and_forgotten(monkeypatch):
    monkeypatch.setattr(module, "_MOST", 0)
    made = number(0.987654321, torch.float32)
    assert not is_number(made)
    assert made.item() == torch.tensor(0.987654321).item()


def test_numbers_made_without_gradients_can_be_used_with_them():
    with torch.inference_mode():
        made = number(0.3141, torch.float32)
    assert not made.is_inference()
