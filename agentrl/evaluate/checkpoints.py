"""Which checkpoints of a run folder are whole, and which of them is the best."""

from __future__ import annotations

import json
import math
from pathlib import Path

from agentrl.core.errors import CheckpointError, ConfigError
from agentrl.core.types import Json

MANIFEST = "manifest.json"


def read_manifest(checkpoint: Path) -> dict[str, Json]:
    """What a checkpoint says of itself. Raises `CheckpointError` if that cannot be read."""
    path = checkpoint / MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: expected a JSON object ({error})") from error
    if not isinstance(manifest, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {str(manifest)[:60]!r}")
    return manifest


def whole_checkpoints(folder: Path) -> list[Path]:
    """The folders `step-N` that have a manifest, by their steps."""
    whole = [path.parent for path in folder.glob(f"step-*/{MANIFEST}")]
    return sorted(whole, key=lambda path: int(path.name.removeprefix("step-")))


def best_checkpoint(folder: Path) -> Path | None:
    """The whole checkpoint with the highest dev success, the oldest of equals; None if none was
    measured."""
    measured: list[tuple[float, Path]] = []
    for path in whole_checkpoints(folder):
        success = read_manifest(path).get("dev_success")
        if isinstance(success, int | float) and math.isfinite(success):
            measured.append((success, path))
    return max(measured, key=lambda pair: pair[0])[1] if measured else None


def resolve_checkpoint(path: Path) -> Path:
    """The folder with weights that a path means: itself, or a run's best or last checkpoint.

    Raises:
        ConfigError: there is no complete checkpoint there.
    """
    if (path / "config.json").exists():
        return path
    whole = whole_checkpoints(path / "checkpoints")
    if not whole:
        raise ConfigError(
            f"no checkpoint in {path}: expected a folder with config.json, or a run folder with "
            "checkpoints/step-N"
        )
    return best_checkpoint(path / "checkpoints") or whole[-1]
