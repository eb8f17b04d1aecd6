import subprocess

import pytest
from benchmarks.peers import PeersMissingError, environment, folder

from benchmarks import peers


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("RHEOBASE_PEERS", str(tmp_path))
    return tmp_path


def test_the_folder_follows_the_variable_and_the_requirements(home):
    assert folder(["a==1"]).parent == home
    assert folder(["a==1"]) == folder(["a==1"])
    assert folder(["a==1"]) != folder(["a==2"])


def test_an_environment_is_made_once(monkeypatch):
    commands = []

    def run(command, **_):
        commands.append(command)
        folder(["a==1"]).mkdir(exist_ok=True)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(peers.subprocess, "run", run)
    python = environment(["a==1"])
    assert environment(["a==1"]) == python
    assert [("venv" in c, "--editable" in c, "a==1" in c) for c in commands] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]


def test_without_network_the_message_says_so_and_the_next_call_tries_again(monkeypatch, home):
    failed = subprocess.CompletedProcess([], 1, "", "no route to host")
    monkeypatch.setattr(peers.subprocess, "run", lambda *_, **__: failed)
    for _ in range(2):
        with pytest.raises(PeersMissingError, match=r"(?s)no route to host.*needs the network.*RHEOBASE_PEERS"):
            environment(["a==1"])
