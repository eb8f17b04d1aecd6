import pytest
import torch
from benchmarks.nets import Rheobase, conv7
from benchmarks.same_time import PEER, enter, seconds_of_an_epoch

from rheobase.data import Dataset, Split
from rheobase.models import MODELS, create_model
from rheobase.neurons import IterativeLIF
from rheobase.recipes import Classification, build, classification, train
from rheobase.train import TrainConfig

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def peer():
    """Rheobase in the place of the peer, narrow."""
    enter(Rheobase(IterativeLIF), width=2)
    yield PEER
    del MODELS[PEER]


def test_it_is_the_registered_network():
    ours, theirs = create_model("cifar_conv7", width=4), conv7(Rheobase(IterativeLIF), width=4)
    shapes = [[p.shape for p in model.parameters()] for model in (ours, theirs)]
    assert shapes[0] == shapes[1]
    values = ours.state_dict().values()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)))
    x = torch.randn(2, 3, 3, 32, 32)
    assert torch.equal(ours(x), theirs(x))


def test_a_recipe_trains_the_peer(peer, tmp_path, monkeypatch):
    split = Split(torch.randint(0, 256, (20, 3, 32, 32)).byte(), torch.arange(20) % 10, 255)
    data = Dataset("made up", split, split, tuple("0123456789"), (0.5,) * 3, (0.3,) * 3, "", "", "")
    monkeypatch.setattr(classification, "load", lambda *_, **__: data)
    config = Classification(data="digits", model=peer, T=2, batch_size=5, validation=0.5, train=TrainConfig(epochs=1))
    assert seconds_of_an_epoch(build(config), warm=1, timed=2) > 0
    run, result = train("peer", config, tmp_path)
    assert run.result()["train"]["steps"] == 2
    assert result["parameters"] == sum(p.numel() for p in create_model("cifar_conv7", width=2).parameters())
