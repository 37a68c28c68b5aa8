"""Checkpoints: a Hugging Face folder each, written aside and renamed when complete.

`checkpoints/step-N` holds weights, tokenizer, optimiser state and, last of all, `manifest.json`; a
folder without a manifest is a torn one and is never offered. `best.json` names the step with the
highest dev success.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """The checkpoints of one run."""

    folder: Path
    keep: int = 2

    def save(
        self, step: int, write: Callable[[Path], None], *, dev_success: float | None = None
    ) -> Path:
        """Write `step-N` in one piece and drop what is neither best nor among the last `keep`."""
        final = self.folder / f"step-{step:06d}"
        for torn in self.folder.glob("partial-*"):
            shutil.rmtree(torn)
        partial = self.folder / f"partial-{step:06d}"
        partial.mkdir(parents=True)
        write(partial)
        for path in partial.rglob("*"):
            _flush(path)
        manifest = {
            "schema": SCHEMA,
            "step": step,
            "dev_success": dev_success,
            "files": {p.name: p.stat().st_size for p in sorted(partial.iterdir())},
        }
        _write_whole(partial / "manifest.json", json.dumps(manifest, indent=1))
        if final.exists():
            _remove(final)
        partial.rename(final)
        _flush(self.folder)
        self._note_best(step, dev_success)
        self._retain()
        return final

    def complete(self) -> list[Path]:
        """Every whole checkpoint, oldest first."""
        whole = [p for p in self.folder.glob("step-*") if (p / "manifest.json").exists()]
        return sorted(whole, key=lambda path: int(path.name.removeprefix("step-")))

    def best(self) -> Path | None:
        """The checkpoint with the highest dev success, if any was measured."""
        note = self.folder / "best.json"
        if not note.exists():
            return None
        path = self.folder / f"step-{json.loads(note.read_text())['step']:06d}"
        return path if (path / "manifest.json").exists() else None

    def _note_best(self, step: int, dev_success: float | None) -> None:
        note = self.folder / "best.json"
        if dev_success is None:
            return
        known = json.loads(note.read_text())["dev_success"] if note.exists() else -1.0
        if dev_success > known:
            _write_whole(note, json.dumps({"step": step, "dev_success": dev_success}))

    def _retain(self) -> None:
        best = self.best()
        whole = self.complete()
        for path in whole[: max(len(whole) - self.keep, 0)]:
            if path != best:
                _remove(path)


def _remove(checkpoint: Path) -> None:
    """The manifest goes first, so that a removal that is cut off leaves nothing to be offered."""
    (checkpoint / "manifest.json").unlink(missing_ok=True)
    shutil.rmtree(checkpoint)


def _flush(path: Path) -> None:
    """Force a file or a folder's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
