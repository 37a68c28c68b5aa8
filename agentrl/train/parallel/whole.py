"""Files of backends in which one process holds all weights, and the label on every backend's files.

Nothing here is pickled: tensors go to safetensors, or are read with `weights_only`.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from agentrl.core.errors import CheckpointError, ConfigError
from agentrl.train.trainable import load_trainable, save_trainable

LABEL = "parallel.json"
SCHEMA = 1


def write_label(folder: Path, backend: str, world: int) -> None:
    """Say which backend wrote the files, and on how many ranks."""
    label = {"schema": SCHEMA, "backend": backend, "world": world}
    (folder / LABEL).write_text(json.dumps(label) + "\n")


def check_label(
    folder: Path, backend: str, world: int, *, reads: frozenset[str], any_world: bool
) -> None:
    """Refuse files that `backend` on `world` ranks cannot read, before it fails on them strangely.

    Args:
        reads: the backends whose files it can read.
        any_world: whether another number of ranks may have written them.

    Raises:
        ConfigError: with what to do instead.
    """
    if not (folder / LABEL).is_file():
        raise ConfigError(f"checkpoint {folder}: no {LABEL}, so it holds nothing to resume from")
    label = json.loads((folder / LABEL).read_text())
    fresh = (
        "resume with what it was saved with, or begin a new run from the exported weights beside "
        "it (model=CHECKPOINT run.name=ANOTHER)"
    )
    if label.get("schema") != SCHEMA:
        raise ConfigError(
            f"checkpoint {folder}: its format is {label.get('schema')}, and this version reads "
            f"{SCHEMA}; {fresh}"
        )
    if label["backend"] not in reads:
        raise ConfigError(
            f"checkpoint {folder}: saved by parallel={label['backend']}, which {backend} cannot "
            f"read; {fresh}"
        )
    if not any_world and label["world"] != world:
        raise ConfigError(
            f"checkpoint {folder}: saved by {backend} on {label['world']} ranks, and this run has "
            f"{world}; {backend} resumes only on as many as it was saved with: {fresh}"
        )


def save_whole(folder: Path, module: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """The optimiser, and the trained weights if others are frozen: an exported folder holds all
    weights as they are, but an adapter only merged."""
    torch.save(optimiser.state_dict(), folder / "optimiser.pt")
    if _is_partly_frozen(module):
        save_trainable(module, folder / "trained.safetensors")


def load_whole(folder: Path, module: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """What `save_whole` wrote.

    Raises:
        CheckpointError: the files are of another model.
    """
    if _is_partly_frozen(module):
        load_trainable(module, folder / "trained.safetensors")
    state = torch.load(folder / "optimiser.pt", weights_only=True, map_location="cpu")
    try:
        optimiser.load_state_dict(state)
    except ValueError as error:
        raise CheckpointError(
            f"{folder}: its optimiser is of another model ({error}); model and lora must be those "
            "that it was saved with"
        ) from error


def _is_partly_frozen(module: torch.nn.Module) -> bool:
    return any(not weight.requires_grad for weight in module.parameters())
