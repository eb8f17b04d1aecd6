"""The run folder: all that one training run leaves behind, written so that a kill at any moment loses nothing.

runs/<recipe>/<YYYYmmdd-HHMMSS>/ holds config.json, env.json, checkpoints/, metrics.jsonl (a line an epoch), result.json
"""

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from rheobase.files import remove_parts, write_atomic


def to_json(value: Any, indent: int | None = 2) -> bytes:
    """JSON of a mapping or dataclass, paths as strings. Raises ValueError for NaN, Inf and what has no JSON form."""
    try:
        text = json.dumps(
            asdict(value) if is_dataclass(value) and not isinstance(value, type) else value,
            indent=indent,
            allow_nan=False,
            default=_plain,
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"cannot be written as JSON: {error}; use finite numbers, strings, lists and dicts") from error
    return text.encode() + b"\n"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ValueError when the file is missing, broken or holds something else."""
    if not path.is_file():
        raise ValueError(f"{path} is missing; restore it from a copy or start a new run")
    return _parse(path.read_bytes(), str(path))


def environment() -> dict[str, Any]:
    """What a result depends on beside its config: versions, machine, threads, processes, commit, command."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "rheobase": version("rheobase"),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "processes": _processes(),
        "commit": _commit(),
        "command": shlex.join(sys.argv),
    }


@dataclass(frozen=True)
class RunFolder:
    """One run on disk. `create` makes it, `open` checks one that exists."""

    path: Path

    @classmethod
    def create(cls, root: Path | str, recipe: str, config: Any) -> "RunFolder":
        """Make <root>/<recipe>/<YYYYmmdd-HHMMSS> (-2, -3, ... if that exists) and write config.json and env.json.

        Args:
            root: the folder of all runs, usually "runs".
            recipe: letters, digits, ".", "_" and "-".
            config: a dataclass or a mapping that JSON can hold.

        Raises:
            ValueError: `recipe` is not a plain name, or `config` does not fit into JSON.
        """
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", recipe):
            raise ValueError(f"RunFolder.create: recipe is {recipe!r}; use letters, digits, '.', '_' and '-' only")
        config_json = to_json(config)
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        parent = Path(root) / recipe
        parent.mkdir(parents=True, exist_ok=True)
        path, copy = parent / stamp, 1
        while True:
            try:
                path.mkdir()
                break
            except FileExistsError:
                copy += 1
                path = parent / f"{stamp}-{copy}"
        run = cls(path)
        run.checkpoints.mkdir()
        write_atomic(path / "env.json", to_json(environment()))
        write_atomic(path / "config.json", config_json)
        return run

    @classmethod
    def open(cls, path: Path | str) -> "RunFolder":
        """The run folder at `path`. Raises ValueError when `path` is not one."""
        path = Path(path)
        if not path.is_dir():
            raise ValueError(f"{path} is not a folder; pass a run folder such as runs/<recipe>/<YYYYmmdd-HHMMSS>")
        if not (path / "config.json").is_file():
            raise ValueError(
                f"{path} is not a run folder: it has no config.json; "
                "pass a folder that training made, such as runs/<recipe>/<YYYYmmdd-HHMMSS>"
            )
        return cls(path)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    def config(self) -> dict[str, Any]:
        """What config.json holds. Raises ValueError when it is missing or broken."""
        return read_json(self.path / "config.json")

    def env(self) -> dict[str, Any]:
        """What env.json holds. Raises ValueError when it is missing or broken."""
        return read_json(self.path / "env.json")

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, but for a last one that a kill cut short. Raises ValueError for a broken line."""
        return [_parse(line, f"{self._metrics} line {n}") for n, line in enumerate(self._metric_lines(), start=1)]

    def append_metrics(self, line: Mapping[str, Any], *, wait: bool = True) -> None:
        """Add a line to metrics.jsonl and wait until it, and all before it, are on the disk; or do not wait."""
        data = to_json(line, indent=None)
        with self._metrics.open("ab") as file:
            file.write(data)
            file.flush()
            if wait:
                os.fsync(file.fileno())

    def keep_metrics(self, count: int) -> None:
        """Cut metrics.jsonl back to its first `count` lines. Raises ValueError when it has fewer."""
        lines = self._metric_lines()
        if len(lines) < count:
            raise ValueError(
                f"{self._metrics} has {len(lines)} whole lines but the checkpoint covers {count}; "
                "restore the file from a copy or start a new run"
            )
        remove_parts(self._metrics)
        write_atomic(self._metrics, b"".join(lines[:count]))

    def result(self) -> dict[str, Any]:
        """What result.json holds, by verb; empty before the first result. Raises ValueError when it is broken."""
        path = self.path / "result.json"
        return read_json(path) if path.exists() else {}

    def add_result(self, verb: str, values: Mapping[str, Any]) -> None:
        """Write `values` under `verb` ("train", "eval", "attack", ...) into result.json; other verbs keep theirs."""
        write_atomic(self.path / "result.json", to_json({**self.result(), verb: values}))

    @property
    def _metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def _metric_lines(self) -> list[bytes]:
        data = self._metrics.read_bytes() if self._metrics.exists() else b""
        return [line for line in data.splitlines(keepends=True) if line.endswith(b"\n")]


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _parse(data: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ValueError(f"{where} is not valid JSON ({error}); restore it from a copy or start a new run") from error
    if not isinstance(value, dict):
        raise ValueError(f"{where} holds a JSON {type(value).__name__} but an object was expected; restore the file")
    return value


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.is_file() else None
    return found.group(1) if found else platform.processor() or platform.machine()


def _commit() -> str | None:
    """Commit of the working tree that this package runs from, "-dirty" if it was changed; None outside of git."""
    here = Path(__file__).parent
    try:
        subprocess.run(["git", "ls-files", "--error-unmatch", __file__], cwd=here, check=True, capture_output=True)
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=here,
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def _processes() -> int:
    """How many processes train together."""
    from torch import distributed as dist

    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
