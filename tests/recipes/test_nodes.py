"""Node classification from config to report, on a made-up graph."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rheobase.cli import main
from rheobase.data import Graph
from rheobase.models import create_model
from rheobase.neurons import IterativeLIF
from rheobase.nn import SparseInput
from rheobase.recipes import Classification, NodeClassification, build, config_of, nodes, record_cost, train
from rheobase.train import RunFolder, TrainConfig, load_weights

N, WORDS = 120, 40
pytestmark = pytest.mark.usefixtures("one_thread")


def made_up(words=WORDS, **parts):
    """Four classes that share words and links, and two nodes without a label."""
    random = torch.Generator().manual_seed(0)
    y = torch.arange(N) % 4
    A = (torch.rand(N, N, generator=random) < torch.where(y.view(-1, 1) == y, 0.1, 0.01)).triu(1)
    own = torch.arange(words) % 4 == y.view(-1, 1)
    x = (torch.rand(N, words, generator=random) < 0.04 + 0.2 * own).float() * 3
    y[-2:] = -1
    sets = {"train": torch.arange(40), "val": torch.arange(40, 70), "test": torch.arange(70, 118)} | parts
    return Graph("made up", x, (A | A.T).nonzero().T.contiguous(), y, *sets.values(), tuple("abcd"), "", "", "")


@pytest.fixture
def graph(monkeypatch):
    found = made_up()
    monkeypatch.setattr(nodes, "load", lambda *_, **__: found)
    return found


SMALL = NodeClassification(
    hidden=16, T=4, train=TrainConfig(epochs=6, optimizer="adam", lr=0.02, checkpoint_every_epochs=4)
)
OPTIONS = ["--hidden", "16", "--T", "4", "--epochs", "6", "--checkpoint-every-epochs", "4"]


def test_the_config_survives_json():
    config = replace(SMALL, neuron="plif", neuron_options=(("tau", 3.0),), norm="layer", rho=2.0)
    assert NodeClassification.from_dict(json.loads(json.dumps(asdict(config)))) == config
    with pytest.raises(ValueError, match="has a field 'encoder' that NodeClassification does not know"):
        NodeClassification.from_dict({"encoder": "direct"})
    with pytest.raises(ValueError, match="has a field 'speed' that TrainConfig does not know"):
        NodeClassification.from_dict({"train": {"speed": 1}})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"T": 0}, "T is 0; expected at least 1"),
        ({"features": "words"}, "features is 'words'"),
        ({"neuron_options": (("tau", 2.0),)}, "expected none where neuron is None"),
        ({"measured": "first"}, "measured is 'first'"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_settings_out_of_range_are_said(untyped, settings, message):
    with pytest.raises(ValueError, match=message):
        NodeClassification(**settings)


def test_a_config_builds_what_it_says(graph):
    lif = (("decay", 0.9), ("threshold", 0.5))
    task = build(replace(SMALL, neuron="iterative_lif", neuron_options=lif, depth=3, affine="node", dropout=0.3))
    assert len(task.model.layers) == 3
    assert isinstance(task.model.layers[0].neuron, IterativeLIF)
    assert task.model.layers[0].neuron.number("decay") == 0.9
    assert task.model.layers[0].norm.threshold == 0.5
    assert task.model.layers[0].norm.weight.shape == (N, 16)
    assert (len(task.train), len(task.validation), len(task.test)) == (40, 30, 48)
    assert task.parameters == sum(p.numel() for p in task.model.parameters())


def test_features_as_the_config_wants_them(graph):
    x = build(SMALL).traceable.features
    assert (x.shape, x.stride(0)) == ((4, N, WORDS), 0)
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert build(replace(SMALL, features="raw")).traceable.features.max() == 3
    shares = build(replace(SMALL, features="shares")).traceable.features[0].sum(1)
    full = graph.x.sum(1) > 0
    torch.testing.assert_close(shares, full.float())


def test_a_node_without_features_has_no_shares(monkeypatch):
    empty = made_up()
    empty.x[5] = 0
    monkeypatch.setattr(nodes, "load", lambda *_, **__: empty)
    assert build(replace(SMALL, features="shares")).traceable.features[0, 5].tolist() == [0] * WORDS


def test_features_are_stored_sparse_where_they_are(graph, monkeypatch):
    """The network puts out the same either way."""
    task = build(SMALL)
    assert isinstance(task.features, SparseInput)
    some = torch.tensor([3, 100, 7])
    torch.testing.assert_close(task.run(task.model, some), task.traceable.run(task.model, some))
    assert task.run(task.model, some).shape == (4, 3, 4)
    monkeypatch.setattr(nodes, "DENSE", 0.01)
    assert isinstance(build(SMALL).features, torch.Tensor)


def test_training_learns_and_keeps_the_first_of_the_best(graph, tmp_path):
    run, result = train("made-up", replace(SMALL, train=replace(SMALL.train, epochs=30)), tmp_path)
    assert config_of(run) == replace(SMALL, train=replace(SMALL.train, epochs=30))
    assert run.config()["task"] == "nodes"
    assert result["test_count"] == 48
    assert result["test_accuracy"] > 0.6
    lines = run.metrics()
    best = max(lines, key=lambda line: line["validation_accuracy"])
    assert run.result()["train"]["best"] == best
    task = build(config_of(run))
    load_weights(task.model, run, "best")
    plain = create_model("gc_snn", in_channels=WORDS, classes=4, hidden=16)
    assert plain.state_dict().keys() == task.model.state_dict().keys()  # the weights are those of the network alone
    task.model.eval()
    with torch.no_grad():
        found = task.run(task.model, graph.test).mean(0).argmax(1)
    assert (found == graph.y[graph.test]).float().mean().item() == pytest.approx(result["test_accuracy"])


def test_labels_of_other_nodes_are_not_looked_at(graph, tmp_path, monkeypatch):
    """Neither those of test nodes nor missing ones change what is learned."""
    first, _ = train("made-up", SMALL, tmp_path)
    other = made_up()
    other.y[70:118] = 0
    other.y[118:] = 2
    monkeypatch.setattr(nodes, "load", lambda *_, **__: other)
    second, _ = train("made-up", SMALL, tmp_path)
    a, b = (load_file(next((run.path / "checkpoints").glob("last-*")) / "model.safetensors") for run in (first, second))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def trained(graph, tmp_path, capsys):
    """A run folder, made by the command line."""
    assert main(["train", "cora-gc-snn", *OPTIONS, "--runs", str(tmp_path), "--results", str(tmp_path / "a.csv")]) == 0
    capsys.readouterr()
    (path,) = (tmp_path / "cora-gc-snn").iterdir()
    return path


def told(capsys, *arguments):
    """Exit code, last line as JSON, and standard error."""
    code = main([str(a) for a in (*arguments, "--json")])
    said = capsys.readouterr()
    return code, json.loads(said.out.strip().splitlines()[-1]) if code == 0 else None, said.err


def test_every_verb_takes_the_run(trained, tmp_path, capsys):
    row = (tmp_path / "a.csv").read_text().splitlines()[1]
    assert row.startswith("cora-gc-snn,cora,gc_snn,4,6,0,test_accuracy,0.")
    run = RunFolder.open(trained)
    before = run.result()["eval"]
    code, found, _ = told(capsys, "eval", trained)
    assert (code, found["test_accuracy"], found["test_count"]) == (0, before["test_accuracy"], 48)
    code, found, _ = told(capsys, "train", "--resume", trained)
    assert (code, found["test_accuracy"]) == (0, before["test_accuracy"])
    code, found, _ = told(capsys, "cost", trained, "--report")
    assert (code, found["samples"], found["T"]) == (0, N, 4)
    assert found["unpriced"] == []
    assert RunFolder.open(trained).result()["cost"]["accuracy"] == before["test_accuracy"]
    page = (trained / "report.html").read_text()
    assert "gc_snn on made up" in page
    assert f"Counted on {N} nodes of the best checkpoint" in page
    assert "layers.0.neuron" in page
    assert "layers.0.norm" not in page.partition("What it costs")[0]
    record_cost(run, tmp_path / "a.csv")
    assert "spikes_per_neuron" in (tmp_path / "a.csv").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "RUN", "--images", "x.npy"], "holds a network for nodes; only those that read samples"),
        (["cost", "RUN", "--samples", "3"], "samples is 3; a graph runs whole"),
        (["cost", "RUN", "--h2learn", "ref-S"], "holds a network for nodes; --h2learn simulates those of samples"),
        (["floor", "cora-gc-snn"], "the recipe is of nodes; expected one of samples"),
        (["train", "cora-gc-snn", "--model", "ms_resnet20"], "ms_resnet20 reads samples; cora is a graph"),
        (["train", "cora-gcn", "--norm", "stfn"], "'gcn' takes no option norm"),
        (["train", "cora-gc-snn", "--head", "vote"], "head"),
        (["train", "cora-gc-snn", "--neuron", "liff"], "did you mean 'lif'"),
    ],
)
def test_mistakes_end_in_one_message(trained, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.zeros((1, 3)))
    try:
        code = main([str(trained) if a == "RUN" else a for a in arguments])
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize("empty", ["train", "val", "test"])
def test_a_split_without_nodes_is_said(monkeypatch, empty):
    found = made_up(**{empty: torch.empty(0, dtype=torch.int64)})
    monkeypatch.setattr(nodes, "load", lambda *_, **__: found)
    with pytest.raises(ValueError, match=f"cora has no {empty} nodes; expected some with labels"):
        build(SMALL)


def test_what_is_no_graph_is_said():
    with pytest.raises(ValueError, match="data is 'digits', a Dataset; expected a graph"):
        build(replace(SMALL, data="digits"))
    with pytest.raises(ValueError, match="gc_snn reads graphs; digits is a set of samples"):
        build(Classification(data="digits", model="gc_snn"))


def test_a_kind_of_task_of_another_version_is_said(tmp_path):
    run = RunFolder.create(tmp_path, "strange", {"recipe": "strange", "task": "poems"})
    with pytest.raises(ValueError, match=r"config\.json is of a task 'poems'; this version knows samples, nodes"):
        config_of(run)
    with pytest.raises(ValueError, match="build: got a int"):
        build(3)
