"""Checkpoints `last` and `best`: weights, optimiser, random states and progress, whole or not there at all.

checkpoints/<which>-<step>/ holds model.safetensors (weights) and state.pt (the rest, read with weights_only=True).
checkpoints/<which>.json names that folder and the SHA-256 of both files. A save writes a new folder, waits for the
disk, then replaces the small JSON file in one step: whenever a kill strikes, it names two whole files that match.
"""

import hashlib
import io
import pickle
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from rheobase.files import remove_parts, sync_folder, write_atomic, write_synced
from rheobase.train.run import RunFolder, read_json, to_json

Which = Literal["last", "best"]
WEIGHTS, STATE = "model.safetensors", "state.pt"


@dataclass(frozen=True)
class Checkpoint:
    """Weights by name, and the state (optimiser, random generators, progress) that goes with them; all on the CPU."""

    weights: dict[str, Tensor]
    state: dict[str, Any]


def save_checkpoint(
    run: RunFolder, names: Sequence[Which], weights: Mapping[str, Any], state: Mapping[str, Any], step: int
) -> None:
    """Save one checkpoint under each of `names`, in order; the folders that they pointed to before are deleted last.

    Args:
        weights: a state_dict; every value must be a tensor.
        state: tensors, numbers, strings, None, and lists, tuples and dicts of them.
        step: the global step, for the folder's name.

    Raises:
        ValueError: a weight is not a tensor.
    """
    files = {WEIGHTS: _weights_bytes(weights), STATE: _state_bytes(state)}
    record = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    for which in names:
        pointer = run.checkpoints / f"{which}.json"
        folder = run.checkpoints / f"{which}-{step:08d}"
        if folder.name == _current_folder(pointer):
            folder = folder.with_name(f"{folder.name}-again")
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_synced(folder / name, data)
        sync_folder(folder)
        sync_folder(run.checkpoints)
        write_atomic(pointer, to_json({"folder": folder.name, "step": step, "files": record}))
    remove_leftovers(run)


def remove_leftovers(run: RunFolder) -> None:
    """Delete the checkpoint folders that were replaced, and what a kill left half written."""
    for name in get_args(Which):
        remove_parts(run.checkpoints / f"{name}.json")
    for pointer in run.checkpoints.glob("*.json"):
        current = _current_folder(pointer)
        for folder in run.checkpoints.glob(f"{pointer.stem}-*"):
            if current is not None and folder.name != current:
                shutil.rmtree(folder, ignore_errors=True)


def has_checkpoint(run: RunFolder, which: Which = "last") -> bool:
    """Whether the run holds a checkpoint of that name (not whether its files are sound)."""
    return (run.checkpoints / f"{which}.json").exists()


def load_checkpoint(run: RunFolder, which: Which = "last") -> Checkpoint:
    """Read a checkpoint after checking both files against their SHA-256.

    Raises:
        ValueError: there is none, or a file of it is missing, truncated, altered or unreadable.
    """
    return Checkpoint(_read_weights(run, which), _read_state(run, which))


def load_weights(model: nn.Module, run: RunFolder, which: Which = "best") -> None:
    """Copy a checkpoint's weights into `model`. Raises ValueError when they are damaged or do not fit the model."""
    copy_weights(model, _read_weights(run, which), str(run.path))


def copy_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy `weights` into `model`. Raises ValueError, naming `source`, unless names and shapes agree."""
    own = {name: value.shape for name, value in model.state_dict().items()}
    wrong = [f"{name} is missing in the file" for name in own.keys() - weights.keys()]
    wrong += [f"{name} is not in the model" for name in weights.keys() - own.keys()]
    wrong += [
        f"{name} has shape {tuple(weights[name].shape)} but the model has {tuple(own[name])}"
        for name in own.keys() & weights.keys()
        if weights[name].shape != own[name]
    ]
    if wrong:
        some = "; ".join(sorted(wrong)[:3]) + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        raise ValueError(f"the weights of {source} do not fit the model: {some}; build the model from its config.json")
    model.load_state_dict(dict(weights))


def seed_random(seed: int) -> None:
    """Seed torch's, Python's and NumPy's global generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """States of torch's (CPU, and CUDA once in use), Python's and NumPy's global generators, as tensors and numbers."""
    python_version, python_words, python_gauss = random.getstate()
    numpy_state: dict[str, Any] = dict(np.random.get_state(legacy=False))
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "python": {"version": python_version, "words": torch.tensor(python_words), "gauss": python_gauss},
        "numpy": {
            "words": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
            "position": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put the global generators back into a state that `random_state` gave."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        for device, words in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(words, device)
    python, numpy_state = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    np.random.set_state(
        (
            "MT19937",
            numpy_state["words"].numpy().astype(np.uint32),
            numpy_state["position"],
            numpy_state["has_gauss"],
            numpy_state["gauss"],
        )
    )


def _current_folder(pointer: Path) -> Any:
    try:
        return read_json(pointer).get("folder")
    except ValueError:  # missing or broken: it protects no folder
        return None


def _weights_bytes(weights: Mapping[str, Any]) -> bytes:
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"save_checkpoint: {name} is a {type(value).__name__} but only tensors are saved; "
                "keep it in the config or register it as a tensor buffer"
            )
    # Clones, because safetensors refuses tensors that share memory (tied weights).
    data: bytes = safetensors.torch.save(
        {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in weights.items()}
    )
    return data


def _state_bytes(state: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def _read_weights(run: RunFolder, which: Which) -> dict[str, Tensor]:
    data, path = _read_checked(run, which, WEIGHTS)
    try:
        weights: dict[str, Tensor] = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise _damaged(run, which, path, f"cannot be read ({error})") from error
    return weights


def _read_state(run: RunFolder, which: Which) -> dict[str, Any]:
    data, path = _read_checked(run, which, STATE)
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise _damaged(run, which, path, f"cannot be read ({str(error).splitlines()[0]})") from error
    return state


def _read_checked(run: RunFolder, which: Which, name: str) -> tuple[bytes, Path]:
    pointer = run.checkpoints / f"{which}.json"
    if not pointer.exists():
        raise ValueError(f"{run.path} has no checkpoint '{which}': the run was stopped before its first; start it anew")
    try:
        entry = read_json(pointer)
        path = run.checkpoints / str(entry["folder"]) / name
        expected = entry["files"][name]
        size, digest = expected["bytes"], expected["sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(run, which, pointer, f"does not name the two files of a checkpoint ({error})") from error
    if not path.is_file():
        raise _damaged(run, which, path, "is missing")
    data = path.read_bytes()
    if len(data) != size:
        raise _damaged(run, which, path, f"has {len(data)} bytes but {size} were written")
    if hashlib.sha256(data).hexdigest() != digest:
        raise _damaged(run, which, path, "was altered: its SHA-256 differs from the one written beside it")
    return data, path


def _damaged(run: RunFolder, which: Which, path: Path, problem: str) -> ValueError:
    other: Which = "best" if which == "last" else "last"
    advice = f"resume from '{other}'" if has_checkpoint(run, other) else "there is no other checkpoint: start a new run"
    return ValueError(f"checkpoint '{which}' is damaged: {path} {problem}; {advice}")
