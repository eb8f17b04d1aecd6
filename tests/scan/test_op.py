import copy
import importlib
import pickle

import pytest
import torch

import rheobase as rb
from rheobase.neurons import LIF, PLIF, Neuron
from rheobase.scan import Scan

engine = importlib.import_module("rheobase.scan.engine")  # the package has a function of the same name


def sizes_saved(fn):
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        fn()
    return saved


def test_only_the_input_and_small_things_are_saved_for_backward():
    x = torch.randn(6, 2, 500, requires_grad=True)
    neuron = PLIF()
    saved = sizes_saved(lambda: neuron(x))
    assert sum(t.data_ptr() == x.data_ptr() for t in saved) == 1
    assert sum(t.numel() for t in saved) - x.numel() < 10


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "static", "batch_innermost", "strided"])
def test_opcheck(layout):
    """Schema, fake kernel (shapes, strides, formats) and autograd registration agree with what the operator does."""
    x = {
        "contiguous": torch.randn(3, 2, 5, 4),
        "channels_last": torch.randn(3, 2, 4, 5).transpose(2, 3),
        "static": torch.randn(2, 5, 4).expand(3, 2, 5, 4),
        "batch_innermost": torch.randn(3, 4, 5, 2).transpose(1, 3),
        "strided": torch.randn(3, 2, 5, 8)[..., ::2],
    }[layout].requires_grad_()
    tau, threshold = torch.full((5, 1), 2.0, requires_grad=True), torch.tensor(1.0)
    state = torch.zeros(2, 5, 4, requires_grad=True)
    torch.library.opcheck(torch.ops.rheobase.scan.default, (LIF().scan.text(), [x], [state], [tau, threshold], "cpu"))


def test_layout_of_the_input_survives():
    x = torch.randn(3, 2, 5, 5, 4).permute(0, 1, 4, 2, 3)
    assert LIF()(x).stride() == x.stride()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LIF()(torch.randn(5)), r"x has shape \(5,\); expected \[T, B"),
        (lambda: LIF()(torch.randn(0, 2, 5)), r"T >= 1"),
        (lambda: LIF()(torch.ones(2, 2, 5, dtype=torch.int64)), r"int64; expected floating point"),
        (
            lambda: LIF().sequence(torch.randn(2, 3, 5), (torch.zeros(1, 5),)),
            r"state 'v' has shape \(1, 5\) but a step",
        ),
        (lambda: LIF().sequence(torch.randn(2, 3, 5), ()), r"got 0 state tensors, expected 1"),
        (
            lambda: LIF(tau=torch.full((4,), 2.0))(torch.randn(2, 3, 5)),
            r"'tau' has shape \(4,\), which does not broadcast",
        ),
        (lambda: LIF(tau=-1.0), r"tau is -1.0; expected a positive"),
        (lambda: PLIF(tau=1.0), r"tau is 1.0; expected above 1"),
        (
            lambda: Neuron(LIF().scan.step, **{**LIF().scan.constants, "reset": "hard"}),
            r"reset is 'hard'; expected 'zero'",
        ),
        (lambda: LIF().scan(torch.randn(2, 1, 3), tau=2.0), r"got parameters \['tau'\], expected"),
        (lambda: Scan(LIF().scan.step, spikes=1), r"has no argument 'spikes'"),
        (lambda: LIF().scan([torch.randn(2, 1, 3)] * 2, tau=2.0, threshold=1.0), r"got 2 inputs, expected 1"),
    ],
)
def test_errors_say_what_came_and_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_engines_are_checked():
    with pytest.raises(ValueError, match=r"no engine 'gpu'"), rb.engine("gpu"):
        pass


def test_engines_say_what_they_miss(monkeypatch):
    monkeypatch.setattr(engine, "_TRITON", False)
    with pytest.raises(ValueError, match=r"pip install 'rheobase\[triton\]'"), rb.engine("triton"):
        pass
    monkeypatch.setattr(engine, "_TRITON", True)
    monkeypatch.setattr(engine, "_INTERPRETED", False)
    with rb.engine("triton"), pytest.raises(ValueError, match=r"got tensors on cpu; move .* to a GPU"):
        LIF()(torch.ones(2, 1, 3))


def test_the_device_chooses_the_engine(monkeypatch):
    cuda = torch.device("cuda", 0)
    monkeypatch.setattr(engine, "_chosen", None)
    monkeypatch.setattr(engine, "_warned", set())
    monkeypatch.setattr(engine, "_TRITON", True)
    assert engine.resolve(torch.device("cpu")) == "cpu"
    assert engine.resolve(cuda) == "triton"
    monkeypatch.setattr(engine, "_TRITON", False)
    with pytest.warns(RuntimeWarning, match="triton is not installed"):
        assert engine.resolve(cuda) == "reference"
    assert engine.resolve(cuda) == "reference"
    with rb.engine("cpu"), pytest.raises(ValueError, match="got tensors on cuda:0"):
        engine.resolve(cuda)


def test_neurons_can_be_copied_and_pickled():
    neuron = PLIF(tau=3.0)
    x = torch.randn(4, 2, 9) * 3
    for twin in (copy.deepcopy(neuron), pickle.loads(pickle.dumps(neuron))):
        assert torch.equal(twin(x), neuron(x))


def test_an_empty_batch_is_fine():
    x = torch.randn(3, 0, 7, requires_grad=True)
    neuron = PLIF()
    y = neuron(x)
    assert y.shape == (3, 0, 7)
    y.sum().backward()
    assert neuron.w.grad == 0


def test_no_state_is_left_on_the_module():
    neuron = LIF()
    before = dict(vars(neuron))
    neuron(torch.randn(3, 2, 4))
    assert vars(neuron) == before
    assert neuron.state_dict() == {}


def test_text_of_another_version_is_refused():
    with pytest.raises(ValueError, match="export the model again"):
        torch.ops.rheobase.scan("rheobase-step 0\n", [torch.ones(1, 1, 1)], [], [], "cpu")
