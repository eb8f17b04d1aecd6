import subprocess

import pytest
from benchmarks.peers import PEERS, Peer, PeersMissingError, environment, folder

from benchmarks import peers

A, B = Peer(("a==1", "c==2")), Peer(("b==1",), alone=False)


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("RHEOBASE_PEERS", str(tmp_path))
    return tmp_path


@pytest.fixture
def pip(monkeypatch):
    """Commands that were run, and which word in a command makes it fail."""
    commands, failing = [], set()

    def run(command, **_):
        commands.append(command)
        folder([A, B]).mkdir(exist_ok=True)
        failed = failing & set(command)
        return subprocess.CompletedProcess(command, int(bool(failed)), "", "no route to host" if failed else "")

    monkeypatch.setattr(peers.subprocess, "run", run)
    return commands, failing


def test_every_peer_is_pinned():
    assert PEERS.keys() == {"spikingjelly", "snntorch", "norse", "sinabs", "tonic", "spyx"}
    assert all("==" in requirement for peer in PEERS.values() for requirement in peer.requirements)


def test_the_folder_follows_the_variable_and_the_requirements(home):
    assert folder([A]).parent == home
    assert folder([A]) == folder([A])
    assert folder([A]) != folder([B])


def test_an_environment_is_made_once(pip):
    commands, _ = pip
    python = environment({"a": A, "b": B})
    assert environment({"a": A, "b": B}) == python
    assert [("venv" in c, "--editable" in c, "--no-deps" in c, "c==2" in c, "b==1" in c) for c in commands] == [
        (True, False, False, False, False),
        (False, True, False, False, False),
        (False, False, False, False, False),  # our kernels
        (False, False, True, True, False),
        (False, False, False, False, True),
    ]
    assert commands[2][-1].endswith("kernels-cpu")


def test_a_peer_that_cannot_be_had_is_named_and_tried_again(pip, capsys):
    commands, failing = pip
    failing.add("b==1")
    for _ in range(2):
        environment({"a": A, "b": B})
        assert "b is left out: no environment for the peers" in capsys.readouterr().err
    assert sum("b==1" in c for c in commands) == 2
    assert sum("a==1" in c for c in commands) == 1


def test_without_network_the_message_says_so_and_the_next_call_tries_again(pip):
    pip[1].update({"--editable"})
    for _ in range(2):
        with pytest.raises(PeersMissingError, match=r"(?s)no route to host.*needs the network.*RHEOBASE_PEERS"):
            environment({"a": A, "b": B})


def test_no_peer_at_all_is_an_error(pip):
    pip[1].update({"a==1", "b==1"})
    with pytest.raises(PeersMissingError, match="a==1"):
        environment({"a": A, "b": B})


def test_our_kernels_are_built_anew_when_their_source_has_changed(pip):
    import os

    commands, failing = pip
    environment({"a": A, "b": B})
    done = folder([A, B]) / "complete-kernels"
    os.utime(done, (0, 0))
    failing.add(str(peers.ROOT / "packages" / "kernels-cpu"))
    environment({"a": A, "b": B})
    assert sum(c[-1].endswith("kernels-cpu") for c in commands) == 2
    assert done.exists()
