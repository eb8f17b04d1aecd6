import hashlib
import json
import os
import random

import numpy as np
import pytest
import torch
from torch import nn

from rheobase.train import RunFolder, has_checkpoint, load_checkpoint, load_weights, save_checkpoint
from rheobase.train.checkpoint import random_state, set_random_state


def weights(value):
    return {"layer.weight": torch.full((3, 4), value), "count": torch.tensor(int(value))}


def save(run, names, value):
    save_checkpoint(run, names, weights(value), {"value": value, "tensor": torch.tensor([value])}, int(value))


def value_of(run, which):
    checkpoint = load_checkpoint(run, which)
    value = checkpoint.state["value"]
    assert checkpoint.state["tensor"].item() == value
    assert checkpoint.weights.keys() == {"layer.weight", "count"}
    assert (checkpoint.weights["layer.weight"] == value).all()
    return value


def file_of(run, which, name):
    return run.checkpoints / json.loads((run.checkpoints / f"{which}.json").read_text())["folder"] / name


def forge(run, which, name, data):
    """Replace a file and its SHA-256, so that only reading it can tell."""
    file_of(run, which, name).write_bytes(data)
    pointer = run.checkpoints / f"{which}.json"
    entry = json.loads(pointer.read_text())
    entry["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    pointer.write_text(json.dumps(entry))


def test_last_and_best_go_their_own_ways(run):
    assert not has_checkpoint(run)
    save(run, ["best", "last"], 1.0)
    save(run, ["last"], 2.0)
    assert (value_of(run, "best"), value_of(run, "last")) == (1.0, 2.0)
    save(run, ["best", "last"], 3.0)
    assert (value_of(run, "best"), value_of(run, "last")) == (3.0, 3.0)
    assert sorted(p.name for p in run.checkpoints.iterdir()) == [
        "best-00000003",
        "best.json",
        "last-00000003",
        "last.json",
    ]


def test_saving_the_same_step_again_never_touches_the_folder_in_use(run, monkeypatch):
    save(run, ["last"], 1.0)
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError("stopped")))
        with pytest.raises(OSError, match="stopped"):
            save(run, ["last"], 1.5)
    assert value_of(run, "last") == 1.0
    for value in (1.25, 1.5, 1.75):
        save(run, ["last"], value)
        assert value_of(run, "last") == value
        assert len(list(run.checkpoints.iterdir())) == 2


def test_tied_and_strided_weights_are_saved(run):
    shared = torch.arange(6.0)
    save_checkpoint(run, ["last"], {"a": shared, "b": shared, "c": shared.view(2, 3).T}, {}, 0)
    loaded = load_checkpoint(run).weights
    assert loaded["a"].equal(shared)
    assert loaded["b"].equal(shared)
    assert loaded["c"].equal(shared.view(2, 3).T)


def test_only_tensors_are_weights(run):
    with pytest.raises(ValueError, match="note is a str but only tensors are saved"):
        save_checkpoint(run, ["last"], {"note": "hello"}, {}, 0)
    assert not has_checkpoint(run)


def test_no_checkpoint_is_said(run):
    with pytest.raises(ValueError, match="has no checkpoint 'best': the run was stopped before its first"):
        load_checkpoint(run, "best")


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt"])
def test_every_flipped_byte_is_detected(run, name):
    save(run, ["best", "last"], 1.0)
    path = file_of(run, "last", name)
    whole = path.read_bytes()
    for at in np.random.default_rng(0).integers(len(whole), size=40):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ValueError, match=rf"'last' is damaged: .*{name} was altered.*; resume from 'best'"):
            load_checkpoint(run)
    assert value_of(run, "best") == 1.0


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt"])
@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_truncation_is_detected(run, name, length):
    save(run, ["last"], 1.0)
    path = file_of(run, "last", name)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=rf"{name} has \d+ bytes but \d+ were written; there is no other checkpoint"):
        load_checkpoint(run)


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt"])
def test_a_missing_file_is_named(run, name):
    save(run, ["last"], 1.0)
    file_of(run, "last", name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        load_checkpoint(run)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"folder": "last-00000001"}', '{"folder": "x", "files": 3}'])
def test_a_broken_pointer_is_named_and_can_be_replaced(run, text):
    save(run, ["best", "last"], 1.0)
    (run.checkpoints / "last.json").write_text(text)
    with pytest.raises(ValueError, match=r"'last' is damaged: .*last\.json does not name.*resume from 'best'"):
        load_checkpoint(run)
    save(run, ["last"], 1.0)
    assert value_of(run, "last") == value_of(run, "best") == 1.0


def test_a_broken_pointer_gets_no_folder_deleted(run):
    save(run, ["best", "last"], 1.0)
    whole = (run.checkpoints / "best.json").read_text()
    (run.checkpoints / "best.json").write_text("{")
    save(run, ["last"], 2.0)
    (run.checkpoints / "best.json").write_text(whole)
    assert value_of(run, "best") == 1.0


def test_files_of_two_checkpoints_are_not_mixed(run, tmp_path):
    other = RunFolder.create(tmp_path, "other", {})
    save(run, ["last"], 1.0)
    save(other, ["last"], 2.0)
    file_of(run, "last", "state.pt").write_bytes(file_of(other, "last", "state.pt").read_bytes())
    with pytest.raises(ValueError, match=r"state\.pt was altered"):
        load_checkpoint(run)


class Attack:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_state_is_never_unpickled_into_code(run, tmp_path):
    save(run, ["last"], 1.0)
    forged = tmp_path / "forged.pt"
    torch.save({"value": Attack(str(tmp_path / "hacked"))}, forged)
    forge(run, "last", "state.pt", forged.read_bytes())
    with pytest.raises(ValueError, match=r"state\.pt cannot be read \(Weights only load failed"):
        load_checkpoint(run)
    assert not (tmp_path / "hacked").exists()


def test_unreadable_weights_are_named(run):
    save(run, ["last"], 1.0)
    forge(run, "last", "model.safetensors", b"not a tensor file")
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read"):
        load_checkpoint(run)


def test_load_weights_reads_the_best_and_needs_no_state(run):
    source, target = nn.Linear(2, 3), nn.Linear(2, 3)
    save_checkpoint(run, ["best"], source.state_dict(), {}, 7)
    file_of(run, "best", "state.pt").unlink()
    load_weights(target, run)
    assert target.weight.equal(source.weight)
    assert target.bias.equal(source.bias)


def test_weights_of_another_model_are_refused_by_name(run):
    save_checkpoint(run, ["best"], nn.Linear(2, 3).state_dict(), {}, 0)
    model = nn.Linear(2, 4, bias=False)
    before = model.weight.clone()
    with pytest.raises(
        ValueError, match=r"bias is not in the model; weight has shape \(3, 2\) but the model has \(4, 2\)"
    ):
        load_weights(model, run)
    assert model.weight.equal(before)
    with pytest.raises(ValueError, match=r"0\.bias is missing in the file; .*; and 1 more; build the model"):
        load_weights(nn.Sequential(nn.Linear(2, 3)), run)


def test_random_state_goes_through_a_weights_only_file(run):
    random.gauss(0, 1), np.random.standard_normal()  # leaves a second Gaussian waiting in each generator
    state = random_state()
    numbers = [random.gauss(0, 1), random.random(), np.random.standard_normal(), np.random.rand()]
    noise = torch.randn(5)
    save_checkpoint(run, ["last"], {}, state, 0)
    loaded = load_checkpoint(run).state  # type checkers may draw from Python's generator, so set it right before
    set_random_state(loaded)
    assert [random.gauss(0, 1), random.random(), np.random.standard_normal(), np.random.rand()] == numbers
    assert torch.randn(5).equal(noise)
    assert not torch.randn(5).equal(noise)
