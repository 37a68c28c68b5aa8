"""What W&B wrote offline, read back by W&B's own reader."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from wandb.util import get_core_path


def offline_folders(run_folder: Path) -> list[Path]:
    """The offline runs of a run folder, oldest first."""
    return sorted((run_folder / "wandb").glob("offline-run-*"))


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The records of one kind (`run`, `history`, ...) in an offline run's log, in order."""
    (log,) = folder.glob("*.wandb")
    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json"]
    command += ["--run-file", str(log), str(folder.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [line[kind] for line in lines if line["type"] == kind]


def history(folder: Path) -> dict[int, dict[str, Any]]:
    """Step -> its row."""
    rows = [record["item"] for record in records(folder, "history")]
    assert len({row["_step"] for row in rows}) == len(rows)
    return {row["_step"]: row for row in rows}


def table(folder: Path, row: dict[str, Any]) -> list[list[Any]]:
    """The rows of the table of episodes that a step's row names."""
    read = json.loads((folder / "files" / row["episodes.path"]).read_text())
    assert read["columns"][0] == "step"
    return list(read["data"])
