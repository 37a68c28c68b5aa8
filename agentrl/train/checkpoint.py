"""Checkpoints: a Hugging Face folder each, written aside and renamed when complete.

`checkpoints/step-N` holds weights and tokenizer (what transformers loads), `state.json` and
`trainer/` (what a resumed run goes on from), and, last of all, `manifest.json` with the size and
the SHA-256 of every other file. A folder without a manifest is a torn one and is never offered; one
whose files do not match it is never loaded. `latest` names the newest.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError

from agentrl.core.errors import CheckpointError
from agentrl.core.protocols import Share
from agentrl.evaluate.checkpoints import MANIFEST, best_checkpoint, read_manifest, whole_checkpoints
from agentrl.rollout.share import Solo

SCHEMA = 2
WRITE_ERRORS = (OSError, RuntimeError, SafetensorError)
"""What writers of weights raise where a disk is full."""


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """The checkpoints of one run. Every rank calls the same methods; rank 0 does the work."""

    folder: Path
    keep: int = 2
    share: Share = field(default_factory=Solo)

    def save(
        self, step: int, write: Callable[[Path], None], *, dev_success: float | None = None
    ) -> Path:
        """Write `step-N` in one piece and drop what is neither best nor among the last `keep`.

        Args:
            step: training steps done.
            write: fills the folder that it is given; each rank writes its own files.
            dev_success: decides which checkpoint is best.

        Raises:
            CheckpointError: it could not be written whole (a full disk, say); the older
                checkpoints are as they were.
        """
        final = self.folder / f"step-{step:06d}"
        partial = self.folder / f"partial-{step:06d}"
        self._together(step, lambda: self._begin(partial))
        self._together(step, lambda: write(partial), partial)
        self._together(step, lambda: self._complete(partial, final, step, dev_success), partial)
        return final

    def _together(self, step: int, work: Callable[[], None], partial: Path | None = None) -> None:
        """Do the work on every rank; what failed on one of them fails on all."""
        failed: str | None = None
        try:
            work()
        except WRITE_ERRORS as error:
            failed = f"{type(error).__name__}: {error}"
        errors = [error for error in self.share.exchange(failed) if error is not None]
        if not errors:
            return
        if partial is not None and self.share.rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
        newest = self.newest()
        raise CheckpointError(
            f"the checkpoint of step {step} could not be written to {self.folder} ({errors[0]}); "
            f"the newest whole one is {newest.name if newest else 'none'}. Free some space: "
            "nothing older was touched"
        )

    def _begin(self, partial: Path) -> None:
        if self.share.rank == 0:
            for torn in self.folder.glob("partial-*"):
                shutil.rmtree(torn)
            partial.mkdir(parents=True)

    def _complete(self, partial: Path, final: Path, step: int, dev_success: float | None) -> None:
        if self.share.rank:
            return
        files = sorted(path for path in partial.rglob("*") if path.is_file())
        for path in [*files, *(p for p in partial.rglob("*") if p.is_dir()), partial]:
            flush(path)
        manifest = {
            "schema": SCHEMA,
            "step": step,
            "dev_success": dev_success,
            "files": {
                str(path.relative_to(partial)): {"bytes": path.stat().st_size, "sha256": _sum(path)}
                for path in files
            },
        }
        write_whole(partial / MANIFEST, json.dumps(manifest, indent=1))
        flush(partial)
        if final.exists():
            _remove(final)
        partial.rename(final)
        flush(self.folder)
        write_whole(self.folder / "latest", final.name + "\n")
        self._retain()

    def complete(self) -> list[Path]:
        """Every whole checkpoint, oldest first."""
        return whole_checkpoints(self.folder)

    def newest(self) -> Path | None:
        """The last whole checkpoint."""
        whole = self.complete()
        return whole[-1] if whole else None

    def best(self) -> Path | None:
        """The checkpoint with the highest dev success, if any was measured."""
        return best_checkpoint(self.folder)

    def drop_after(self, step: int) -> None:
        """Remove the checkpoints of later steps, as a run does that goes on from `step`."""
        for path in self.complete():
            if step_of(path) > step:
                _remove(path)

    def _retain(self) -> None:
        best = self.best()
        whole = self.complete()
        for path in whole[: max(len(whole) - self.keep, 0)]:
            if path != best:
                _remove(path)


def step_of(checkpoint: Path) -> int:
    """Training steps done when it was written."""
    return int(checkpoint.name.removeprefix("step-"))


def verify(checkpoint: Path) -> None:
    """Compare every file with the manifest.

    Raises:
        CheckpointError: a file is missing, cut short or altered, or the manifest is of a schema
            that this version does not read.
    """
    manifest = read_manifest(checkpoint)
    if manifest.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{checkpoint / MANIFEST}: expected schema {SCHEMA}, got {manifest.get('schema')!r}: "
            "the checkpoint is of another version of agentrl. Its weights load as a model "
            "(model=FOLDER), but a run cannot go on from it"
        )
    files = manifest["files"]
    assert isinstance(files, dict)
    for name, expected in files.items():
        path = checkpoint / name
        if not path.is_file():
            raise CheckpointError(_broken(checkpoint, f"{name} is missing"))
        size = path.stat().st_size
        if size != expected["bytes"]:
            what = f"{name} has {size} bytes instead of {expected['bytes']}"
            raise CheckpointError(_broken(checkpoint, what))
        if _sum(path) != expected["sha256"]:
            raise CheckpointError(_broken(checkpoint, f"the content of {name} has changed"))


def _broken(checkpoint: Path, what: str) -> str:
    return (
        f"{checkpoint} is not what was written: {what}. Remove the folder to go on from the "
        "checkpoint before it"
    )


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove(checkpoint: Path) -> None:
    """The manifest goes first, so that a removal that is cut off leaves nothing to be offered."""
    (checkpoint / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(checkpoint)


def flush(path: Path) -> None:
    """Force a file or a folder's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
