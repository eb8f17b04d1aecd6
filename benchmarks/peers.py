"""The contestants' own environment, so that ours never carries their packages."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import ROOT


class PeersMissingError(RuntimeError):
    """None of the peers could be installed."""


@dataclass(frozen=True)
class Peer:
    """What pip installs for one library.

    Attributes:
        requirements: pinned.
        alone: without their dependencies, so that `requirements` names all that is imported.
    """

    requirements: tuple[str, ...]
    alone: bool = True


PEERS: dict[str, Peer] = {
    "spikingjelly": Peer(("spikingjelly==2.0.0", "loguru==0.7.3")),
    "snntorch": Peer(("snntorch==1.0.0",)),
    "norse": Peer(("norse==1.1.0", "nir==1.0.8", "nirtorch==2.6", "h5py==3.16.0")),
    "sinabs": Peer(("sinabs==3.1.0", "nir==1.0.8", "nirtorch==2.6", "h5py==3.16.0", "pbr==7.1.3")),
    "tonic": Peer(
        (
            "tonic==1.7.0",
            "h5py==3.16.0",
            "importRosbag==1.0.4",
            "tqdm==4.70.1",
            "requests==2.32.5",
            "urllib3==2.8.0",
            "idna==3.20",
            "certifi==2026.10.18",
            "charset-normalizer==3.5.2",
        )
    ),
    "spyx": Peer(("spyx==1.0.0", "jax[cpu]==0.10.2", "flax==0.12.8"), alone=False),
}
"""Without dependencies where these are torchvision, torchaudio or plotting, which nothing here imports."""


def folder(peers: Iterable[Peer]) -> Path:
    """Where the environment lies: `$RHEOBASE_PEERS`, default `~/.cache/rheobase/peers`, then a hash of its contents."""
    base = Path(os.environ.get("RHEOBASE_PEERS") or Path.home() / ".cache" / "rheobase" / "peers")
    wanted = [" ".join(peer.requirements) for peer in peers]
    content = "\n".join([*wanted, (ROOT / "constraints.txt").read_text(), str(ROOT), sys.version])
    return base / hashlib.sha256(content.encode()).hexdigest()[:16]


def environment(peers: dict[str, Peer]) -> Path:
    """The Python of an environment that has Rheobase (editable) and the peers; made on the first call.

    A peer that cannot be installed is named and left out; the next call tries again.

    Raises:
        PeersMissingError: pip could get Rheobase itself or all of the peers not.
    """
    home = folder(peers.values())
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    base = home / "complete"
    if not base.exists():
        print(f"making an environment for {', '.join(peers)} in {home}", flush=True)
        _run([sys.executable, "-m", "venv", "--clear", str(home)], home)
        _run([*pip, "--constraint", str(ROOT / "constraints.txt"), "--editable", str(ROOT)], home)
        base.touch()
    _install_kernels(home, pip)
    failed: list[PeersMissingError] = []
    for name, peer in peers.items():
        done = home / f"complete-{name}"
        if done.exists():
            continue
        try:
            alone = ["--no-deps"] if peer.alone else ["--constraint", str(ROOT / "constraints.txt")]
            _run([*pip, *alone, *peer.requirements], home)
            done.touch()
        except PeersMissingError as error:
            failed.append(error)
            print(f"{name} is left out: {error}", file=sys.stderr, flush=True)
    if peers and len(failed) == len(peers):
        raise failed[0]
    return python


def _install_kernels(home: Path, pip: list[str]) -> None:
    """Our own optional kernels, built anew when their source has changed; without a C compiler they are left out."""
    source, done = ROOT / "packages" / "kernels-cpu", home / "complete-kernels"
    files = [path for part in ("csrc", "src") for path in (source / part).rglob("*.*")]
    if done.exists() and done.stat().st_mtime > max(path.stat().st_mtime for path in files):
        return
    try:
        _run([*pip, str(source)], home)
        done.touch()
    except PeersMissingError as error:
        print(f"the CPU kernels are left out: {error}", file=sys.stderr, flush=True)


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
