"""The contestants' own environment, so that ours never carries their packages."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import ROOT


class PeersMissingError(RuntimeError):
    """The peers could not be installed."""


def folder(requirements: Sequence[str]) -> Path:
    """Where the environment lies: `$RHEOBASE_PEERS`, default `~/.cache/rheobase/peers`, then a hash of its contents."""
    base = Path(os.environ.get("RHEOBASE_PEERS") or Path.home() / ".cache" / "rheobase" / "peers")
    content = "\n".join([*requirements, (ROOT / "constraints.txt").read_text(), str(ROOT), sys.version])
    return base / hashlib.sha256(content.encode()).hexdigest()[:16]


def environment(requirements: Sequence[str]) -> Path:
    """The Python of an environment that has Rheobase (editable) and the peers; made on the first call.

    The peers come without their dependencies, so `requirements` names what they import.

    Raises:
        PeersMissingError: pip could not get them.
    """
    home = folder(requirements)
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    complete = home / "complete"
    if complete.exists():
        return python
    print(f"making an environment for {', '.join(requirements)} in {home}", flush=True)
    _run([sys.executable, "-m", "venv", "--clear", str(home)], home)
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    _run([*pip, "--constraint", str(ROOT / "constraints.txt"), "--editable", str(ROOT)], home)
    _run([*pip, "--no-deps", *requirements], home)
    complete.touch()
    return python


def _run(command: list[str], home: Path) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        output = (result.stderr or result.stdout).strip().splitlines()
        said = "\n".join([row.strip() for row in output if "ERROR" in row] or output[-5:])
        raise PeersMissingError(
            f"no environment for the peers: {' '.join(command[1:])} ended with {result.returncode}:\n{said}\n"
            f"They are downloaded once, which needs the network: connect and run again. It goes to {home}; "
            f"set RHEOBASE_PEERS to keep it elsewhere."
        )
